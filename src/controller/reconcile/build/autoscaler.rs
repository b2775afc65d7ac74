//! The HorizontalPodAutoscaler: the load decides the number of pods.

use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, MetricSpec,
    MetricTarget, ResourceMetricSource,
};

use super::metadata::metadata;
use crate::controller::reconcile::validate::{pods::Replicas, validated::ValidatedOrdersService};

pub(super) fn build_autoscaler(service: &ValidatedOrdersService) -> Option<HorizontalPodAutoscaler> {
    let Replicas::Autoscaled { min, max, cpu_percent } = service.replicas else { return None };
    Some(HorizontalPodAutoscaler {
        metadata: metadata(service),
        spec: Some(HorizontalPodAutoscalerSpec {
            // The Deployment, not the OrdersService: only the user writes the spec.
            scale_target_ref: CrossVersionObjectReference {
                api_version: Some("apps/v1".into()),
                kind: "Deployment".into(),
                name: service.name.clone(),
            },
            min_replicas: Some(min),
            max_replicas: max,
            metrics: Some(vec![MetricSpec {
                type_: "Resource".into(),
                resource: Some(ResourceMetricSource {
                    name: "cpu".into(),
                    target: MetricTarget {
                        type_: "Utilization".into(),
                        average_utilization: Some(cpu_percent),
                        ..MetricTarget::default()
                    },
                }),
                ..MetricSpec::default()
            }]),
            behavior: None,
        }),
        status: None,
    })
}
