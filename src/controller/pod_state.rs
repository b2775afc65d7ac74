//! What a pod's status says of it, as the controller and `kubectl osvc` both read it; each has words of its own for it.

use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStatus, PodCondition, PodStatus,
};

/// The containers in the order in which they start: while one of the first does not end, or does not start, the others
/// wait.
pub fn containers(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    status.init_container_statuses.iter().chain(&status.container_statuses).flatten()
}

/// Whether the pod is ready.
pub fn is_ready(status: &PodStatus) -> bool {
    condition(status, "Ready").is_some_and(|ready| ready.status == "True")
}

/// The condition that says why the pod has no node.
pub fn unscheduled(status: &PodStatus) -> Option<&PodCondition> {
    condition(status, "PodScheduled").filter(|scheduled| scheduled.status == "False")
}

fn condition<'a>(status: &'a PodStatus, kind: &str) -> Option<&'a PodCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

/// Why a container cannot start: the reason, and the kubelet's words. None if it only waits for its turn.
pub fn cannot_start(container: &ContainerStatus) -> Option<(&str, &str)> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().filter(|reason| !is_starting(reason))?;
    Some((reason, waiting.message.as_deref().unwrap_or_default()))
}

fn is_starting(reason: &str) -> bool {
    matches!(reason, "ContainerCreating" | "PodInitializing")
}

/// The state of a container that runs and is not ready: an init container that has not ended is not, either.
pub fn runs_unready(container: &ContainerStatus) -> Option<&ContainerStateRunning> {
    container.state.as_ref()?.running.as_ref().filter(|_| !container.ready)
}

/// How a container ended, in the state that it is in or in the one before.
pub fn ended(state: Option<&ContainerState>) -> Option<&ContainerStateTerminated> {
    state?.terminated.as_ref()
}

/// What a container said when it ended.
pub fn last_words(ended: &ContainerStateTerminated) -> Option<&str> {
    ended.message.as_deref().map(str::trim).filter(|words| !words.is_empty())
}
