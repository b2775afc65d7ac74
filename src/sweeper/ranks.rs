//! Which sweeper comes first to which target: pure functions over who is alive.
//!
//! By rendezvous hashing, so all that see the same sweepers agree without a word between them, and a
//! sweeper that comes or goes moves only the targets that it gets or had. That two disagree for a while
//! does no harm: every write is conditional.

use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

/// By how much later each rank comes than the one before it; also how often a healthy standby looks.
pub const HEDGE: Duration = Duration::from_secs(2);

/// How often this sweeper must have been seen alive, without a sign of life of the other, before that one
/// counts as dead: were only time to count, an API server that is away would kill everyone.
const MISSED: u32 = 3;

/// The sweepers that are alive, as one of them sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    me: String,
    /// The others.
    others: Vec<String>,
}

impl Members {
    /// This sweeper, and the others in any order.
    pub fn new(me: String, mut others: Vec<String>) -> Self {
        others.retain(|other| *other != me);
        others.sort_unstable();
        others.dedup();
        Self { me, others }
    }

    /// A sweeper without any others.
    pub fn alone() -> Self {
        Self::new("alone".into(), Vec::new())
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        1 + self.others.len()
    }

    /// How many come to `key` before this one: none if it is its owner.
    pub fn rank(&self, key: &str) -> u32 {
        let mine = (score(&self.me, key), &self.me);
        let before = self.others.iter().filter(|other| (score(other, key), *other) > mine);
        u32::try_from(before.count()).unwrap_or(u32::MAX)
    }
}

fn score(member: &str, key: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(member);
    // Neither has it, so no two pairs are the same text.
    hash.update([0]);
    hash.update(key);
    hash.finalize().into()
}

/// How late this sweeper comes to a target, and how long it sleeps at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// It takes only what is overdue by this.
    pub delay: Duration,
    /// The longest sleep between two looks.
    pub cap: Duration,
}

/// When the sweeper of this rank comes to a target, and how long it sleeps; its owner for `cap` at most.
pub fn turn(rank: u32, cap: Duration) -> Turn {
    Turn { delay: HEDGE.saturating_mul(rank), cap: if rank == 0 { cap } else { HEDGE } }
}

/// The life of another sweeper: what was last seen of its Lease.
#[derive(Clone, Debug)]
pub struct Life {
    /// What changes whenever it is renewed.
    version: String,
    since: Instant,
    /// How often this sweeper renewed its own since then.
    own: u32,
    /// How long it lasts, by its own word.
    lasts: Duration,
    /// Whether it was over when it was first seen.
    was_over: bool,
}

impl Life {
    /// Seen at `now`, for the first time; `was_over` if it said by the clocks that it was over already. These need
    /// not agree: one that lives is believed to be dead until it renews its Lease, and meanwhile both sweep.
    pub fn new(version: String, lasts: Duration, was_over: bool, now: Instant) -> Self {
        Self { version, since: now, own: 0, lasts, was_over }
    }

    /// Seen again at `now`.
    pub fn seen(&mut self, version: String, lasts: Duration, now: Instant) {
        if self.version != version {
            *self = Self::new(version, lasts, false, now);
        }
    }

    /// This sweeper has renewed its own.
    pub fn renewed_own(&mut self) {
        self.own = self.own.saturating_add(1);
    }

    /// Whether it is alive at `now`.
    pub fn is_alive(&self, now: Instant) -> bool {
        !self.was_over && (self.own < MISSED || self.silent(now) <= self.lasts)
    }

    /// What was last seen.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// For how long nothing has been seen of it.
    pub fn silent(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names() -> impl Strategy<Value = Vec<String>> {
        proptest::collection::btree_set("[a-z]{1,6}", 1..6).prop_map(|names| names.into_iter().collect())
    }

    fn rank(me: &str, all: &[String], key: &str) -> u32 {
        Members::new(me.to_owned(), all.to_vec()).rank(key)
    }

    proptest! {
        #[test]
        fn all_agree_on_one_order_whatever_order_they_know_each_other_in(mut all in names(), key in ".{0,12}") {
            let mut ranks: Vec<_> = all.iter().map(|me| rank(me, &all, &key)).collect();
            let before = ranks.clone();
            ranks.sort_unstable();
            prop_assert_eq!(ranks, (0..all.len() as u32).collect::<Vec<_>>());
            let first = all[0].clone();
            all.reverse();
            prop_assert_eq!(rank(&first, &all, &key), before[0]);
        }

        #[test]
        fn one_that_goes_moves_nobody_down_and_nobody_before_it(all in names(), key in ".{0,12}", gone in 0usize..6) {
            let gone = all[gone % all.len()].clone();
            let left: Vec<_> = all.iter().filter(|name| **name != gone).cloned().collect();
            let place = rank(&gone, &all, &key);
            for name in &left {
                let (before, after) = (rank(name, &all, &key), rank(name, &left, &key));
                prop_assert_eq!(after, before - u32::from(before > place));
            }
        }
    }

    #[test]
    fn targets_are_divided_about_evenly() {
        let all: Vec<_> = (0..4).map(|number| format!("sweeper-{number}")).collect();
        for me in &all {
            let owned = (0..4000).filter(|key| rank(me, &all, &format!("mongo/{key}")) == 0).count();
            assert!((850..1150).contains(&owned), "{me} owns {owned} of 4000");
        }
    }

    #[test]
    fn each_rank_comes_two_seconds_after_the_one_before() {
        let cap = Duration::from_secs(1);
        assert_eq!(turn(0, cap), Turn { delay: Duration::ZERO, cap });
        assert_eq!(turn(2, cap), Turn { delay: Duration::from_secs(4), cap: HEDGE });
        assert_eq!(Members::alone().rank("any"), 0);
    }

    #[test]
    fn one_is_dead_when_it_was_silent_while_this_one_was_not() {
        let (begin, lasts) = (Instant::now(), Duration::from_secs(10));
        let late = begin + Duration::from_secs(11);
        let mut life = Life::new("1".into(), lasts, false, begin);
        assert!(life.is_alive(late), "the API server may have been away for both");
        for _ in 0..3 {
            life.renewed_own();
        }
        assert!(life.is_alive(begin + lasts) && !life.is_alive(late));
        life.seen("1".into(), lasts, late);
        assert!(!life.is_alive(late));
        life.seen("2".into(), lasts, late);
        assert!(life.is_alive(late + Duration::from_secs(11)));
        assert_eq!(life.silent(late + Duration::from_secs(1)), Duration::from_secs(1));
    }

    #[test]
    fn one_that_was_dead_when_this_one_came_counts_only_once_it_shows_a_sign_of_life() {
        let (now, lasts) = (Instant::now(), Duration::from_secs(10));
        let mut life = Life::new("1".into(), lasts, true, now);
        assert!(!life.is_alive(now));
        life.seen("1".into(), lasts, now);
        assert!(!life.is_alive(now));
        life.seen("2".into(), lasts, now);
        assert!(life.is_alive(now + lasts));
    }
}
