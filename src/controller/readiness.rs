//! Which OrdersServices are not ready, and why: what the metric `not_ready` says, on which an alert is built.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use serde::Deserialize;

use super::raw_orders_service::RawOrdersService;
use crate::crd::{ConditionType, Reason, find_condition, is_true};

/// In place of a reason: the condition `Ready` does not speak of this generation.
pub const NOT_REPORTED: &str = "NotReported";

/// In place of a reason that this version does not know, so that whoever may write a status cannot invent values of a label.
const OTHER: &str = "Other";

/// What is read of an OrdersService.
#[derive(Deserialize)]
struct Glance {
    status: Option<StatusGlance>,
}

#[derive(Deserialize)]
struct StatusGlance {
    #[serde(default)]
    conditions: Vec<Condition>,
}

/// Why it is not ready: the reason of its condition `Ready`, or [`NOT_REPORTED`]. Nothing if it is ready, or about to go.
pub fn why_not_ready(service: &RawOrdersService) -> Option<&'static str> {
    let metadata = service.meta();
    if metadata.deletion_timestamp.is_some() {
        return None;
    }
    let status = service.glance::<Glance>().ok().and_then(|glance| glance.status);
    let ready = status.as_ref().and_then(|status| find_condition(&status.conditions, ConditionType::Ready));
    match ready.filter(|ready| ready.observed_generation == metadata.generation) {
        None => Some(NOT_REPORTED),
        Some(ready) if is_true(ready) => None,
        Some(ready) => {
            let mut known = Reason::ALL.iter().map(|reason| reason.as_str());
            Some(known.find(|reason| *reason == ready.reason).unwrap_or(OTHER))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn why(metadata: Value, status: Value) -> Option<&'static str> {
        let mut object =
            json!({"metadata": {"namespace": "shop", "name": "a", "generation": 2}, "status": status});
        object["metadata"].as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
        why_not_ready(&serde_json::from_value(object).unwrap())
    }

    fn ready(status: &str, reason: &str, generation: i64) -> Value {
        let condition = |kind: &str, status: &str, reason: &str, generation: i64| {
            json!({
                "type": kind, "status": status, "reason": reason, "message": "m", "observedGeneration": generation,
                "lastTransitionTime": "2026-01-01T00:00:00Z"
            })
        };
        json!({"conditions": [condition("Valid", "True", "AsExpected", 2), condition("Ready", status, reason, generation)]})
    }

    #[test]
    fn a_resource_is_ready_if_its_condition_says_so_of_this_generation() {
        let none = json!({});
        assert_eq!(why(none.clone(), ready("True", "AsExpected", 2)), None);
        assert_eq!(why(none.clone(), ready("True", "ServiceNotFound", 2)), None, "a warning");
        assert_eq!(why(none.clone(), ready("True", "AsExpected", 1)), Some(NOT_REPORTED));
        assert_eq!(why(none.clone(), ready("False", "InvalidSpec", 2)), Some("InvalidSpec"));
        assert_eq!(why(none.clone(), ready("False", "InventedByATenant", 2)), Some(OTHER));
        for without in [Value::Null, json!({}), json!({"conditions": []}), json!({"conditions": 7})] {
            assert_eq!(why(none.clone(), without.clone()), Some(NOT_REPORTED), "{without}");
        }
        let going = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        assert_eq!(why(going, ready("False", "InvalidSpec", 2)), None);
    }
}
