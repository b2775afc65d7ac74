//! Step 4: carry out. Every child is applied server-side under one field manager; a child that was
//! switched off is deleted, if it is ours; an object of someone else is left alone.

mod routes;

use std::sync::Arc;

use k8s_openapi::{
    NamespaceResourceScope,
    api::{apps::v1::Deployment, core::v1::ServiceAccount},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Resource,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde_json::json;

use super::{
    build::Prepared,
    gateway::Gateways,
    kind::{Child, Kind, Part, part_name},
    memory::{Memory, Settled, Wanted},
    partial::Partial,
    print::Print,
    problem::{CallError, Cluster, Problem},
    replicas::{self, Decision, HAND_OVER_MANAGER},
    rollout::Rollout,
    underway::Underway,
    validate::Replicas,
    watched::{Shown, Watched},
};
use crate::crd::{CONTROLLER_MANAGER, Reason};

/// What the API server made of the children. Only [`apply`] makes one, so that status can only be
/// computed from what was applied.
#[derive(Clone, Debug)]
pub struct Applied {
    /// How far the Deployment has come.
    pub rollout: Rollout,
    /// What keeps Gateways from serving the routes.
    pub gateway: Vec<Problem>,
    /// What a controller that comes after this one needs to know of it.
    pub record: Option<String>,
}

/// The children in the cluster: how to change them, what is seen of them, and what was applied.
#[derive(Clone)]
pub struct Children {
    /// The API server.
    pub cluster: Arc<Cluster>,
    /// What the watches show.
    pub watched: Watched,
    /// What was applied last.
    pub memory: Memory,
    /// The Deployments that are not where they should be yet.
    pub underway: Underway,
    /// Whether there can be HTTPRoutes.
    pub gateways: Gateways,
}

/// Applies every child that is not as it was applied last, and deletes those that are switched off.
///
/// One child's failure does not keep the others from being applied. What was `recorded` when they were applied to
/// this very spec spares a controller that has just begun from applying them again.
///
/// # Errors
/// Every child that could not be applied or deleted.
pub async fn apply(
    children: &Children,
    owner: &Owner,
    prepared: Prepared,
    recorded: Option<&str>,
) -> Result<Applied, Vec<Problem>> {
    if let Some(recorded) = recorded
        && !children.memory.knows(&owner.uid)
    {
        children.memory.recall(&owner.uid, recorded, &wanted(children, owner, &prepared));
    }
    // No `..`: a new kind of child that is not applied does not compile.
    let Prepared {
        deployment,
        replicas,
        service,
        ingress,
        routes,
        autoscaler,
        budget,
        account,
        network_policy,
    } = prepared;
    // Pods are not made without their account, and should not be seen without their policy.
    let account_goes = account.is_none();
    let first = futures::join!(
        async {
            match account {
                Some(account) => apply_one(children, owner, account).await,
                None => Ok(()),
            }
        },
        apply_or_delete(children, owner, network_policy),
    );
    let (deployment, service, ingress, routes, autoscaler, budget) = futures::join!(
        apply_deployment(children, owner, deployment, replicas),
        apply_one(children, owner, service),
        apply_or_delete(children, owner, ingress),
        routes::apply_routes(children, owner, routes),
        apply_or_delete(children, owner, autoscaler),
        apply_or_delete(children, owner, budget),
    );
    // Only now do no new pods need it.
    let last = if account_goes { delete_if_ours::<ServiceAccount>(children, owner, 0).await } else { Ok(()) };
    let (routes, gateway) = match routes {
        Ok(answers) => (Ok(()), answers),
        Err(problem) => (Err(problem), Vec::new()),
    };
    let results = [first.0, first.1, service, ingress, routes, autoscaler, budget, last];
    let mut problems: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    match deployment {
        Ok(rollout) if problems.is_empty() => {
            Ok(Applied { rollout, gateway, record: children.memory.record(&owner.uid) })
        }
        Ok(_) => Err(problems),
        Err(problem) => {
            problems.insert(0, problem);
            Err(problems)
        }
    }
}

/// The children that are to be, and what the watches show of each.
fn wanted(children: &Children, owner: &Owner, prepared: &Prepared) -> Vec<Wanted> {
    let Prepared {
        deployment,
        replicas: _,
        service,
        ingress,
        routes,
        autoscaler,
        budget,
        account,
        network_policy,
    } = prepared;
    let mut prints = vec![print(deployment), print(service)];
    prints.extend(ingress.as_ref().map(print));
    prints.extend(autoscaler.as_ref().map(print));
    prints.extend(budget.as_ref().map(print));
    prints.extend(account.as_ref().map(print));
    prints.extend(network_policy.as_ref().map(print));
    if children.gateways.are_served() {
        let parts = routes.iter().enumerate();
        prints.extend(parts.map(|(part, route)| ((Kind::HTTPRoute, part), Print::of(route))));
    }
    let shown = |(kind, part)| children.watched.get(kind, &owner.namespace, &owner.part(part));
    prints.into_iter().map(|(kind, print)| Wanted { kind, print, shown: shown(kind) }).collect()
}

fn print<K: Child>(child: &K) -> ((Kind, Part), Option<Print>) {
    ((K::KIND, 0), Print::of(child))
}

/// Whose children they are.
#[derive(Clone, Debug)]
pub struct Owner {
    /// UID of the OrdersService.
    pub uid: String,
    /// Its name, which is that of its children too.
    pub name: String,
    /// Its namespace, which is that of all its children.
    pub namespace: String,
}

impl Owner {
    /// The name of a child of which there may be several.
    fn part(&self, part: Part) -> String {
        part_name(&self.name, part)
    }
}

async fn apply_or_delete<K: Child>(
    children: &Children,
    owner: &Owner,
    wanted: Option<K>,
) -> Result<(), Problem> {
    match wanted {
        Some(child) => apply_one(children, owner, child).await,
        None => delete_if_ours::<K>(children, owner, 0).await,
    }
}

async fn apply_one<K: Child>(children: &Children, owner: &Owner, child: K) -> Result<(), Problem> {
    let print = Print::of(&child);
    let shown = children.watched.get(K::KIND, &owner.namespace, &owner.name);
    if children.memory.settled(&owner.uid, (K::KIND, 0), print, &shown) == Settled::No {
        let answer = send(children, owner, 0, child, shown).await?;
        children.memory.applied(&owner.uid, 0, print, &answer);
    }
    Ok(())
}

/// As [`apply_one`], but what is sent of `replicas` also depends on the Deployment that is there.
async fn apply_deployment(
    children: &Children,
    owner: &Owner,
    deployment: Deployment,
    replicas: Replicas,
) -> Result<Rollout, Problem> {
    let mut print = Print::of(&deployment);
    let shown = children.watched.get(Kind::Deployment, &owner.namespace, &owner.name);
    let settled = children.memory.settled(&owner.uid, (Kind::Deployment, 0), print, &shown);
    let rollout = match (settled, &shown) {
        // The watch may be behind the answer.
        (Settled::Untouched, _) => children.memory.rollout(&owner.uid),
        // Its status, or an autoscaler's number.
        (Settled::Elsewhere, Shown::There(seen)) => seen.rollout.as_deref().cloned(),
        _ => None,
    };
    if let Some(rollout) = rollout {
        return Ok(rollout);
    }
    let answer = match replicas {
        Replicas::Fixed(_) => send(children, owner, 0, deployment, shown).await?,
        Replicas::Unset => send_without_replicas(children, owner, deployment, replicas).await?.0,
        Replicas::Autoscaled { .. } => {
            let (answer, decision) = send_without_replicas(children, owner, deployment, replicas).await?;
            if decision != Decision::Leave {
                // The number is not yet out of our hands: to be looked at again.
                print = None;
            }
            answer
        }
    };
    let rollout = Rollout::from(&answer);
    children.memory.applied(&owner.uid, 0, print, &answer);
    children.memory.rolled_out(&owner.uid, rollout.clone());
    Ok(rollout)
}

/// Sends a Deployment whose number of pods may be someone else's; gives what was decided about that.
async fn send_without_replicas(
    children: &Children,
    owner: &Owner,
    mut deployment: Deployment,
    replicas: Replicas,
) -> Result<(Partial<Deployment>, Decision), Problem> {
    let api = api::<Deployment>(children, owner);
    let failed = |error: CallError| cannot_apply::<Deployment>(owner, &error);
    let kind = Kind::Deployment.as_str();
    let live = children.cluster.read(kind, "get", api.get_opt(&owner.name)).await.map_err(failed)?;
    if let Some(foreign) = live.as_ref().filter(|live| !is_ours(&live.metadata, owner)) {
        return Err(not_owned::<Deployment>(&foreign.metadata, owner));
    }
    let decision = replicas::decide(replicas, live.as_ref());
    let spec = deployment.spec.get_or_insert_default();
    spec.replicas = match decision {
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
            let patch = Patch::Apply(&only_replicas);
            let request = api.patch(&owner.name, &params, &patch);
            children.cluster.write(kind, "patch", request).await.map_err(failed)?;
            None
        }
    };
    let uid = live.and_then(|live| live.metadata.uid);
    patch(children, owner, 0, &mut deployment, uid).await.map(|answer| (answer, decision)).map_err(failed)
}

