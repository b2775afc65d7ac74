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
        return format!("the rollout of the current spec has not begun; {of_all}");
    }
    let current = format!("{updated} of {desired} pods have the current spec");
    match pods.ready_of_current(rollout) {
        Some(ready_of_current) => {
            let of_them =
                if *updated > 0 { format!(", {ready_of_current} of them ready") } else { String::new() };
            let former = match ready - ready_of_current {
                0 => "no old pod is ready".to_owned(),
                1 => "1 old pod is ready".to_owned(),
                more => format!("{more} old pods are ready"),
            };
            format!("{current}{of_them}; {former}")
        }
        None => {
            let are = if *ready == 1 { "is" } else { "are" };
            format!("{current}; {ready} of all {replicas} pods, old ones included, {are} ready")
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::controller::{
        children::inspected::Pods, problem::Problem, reconcile::status::fixture::deployment,
    };

    #[test]
    fn an_outdated_status_of_the_deployment_does_not_count() {
        let old = deployment(
            json!({"observedGeneration": 1, "conditions": [{"type": "Available", "status": "True"}]}),
        );
        assert!(!availability(old.rollout(), &Inspected::default()).0);
    }

    #[test]
    fn pods_that_cannot_run_are_told_and_count_when_they_hold_up_what_was_asked_for() {
        let image = Problem::new(Reason::ImagePullFailed, "pod a cannot pull image x");
        let waits = Problem::new(Reason::MinimumReplicasUnavailable, "pod a has no node");
        let whole = Rollout {
            desired: 2,
            replicas: 2,
            ready: 2,
            updated: 2,
            is_available: true,
            is_observed: true,
            ..Rollout::default()
        };
        let scaling = Rollout { desired: 5, ..whole.clone() };
        let quota = Rollout { updated: 0, creation_failure: Some("exceeded quota".into()), ..whole.clone() };
        let one_fails = Rollout { ready: 1, ..whole.clone() };
        let rolling = Rollout { replicas: 3, updated: 1, ..whole.clone() };
        let none = Rollout { ready: 0, is_available: false, ..whole.clone() };
        let stuck = Rollout { stalled: Some("given up".into()), ..rolling.clone() };
        for (rollout, trouble, expected) in [
            (&whole, None, (true, Reason::AsExpected)),
            (&one_fails, Some(&image), (true, Reason::AsExpected)),
            (&scaling, None, (true, Reason::AsExpected)),
            (&rolling, None, (false, Reason::RolloutInProgress)),
            (&rolling, Some(&waits), (false, Reason::RolloutInProgress)),
            (&quota, None, (false, Reason::PodCreationFailed)),
            (&quota, Some(&image), (false, Reason::ImagePullFailed)),
            (&rolling, Some(&image), (false, Reason::ImagePullFailed)),
            (&none, None, (false, Reason::MinimumReplicasUnavailable)),
            (&none, Some(&waits), (false, Reason::MinimumReplicasUnavailable)),
            (&none, Some(&image), (false, Reason::ImagePullFailed)),
            (&stuck, None, (false, Reason::ProgressDeadlineExceeded)),
            (&stuck, Some(&waits), (false, Reason::ProgressDeadlineExceeded)),
            (&stuck, Some(&image), (false, Reason::ImagePullFailed)),
        ] {
            let (status, reason, message) =
                availability(rollout, &Inspected { problem: trouble.cloned(), ..Inspected::default() });
            assert_eq!((status, reason), expected, "{rollout:?} {trouble:?}");
            assert!(trouble.is_none_or(|trouble| message.contains(&trouble.message)), "{message}");
        }
        assert!(whole.is_complete() && ![one_fails, rolling, none, stuck].iter().any(Rollout::is_complete));
    }

    #[test]
    fn the_pods_of_the_current_spec_are_told_from_those_of_a_former_one() {
        let told = |replicas, updated, ready, of_current: Option<(i32, i32)>| {
            let (desired, is_observed, is_available) = (1, true, true);
            let rollout = Rollout {
                desired,
                replicas,
                updated,
                ready,
                is_observed,
                is_available,
                ..Rollout::default()
            };
            let pods = of_current.map(|(all, ready)| Pods { all, ready, of: rollout.counts() });
            availability(&rollout, &Inspected { problem: None, pods }).2
        };
        assert_eq!(told(1, 0, 1, None), "0 of 1 pods have the current spec; 1 old pod is ready");
        assert_eq!(
            told(2, 1, 1, Some((1, 0))),
            "1 of 1 pods have the current spec, 0 of them ready; 1 old pod is ready"
        );
        assert_eq!(
            told(2, 1, 1, Some((1, 1))),
            "1 of 1 pods have the current spec, 1 of them ready; no old pod is ready"
        );
        assert_eq!(
            told(4, 1, 3, Some((1, 0))),
            "1 of 1 pods have the current spec, 0 of them ready; 3 old pods are ready"
        );
        assert_eq!(
            told(2, 1, 1, None),
            "1 of 1 pods have the current spec; 1 of all 2 pods, old ones included, is ready"
        );
        assert_eq!(told(2, 2, 1, None), "1 of 1 pods are ready");
        let unseen = Rollout { desired: 1, replicas: 1, updated: 1, ready: 1, ..Rollout::default() };
        assert_eq!(
            availability(&unseen, &Inspected::default()).2,
            "the rollout of the current spec has not begun; 1 of 1 pods are ready"
        );
    }
}
