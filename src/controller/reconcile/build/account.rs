//! The ServiceAccount that the pods run as: one of their own, without any rights.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::metadata::metadata;
use crate::controller::reconcile::validate::validated::ValidatedOrdersService;

pub(super) fn build_account(service: &ValidatedOrdersService) -> Option<ServiceAccount> {
    service.pods.service_account_name.is_none().then(|| ServiceAccount {
        metadata: metadata(service),
        // The API calls no API server; the pods say so as well.
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    })
}
