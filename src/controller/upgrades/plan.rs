//! Whose turn it is, and when nobody's.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use tokio::time::Instant;

use super::{Limits, standing::Standing};
use crate::controller::{metrics::UpgradeCounts, object_key::ObjectKey};

/// For how long a note counts that the watch does not show, and one that could not be written is not tried again. It must
/// end: such a resource would keep its place, or be the next one, for ever. The same goes for the end of a move.
const TRIED_FOR: Duration = Duration::from_secs(60);

/// What became of an attempt to note in a status that a move begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// It is noted; the watch may not show it yet.
    Noted,
    /// It cannot be noted.
    Refused,
}

/// What became of the attempts of the last minute.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    begun: HashMap<ObjectKey, (Attempt, Instant)>,
    ended: HashMap<ObjectKey, Instant>,
}

impl Attempts {
    /// Records what became of an attempt to note that a move begins.
    pub(super) fn record(&mut self, key: ObjectKey, attempt: Attempt, now: Instant) {
        self.ended.remove(&key);
        self.begun.insert(key, (attempt, now));
    }

    /// Records an attempt to note that a move is over, whatever became of it.
    pub(super) fn record_end(&mut self, key: ObjectKey, now: Instant) {
        self.ended.insert(key, now);
    }

    fn of(&self, key: &ObjectKey) -> Option<Attempt> {
        self.begun.get(key).map(|(attempt, _)| *attempt)
    }

    fn expire(&mut self, now: Instant) {
        let is_recent = |since: &Instant| now.duration_since(*since) < TRIED_FOR;
        self.begun.retain(|_, (_, since)| is_recent(since));
        self.ended.retain(|_, since| is_recent(since));
    }
}

/// What to do next.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Those whose move begins now.
    pub(super) begin: Vec<ObjectKey>,
    /// Those whose move is over.
    pub(super) end: Vec<ObjectKey>,
    /// Those against whose image something speaks.
    pub(super) failed: BTreeSet<ObjectKey>,
    /// Whether to look again soon.
    pub(super) is_busy: bool,
    /// How many stand where.
    pub(super) counts: UpgradeCounts,
}

