//! What the cluster's autoscaler reports: since when it has no metrics to decide by.

use k8s_openapi::{
    api::autoscaling::v2::{HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition},
    jiff::Timestamp,
};

use super::partial::Partial;

/// Since when it has had no metrics; none if it has some, or has not said so.
pub fn unmeasured_since(autoscaler: &Partial<HorizontalPodAutoscaler>) -> Option<Timestamp> {
    let active = |condition: &&HorizontalPodAutoscalerCondition| condition.type_ == "ScalingActive";
    let condition = autoscaler.status.conditions.iter().flatten().find(active)?;
    // With no pods there is nothing to measure.
    let is_amiss = condition.status == "False" && condition.reason.as_deref() != Some("ScalingDisabled");
    condition.last_transition_time.as_ref().filter(|_| is_amiss).map(|time| time.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_autoscaler_that_scales_or_has_nothing_to_scale_lacks_no_metrics() {
        let since = |status: &str, reason: &str| {
            let condition = json!({"type": "ScalingActive", "status": status, "reason": reason,
                                   "lastTransitionTime": "2026-01-01T00:00:00Z"});
            let object = json!({"metadata": {}, "status": {"conditions": [condition]}});
            unmeasured_since(&serde_json::from_value(object).unwrap())
        };
        let then = Some("2026-01-01T00:00:00Z".parse().unwrap());
        assert_eq!(since("False", "FailedGetResourceMetric"), then);
        assert_eq!(since("False", "ScalingDisabled"), None);
        assert_eq!(since("True", "ValidMetricFound"), None);
        assert_eq!(unmeasured_since(&serde_json::from_value(json!({"metadata": {}})).unwrap()), None);
    }
}
