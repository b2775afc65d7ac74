//! Deployments that are not where they should be yet: since when, and what their pods said.
//!
//! Most are on their way for some seconds, and nothing is amiss. Only those that take longer have their
//! pods listed: soon at first, since someone is waiting, and ever more seldom.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{problem::Problem, rollout::Rollout};

/// How long the cluster's Deployment controller may take to see a change. Until then the Deployment's
/// status is about what was there before, and ours would be wrong for a moment: nothing is written.
const ANSWER: Duration = Duration::from_secs(2);

/// How long pods may take to start before they are looked at.
const START: Duration = Duration::from_secs(5);

/// The longest time between two looks.
const SELDOM: Duration = Duration::from_secs(120);

/// Deployments on their way, by UID of the OrdersService. Clones share one state.
#[derive(Clone, Default)]
pub struct Underway(Arc<Mutex<HashMap<String, Journey>>>);

struct Journey {
    /// Of the Deployment: another one is another journey.
    generation: i64,
    since: Instant,
    looked: Option<(Instant, Option<Problem>)>,
}

/// What to do about a Deployment.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing: it is where it should be.
    Arrived,
    /// Say nothing of it until there is an answer, for no longer than this.
    Answer(Duration),
    /// Say what is known, and look at its pods after this time.
    Wait(Option<Problem>, Duration),
    /// Look at its pods.
    Look,
}

impl Underway {
    /// What to do at `now` about the Deployment that has come as far as `rollout`.
    pub fn next(&self, owner: &str, rollout: &Rollout, now: Instant) -> Next {
        let mut underway = self.lock();
        if rollout.is_complete() {
            underway.remove(owner);
            return Next::Arrived;
        }
        let start = || Journey { generation: rollout.generation, since: now, looked: None };
        let journey = underway.entry(owner.to_owned()).or_insert_with(start);
        if journey.generation != rollout.generation {
            *journey = start();
        }
        let since = now.saturating_duration_since(journey.since);
        if !rollout.answered && since < ANSWER {
            return Next::Answer(ANSWER - since);
        }
        if rollout.wanted == 0 {
            // No pod is to run, so none can be kept from it. The journey is remembered: it has had its time.
            return Next::Arrived;
        }
        let (due, known) = match &journey.looked {
            None => (START, None),
            Some((looked, found)) => {
                let before = looked.saturating_duration_since(journey.since);
                (before + (before / 4).clamp(START, SELDOM), found.clone())
            }
        };
        if since < due { Next::Wait(known, due - since) } else { Next::Look }
    }

    /// Remembers what was found by a look at the pods at `now`.
    pub fn looked(&self, owner: &str, found: Option<Problem>, now: Instant) {
        if let Some(journey) = self.lock().get_mut(owner) {
            journey.looked = Some((now, found));
        }
    }

    /// What the last look found.
    pub fn known(&self, owner: &str) -> Option<Problem> {
        self.lock().get(owner)?.looked.as_ref()?.1.clone()
    }

    /// Forgets a resource that is gone.
    pub fn forget(&self, owner: &str) {
        self.lock().remove(owner);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Journey>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::Reason;

    #[test]
    fn pods_are_looked_at_when_they_take_long_and_then_ever_more_seldom() {
        let underway = Underway::default();
        let start = Instant::now();
        let waits = Rollout { generation: 1, answered: true, wanted: 2, ..Rollout::default() };
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(underway.next("u", &waits, start), Next::Wait(None, START));
        assert_eq!(underway.next("u", &waits, at(4)), Next::Wait(None, Duration::from_secs(1)));
        assert_eq!(underway.next("u", &waits, at(5)), Next::Look);
        let problem = Problem::new(Reason::ImagePullFailed, "no such image");
        underway.looked("u", Some(problem.clone()), at(5));
        assert_eq!(underway.next("u", &waits, at(6)), Next::Wait(Some(problem.clone()), at(10) - at(6)));
        assert_eq!(underway.known("u"), Some(problem.clone()));
        assert_eq!(underway.next("u", &waits, at(10)), Next::Look);
        underway.looked("u", Some(problem), at(100));
        assert!(matches!(underway.next("u", &waits, at(100)), Next::Wait(_, again) if again.as_secs() == 25));
        underway.looked("u", None, at(10_000));
        assert_eq!(underway.next("u", &waits, at(10_000)), Next::Wait(None, SELDOM));

        let changed = Rollout { generation: 2, ..waits.clone() };
        assert_eq!(underway.next("u", &changed, at(10_000)), Next::Wait(None, START), "new pods");
        let whole = Rollout { pods: 2, ready: 2, updated: 2, available: true, ..changed.clone() };
        assert_eq!(underway.next("u", &whole, at(10_001)), Next::Arrived);
        assert_eq!(underway.next("u", &changed, at(10_002)), Next::Wait(None, START), "and lost again");
        underway.forget("u");
        assert!(underway.lock().is_empty());
    }

    #[test]
    fn a_status_of_before_the_change_is_not_passed_on_unless_none_other_comes() {
        let underway = Underway::default();
        let start = Instant::now();
        let before = Rollout { generation: 2, wanted: 2, ..Rollout::default() };
        let second = start + Duration::from_secs(1);
        assert_eq!(underway.next("u", &before, start), Next::Answer(ANSWER));
        assert_eq!(underway.next("u", &before, second), Next::Answer(ANSWER - Duration::from_secs(1)));
        assert_eq!(underway.next("u", &before, start + ANSWER), Next::Wait(None, START - ANSWER));
    }

    #[test]
    fn pods_that_are_not_wanted_are_not_looked_at() {
        let underway = Underway::default();
        let start = Instant::now();
        let none = Rollout { pods: 1, ..Rollout::default() };
        assert_eq!(underway.next("u", &none, start), Next::Answer(ANSWER));
        for later in [ANSWER, START, SELDOM] {
            assert_eq!(underway.next("u", &none, start + later), Next::Arrived);
        }
    }
}
