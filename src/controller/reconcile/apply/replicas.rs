//! Who sets the Deployment's number of pods, and how that passes from one to the other: switching `spec.autoscaling` on
//! or off must not change the number.
//!
//! Server-side apply removes a field that its only manager no longer sends, and a Deployment without `replicas` has one
//! pod. So before the number is left to an autoscaler, it is applied once more under a field manager of its own, which
//! keeps it in place until the autoscaler sets another.

use k8s_openapi::api::apps::v1::Deployment;

use crate::controller::reconcile::validate::pods::Replicas;
use crate::crd::CONTROLLER_MANAGER;

/// The field manager that holds the number until the autoscaler sets it.
pub const HAND_OVER_MANAGER: &str = "orders-operator/replicas";

/// What to do about `replicas` when the Deployment is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Send this number.
    Send(i32),
    /// Do not send it: another manager owns it.
    Leave,
    /// Apply this number under [`HAND_OVER_MANAGER`]; then do not send it.
    HandOver(i32),
}

/// What the spec requires, given the live Deployment.
pub fn decide(desired: Replicas, live: Option<&Deployment>) -> Decision {
    let Some(live) = live else { return Decision::Send(desired.initial()) };
    let number = live.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    match (desired, is_ours(live)) {
        (Replicas::Fixed(number), _) => Decision::Send(number),
        (Replicas::Unset, true) => Decision::Send(desired.initial()),
        // An autoscaler set it, or someone scaled the Deployment, and the spec asks for no other number.
        (Replicas::Unset, false) | (Replicas::Autoscaled { .. }, false) => Decision::Leave,
        // Within the bounds to which the autoscaler would bring it. An autoscaler does not touch a Deployment that is
        // scaled to zero, so zero is raised as well.
        (Replicas::Autoscaled { min, max, .. }, true) => Decision::HandOver(number.max(min).min(max)),
    }
}

/// Whether we own `replicas`, having applied it.
fn is_ours(live: &Deployment) -> bool {
    live.metadata.managed_fields.iter().flatten().any(|entry| {
        entry.manager.as_deref() == Some(CONTROLLER_MANAGER)
            && entry.operation.as_deref() == Some("Apply")
            && entry.fields_v1.as_ref().is_some_and(|fields| fields.0["f:spec"].get("f:replicas").is_some())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn live(replicas: i32, manager: &str) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"managedFields": [
                {"manager": CONTROLLER_MANAGER, "operation": "Apply", "fieldsV1": {"f:spec": {"f:template": {}}}},
                {"manager": manager, "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
            ]},
            "spec": {"replicas": replicas, "selector": {}, "template": {}}
        }))
        .unwrap()
    }

    #[test]
    fn the_number_passes_from_one_to_the_other_without_changing() {
        let auto = Replicas::Autoscaled { min: 2, max: 5, cpu_percent: 70 };
        let ours = |number| live(number, CONTROLLER_MANAGER);
        let theirs = |number| live(number, "kube-controller-manager");
        for (desired, there, expected) in [
            (Replicas::Fixed(3), None, Decision::Send(3)),
            (Replicas::Unset, None, Decision::Send(2)),
            (auto, None, Decision::Send(2)),
            (auto, Some(ours(3)), Decision::HandOver(3)),
            (auto, Some(ours(0)), Decision::HandOver(2)),
            (auto, Some(ours(9)), Decision::HandOver(5)),
            (auto, Some(theirs(9)), Decision::Leave),
            (Replicas::Unset, Some(theirs(4)), Decision::Leave),
            (Replicas::Unset, Some(ours(4)), Decision::Send(2)),
            (Replicas::Fixed(1), Some(theirs(4)), Decision::Send(1)),
        ] {
            assert_eq!(decide(desired, there.as_ref()), expected, "{desired:?}");
        }
    }
}
