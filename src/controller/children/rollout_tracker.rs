//! Since when a Deployment has been incomplete, and when to look at its pods.
//!
//! Most rollouts take some seconds, and nothing is wrong. Only when one takes longer are its pods listed: soon at
//! first, since someone is waiting, and less and less often after that.

use std::time::{Duration, Instant};

use super::{inspected::Inspected, rollout::Rollout};

/// How long the Deployment controller may take to observe a change. Until then the Deployment's status is about the
/// previous generation, and ours would be wrong for a moment, so none is written.
const OBSERVE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long pods may take to start before they are looked at.
const START_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest time between two looks at the pods.
const MAX_INTERVAL: Duration = Duration::from_secs(120);

/// The rollout of one Deployment; most are complete, and then nothing is kept.
#[derive(Debug, Default)]
pub struct RolloutTracker(Option<Box<Incomplete>>);

#[derive(Debug)]
struct Incomplete {
    /// Of the Deployment: another generation is another rollout.
    generation: i64,
    since: Instant,
    /// When the pods were looked at last, and what that has found.
    inspected: Option<(Instant, Inspected)>,
}

/// What to do about a Deployment.
#[derive(Debug, PartialEq, Eq)]
pub enum RolloutStep {
    /// Nothing: the rollout is complete.
    Complete,
    /// Wait for the Deployment controller to observe the change, for this long at most, and write no status until then.
    AwaitObserved(Duration),
    /// Report what the last look at the pods found, and look again after this time.
    Wait(Inspected, Duration),
    /// Look at the pods.
    InspectPods,
}

impl RolloutTracker {
    /// What to do at `now` about the Deployment that is as far as `rollout`, if its pods have been `unavailable` for so long
    /// by the status that is there.
    ///
    /// A controller that has just started looks at the pods of such a rollout at once, and goes on as with one that has just
    /// begun. Otherwise it would report for some seconds that the rollout is in progress, and what stops an upgrade would not
    /// stop it as long.
    pub fn next(&mut self, rollout: &Rollout, unavailable: Duration, now: Instant) -> RolloutStep {
        if rollout.is_complete() {
            self.0 = None;
            return RolloutStep::Complete;
        }
        let generation = rollout.generation;
        let start = |since| Box::new(Incomplete { generation, since, inspected: None });
        // What is not observed is not what the status is about.
        let before = if rollout.is_observed { unavailable.min(START_TIMEOUT) } else { Duration::ZERO };
        let incomplete = self.0.get_or_insert_with(|| start(now.checked_sub(before).unwrap_or(now)));
        if incomplete.generation != generation {
            *incomplete = start(now);
        }
        let elapsed = now.saturating_duration_since(incomplete.since);
        if !rollout.is_observed && elapsed < OBSERVE_TIMEOUT {
            return RolloutStep::AwaitObserved(OBSERVE_TIMEOUT - elapsed);
        }
        if rollout.desired == 0 {
            // No pod should run, so none can fail to. The start is kept, since the time to observe has been waited for.
            return RolloutStep::Complete;
        }
        let (due, last_found) = match &incomplete.inspected {
            None => (START_TIMEOUT, Inspected::default()),
            Some((inspected, found)) => {
                let before = inspected.saturating_duration_since(incomplete.since);
                (before + (before / 4).clamp(START_TIMEOUT, MAX_INTERVAL), found.clone())
            }
        };
        if elapsed < due { RolloutStep::Wait(last_found, due - elapsed) } else { RolloutStep::InspectPods }
    }

    /// Records what a look at the pods at `now` found.
    pub fn inspected(&mut self, found: Inspected, now: Instant) {
        if let Some(incomplete) = &mut self.0 {
            incomplete.inspected = Some((now, found));
        }
    }

