//! Writing the status.

use kube::{Api, ResourceExt, api::Patch};

use crate::{
    controller::{
        api_server::{ApiServer, RequestError, apply_params},
        children::partial::Partial,
    },
    crd::{ConditionType, OrdersService, OrdersServiceStatus, status_patch},
};

/// Writes `status`, unless the object has it already; gives the response to a write.
///
/// Nothing is written if the object has changed since it was read: its watch event requeues it. So the response
/// differs from what was read only in the status.
///
/// # Errors
/// When the API server does not answer, or refuses.
pub async fn update_status(
    api_server: &ApiServer,
    service: &OrdersService,
    status: &OrdersServiceStatus,
) -> Result<Option<Partial<OrdersService>>, RequestError> {
    if service.status.as_ref().is_some_and(|current| is_current(current, status)) {
        return Ok(None);
    }
    let api = Api::<Partial<OrdersService>>::namespaced(
        api_server.client.clone(),
        &service.namespace().unwrap_or_default(),
    );
    let params = apply_params().force();
    let mut patch = status_patch(service, status);
    if let Some(version) = &service.metadata.resource_version {
        patch["metadata"]["resourceVersion"] = version.as_str().into();
    }
    let (name, patch) = (service.name_any(), Patch::Apply(patch));
    match api_server.write("OrdersService", "patch", api.patch_status(&name, &params, &patch)).await {
        Err(RequestError::Refused { code: 409, .. }) => Ok(None),
        written => written.map(Some),
    }
}

/// Whether the object's status equals `ours`, apart from what other managers own.
pub(super) fn is_current(current: &OrdersServiceStatus, ours: &OrdersServiceStatus) -> bool {
    let mut current = OrdersServiceStatus { expiry: None, upgrade: None, ..current.clone() };
    current
        .conditions
        .retain(|condition| ConditionType::CONTROLLER.iter().any(|kind| kind.as_str() == condition.type_));
    current.conditions.sort_by(|left, right| left.type_.cmp(&right.type_));
    current == *ours
}
