//! One child as it is sent: to the very object that is ours, or where there is none. An object that is not ours is left alone.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::{
    refusal::{read_failed, write_failed},
    writer::ChildWriter,
};
use crate::{
    controller::{
        api_server::{RequestError, apply_params},
        children::{
            kind::{Child, ChildId},
            observed::Observation,
            partial::Partial,
        },
        problem::Problem,
    },
    crd::Reason,
};

impl ChildWriter<'_> {
    /// Applies `child` if there is no object of its name, or if that object is ours.
    pub(super) async fn send<K: Child>(
        &self,
        index: usize,
        child: &K,
        observed: Observation,
    ) -> Result<Partial<K>, Problem> {
        let id = ChildId::of::<K>(index);
        let name = self.name(id);
        let apply_failed = |error: RequestError| write_failed::<K>("apply", &name, &error);
        let mut child = child.clone();
        if let Observation::Present(known) = observed
            && known.owner.uid == self.owner.uid
        {
            match self.patch(index, &mut child, Some(known.uid.into())).await {
                // The watch is behind: the object was deleted, or replaced by another.
                Err(RequestError::Refused { code: 404 | 409, .. }) => {}
                result => return result.map_err(apply_failed),
            }
        }
        let Some(_turn) = self.context.creating.begin(id.kind, self.key(id)) else {
            let kind = K::KIND.as_str();
            let message = format!(
                "another OrdersService is creating {kind} {name:?}: the operator retries, and does not overwrite it"
            );
            return Err(Problem::new(Reason::ApplyFailed, message));
        };
        match self.live_metadata::<K>(index).await? {
            Some(live) if !self.may_apply(&live) => Err(self.not_owned::<K>(&live)),
            Some(live) => self.patch(index, &mut child, live.uid).await.map_err(apply_failed),
            None => self.create(index, &mut child).await,
        }
    }

    /// Applies `child` where there was nothing a moment ago.
    ///
    /// Server-side apply has no "only if it does not exist". So it is not forced, and if it turns out that someone else
    /// created an object of that name in the meantime, nothing of ours is left in it.
    pub(super) async fn create<K: Child>(&self, index: usize, child: &mut K) -> Result<Partial<K>, Problem> {
        let name = self.name(ChildId::of::<K>(index));
        let apply_failed = |error: RequestError| write_failed::<K>("apply", &name, &error);
        match self.patch_with(index, child, None, &apply_params()).await {
            Ok(response) if !response.has_other_managers => return Ok(response),
            Ok(response) => self.release::<K>(index, response.metadata.uid).await.map_err(apply_failed)?,
            // Someone else owns a field that we would set.
            Err(RequestError::Refused { code: 409, .. }) => {}
            Err(error) => return Err(apply_failed(error)),
        }
        match self.live_metadata::<K>(index).await? {
            Some(live) => Err(self.not_owned::<K>(&live)),
            None => {
                let kind = K::KIND.as_str();
                let message = format!(
                    "cannot apply {kind} {name:?}: someone else created and deleted it in the meantime"
                );
                Err(Problem::new(Reason::ApplyFailed, message))
            }
        }
    }

    /// Takes everything that we applied out of an object again.
    async fn release<K: Child>(&self, index: usize, uid: Option<String>) -> Result<(), RequestError> {
        let (api, name) = (self.api::<Partial<K>>(), self.name(ChildId::of::<K>(index)));
        let nothing = json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": {"uid": uid},
        });
        let (params, patch) = (apply_params(), Patch::Apply(&nothing));
        self.context.api.write(K::KIND.as_str(), "patch", api.patch(&name, &params, &patch)).await.map(drop)
    }

    /// Whether an object is ours to apply: this OrdersService controls it, or may adopt it.
    pub(super) fn may_apply(&self, live: &ObjectMeta) -> bool {
        self.owner.controls(live) || (self.adopts && self.owner.has_orphan(live))
    }

    /// Applies `child` to the very object with this UID: if it was replaced by someone else's meanwhile, the API server
    /// refuses.
    pub(super) async fn patch<K: Child>(
        &self,
        index: usize,
        child: &mut K,
        uid: Option<String>,
    ) -> Result<Partial<K>, RequestError> {
        self.patch_with(index, child, uid, &apply_params().force()).await
    }

    async fn patch_with<K: Child>(
        &self,
        index: usize,
        child: &mut K,
        uid: Option<String>,
        params: &PatchParams,
    ) -> Result<Partial<K>, RequestError> {
        child.meta_mut().uid = uid;
        let (api, name) = (self.api::<Partial<K>>(), self.name(ChildId::of::<K>(index)));
        let patch = Patch::Apply(&*child);
        self.context.api.write(K::KIND.as_str(), "patch", api.patch(&name, params, &patch)).await
    }

    /// The metadata of the object with the name of a child, whoever owns it.
    pub(super) async fn live_metadata<K: Child>(&self, index: usize) -> Result<Option<ObjectMeta>, Problem> {
        self.live_metadata_of::<K>(&self.name(ChildId::of::<K>(index))).await
    }

    /// The same, of the object with this name.
    pub(super) async fn live_metadata_of<K: Child>(&self, name: &str) -> Result<Option<ObjectMeta>, Problem> {
        let api = self.api::<K>();
        let read = self.context.api.read(K::KIND.as_str(), "get", api.get_metadata_opt(name));
        let live = read.await.map_err(|error| read_failed::<K>(name, &error))?;
        Ok(live.map(|live| live.metadata))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ServiceAccount;

    use super::*;
    use crate::{
        controller::{
            fixture::owner,
            reconcile::apply::{
                fixture::{api_server, context},
                held::HeldDeployment,
            },
        },
        crd::CONTROLLER_MANAGER,
    };

    #[tokio::test]
    async fn an_object_that_someone_else_creates_between_the_look_and_the_apply_is_left_as_it_was() {
        let status = |code: u16, reason: &str| json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": "m"});
        let object = |managers: &[&str]| {
            let managers: Vec<_> = managers
                .iter()
                .map(|manager| json!({"manager": manager, "operation": "Apply", "fieldsV1": {}}))
                .collect();
            json!({"metadata": {"name": "orders", "namespace": "shop", "uid": "x", "managedFields": managers}})
        };
        let theirs = || object(&["kubectl"]);
        // It had no field in common with ours, so the API server merged both; or it had, and was refused.
        let merged = vec![
            (404, status(404, "NotFound")),
            (200, object(&["kubectl", CONTROLLER_MANAGER])),
            (200, theirs()),
            (200, theirs()),
        ];
        let conflict = vec![(404, status(404, "NotFound")), (409, status(409, "Conflict")), (200, theirs())];
        for (answers, released) in [(merged, true), (conflict, false)] {
            let (client, requests) = api_server(answers);
            let (context, owner) = (context(client), owner("u"));
            let held = HeldDeployment::default();
            let writer = ChildWriter {
                context: &context,
                owner: &owner,
                adopts: true,
                held: &held,
                second_service: None,
                further: &[],
            };
            let account = ServiceAccount {
                metadata: ObjectMeta { name: Some("orders".into()), ..ObjectMeta::default() },
                ..ServiceAccount::default()
            };
            let problem = writer.sync_kind(&[account]).await.unwrap_err();
            assert_eq!(problem.reason, Reason::NotOwned, "{problem}");
            let requests = requests.lock().unwrap();
            assert!(requests.iter().all(|(what, _)| !what.contains("force")), "{requests:?}");
            let patches: Vec<_> = requests.iter().filter(|(what, _)| what.starts_with("PATCH")).collect();
            assert!(
                patches.iter().all(|(what, _)| what.contains("fieldValidation=Ignore")),
                "the API server would parse each twice: {patches:?}"
            );
            assert_eq!(patches.len(), if released { 2 } else { 1 });
            if released {
                let nothing = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"uid": "x"}});
                assert_eq!(patches[1].1, nothing);
            }
        }
    }
}
