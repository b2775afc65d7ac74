//! The PodDisruptionBudget: draining nodes evicts no more pods at a time than may be missing.

use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use super::metadata::{metadata, selector_labels};
use crate::controller::reconcile::validate::validated::ValidatedOrdersService;

pub(super) fn build_budget(
    service: &ValidatedOrdersService,
    max_unavailable: &IntOrString,
) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: metadata(service),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(max_unavailable.clone()),
            selector: Some(LabelSelector {
                match_labels: Some(selector_labels(&service.name)),
                ..LabelSelector::default()
            }),
            // A pod that does not work anyway must not hold up a drain.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".into()),
            min_available: None,
        }),
        status: None,
    }
}
