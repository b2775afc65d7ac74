//! How far a Deployment is, in the few numbers that the status needs.

use k8s_openapi::{
    api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{partial::Partial, replica_set::template_hash};

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
    /// Whether enough pods are available, as of this generation.
    pub is_available: bool,
    /// The hash by which the pods of the current template are known, while the rollout is not complete.
    pub template_hash: Option<String>,
    /// Why the rollout does not progress, once its deadline has passed.
    pub stalled: Option<String>,
    /// Why pods cannot be created: a quota, an admission webhook's refusal, a missing ServiceAccount.
    pub creation_failure: Option<String>,
}

/// How many pods a Deployment counts: all of them, those of the current template, and those of any that are ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    replicas: i32,
    updated: i32,
    ready: i32,
}

impl Rollout {
    /// How many pods it counts.
    pub fn counts(&self) -> Counts {
        let Self { replicas, updated, ready, .. } = *self;
        Counts { replicas, updated, ready }
    }

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
        Self::of(&deployment.metadata, deployment.spec.replicas, &deployment.status)
    }
}

impl From<&Deployment> for Rollout {
    fn from(deployment: &Deployment) -> Self {
        let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas);
        Self::of(
            &deployment.metadata,
            replicas,
            deployment.status.as_ref().unwrap_or(&DeploymentStatus::default()),
        )
    }
}

impl Rollout {
    fn of(metadata: &ObjectMeta, replicas: Option<i32>, status: &DeploymentStatus) -> Self {
        let condition =
            |kind: &str| status.conditions.iter().flatten().find(|condition| condition.type_ == kind);
        let is_observed = status.observed_generation >= metadata.generation;
        // What is said of a former generation says nothing of this one.
        let current = |kind| condition(kind).filter(|_| is_observed);
        let message = |condition: &DeploymentCondition, otherwise: &str| {
            condition.message.clone().unwrap_or_else(|| otherwise.to_owned())
        };
        let past_deadline = current("Progressing").filter(|progress| {
            progress.status == "False" && progress.reason.as_deref() == Some("ProgressDeadlineExceeded")
        });
        let name = metadata.name.as_deref().unwrap_or_default();
        let progress = current("Progressing").and_then(|progress| progress.message.as_deref());
        let rollout = Self {
            generation: metadata.generation.unwrap_or(0),
            is_observed,
            desired: replicas.unwrap_or(1),
            replicas: status.replicas.unwrap_or(0),
            ready: status.ready_replicas.unwrap_or(0),
            updated: status.updated_replicas.filter(|_| is_observed).unwrap_or(0),
            is_available: current("Available").is_some_and(|available| available.status == "True"),
            stalled: past_deadline.map(|condition| message(condition, "the rollout does not progress")),
            creation_failure: current("ReplicaFailure")
                .filter(|failure| failure.status == "True")
                .map(|failure| message(failure, "no reason given")),
            template_hash: progress.and_then(|message| template_hash(name, message)),
        };
        // Of thousands of Deployments nearly all are, and then nobody asks for it.
        if rollout.is_complete() { Self { template_hash: None, ..rollout } } else { rollout }
    }
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
}