/// Applies `child` where ours is, or where nothing is.
async fn send<K: Child>(
    children: &Children,
    owner: &Owner,
    part: Part,
    mut child: K,
    shown: Shown,
) -> Result<Partial<K>, Problem> {
    let failed = |error: CallError| cannot_apply::<K>(owner, &error);
    if let Shown::There(seen) = shown
        && *seen.owner.uid == owner.uid
    {
        match patch(children, owner, part, &mut child, Some(seen.uid.into())).await {
            // The watch is behind: there is another by now, or none.
            Err(CallError::Refused { code: 404 | 409, .. }) => {}
            result => return result.map_err(failed),
        }
    }
    let (request, name) = (api::<K>(children, owner), owner.part(part));
    let found = children.cluster.read(K::KIND.as_str(), "get", request.get_metadata_opt(&name));
    let found = found.await.map_err(failed)?.map(|found| found.metadata);
    if let Some(foreign) = found.as_ref().filter(|found| !is_ours(found, owner)) {
        return Err(not_owned::<K>(foreign, owner));
    }
    patch(children, owner, part, &mut child, found.and_then(|found| found.uid)).await.map_err(failed)
}

/// Applies `child` to the very object with this UID: were it replaced by someone's own meanwhile, the
/// API server refuses.
async fn patch<K: Child>(
    children: &Children,
    owner: &Owner,
    part: Part,
    child: &mut K,
    uid: Option<String>,
) -> Result<Partial<K>, CallError> {
    child.meta_mut().uid = uid;
    let params = PatchParams::apply(CONTROLLER_MANAGER).force();
    let api = api::<Partial<K>>(children, owner);
    let (name, patch) = (owner.part(part), Patch::Apply(&*child));
    children.cluster.write(K::KIND.as_str(), "patch", api.patch(&name, &params, &patch)).await
}

