//! The orders that one step cancels: listed one by one, or a range of a backlog. Pure.

use std::time::Duration;

use jiff::Timestamp;

use crate::store::{ExpiringOrders, ExpiryQuery};

/// The orders to cancel next.
pub enum Batch {
    /// Orders that a query has listed.
    Listed(ExpiringOrders),
    /// All orders in a range, and how many they are.
    Range(ExpiryQuery, u64),
}

impl Batch {
    /// The earliest `expiresAt` of its orders, due or not.
    pub fn oldest(&self) -> Option<Timestamp> {
        match self {
            Self::Listed(look) => look.due().iter().min().copied().or(look.next()),
            Self::Range(query, _) => query.after,
        }
    }

    /// When the next order becomes due, as far as the query has seen.
    pub fn next(&self) -> Option<Timestamp> {
        match self {
            Self::Listed(look) => look.next(),
            Self::Range(..) => None,
        }
    }

    /// Whether any of the orders are due.
    pub fn is_due(&self) -> bool {
        match self {
            Self::Listed(look) => !look.due().is_empty(),
            Self::Range(..) => true,
        }
    }

    /// Whether there may be more.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Listed(look) => look.is_full(),
            Self::Range(..) => true,
        }
    }

    /// By how much the `expired` orders that were cancelled were late, never understated. If others moved some of the listed
    /// orders, it is not known which, so the oldest are counted. In a range, every order counts as late as the beginning of
    /// the range.
    pub fn lateness(&self, expired: u64, now: Timestamp) -> Vec<Duration> {
        let expired = usize::try_from(expired).unwrap_or(usize::MAX);
        let due = match self {
            Self::Listed(look) => {
                let mut due = look.due().to_vec();
                due.sort_unstable();
                due.truncate(expired);
                due
            }
            Self::Range(query, _) => vec![query.after.unwrap_or(query.until); expired],
        };
        due.into_iter().map(|due| Duration::try_from(now.duration_since(due)).unwrap_or_default()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_range_is_due_and_full_and_begins_with_its_oldest_order() {
        let query = ExpiryQuery { after: Some(at(5)), ..ExpiryQuery::due(at(9), Duration::ZERO, 100) };
        let batch = Batch::Range(query, 40);
        assert_eq!((batch.oldest(), batch.next()), (Some(at(5)), None));
        assert!(batch.is_due() && batch.is_full());
    }

    #[test]
    fn of_listed_orders_the_oldest_count_as_cancelled_and_of_a_range_all_as_late_as_its_beginning() {
        let listed = Batch::Listed(ExpiringOrders::listed(&[at(7), at(2), at(4)], Some(at(11))));
        assert_eq!((listed.oldest(), listed.next()), (Some(at(2)), Some(at(11))));
        assert_eq!(listed.lateness(2, at(10)), [8, 6].map(Duration::from_secs));
        assert_eq!(listed.lateness(9, at(10)).len(), 3, "no more than there are");
        let query = ExpiryQuery { after: Some(at(5)), ..ExpiryQuery::due(at(9), Duration::ZERO, 100) };
        assert_eq!(Batch::Range(query, 40).lateness(3, at(10)), [5, 5, 5].map(Duration::from_secs));
    }

    #[test]
    fn without_due_orders_the_oldest_is_the_next_one() {
        let none = Batch::Listed(ExpiringOrders::listed(&[], Some(at(11))));
        assert_eq!(none.oldest(), Some(at(11)));
        assert!(!none.is_due() && !none.is_full());
    }
}
