//! Which orders have changed, for whoever tells of them: to look at these takes a moment, and to look through all that waits may
//! take a database long that has told of very many before, and has not cleaned up its index yet.

use std::collections::BTreeSet;

use crate::order::OrderId;

/// The most orders that are named. Where there are more, it is quicker to look through all that waits.
const MOST: usize = 1000;

/// The length of an id.
const ID: usize = 12;

/// The orders that have changed, as far as they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    orders: BTreeSet<OrderId>,
    /// Whether there may be others.
    are_more: bool,
}

impl Changes {
    /// Any orders.
    #[must_use]
    pub fn of_any() -> Self {
        Self { are_more: true, ..Self::default() }
    }

    /// Of one order.
    #[must_use]
    pub fn of(order: OrderId) -> Self {
        Self { orders: BTreeSet::from([order]), are_more: false }
    }

    /// With others.
    pub fn add(&mut self, others: Self) {
        self.are_more |= others.are_more;
        if !self.are_more {
            self.orders.extend(others.orders);
            self.are_more = self.orders.len() > MOST;
        }
        if self.are_more {
            self.orders.clear();
        }
    }

    /// Whether nothing has changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.orders.is_empty() && !self.are_more
    }

    /// The orders, if there are no others.
    #[must_use]
    pub fn orders(&self) -> Option<Vec<OrderId>> {
        (!self.are_more).then(|| self.orders.iter().copied().collect())
    }

    /// As another process is told of them: their ids, or nothing if it may be any.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.orders.iter().flat_map(|order| order.bytes()).collect()
    }

    /// As another process has told of them.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let (ids, rest) = bytes.as_chunks::<ID>();
        if ids.is_empty() || ids.len() > MOST || !rest.is_empty() {
            return Self::of_any();
        }
        Self { orders: ids.iter().copied().map(OrderId::from_bytes).collect(), are_more: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(number: usize) -> OrderId {
        let mut bytes = [0; ID];
        bytes[4..].copy_from_slice(&(number as u64).to_be_bytes());
        OrderId::from_bytes(bytes)
    }

    fn of(numbers: std::ops::Range<usize>) -> Changes {
        let mut changes = Changes::default();
        numbers.for_each(|number| changes.add(Changes::of(order(number))));
        changes
    }

    #[test]
    fn orders_are_named_as_long_as_all_are_known_and_there_are_not_very_many() {
        assert!(Changes::default().is_empty() && !Changes::of_any().is_empty());
        let mut changes = of(0..3);
        changes.add(of(2..4));
        assert_eq!(changes.orders(), Some((0..4).map(order).collect()));
        assert_eq!(of(0..MOST).orders().map(|orders| orders.len()), Some(MOST));
        assert_eq!(of(0..MOST + 1), Changes::of_any());
        changes.add(Changes::of_any());
        assert_eq!((changes.orders(), changes.is_empty()), (None, false));
        changes.add(of(0..1));
        assert_eq!(changes, Changes::of_any(), "what is not known does not become known");
    }

    #[test]
    fn another_process_reads_what_was_said_and_takes_anything_else_for_any_orders() {
        for changes in [of(0..1), of(0..MOST), Changes::of_any()] {
            assert_eq!(Changes::from_bytes(&changes.bytes()), changes);
        }
        for bytes in [vec![], vec![0; ID - 1], vec![0; ID + 1], vec![0; ID * (MOST + 1)]] {
            assert_eq!(Changes::from_bytes(&bytes), Changes::of_any());
        }
    }
}
