//! Step 4: carry out. Every child is applied server-side under one field manager; a child that was
//! switched off is deleted, if it is ours; an object of someone else is left alone.

use std::fmt::Debug;

use k8s_openapi::{
    NamespaceResourceScope,
    api::{apps::v1::Deployment, core::v1::ServiceAccount},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Resource,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use super::{
    build::Prepared,
    problem::{CallError, Cluster, Problem, call},
    replicas::{self, Decision, HAND_OVER_MANAGER},
    validate::Replicas,
};
use crate::crd::{CONTROLLER_MANAGER, Reason};

/// The children as the API server has them now. Only [`apply`] makes one, so that status can only
/// be computed from what was applied.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The Deployment with its status.
    pub deployment: Deployment,
}

/// Applies every child, and deletes those that are switched off.
///
/// One child's failure does not keep the others from being applied.
///
/// # Errors
/// Every child that could not be applied or deleted.
pub async fn apply(cluster: &Cluster, owner: &Owner, prepared: Prepared) -> Result<Applied, Vec<Problem>> {
    // No `..`: a new kind of child that is not applied does not compile.
    let Prepared { deployment, replicas, service, ingress, autoscaler, budget, account, network_policy } =
        prepared;
    // Pods are not made without their account, and should not be seen without their policy.
    let account_goes = account.is_none();
    let first = futures::join!(
        async {
            match account {
                Some(account) => apply_one(cluster, owner, account).await.map(|_| ()),
                None => Ok(()),
            }
        },
        apply_or_delete(cluster, owner, network_policy),
    );
    let (deployment, service, ingress, autoscaler, budget) = futures::join!(
        apply_deployment(cluster, owner, deployment, replicas),
        apply_one(cluster, owner, service),
        apply_or_delete(cluster, owner, ingress),
        apply_or_delete(cluster, owner, autoscaler),
        apply_or_delete(cluster, owner, budget),
    );
    // Only now do no new pods need it.
    let last = if account_goes { delete_if_ours::<ServiceAccount>(cluster, owner).await } else { Ok(()) };
    let results = [first.0, first.1, service.map(|_| ()), ingress, autoscaler, budget, last];
    let mut problems: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    match deployment {
        Ok(deployment) if problems.is_empty() => Ok(Applied { deployment }),
        Ok(_) => Err(problems),
        Err(problem) => {
            problems.insert(0, problem);
            Err(problems)
        }
    }
}

/// Whose children they are.
#[derive(Clone, Debug)]
pub struct Owner {
    /// UID of the OrdersService.
    pub uid: String,
    /// Its name, which is that of all its children.
    pub name: String,
    /// Its namespace, which is that of all its children.
    pub namespace: String,
}

/// What all children's types have in common.
trait Child:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Serialize
{
}

impl<K> Child for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Serialize
{
}

async fn apply_or_delete<K: Child>(
    cluster: &Cluster,
    owner: &Owner,
    wanted: Option<K>,
) -> Result<(), Problem> {
    match wanted {
        Some(child) => apply_one(cluster, owner, child).await.map(|_| ()),
        None => delete_if_ours::<K>(cluster, owner).await,
    }
}

async fn apply_one<K: Child>(cluster: &Cluster, owner: &Owner, child: K) -> Result<K, Problem> {
    let api = api::<K>(cluster, owner);
    let found =
        call(api.get_metadata_opt(&owner.name)).await.map_err(|error| cannot_apply::<K>(owner, &error))?;
    patch(cluster, owner, child, found.map(|found| found.metadata)).await
}

