//! How far a Deployment has come, in as few words as status needs.

use k8s_openapi::api::apps::v1::Deployment;

use super::partial::Partial;

/// How far a Deployment has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rollout {
    /// The generation of the Deployment that this is about.
    pub generation: i64,
    /// Whether the Deployment's status is about this generation. If not, its controller has not answered yet.
    pub answered: bool,
    /// Pods that are wanted.
    pub wanted: i32,
    /// Pods that there are.
    pub pods: i32,
    /// Pods that are ready.
    pub ready: i32,
    /// Pods of the newest template.
    pub updated: i32,
    /// Whether enough of them are available, as of this generation.
    pub available: bool,
    /// Why the rollout does not go on, when it has given up.
    pub stuck: Option<String>,
}

impl Rollout {
    /// Whether every pod is of the newest template and ready, and no other is left.
    pub fn is_complete(&self) -> bool {
        self.available && self.stuck.is_none() && self.ready == self.wanted && self.is_all_new()
    }

    /// Whether no pod of an older template is left, and none of the newest is missing.
    pub fn is_all_new(&self) -> bool {
        self.updated == self.wanted && self.pods == self.wanted
    }
}

impl From<&Partial<Deployment>> for Rollout {
    fn from(deployment: &Partial<Deployment>) -> Self {
        let status = &deployment.status;
        let condition =
            |kind: &str| status.conditions.iter().flatten().find(|condition| condition.type_ == kind);
        let given_up = condition("Progressing").filter(|progress| {
            progress.status == "False" && progress.reason.as_deref() == Some("ProgressDeadlineExceeded")
        });
        // A status of an older generation answers a question that nobody asked.
        let answered = status.observed_generation >= deployment.metadata.generation;
        Self {
            generation: deployment.metadata.generation.unwrap_or(0),
            answered,
            wanted: deployment.spec.replicas.unwrap_or(1),
            pods: status.replicas.unwrap_or(0),
            ready: status.ready_replicas.unwrap_or(0),
            updated: status.updated_replicas.unwrap_or(0),
            available: answered && condition("Available").is_some_and(|available| available.status == "True"),
            stuck: given_up
                .map(|stuck| stuck.message.clone().unwrap_or_else(|| "the rollout does not progress".into())),
        }
    }
}
