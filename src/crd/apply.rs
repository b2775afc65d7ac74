//! Server-side apply: the field managers, and the patch that writes a status.

use kube::Resource;
use serde::Serialize;

use super::spec::OrdersService;

/// The field manager that the controller applies with.
pub const CONTROLLER_MANAGER: &str = "orders-operator/controller";

/// The field manager that the sweeper applies with.
pub const SWEEPER_MANAGER: &str = "orders-operator/sweeper";

/// The field manager that the controller notes in a status with which image is moved to.
pub const UPGRADE_MANAGER: &str = "orders-operator/upgrades";

/// The annotation of an OrdersService, `"true"`, by which it takes over children that the operator applied before and
/// that have no owner any more.
pub const ADOPT_ANNOTATION: &str = "ticketing.dev/adopt";

/// The annotation of an OrdersService, `"now"`, by which it gets the operator's new image before it is its turn.
pub const UPGRADE_ANNOTATION: &str = "ticketing.dev/upgrade";

/// The patch that applies `status`, or a part of it, to `service`. It carries the UID, so the API server rejects it
/// if the resource was deleted and recreated under the same name meanwhile.
pub fn status_patch(service: &OrdersService, status: &impl Serialize) -> serde_json::Value {
    serde_json::json!({
        "apiVersion": OrdersService::api_version(&()),
        "kind": OrdersService::kind(&()),
        "metadata": {"uid": service.metadata.uid},
        "status": status,
    })
}
