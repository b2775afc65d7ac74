//! How far a Deployment is, in the few numbers that the status needs.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition};

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
    /// How many pods have the current template.
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

impl Rollout {
    /// Whether every pod has the current template and is ready, and no other pod is left.
    pub fn is_complete(&self) -> bool {
        self.is_available && self.stalled.is_none() && self.ready == self.desired && self.is_all_updated()
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
        let message = |condition: &DeploymentCondition, otherwise: &str| {
            condition.message.clone().unwrap_or_else(|| otherwise.to_owned())
        };
        let past_deadline = condition("Progressing").filter(|progress| {
            progress.status == "False" && progress.reason.as_deref() == Some("ProgressDeadlineExceeded")
        });
        let is_observed = status.observed_generation >= deployment.metadata.generation;
        let is_available =
            is_observed && condition("Available").is_some_and(|available| available.status == "True");
        let name = deployment.metadata.name.as_deref().unwrap_or_default();
        let progress = condition("Progressing").filter(|_| is_observed);
        let rollout = Self {
            generation: deployment.metadata.generation.unwrap_or(0),
            is_observed,
            desired: deployment.spec.replicas.unwrap_or(1),
            replicas: status.replicas.unwrap_or(0),
            ready: status.ready_replicas.unwrap_or(0),
            updated: status.updated_replicas.unwrap_or(0),
            is_available,
            stalled: past_deadline.map(|condition| message(condition, "the rollout does not progress")),
            creation_failure: condition("ReplicaFailure")
                .filter(|failure| failure.status == "True")
                .map(|failure| message(failure, "it is not said why")),
            template_hash: progress
                .and_then(|progress| template_hash(name, progress.message.as_deref().unwrap_or_default())),
        };
        // Of thousands of Deployments nearly all are, and then nobody asks for it.
        if rollout.is_complete() { Self { template_hash: None, ..rollout } } else { rollout }
    }
}
