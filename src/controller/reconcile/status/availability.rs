//! The condition `Available`.

use crate::{
    controller::{children::rollout::Rollout, problem::Problem},
    crd::Reason,
};

/// Whether the pods of this generation serve, why, and a message.
///
/// During a rollout they do not yet, even though the old pods do: whoever waits for a change waits until it is live.
/// After the rollout, a single pod that fails changes nothing as long as enough others are available.
pub(super) fn availability(rollout: &Rollout, pod_problem: Option<&Problem>) -> (bool, Reason, String) {
    let ready = format!("{} of {} pods are ready", rollout.ready, rollout.desired);
    let is_whole = rollout.is_of_this_generation();
    let progress = if is_whole {
        ready
    } else {
        format!("{} of {} pods have the current spec; {ready}", rollout.updated, rollout.desired)
    };
    let reasons = [
        pod_problem.map(|problem| problem.message.as_str()),
        rollout.creation_failure.as_deref(),
        rollout.stalled.as_deref(),
    ];
    let told: Vec<_> = reasons.into_iter().flatten().chain([progress.as_str()]).collect();
    if is_whole && rollout.is_available && rollout.stalled.is_none() {
        // What serves comes first where nothing is wrong with the whole.
        let told: Vec<_> = told.iter().rev().copied().collect();
        return (true, Reason::AsExpected, told.join("; "));
    }
    // A pod that is still waiting has not failed.
    let failed = pod_problem.map(|problem| problem.reason);
    let failed = failed.filter(|reason| *reason != Reason::MinimumReplicasUnavailable);
    let reason = match failed {
        Some(reason) => reason,
        None if rollout.creation_failure.is_some() => Reason::PodCreationFailed,
        None if rollout.stalled.is_some() => Reason::ProgressDeadlineExceeded,
        None if is_whole || !rollout.is_available => Reason::MinimumReplicasUnavailable,
        None => Reason::RolloutInProgress,
    };
    let mut message = told.join("; ");
    if reason == Reason::ProgressDeadlineExceeded && pod_problem.is_none() {
        message.push_str(": look at the pods' events and logs");
    }
    (false, reason, message)
}
