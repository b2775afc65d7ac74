//! The outcomes that the unit tests of the status begin with.

use k8s_openapi::{api::apps::v1::Deployment, jiff::Timestamp};
use serde_json::json;

use crate::{
    controller::{
        children::{inspected::Inspected, partial::Partial, rollout::Rollout},
        reconcile::{
            apply::Applied,
            outcome::{Completed, Outcome},
            validate::validated::ValidatedOrdersService,
        },
    },
    crd::{ConditionType, OrdersServiceStatus, find_condition},
};

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

pub(super) fn deployment(status: serde_json::Value) -> Applied {
    let object = json!({"metadata": {"generation": 2}, "spec": {"replicas": 2, "selector": {}, "template": {}}, "status": status});
    let deployment: Partial<Deployment> = serde_json::from_value(object).unwrap();
    Applied::for_test(Rollout::from(&deployment), Vec::new())
}

pub(super) fn completed(valid: &ValidatedOrdersService, applied: &Applied) -> Outcome {
    let (valid, applied) = (valid.clone(), applied.clone());
    Ok(Completed {
        valid,
        applied,
        pods: Inspected::default(),
        autoscaler_warning: None,
        requeue_after: None,
    })
}

pub(super) fn available(ready: i32) -> Applied {
    deployment(json!({
        "observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "readyReplicas": ready,
        "conditions": [{"type": "Available", "status": if ready > 0 { "True" } else { "False" }}]
    }))
}

pub(super) fn ready(status: &OrdersServiceStatus) -> (&str, &str, &Timestamp) {
    let ready = find_condition(&status.conditions, ConditionType::Ready).unwrap();
    (&ready.status, &ready.reason, &ready.last_transition_time.0)
}
