//! How far a Deployment is, in the few numbers that the status needs.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition};

use super::partial::Partial;

/// How far a Deployment is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rollout {
    /// The generation of the Deployment.
    pub generation: i64,
    /// Whether the Deployment's status is about this generation. If not, the Deployment controller has not seen the
    /// change yet.
    pub is_observed: bool,
    /// How many pods there should be.
    pub desired: i32,
    /// How many pods there are.
    pub replicas: i32,
    /// How many pods are ready.
    pub ready: i32,
    /// How many pods have the current template; none as long as the Deployment controller has not seen it.
    pub updated: i32,
    /// The ReplicaSet of the current template, as far as the Deployment names it.
    pub replica_set: Option<String>,
    /// Whether enough pods are available, as of this generation.
    pub is_available: bool,
    /// Why the rollout does not progress, once its deadline has passed.
    pub stalled: Option<String>,
    /// Why pods cannot be created: a quota, an admission webhook's refusal, a missing ServiceAccount.
    pub creation_failure: Option<String>,
}

impl Rollout {
    /// Whether every pod has the current template and is ready, and no other pod is left.
    pub fn is_complete(&self) -> bool {
        self.is_available && self.stalled.is_none() && self.ready == self.desired && self.is_all_updated()
    }

    /// How many pods of older templates there are.
    pub fn former(&self) -> i32 {
        (self.replicas - self.updated).max(0)
    }

    /// Whether no pod of an older template is left, and none of the current one is missing.
    pub fn is_all_updated(&self) -> bool {
        self.updated == self.desired && self.replicas == self.desired
    }

    /// Whether every pod that there is has the current template, as far as the Deployment controller has seen it. More
    /// pods may be wanted: scaling is no rollout.
    pub fn is_of_this_generation(&self) -> bool {
        self.is_observed && self.updated == self.replicas
    }
}

impl From<&Partial<Deployment>> for Rollout {
    fn from(deployment: &Partial<Deployment>) -> Self {
        let status = &deployment.status;
        let condition =
            |kind: &str| status.conditions.iter().flatten().find(|condition| condition.type_ == kind);
        let is_observed = status.observed_generation >= deployment.metadata.generation;
        // What is said of a former generation says nothing of this one.
        let current = |kind| condition(kind).filter(|_| is_observed);
        let message = |condition: &DeploymentCondition, otherwise: &str| {
            condition.message.clone().unwrap_or_else(|| otherwise.to_owned())
        };
        let past_deadline = current("Progressing").filter(|progress| {
            progress.status == "False" && progress.reason.as_deref() == Some("ProgressDeadlineExceeded")
        });
        Self {
            generation: deployment.metadata.generation.unwrap_or(0),
            is_observed,
            desired: deployment.spec.replicas.unwrap_or(1),
            replicas: status.replicas.unwrap_or(0),
            ready: status.ready_replicas.unwrap_or(0),
            updated: status.updated_replicas.filter(|_| is_observed).unwrap_or(0),
            replica_set: current("Progressing").and_then(|progress| quoted(progress.message.as_deref()?)),
            is_available: current("Available").is_some_and(|available| available.status == "True"),
            stalled: past_deadline.map(|condition| message(condition, "the rollout does not progress")),
            creation_failure: current("ReplicaFailure")
                .filter(|failure| failure.status == "True")
                .map(|failure| message(failure, "it is not said why")),
        }
    }
}

/// The first name in quotation marks: in the condition `Progressing`, that of the ReplicaSet that the Deployment controller is
/// about, whatever it says of it. No other field has it, and a ReplicaSet is nothing that the controller may read.
fn quoted(message: &str) -> Option<String> {
    message.split('"').nth(1).filter(|name| !name.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_said_of_a_former_generation_says_nothing_of_this_one() {
        let rollout = |observed: i64| {
            let object = json!({
                "metadata": {"generation": 2},
                "spec": {"replicas": 2, "selector": {}, "template": {}},
                "status": {
                    "observedGeneration": observed, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2,
                    "conditions": [
                        {"type": "Available", "status": "True"},
                        {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"},
                        {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}
                    ]
                }
            });
            let deployment: Partial<Deployment> = serde_json::from_value(object).unwrap();
            Rollout::from(&deployment)
        };
        let current = rollout(2);
        assert!(current.is_available && current.stalled.is_some() && current.creation_failure.is_some());
        assert_eq!(current.updated, 2);
        let former = rollout(1);
        assert!(!former.is_available && former.stalled.is_none() && former.creation_failure.is_none());
        assert_eq!(
            (former.updated, former.ready, former.replicas),
            (0, 2, 2),
            "pods that there are, are counted"
        );
    }

    #[test]
    fn the_replica_set_of_the_current_template_is_what_the_deployment_says_is_progressing() {
        let of = |message: &str| {
            let progress = json!({"type": "Progressing", "status": "True", "message": message});
            let object = json!({"metadata": {"generation": 2}, "spec": {}, "status": {"observedGeneration": 2, "conditions": [progress]}});
            Rollout::from(&serde_json::from_value::<Partial<Deployment>>(object).unwrap()).replica_set
        };
        assert_eq!(
            of("ReplicaSet \"orders-5d8f\" has timed out progressing.").as_deref(),
            Some("orders-5d8f")
        );
        assert_eq!(of("Created new replica set \"orders-5d8f\"").as_deref(), Some("orders-5d8f"));
        assert_eq!(of("Deployment is paused"), None);
        assert_eq!(of("\"\""), None);
    }
}
