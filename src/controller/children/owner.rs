//! Which OrdersService controls an object: the owner reference that is marked as the controller's.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;

use crate::{controller::object_key::ObjectKey, crd::OrdersService};

/// An OrdersService as the owner of children.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its namespace and name; its children are in that namespace, and nearly all have that name.
    pub key: ObjectKey,
    /// Its UID: one that was deleted and made again under the same name is another owner.
    pub uid: Box<str>,
}

impl Owner {
    /// The OrdersService that controls `object`, if one does.
    pub fn of(object: &ObjectMeta) -> Option<Self> {
        let owner = controller_of(object)?;
        let is_orders_service = owner.kind == OrdersService::kind(&())
            && owner.api_version.split('/').next() == Some(&OrdersService::group(&()));
        is_orders_service.then(|| Self {
            key: ObjectKey::new(object.namespace.as_deref().unwrap_or_default(), &owner.name),
            uid: owner.uid.as_str().into(),
        })
    }

    /// Whether this OrdersService controls `object`.
    pub fn controls(&self, object: &ObjectMeta) -> bool {
        controller_of(object).is_some_and(|owner| *owner.uid == *self.uid)
    }
}

/// The reference by which a child of `service` names it as its controller; none without a UID, as in `render`.
///
/// It does not block the foreground deletion of `service`: for that the API server may ask for the right to set finalizers
/// on every OrdersService, and garbage collection needs it not.
pub fn reference_to(service: &OrdersService) -> Option<OwnerReference> {
    service.controller_owner_ref(&()).map(|owner| OwnerReference { block_owner_deletion: None, ..owner })
}

/// The reference to the object that controls `object`; there can be one at most.
pub fn controller_of(object: &ObjectMeta) -> Option<&OwnerReference> {
    object.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}
