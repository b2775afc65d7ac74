//! The OrdersService and the children that unit tests begin with.

use serde_json::{Value, json};

use super::{
    children::{kind::Child, owner::Owner, partial::Partial},
    object_key::ObjectKey,
};
use crate::crd::{CONTROLLER_MANAGER, OrdersService};

/// The resource of [`service`] with this UID, as the owner of children.
pub(crate) fn owner(uid: &str) -> Owner {
    Owner { key: ObjectKey::new("shop", "orders"), uid: uid.into() }
}

/// A child as the API server would return it, after we applied this field of its spec at that time.
pub(crate) fn child<K: Child>(version: &str, field: &str, applied: &str) -> Partial<K> {
    let object = json!({"metadata": {
        "name": "orders", "namespace": "shop", "uid": "c", "resourceVersion": version,
        "managedFields": [
            {"manager": CONTROLLER_MANAGER, "operation": "Apply", "subresource": "status", "fieldsV1": {}},
            {"manager": "other", "operation": "Update", "fieldsV1": {"f:spec": {"f:other": {}}}, "time": null},
            {"manager": CONTROLLER_MANAGER, "operation": "Apply", "fieldsV1": {"f:spec": {field: {}}},
             "time": applied},
        ]
    }});
    serde_json::from_value(object).unwrap()
}

/// A resource as the API server would return it, with `patch` merged into its spec.
pub(crate) fn service(patch: Value) -> OrdersService {
    let mut object = json!({
        "apiVersion": "ticketing.dev/v1alpha1", "kind": "OrdersService",
        "metadata": {"name": "orders", "namespace": "shop", "uid": "u-1", "generation": 1},
        "spec": {
            "auth": {"jwtSecretRef": {"name": "jwt-secret"}},
            "database": {"uriSecretRef": {"name": "orders-mongo"}},
            "ingress": {
                "hosts": ["b.dev", "A.dev."],
                "routes": [
                    {"path": "/api", "service": "api-srv"},
                    {"path": "/api/users/?(.*)", "service": "auth-srv", "port": 80}
                ],
                "client": {"service": "client-srv"}
            }
        }
    });
    // The defaults as the API server fills them in, so that a patch can remove a part of them.
    object["spec"]["resources"] =
        json!({"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}});
    json_patch::merge(&mut object["spec"], &patch);
    serde_json::from_value(object).unwrap()
}