/// What to do next about resources that stand so; each with whether its status has the note of a move.
pub(super) fn plan(
    standings: &[(ObjectKey, Standing, bool)],
    attempts: &mut Attempts,
    limits: Limits,
    now: Instant,
) -> Plan {
    attempts.expire(now);
    let mut plan = Plan::default();
    let (mut taken, mut candidates) = (0, Vec::new());
    let counts = &mut plan.counts;
    for (key, standing, is_noted) in standings {
        match standing {
            Standing::Aside => {}
            Standing::Blocked => counts.blocked += 1,
            Standing::Waiting { serves, hurries } => match attempts.of(key) {
                None => {
                    counts.waiting += 1;
                    candidates.push((!hurries, !serves, key));
                }
                Some(Attempt::Noted) => {
                    counts.moving += 1;
                    taken += 1;
                }
                Some(Attempt::Refused) => counts.blocked += 1,
            },
            Standing::Moving => {
                counts.moving += 1;
                taken += 1;
            }
            Standing::Settling => {
                counts.there += 1;
                taken += 1;
            }
            Standing::Current => counts.there += 1,
            // It takes no place: how many of these there may be is another limit.
            Standing::Failed => {
                plan.failed.insert(key.clone());
            }
        }
        let is_over = matches!(standing, Standing::Aside | Standing::Blocked | Standing::Current);
        if *is_noted && is_over && !attempts.ended.contains_key(key) {
            plan.end.push(key.clone());
        }
    }
    counts.failed = plan.failed.len();
    let is_stopped = counts.failed >= limits.failures.max(1);
    let mut free = if is_stopped { 0 } else { limits.concurrent.saturating_sub(taken) };
    candidates.sort();
    for (waits_for_its_turn, _, key) in candidates {
        if waits_for_its_turn && free == 0 {
            break;
        }
        free = free.saturating_sub(1);
        plan.begin.push(key.clone());
    }
    counts.is_stopped = is_stopped && counts.waiting > plan.begin.len();
    plan.is_busy = taken + counts.waiting + counts.failed + plan.end.len() > 0;
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { concurrent: 2, pause: Duration::from_secs(10), failures: 1 };

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("shop", name)
    }

    fn waits(serves: bool) -> Standing {
        Standing::Waiting { serves, hurries: false }
    }

    /// The standings of some resources, which a test changes.
    struct Fleet {
        standings: Vec<(ObjectKey, Standing, bool)>,
        attempts: Attempts,
        limits: Limits,
        now: Instant,
    }

    impl Fleet {
        fn of(names: &[(&str, bool)]) -> Self {
            let standing = |(name, serves): &(&str, bool)| (key(name), waits(*serves), false);
            let standings = names.iter().map(standing).collect();
            Self { standings, attempts: Attempts::default(), limits: LIMITS, now: Instant::now() }
        }

        fn serving(names: &[&'static str]) -> Self {
            Self::of(&names.iter().map(|name| (*name, true)).collect::<Vec<_>>())
        }

        fn stands(&mut self, name: &str, now: Standing) {
            let stand = self.standings.iter_mut().find(|(other, ..)| *other == key(name)).unwrap();
            (stand.1, stand.2) = (now, !matches!(now, Standing::Waiting { .. }));
        }

        fn next(&mut self) -> Plan {
            plan(&self.standings, &mut self.attempts, self.limits, self.now)
        }

        /// Who begins now.
        fn begin(&mut self) -> Vec<String> {
            self.next().begin.iter().map(|key| key.name().to_owned()).collect()
        }

        fn attempt(&mut self, names: &[&str], attempt: Attempt) {
            for name in names {
                self.attempts.record(key(name), attempt, self.now);
            }
        }
    }

    #[test]
    fn a_few_move_at_a_time_those_that_serve_first_and_each_settles_before_the_next() {
        let mut fleet = Fleet::of(&[("a", false), ("b", true), ("c", true), ("d", true)]);
        assert_eq!(fleet.begin(), ["b", "c"]);
        fleet.attempt(&["b", "c"], Attempt::Noted);
        assert_eq!(fleet.begin(), [""; 0], "their statuses do not show it yet");
        fleet.stands("b", Standing::Moving);
        fleet.stands("c", Standing::Settling);
        let next = fleet.next();
        assert_eq!((next.counts.there, next.counts.moving, next.counts.waiting), (1, 1, 2));
        assert!(next.begin.is_empty() && next.end.is_empty() && next.is_busy);
        fleet.stands("c", Standing::Current);
        let next = fleet.next();
        assert_eq!((next.begin, next.end), (vec![key("d")], vec![key("c")]));
        // It served, and does not any more.
        fleet.stands("d", Standing::Settling);
        fleet.stands("b", Standing::Settling);
        assert_eq!(fleet.begin(), [""; 0]);
        fleet.stands("b", Standing::Moving);
        assert_eq!(fleet.begin(), [""; 0]);
        fleet.stands("b", Standing::Current);
        assert_eq!(fleet.begin(), ["a"]);
    }

    #[test]
    fn one_that_fails_stops_the_others_until_it_serves_or_goes_its_own_way_but_not_one_that_hurries() {
        for way_out in [Standing::Current, Standing::Aside, Standing::Blocked] {
            let mut fleet = Fleet::serving(&["a", "b", "c", "d"]);
            fleet.stands("a", Standing::Failed);
            fleet.stands("b", Standing::Current);
            let next = fleet.next();
            assert!(next.counts.is_stopped && next.begin.is_empty() && next.is_busy, "{next:?}");
            assert_eq!((next.failed, next.end), (BTreeSet::from([key("a")]), vec![key("b")]));
            fleet.stands("d", Standing::Waiting { serves: false, hurries: true });
            assert_eq!(fleet.begin(), ["d"]);
            fleet.stands("a", way_out);
            assert_eq!(fleet.begin(), ["d", "c"]);
        }
        // Nobody is kept from anything.
        let mut alone = Fleet::serving(&["a"]);
        alone.stands("a", Standing::Failed);
        assert!(!alone.next().counts.is_stopped);
    }

    #[test]
    fn those_that_failed_take_no_place() {
        let mut fleet = Fleet::serving(&["a", "b", "c"]);
        fleet.limits = Limits { concurrent: 1, failures: 2, ..LIMITS };
        assert_eq!(fleet.begin(), ["a"]);
        fleet.stands("a", Standing::Failed);
        assert_eq!(fleet.begin(), ["b"]);
        fleet.stands("b", Standing::Failed);
        let next = fleet.next();
        assert!(next.begin.is_empty() && next.counts.is_stopped);
    }

    #[test]
    fn one_that_cannot_be_noted_makes_way_for_the_others_and_is_tried_again() {
        let mut fleet = Fleet::serving(&["a", "b", "c", "d"]);
        fleet.attempt(&["a"], Attempt::Refused);
        let next = fleet.next();
        assert_eq!((next.begin, next.counts.blocked), (vec![key("b"), key("c")], 1));
        // What no watch ever shows takes no place for ever either.
        fleet.attempt(&["b", "c"], Attempt::Noted);
        fleet.now += TRIED_FOR - Duration::from_secs(1);
        assert_eq!(fleet.begin(), [""; 0]);
        fleet.now += Duration::from_secs(1);
        assert_eq!(fleet.begin(), ["a", "b"]);
    }

    #[test]
    fn that_a_move_is_over_is_noted_once_a_minute_until_the_status_shows_it() {
        let mut fleet = Fleet::serving(&["a"]);
        fleet.stands("a", Standing::Current);
        assert_eq!(fleet.next().end, [key("a")]);
        fleet.attempts.record_end(key("a"), fleet.now);
        fleet.now += TRIED_FOR - Duration::from_secs(1);
        let next = fleet.next();
        assert!(next.end.is_empty() && !next.is_busy, "nobody waits for it");
        fleet.now += Duration::from_secs(1);
        assert_eq!(fleet.next().end, [key("a")]);
        // Another move has begun, and is over.
        fleet.attempts.record_end(key("a"), fleet.now);
        fleet.attempt(&["a"], Attempt::Noted);
        assert_eq!(fleet.next().end, [key("a")]);
    }

    #[test]
    fn where_nothing_waits_and_nothing_is_on_its_way_there_is_nothing_to_do() {
        let mut fleet = Fleet::serving(&["a", "b", "c"]);
        for (name, standing) in [("a", Standing::Current), ("b", Standing::Blocked), ("c", Standing::Aside)] {
            fleet.stands(name, standing);
        }
        fleet.standings.iter_mut().for_each(|(_, _, is_noted)| *is_noted = false);
        let next = fleet.next();
        assert!(!next.is_busy && next.begin.is_empty() && next.end.is_empty());
        assert_eq!((next.counts.there, next.counts.blocked), (1, 1));
    }
}
