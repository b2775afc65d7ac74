//! What reservations have seen of the unique index and of the tickets that are held, so that most need not ask.
//!
//! It decides nothing but whether to ask: a ticket that is taken for free is refused by the insert, and one that is taken
//! for held is looked up.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use mongodb::bson::oid::ObjectId;

/// How long a query that named the index counts for the reservations after it. A busy pod asks ten times a second, and
/// an idle one at each reservation.
const INDEX_SEEN_FOR: Duration = Duration::from_millis(100);

/// The most tickets that are remembered.
const MAX_TICKETS: usize = 1024;

/// What a reservation should ask before its insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WorthAsking {
    Nothing,
    /// Who holds the ticket, since many buyers may compete for it.
    Holder,
    /// Also whether the index is there, since it has not been seen for a while.
    HolderAndIndex,
}

/// What is known.
#[derive(Debug, Default)]
pub(super) struct KnownHolders {
    /// When the last query that has shown that the index is there was sent.
    index_seen: Option<Instant>,
    /// Tickets that an order held when they were last seen.
    held: HashSet<ObjectId>,
}

impl KnownHolders {
    /// What a reservation of `ticket` should ask before its insert.
    pub(super) fn worth_asking(&self, ticket: ObjectId, now: Instant) -> WorthAsking {
        let is_fresh = |seen: Instant| now.saturating_duration_since(seen) < INDEX_SEEN_FOR;
        if !self.index_seen.is_some_and(is_fresh) {
            WorthAsking::HolderAndIndex
        } else if self.held.contains(&ticket) {
            WorthAsking::Holder
        } else {
            WorthAsking::Nothing
        }
    }

    /// Queries that were sent at `asked` have shown that the index is there.
    pub(super) fn index_seen(&mut self, asked: Instant) {
        self.index_seen = self.index_seen.max(Some(asked));
    }

    /// A query has shown whether `ticket` is held.
    pub(super) fn answered(&mut self, ticket: ObjectId, is_held: bool) {
        if is_held {
            self.hold(ticket);
        } else {
            self.held.remove(&ticket);
        }
    }

    /// An order holds `ticket` now.
    pub(super) fn hold(&mut self, ticket: ObjectId) {
        if self.held.len() >= MAX_TICKETS && !self.held.contains(&ticket) {
            // Those that many buyers want are soon back.
            self.held.clear();
        }
        self.held.insert(ticket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_may_be_refused_asks_and_once_in_a_while_somebody_does() {
        let (sold, free) = (ObjectId::from([1; 12]), ObjectId::from([2; 12]));
        let (mut known, start) = (KnownHolders::default(), Instant::now());
        let later = start + INDEX_SEEN_FOR;
        assert_eq!(known.worth_asking(free, start), WorthAsking::HolderAndIndex, "it has never been seen");
        known.index_seen(start);
        known.hold(sold);
        assert_eq!(known.worth_asking(free, start), WorthAsking::Nothing);
        assert_eq!(known.worth_asking(sold, start), WorthAsking::Holder);
        assert_eq!(known.worth_asking(sold, later), WorthAsking::HolderAndIndex);
        // A reply that is overtaken by another one does not count as newer.
        known.index_seen(later);
        known.index_seen(start);
        known.answered(sold, false);
        assert_eq!(known.worth_asking(sold, later), WorthAsking::Nothing);
    }

    #[test]
    fn however_many_tickets_are_sold_few_are_remembered() {
        let mut known = KnownHolders::default();
        for number in 0..10 * MAX_TICKETS as u64 {
            let mut id = [0; 12];
            id[..8].copy_from_slice(&number.to_le_bytes());
            known.hold(ObjectId::from(id));
        }
        assert!(known.held.len() <= MAX_TICKETS);
    }
}
