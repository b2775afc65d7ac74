//! Which OrdersService controls an object: the owner reference that is marked as the controller's.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;

use crate::{
    controller::object_key::ObjectKey,
    crd::{CONTROLLER_MANAGER, OrdersService},
};

/// The label of a child with the name of its OrdersService.
pub const INSTANCE_LABEL: &str = "app.kubernetes.io/instance";

/// The label of a child with what manages it, which is [`MANAGED_BY`].
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";

/// The value of [`MANAGED_BY_LABEL`].
pub const MANAGED_BY: &str = "orders-operator";

/// An OrdersService as the owner of children.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its namespace and name; its children are in that namespace, and nearly all have that name.
    pub key: ObjectKey,
    /// Its UID: one that was deleted and created again under the same name is another owner.
    pub uid: Box<str>,
}

impl Owner {
    /// The OrdersService with these metadata.
    pub fn from_metadata(orders_service: &ObjectMeta) -> Self {
        Self {
            key: ObjectKey::of(orders_service),
            uid: orders_service.uid.as_deref().unwrap_or_default().into(),
        }
    }

    /// The OrdersService that controls `object`, if one does.
    pub fn of(object: &ObjectMeta) -> Option<Self> {
        let owner = controller_of(object)?;
        is_orders_service(owner).then(|| Self {
            key: ObjectKey::new(object.namespace.as_deref().unwrap_or_default(), &owner.name),
            uid: owner.uid.as_str().into(),
        })
    }

    /// Whether `object` is a child of ours that has lost its owner: after `kubectl delete --cascade=orphan`, or restored
    /// from a backup, where it may still refer to an OrdersService of this name that is gone. It has our labels and
    /// fields that we applied, and no other controller.
    pub fn has_orphan(&self, object: &ObjectMeta) -> bool {
        let is_orphan = match controller_of(object) {
            None => true,
            Some(controller) => is_orders_service(controller) && controller.name == self.key.name(),
        };
        let label =
            |name: &str| object.labels.as_ref().and_then(|labels| labels.get(name)).map(String::as_str);
        let was_applied = object.managed_fields.iter().flatten().any(|entry| {
            entry.manager.as_deref() == Some(CONTROLLER_MANAGER)
                && entry.operation.as_deref() == Some("Apply")
                && entry.subresource.as_deref().is_none_or(str::is_empty)
        });
        is_orphan
            && was_applied
            && label(MANAGED_BY_LABEL) == Some(MANAGED_BY)
            && label(INSTANCE_LABEL) == Some(self.key.name())
    }

    /// Whether this OrdersService controls `object`.
    pub fn controls(&self, object: &ObjectMeta) -> bool {
        controller_of(object).is_some_and(|owner| *owner.uid == *self.uid)
    }
}

/// The reference by which a child of `service` names it as its controller; none without a UID, as in `render`.
///
/// It does not block the foreground deletion of `service`: for that the API server may ask for the right to set finalizers
/// on every OrdersService, and garbage collection does not need it.
pub fn reference_to(service: &OrdersService) -> Option<OwnerReference> {
    service.controller_owner_ref(&()).map(|owner| OwnerReference { block_owner_deletion: None, ..owner })
}

fn is_orders_service(owner: &OwnerReference) -> bool {
    owner.kind == OrdersService::kind(&())
        && owner.api_version.split('/').next() == Some(&OrdersService::group(&()))
}

/// The reference to the object that controls `object`; there can be one at most.
pub fn controller_of(object: &ObjectMeta) -> Option<&OwnerReference> {
    object.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::controller::fixture::owner;

    fn object(patch: Value) -> ObjectMeta {
        let mut object = json!({
            "name": "orders", "namespace": "shop",
            "labels": {"app.kubernetes.io/managed-by": "orders-operator", "app.kubernetes.io/instance": "orders"},
            "managedFields": [{"manager": CONTROLLER_MANAGER, "operation": "Apply"}],
        });
        json_patch::merge(&mut object, &patch);
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn only_what_was_ours_and_has_no_other_controller_is_an_orphan() {
        let reference = |kind: &str, name: &str, uid: &str| {
            json!({"ownerReferences": [{"apiVersion": "ticketing.dev/v1alpha1", "kind": kind, "name": name, "uid": uid,
                                        "controller": true}]})
        };
        let us = owner("u");
        for (patch, is_orphan) in [
            (json!({}), true),
            (reference("OrdersService", "orders", "gone"), true),
            (reference("OrdersService", "other", "x"), false),
            (reference("Deployment", "orders", "x"), false),
            (json!({"labels": {"app.kubernetes.io/managed-by": "helm"}}), false),
            (json!({"labels": {"app.kubernetes.io/instance": "other"}}), false),
            (json!({"labels": null}), false),
            (json!({"managedFields": null}), false),
            (json!({"managedFields": [{"manager": CONTROLLER_MANAGER, "operation": "Update"}]}), false),
            (json!({"managedFields": [{"manager": "kubectl", "operation": "Apply"}]}), false),
        ] {
            assert_eq!(us.has_orphan(&object(patch.clone())), is_orphan, "{patch}");
        }
    }
}
