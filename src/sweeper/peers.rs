//! Which sweeper comes first to which target: pure functions over the sweepers that are alive.
//!
//! The order is by rendezvous hashing, so sweepers that see the same peers agree on it without talking to each other,
//! and one that starts or ends moves only its own targets. That two of them disagree for a while does no harm: every
//! write is conditional.

use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

/// How much later each rank comes than the one before it; also how often a standby queries.
pub const RANK_DELAY: Duration = Duration::from_secs(2);

/// The rank from which on all come at once, the third. Dead sweepers count until their entries expire, and where many died within
/// that time, the next one that lives has a high rank: what is due shall not wait for it any longer than for the third.
const LAST_DELAYED_RANK: u32 = 2;

/// How many of its own renewals a sweeper must have made without seeing one of a peer, before it takes the peer for
/// dead. If only time counted, an outage of the API server would make every peer look dead.
const MISSED_RENEWALS: u32 = 3;

/// The sweepers that are alive, as one of them sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peers {
    me: String,
    others: Vec<String>,
}

impl Peers {
    /// This sweeper, and the others in any order.
    pub fn new(me: String, mut others: Vec<String>) -> Self {
        others.retain(|other| *other != me);
        others.sort_unstable();
        others.dedup();
        Self { me, others }
    }

    /// A sweeper without peers.
    pub fn alone() -> Self {
        Self::new("alone".into(), Vec::new())
    }

    /// How many sweepers there are, this one included.
    pub fn count(&self) -> usize {
        1 + self.others.len()
    }

    /// The rank of this sweeper for `key`: how many others come before it. The owner has rank 0.
    pub fn rank(&self, key: &str) -> u32 {
        let mine = (score(&self.me, key), &self.me);
        let before = self.others.iter().filter(|other| (score(other, key), *other) > mine);
        u32::try_from(before.count()).unwrap_or(u32::MAX)
    }
}

fn score(sweeper: &str, key: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(sweeper);
    // A separator that neither contains, so that no two pairs hash the same text.
    hash.update([0]);
    hash.update(key);
    hash.finalize().into()
}

/// When a sweeper cancels what is due in a target, which depends on its rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// It cancels only orders that are overdue by this.
    pub delay: Duration,
    /// The longest sleep between two queries.
    pub max_sleep: Duration,
}

impl Schedule {
    /// The schedule of `rank`, where the owner's longest sleep is `max_sleep`.
    pub fn of_rank(rank: u32, max_sleep: Duration) -> Self {
        let max_sleep = if rank == 0 { max_sleep } else { RANK_DELAY };
        Self { delay: RANK_DELAY * rank.min(LAST_DELAYED_RANK), max_sleep }
    }
}

/// The lease of another sweeper, as last observed.
#[derive(Clone, Debug)]
pub struct PeerLease {
    /// Its text, which every renewal changes.
    record: String,
    observed: Instant,
    /// How often this sweeper has renewed its own lease since then.
    own_renewals: u32,
    /// Its `leaseDurationSeconds`.
    duration: Duration,
    /// Whether it had expired when it was first observed.
    was_expired: bool,
}

impl PeerLease {
    /// A lease that is observed for the first time at `now`. It `is_expired` if that follows from its times and this
    /// machine's clock. Should the clocks disagree, a live peer is taken for dead until its next renewal, and both
    /// sweep meanwhile.
    pub fn new(record: &str, duration: Duration, is_expired: bool, now: Instant) -> Self {
        Self { record: record.to_owned(), observed: now, own_renewals: 0, duration, was_expired: is_expired }
    }

    /// Observes it again at `now`.
    pub fn observe(&mut self, record: &str, duration: Duration, now: Instant) {
        if self.record != record {
            *self = Self::new(record, duration, false, now);
        }
    }

    /// Counts a renewal of this sweeper's own lease.
    pub fn count_own_renewal(&mut self) {
        self.own_renewals = self.own_renewals.saturating_add(1);
    }

    /// Whether its sweeper counts as alive at `now`.
    pub fn is_alive(&self, now: Instant) -> bool {
        !self.was_expired && (self.own_renewals < MISSED_RENEWALS || self.age(now) <= self.duration)
    }

    /// Its text when it was last observed.
    pub fn record(&self) -> &str {
        &self.record
    }

    /// The time since its last observed renewal.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.observed)
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
        Peers::new(me.to_owned(), all.to_vec()).rank(key)
    }

    proptest! {
        #[test]
        fn all_sweepers_agree_on_the_ranks_in_whatever_order_they_list_their_peers(mut all in names(), key in ".{0,12}") {
            let mut ranks: Vec<_> = all.iter().map(|me| rank(me, &all, &key)).collect();
            let before = ranks.clone();
            ranks.sort_unstable();
            prop_assert_eq!(ranks, (0..all.len() as u32).collect::<Vec<_>>());
            let first = all[0].clone();
            all.reverse();
            prop_assert_eq!(rank(&first, &all, &key), before[0]);
        }

        #[test]
        fn one_that_ends_moves_up_only_those_behind_it(all in names(), key in ".{0,12}", gone in 0usize..6) {
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
        let max_sleep = Duration::from_secs(1);
        assert_eq!(Schedule::of_rank(0, max_sleep), Schedule { delay: Duration::ZERO, max_sleep });
        assert_eq!(
            Schedule::of_rank(2, max_sleep),
            Schedule { delay: Duration::from_secs(4), max_sleep: RANK_DELAY }
        );
        assert_eq!(Peers::alone().rank("any"), 0);
    }

    #[test]
    fn however_many_come_before_it_a_sweeper_waits_no_longer_than_the_third() {
        let third = Schedule::of_rank(2, Duration::from_secs(1));
        for rank in [3, 10, u32::MAX] {
            assert_eq!(Schedule::of_rank(rank, Duration::from_secs(1)), third);
        }
    }

    #[test]
    fn a_peer_is_dead_if_its_lease_expires_while_this_sweeper_renews_its_own() {
        let (start, duration) = (Instant::now(), Duration::from_secs(10));
        let late = start + Duration::from_secs(11);
        let mut lease = PeerLease::new("1", duration, false, start);
        assert!(lease.is_alive(late), "the API server may have been away for both");
        for _ in 0..3 {
            lease.count_own_renewal();
        }
        assert!(lease.is_alive(start + duration) && !lease.is_alive(late));
        lease.observe("1", duration, late);
        assert!(!lease.is_alive(late));
        lease.observe("2", duration, late);
        assert!(lease.is_alive(late + Duration::from_secs(11)));
        assert_eq!(lease.age(late + Duration::from_secs(1)), Duration::from_secs(1));
    }

    #[test]
    fn a_lease_that_had_already_expired_counts_only_once_it_is_renewed() {
        let (now, duration) = (Instant::now(), Duration::from_secs(10));
        let mut lease = PeerLease::new("1", duration, true, now);
        assert!(!lease.is_alive(now));
        lease.observe("1", duration, now);
        assert!(!lease.is_alive(now));
        lease.observe("2", duration, now);
        assert!(lease.is_alive(now + duration));
    }
}