    /// What the last look at the pods found.
    pub fn last_found(&self) -> Option<&Inspected> {
        self.0.as_ref()?.inspected.as_ref().map(|(_, found)| found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{controller::problem::Problem, crd::Reason};

    /// Of pods that served until now.
    fn next(tracker: &mut RolloutTracker, rollout: &Rollout, now: Instant) -> RolloutStep {
        tracker.next(rollout, Duration::ZERO, now)
    }

    #[test]
    fn pods_are_looked_at_when_they_take_long_and_then_less_and_less_often() {
        let mut tracker = RolloutTracker::default();
        let start = Instant::now();
        let waits = Rollout { generation: 1, is_observed: true, desired: 2, ..Rollout::default() };
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(next(&mut tracker, &waits, start), RolloutStep::Wait(Inspected::default(), START_TIMEOUT));
        assert_eq!(
            next(&mut tracker, &waits, at(4)),
            RolloutStep::Wait(Inspected::default(), Duration::from_secs(1))
        );
        assert_eq!(next(&mut tracker, &waits, at(5)), RolloutStep::InspectPods);
        let problem = Some(Problem::new(Reason::ImagePullFailed, "no such image"));
        let found = Inspected { problem, ..Inspected::default() };
        tracker.inspected(found.clone(), at(5));
        assert_eq!(next(&mut tracker, &waits, at(6)), RolloutStep::Wait(found.clone(), at(10) - at(6)));
        assert_eq!(tracker.last_found(), Some(&found));
        assert_eq!(next(&mut tracker, &waits, at(10)), RolloutStep::InspectPods);
        tracker.inspected(found, at(100));
        assert!(
            matches!(next(&mut tracker, &waits, at(100)), RolloutStep::Wait(_, again) if again.as_secs() == 25)
        );
        tracker.inspected(Inspected::default(), at(10_000));
        assert_eq!(
            next(&mut tracker, &waits, at(10_000)),
            RolloutStep::Wait(Inspected::default(), MAX_INTERVAL)
        );

        let changed = Rollout { generation: 2, ..waits.clone() };
        assert_eq!(
            next(&mut tracker, &changed, at(10_000)),
            RolloutStep::Wait(Inspected::default(), START_TIMEOUT),
            "new pods"
        );
        let complete = Rollout { replicas: 2, ready: 2, updated: 2, is_available: true, ..changed.clone() };
        assert_eq!(next(&mut tracker, &complete, at(10_001)), RolloutStep::Complete);
        assert!(tracker.0.is_none());
        assert_eq!(
            next(&mut tracker, &changed, at(10_002)),
            RolloutStep::Wait(Inspected::default(), START_TIMEOUT),
            "a pod was lost again"
        );
    }

    #[test]
    fn a_controller_that_has_just_started_looks_at_once_at_pods_that_have_not_served_for_long() {
        let start = Instant::now();
        let minute = Duration::from_secs(60);
        let waits = Rollout { generation: 1, is_observed: true, desired: 2, ..Rollout::default() };
        let mut tracker = RolloutTracker::default();
        assert_eq!(tracker.next(&waits, minute, start), RolloutStep::InspectPods);
        tracker.inspected(Inspected::default(), start);
        let wait = RolloutStep::Wait(Inspected::default(), START_TIMEOUT);
        assert_eq!(tracker.next(&waits, minute, start), wait, "soon again");
        let changed = Rollout { generation: 2, ..waits.clone() };
        assert_eq!(tracker.next(&changed, minute, start), wait, "new pods");
        // What it has just applied is not observed yet, so it is not what the status is about.
        let applied = Rollout { is_observed: false, ..waits.clone() };
        let mut tracker = RolloutTracker::default();
        let wait = RolloutStep::AwaitObserved(OBSERVE_TIMEOUT);
        assert_eq!(tracker.next(&applied, minute, start), wait);
        let mut tracker = RolloutTracker::default();
        assert_eq!(tracker.next(&waits, Duration::MAX, start), RolloutStep::InspectPods);
    }

    #[test]
    fn a_status_of_the_former_generation_is_waited_out_for_two_seconds_at_most() {
        let mut tracker = RolloutTracker::default();
        let start = Instant::now();
        let before = Rollout { generation: 2, desired: 2, ..Rollout::default() };
        let second = start + Duration::from_secs(1);
        assert_eq!(next(&mut tracker, &before, start), RolloutStep::AwaitObserved(OBSERVE_TIMEOUT));
        let left = OBSERVE_TIMEOUT - Duration::from_secs(1);
        assert_eq!(next(&mut tracker, &before, second), RolloutStep::AwaitObserved(left));
        let wait = RolloutStep::Wait(Inspected::default(), START_TIMEOUT - OBSERVE_TIMEOUT);
        assert_eq!(next(&mut tracker, &before, start + OBSERVE_TIMEOUT), wait);
    }

    #[test]
    fn pods_that_should_not_run_are_not_looked_at() {
        let mut tracker = RolloutTracker::default();
        let start = Instant::now();
        let none = Rollout { replicas: 1, ..Rollout::default() };
        assert_eq!(next(&mut tracker, &none, start), RolloutStep::AwaitObserved(OBSERVE_TIMEOUT));
        for later in [OBSERVE_TIMEOUT, START_TIMEOUT, MAX_INTERVAL] {
            assert_eq!(next(&mut tracker, &none, start + later), RolloutStep::Complete);
        }
    }
}
