//! The condition `Available`.

use crate::{
    controller::{children::rollout::Rollout, problem::Problem},
    crd::Reason,
};

/// Whether enough pods are available, why, and a message.
///
/// A rollout that a problem holds up is not available even though the old pods still serve, since what the spec asks for
/// does not run. After the rollout, a single pod that fails changes nothing as long as enough others are available.
pub(super) fn availability(rollout: &Rollout, pod_problem: Option<&Problem>) -> (bool, Reason, String) {
    let ready = format!("{} of {} pods are ready", rollout.ready, rollout.desired);
    let works = rollout.is_available && rollout.stalled.is_none();
    match (pod_problem, &rollout.stalled) {
        (Some(problem), _) if works && rollout.is_all_updated() => {
            (true, Reason::AsExpected, format!("{ready}; {}", problem.message))
        }
        // A pod that is still waiting has not failed.
        (Some(problem), _) if works && problem.reason == Reason::MinimumReplicasUnavailable => {
            (true, Reason::AsExpected, format!("{ready}; {}", problem.message))
        }
        (Some(problem), None) => (false, problem.reason, format!("{}; {ready}", problem.message)),
        (Some(problem), Some(why)) => {
            let reason = match problem.reason {
                Reason::MinimumReplicasUnavailable => Reason::ProgressDeadlineExceeded,
                reason => reason,
            };
            (false, reason, format!("{}; {why}; {ready}", problem.message))
        }
        (None, Some(why)) => (
            false,
            Reason::ProgressDeadlineExceeded,
            format!("{why}; {ready}: look at the pods' events and logs"),
        ),
        (None, None) if works => (true, Reason::AsExpected, ready),
        (None, None) => (false, Reason::MinimumReplicasUnavailable, ready),
    }
}
