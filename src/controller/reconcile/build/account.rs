//! The ServiceAccount that the pods run as: one of their own, without any rights.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::metadata::metadata;
use crate::controller::reconcile::validate::validated::ValidatedOrdersService;

/// None if the pods run as another. If the spec names the very account that is built without a name, it is still needed.
pub(super) fn build_account(service: &ValidatedOrdersService) -> Option<ServiceAccount> {
    let is_own = service.pods.service_account_name.as_ref().is_none_or(|name| *name == service.name);
    is_own.then(|| ServiceAccount {
        metadata: metadata(service),
        // The API calls no API server; the pods say so as well.
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    })
}