/// As [`apply_one`], but what is sent of `replicas` also depends on the Deployment that is there.
async fn apply_deployment(
    cluster: &Cluster,
    owner: &Owner,
    mut deployment: Deployment,
    replicas: Replicas,
) -> Result<Deployment, Problem> {
    let api = api::<Deployment>(cluster, owner);
    let failed = |error: CallError| cannot_apply::<Deployment>(owner, &error);
    let live = call(api.get_opt(&owner.name)).await.map_err(failed)?;
    if let Some(foreign) = live.as_ref().filter(|live| !is_ours(&live.metadata, owner)) {
        return Err(not_owned::<Deployment>(&foreign.metadata, owner));
    }
    let spec = deployment.spec.get_or_insert_default();
    spec.replicas = match replicas::decide(replicas, live.as_ref()) {
        Decision::Send(number) => Some(number),
        Decision::Leave => None,
        Decision::HandOver(number) => {
            let metadata = live.as_ref().map(|live| &live.metadata);
            let only_replicas = json!({
                "apiVersion": Deployment::api_version(&()),
                "kind": Deployment::kind(&()),
                // Were it scaled in between, this would undo it: then the next reconcile looks again.
                "metadata": {
                    "uid": metadata.and_then(|metadata| metadata.uid.as_ref()),
                    "resourceVersion": metadata.and_then(|metadata| metadata.resource_version.as_ref()),
                },
                "spec": {"replicas": number},
            });
            let params = PatchParams::apply(HAND_OVER_MANAGER).force();
            cluster
                .write(api.patch(&owner.name, &params, &Patch::Apply(&only_replicas)))
                .await
                .map_err(failed)?;
            None
        }
    };
    patch(cluster, owner, deployment, live.map(|live| live.metadata)).await
}

/// Applies `child` where `found` is, or where nothing is.
async fn patch<K: Child>(
    cluster: &Cluster,
    owner: &Owner,
    mut child: K,
    found: Option<ObjectMeta>,
) -> Result<K, Problem> {
    if let Some(found) = found {
        if !is_ours(&found, owner) {
            return Err(not_owned::<K>(&found, owner));
        }
        // Applied to this very object: were it replaced by someone's own in between, the API server
        // refuses, and the next reconcile looks again.
        child.meta_mut().uid = found.uid;
    }
    let params = PatchParams::apply(CONTROLLER_MANAGER).force();
    cluster
        .write(api::<K>(cluster, owner).patch(&owner.name, &params, &Patch::Apply(&child)))
        .await
        .map_err(|error| cannot_apply::<K>(owner, &error))
}

fn api<K: Child>(cluster: &Cluster, owner: &Owner) -> Api<K> {
    Api::namespaced(cluster.client.clone(), &owner.namespace)
}

async fn delete_if_ours<K: Child>(cluster: &Cluster, owner: &Owner) -> Result<(), Problem> {
    let api = api::<K>(cluster, owner);
    let failed = |error: CallError| problem::<K>(owner, "delete", &error);
    let Some(found) = call(api.get_metadata_opt(&owner.name)).await.map_err(failed)? else {
        return Ok(());
    };
    if !is_ours(&found.metadata, owner) || found.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let params = DeleteParams::background().preconditions(Preconditions {
        uid: found.metadata.uid,
        resource_version: found.metadata.resource_version,
    });
    match cluster.write(api.delete(&owner.name, &params)).await {
        Ok(_) | Err(CallError::Refused { code: 404, .. }) => {
            tracing::info!(kind = %K::kind(&()), namespace = owner.namespace, name = owner.name, "deleted: switched off in the spec");
            Ok(())
        }
        Err(error) => Err(failed(error)),
    }
}

fn is_ours(found: &ObjectMeta, owner: &Owner) -> bool {
    controller_of(found).is_some_and(|(_, _, uid)| uid == owner.uid)
}

/// Kind, name and UID of the object that controls `found`.
fn controller_of(found: &ObjectMeta) -> Option<(&str, &str, &str)> {
    let references = found.owner_references.as_deref().unwrap_or_default();
    references
        .iter()
        .find(|reference| reference.controller == Some(true))
        .map(|reference| (reference.kind.as_str(), reference.name.as_str(), reference.uid.as_str()))
}

fn not_owned<K: Child>(found: &ObjectMeta, owner: &Owner) -> Problem {
    let kind = K::kind(&());
    let whose = match controller_of(found) {
        Some((kind, name, _)) => format!("belongs to {kind} {name:?}"),
        None => "belongs to no OrdersService".to_owned(),
    };
    Problem::new(
        Reason::NotOwned,
        format!(
            "{kind} {:?} is there already and {whose}: it was left alone; delete or rename it, or give this \
             OrdersService another name",
            owner.name
        ),
    )
}

fn cannot_apply<K: Child>(owner: &Owner, error: &CallError) -> Problem {
    problem::<K>(owner, "apply", error)
}

fn problem<K: Child>(owner: &Owner, verb: &str, error: &CallError) -> Problem {
    Problem::new(error.reason(), format!("cannot {verb} {} {:?}: {error}", K::kind(&()), owner.name))
}
