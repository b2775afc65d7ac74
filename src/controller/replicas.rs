//! Who decides the number of pods, and how that passes from one to the other: no switch of
//! `spec.autoscaling` may change the number by itself.
//!
//! Server-side apply removes a field that its only manager does not send any more, and a Deployment
//! without `replicas` has one pod. So before the number is left to an autoscaler, it is applied once
//! more under a manager of its own, which keeps it in place until the autoscaler writes another.

use k8s_openapi::api::apps::v1::Deployment;

use super::validate::Replicas;
use crate::crd::CONTROLLER_MANAGER;

/// The field manager that holds the number from the moment that we let go of it.
pub const HAND_OVER_MANAGER: &str = "orders-operator/replicas";

/// What to do about `replicas` when the Deployment is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Send this number.
    Send(i32),
    /// Do not send it: it is someone else's.
    Leave,
    /// Put it into other hands as this number; then do not send it.
    HandOver(i32),
}

/// What `wanted` calls for, given the Deployment that is there.
pub fn decide(wanted: Replicas, live: Option<&Deployment>) -> Decision {
    let Some(live) = live else { return Decision::Send(wanted.at_first()) };
    let number = live.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    match (wanted, is_ours(live)) {
        (Replicas::Fixed(number), _) => Decision::Send(number),
        (Replicas::Unset, true) => Decision::Send(wanted.at_first()),
        // An autoscaler had it, or someone scaled the Deployment; nobody has asked for another number.
        (Replicas::Unset, false) | (Replicas::Autoscaled { .. }, false) => Decision::Leave,
        // Within its bounds, which is where the autoscaler would bring it; it lets none be none.
        (Replicas::Autoscaled { min, max, .. }, true) => Decision::HandOver(number.max(min).min(max)),
    }
}

/// Whether `replicas` is there because we applied it.
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
    fn the_number_passes_on_without_changing() {
        let auto = Replicas::Autoscaled { min: 2, max: 5, cpu_percent: 70 };
        let ours = |number| live(number, CONTROLLER_MANAGER);
        let theirs = |number| live(number, "kube-controller-manager");
        for (wanted, there, expected) in [
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
            assert_eq!(decide(wanted, there.as_ref()), expected, "{wanted:?}");
        }
    }
}
