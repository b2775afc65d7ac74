//! Failures whose reason alternates, as when a database is now away and now too slow: each change would be a write and an
//! Event, without end. Pure.
//!
//! A reason that is new in a failure is written at once, and so are the beginning and the end of the failure. One that
//! was written before in the same failure is written again only once it has stayed for a while.

use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{
    crd::{ConditionType, find_condition},
    sweeper::status::{is_failure, is_written},
};

/// For how long a reason must have stayed that was written before.
const STAYED: Duration = Duration::from_secs(60);

/// The conditions that are about the health of a database.
const HEALTH: [ConditionType; 2] = [ConditionType::DatabaseReady, ConditionType::Sweeping];

/// What is remembered of the reasons of each of these conditions.
#[derive(Debug, Default)]
pub(super) struct Alternation([Reasons; HEALTH.len()]);

#[derive(Debug, Default)]
struct Reasons {
    /// Those that were written in this failure, and replaced.
    former: Vec<String>,
    /// The one of them that has come back, and since when it stays.
    back: Option<(String, Instant)>,
}

impl Alternation {
    /// The conditions to write out of `new`, with those of `old` in place of what does not stay; none if that leaves nothing to
    /// write. To be asked each time, also where there are no new ones.
    pub(super) fn settled(
        &mut self,
        new: Option<Vec<Condition>>,
        old: &[Condition],
        now: Instant,
    ) -> Option<Vec<Condition>> {
        let Some(mut new) = new else {
            self.0.iter_mut().for_each(|reasons| reasons.back = None);
            return None;
        };
        let mut is_held = false;
        for (reasons, kind) in self.0.iter_mut().zip(HEALTH) {
            let before = find_condition(old, kind);
            let condition = new.iter_mut().find(|condition| condition.type_ == kind.as_str());
            match (condition, before) {
                (Some(condition), Some(before)) => {
                    if !reasons.may_follow(before, condition, now) {
                        before.clone_into(condition);
                        is_held = true;
                    }
                }
                _ => *reasons = Reasons::default(),
            }
        }
        let is_there = |all: &[Condition], kind| find_condition(all, kind).is_some();
        let is_same = HEALTH.iter().all(|kind| is_there(&new, *kind) == is_there(old, *kind))
            && new.iter().all(|condition| is_written(condition, old));
        (!is_held || !is_same).then_some(new)
    }
}

impl Reasons {
    /// Whether `after` may be written in place of `before`.
    fn may_follow(&mut self, before: &Condition, after: &Condition, now: Instant) -> bool {
        let is_same_failure = is_failure(before)
            && is_failure(after)
            && before.observed_generation == after.observed_generation;
        if !is_same_failure {
            *self = Self::default();
            return true;
        }
        if before.reason == after.reason {
            self.back = None;
            return true;
        }
        if self.former.contains(&after.reason) {
            let since = match self.back.take() {
                Some((reason, since)) if reason == after.reason => since,
                _ => now,
            };
            if now.saturating_duration_since(since) < STAYED {
                self.back = Some((after.reason.clone(), since));
                return false;
            }
        }
        self.back = None;
        if !self.former.contains(&before.reason) {
            self.former.push(before.reason.clone());
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Both conditions with this reason, which is `AsExpected` where all is well.
    fn conditions(reason: &str, generation: i64) -> Vec<Condition> {
        let status = if reason == "AsExpected" { "True" } else { "False" };
        let condition = |kind: ConditionType| -> Condition {
            serde_json::from_value(json!({
                "type": kind.as_str(), "status": status, "reason": reason, "message": reason,
                "observedGeneration": generation, "lastTransitionTime": "2026-01-01T00:00:00Z",
            }))
            .unwrap()
        };
        HEALTH.map(condition).into()
    }

    /// A resource that is reported to once a second.
    struct Resource {
        alternation: Alternation,
        written: Vec<Condition>,
        now: Instant,
        writes: u32,
    }

    impl Resource {
        fn new() -> Self {
            let (alternation, written) = (Alternation::default(), conditions("AsExpected", 1));
            Self { alternation, written, now: Instant::now(), writes: 0 }
        }

        /// The reason that the resource has after the next round.
        fn report(&mut self, reason: &str, generation: i64) -> &str {
            self.now += Duration::from_secs(1);
            let new = conditions(reason, generation);
            let new = (new != self.written).then_some(new);
            if let Some(settled) = self.alternation.settled(new, &self.written, self.now) {
                self.writes += 1;
                self.written = settled;
            }
            &self.written[0].reason
        }
    }

    #[test]
    fn a_reason_that_alternates_is_written_once_and_again_when_it_stays() {
        let mut resource = Resource::new();
        assert_eq!(resource.report("DatabaseUnreachable", 1), "DatabaseUnreachable");
        assert_eq!(resource.report("DatabaseTooSlow", 1), "DatabaseTooSlow", "a new one is told at once");
        for _ in 0..600 {
            assert_eq!(resource.report("DatabaseUnreachable", 1), "DatabaseTooSlow");
            assert_eq!(resource.report("DatabaseTooSlow", 1), "DatabaseTooSlow");
        }
        assert_eq!(resource.writes, 2);
        let stays = (0..=STAYED.as_secs()).map(|_| resource.report("DatabaseUnreachable", 1).to_owned());
        let stays: Vec<_> = stays.collect();
        assert!(stays[..60].iter().all(|reason| reason == "DatabaseTooSlow"), "{stays:?}");
        assert_eq!(stays[60], "DatabaseUnreachable");
        assert_eq!(resource.report("AuthenticationFailed", 1), "AuthenticationFailed");
    }

    #[test]
    fn the_beginning_and_the_end_of_a_failure_are_written_at_once_each_time() {
        let mut resource = Resource::new();
        for _ in 0..3 {
            for reason in ["DatabaseUnreachable", "AsExpected", "Suspended", "DatabaseTooSlow", "Suspended"] {
                assert_eq!(resource.report(reason, 1), reason);
            }
        }
    }

    #[test]
    fn what_comes_of_another_spec_is_written_at_once() {
        let mut resource = Resource::new();
        for generation in 1..4 {
            for reason in ["DatabaseUnreachable", "InvalidDatabaseUri"] {
                assert_eq!(resource.report(reason, generation), reason);
            }
        }
    }

    #[test]
    fn what_else_has_changed_is_written_without_the_reason_that_does_not_stay() {
        let mut alternation = Alternation::default();
        let now = Instant::now();
        let [first, second] = ["DatabaseUnreachable", "DatabaseTooSlow"].map(|reason| conditions(reason, 1));
        alternation.settled(Some(second.clone()), &first, now);
        // It comes back, and the sweep goes on nevertheless.
        let mut new = first.clone();
        new[1] = conditions("AsExpected", 1).remove(1);
        let written = alternation.settled(Some(new), &second, now).unwrap();
        let reasons: Vec<_> = written.iter().map(|condition| condition.reason.as_str()).collect();
        assert_eq!(reasons, ["DatabaseTooSlow", "AsExpected"]);
    }
}
