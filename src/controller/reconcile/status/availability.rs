//! The condition `Available`.

use crate::{
    controller::children::{inspected::Inspected, rollout::Rollout},
    crd::Reason,
};

/// Whether the pods of this generation serve, why, and a message; `pods` is what the last look at them has found.
///
/// During a rollout they do not yet, even though the old pods do: whoever waits for a change waits until it is live.
/// After the rollout, a single pod that fails changes nothing as long as enough others are available.
pub(super) fn availability(rollout: &Rollout, pods: &Inspected) -> (bool, Reason, String) {
    let pod_problem = pods.problem.as_ref();
    let is_whole = rollout.is_of_this_generation();
    let progress = progress(rollout, pods);
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

/// How many pods are ready; while there are some of a former spec, apart from those of the current one.
fn progress(rollout: &Rollout, pods: &Inspected) -> String {
    let Rollout { replicas, ready, updated, desired, .. } = rollout;
    let of_all = format!("{ready} of {desired} pods are ready");
    if rollout.is_of_this_generation() {
        return of_all;
    }
    if !rollout.is_observed {
        return format!("the cluster has not acted on the current spec yet; {of_all}");
    }
    let current = format!("{updated} of {desired} pods have the current spec");
    match pods.ready_of_current(rollout) {
        Some(ready_of_current) => {
            let of_them =
                if *updated > 0 { format!(", {ready_of_current} of them ready") } else { String::new() };
            let former = match ready - ready_of_current {
                0 => "no pod of a former spec is ready".to_owned(),
                1 => "1 pod of a former spec is ready".to_owned(),
                more => format!("{more} pods of a former spec are ready"),
            };
            format!("{current}{of_them}; {former}")
        }
        None => {
            let are = if *ready == 1 { "is" } else { "are" };
            format!("{current}; of all {replicas} pods, those of a former spec too, {ready} {are} ready")
        }
    }
}