fn api<K>(children: &Children, owner: &Owner) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    Api::namespaced(children.cluster.client.clone(), &owner.namespace)
}

async fn delete_if_ours<K: Child>(children: &Children, owner: &Owner, part: Part) -> Result<(), Problem> {
    let failed = |error: CallError| problem::<K>(owner, "delete", &error);
    let (api, kind, name) = (api::<K>(children, owner), K::KIND.as_str(), owner.part(part));
    // Not ours to remember any more: if the watch is behind, what it shows later is no echo, and is looked at again.
    children.memory.gone::<K>(&owner.uid, part);
    let uid = match children.watched.get(K::KIND, &owner.namespace, &name) {
        Shown::Nothing => return Ok(()),
        Shown::There(seen) if *seen.owner.uid != owner.uid || seen.deleting => return Ok(()),
        Shown::There(seen) => Some(seen.uid.into()),
        Shown::Unknown => {
            let found = children.cluster.read(kind, "get", api.get_metadata_opt(&name)).await;
            let ours =
                found.map_err(failed)?.map(|found| found.metadata).filter(|found| is_ours(found, owner));
            let Some(ours) = ours.filter(|found| found.deletion_timestamp.is_none()) else { return Ok(()) };
            ours.uid
        }
    };
    let params = DeleteParams::background().preconditions(Preconditions { uid, resource_version: None });
    match children.cluster.write(kind, "delete", api.delete(&name, &params)).await {
        // 409: another is there by now.
        Ok(_) | Err(CallError::Refused { code: 404 | 409, .. }) => {
            tracing::info!(kind, namespace = owner.namespace, name, "deleted: switched off in the spec");
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
    let kind = K::KIND.as_str();
    let whose = match controller_of(found) {
        Some((kind, name, _)) => format!("belongs to {kind} {name:?}"),
        None => "belongs to no OrdersService".to_owned(),
    };
    Problem::new(
        Reason::NotOwned,
        format!(
            "{kind} {:?} is there already and {whose}: it was left alone; delete or rename it, or give this \
             OrdersService another name",
            found.name.as_ref().unwrap_or(&owner.name)
        ),
    )
}

fn cannot_apply<K: Child>(owner: &Owner, error: &CallError) -> Problem {
    problem::<K>(owner, "apply", error)
}

fn problem<K: Child>(owner: &Owner, verb: &str, error: &CallError) -> Problem {
    Problem::new(error.reason(), format!("cannot {verb} {} {:?}: {error}", K::KIND.as_str(), owner.name))
}
