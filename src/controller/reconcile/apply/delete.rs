//! One child that is switched off: deleted, if it is ours.

use kube::api::{DeleteParams, Preconditions};

use super::{refusal::write_failed, writer::ChildWriter};
use crate::controller::{
    api_server::RequestError,
    children::{kind::Child, observed::Observation},
    object_key::ObjectKey,
    problem::Problem,
};

impl ChildWriter<'_> {
    /// Deletes a child that is switched off; an object that is not ours is left alone.
    pub(super) async fn delete_if_ours<K: Child>(&self, name: &str) -> Result<(), Problem> {
        let key = ObjectKey::new(self.owner.key.namespace(), name);
        let uid = match self.context.observed.get(K::KIND, &key) {
            Observation::Absent => return Ok(()),
            Observation::Present(child) if child.owner.uid != self.owner.uid || child.is_deleting => {
                return Ok(());
            }
            Observation::Present(child) => Some(child.uid.into()),
            Observation::NotSynced => {
                let live = self.live_metadata_of::<K>(name).await?;
                let ours = live.filter(|live| self.owner.controls(live) && live.deletion_timestamp.is_none());
                let Some(ours) = ours else { return Ok(()) };
                ours.uid
            }
        };
        let (api, kind) = (self.api::<K>(), K::KIND.as_str());
        let params = DeleteParams::background().preconditions(Preconditions { uid, resource_version: None });
        match self.context.api.write(kind, "delete", api.delete(key.name(), &params)).await {
            // 409: the object was replaced by another.
            Ok(_) | Err(RequestError::Refused { code: 404 | 409, .. }) => {
                tracing::info!(
                    kind,
                    namespace = key.namespace(),
                    name = key.name(),
                    "deleted: switched off in the spec"
                );
                Ok(())
            }
            Err(error) => Err(write_failed::<K>("delete", name, &error)),
        }
    }
}
