//! Orders that are left out for a while, since the database refuses to cancel them or nobody can read them: else they would
//! fill each batch. Pure.

use std::time::{Duration, Instant};

use crate::store::RejectedOrders;

/// How long that is.
pub const LEFT_OUT_FOR: Duration = Duration::from_secs(300);

/// How many are remembered at most: every query has to name them.
const MOST: usize = 1000;

/// The orders that are left out, and since when.
#[derive(Default)]
pub struct LeftOut {
    orders: RejectedOrders,
    since: Option<Instant>,
}

impl LeftOut {
    /// These orders.
    pub fn orders(&self) -> &RejectedOrders {
        &self.orders
    }

    /// How many more can be remembered.
    pub fn room(&self) -> usize {
        MOST.saturating_sub(self.orders.count())
    }

    /// Leaves out `others` as well, as far as there is room, and all of them from now on. Whether there was any room.
    pub fn add(&mut self, others: &RejectedOrders, now: Instant) -> bool {
        let before = self.orders.count();
        self.orders.add(others, MOST);
        let has_grown = self.orders.count() > before;
        if has_grown {
            self.since = Some(now);
        }
        has_grown
    }

    /// Leaves none out any more, once they have been long enough.
    pub fn forget_old(&mut self, now: Instant) {
        if self.since.is_some_and(|since| now.saturating_duration_since(since) >= LEFT_OUT_FOR) {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_left_out_for_a_while_and_no_more_than_there_is_room_for() {
        let (mut left_out, now) = (LeftOut::default(), Instant::now());
        assert!(left_out.add(&RejectedOrders::numbered(MOST - 1), now));
        assert_eq!(left_out.room(), 1);
        let later = now + LEFT_OUT_FOR / 2;
        assert!(left_out.add(&RejectedOrders::numbered(2), later));
        assert_eq!((left_out.orders().count(), left_out.room()), (MOST, 0));
        assert!(!left_out.add(&RejectedOrders::numbered(2), later + LEFT_OUT_FOR / 2), "there is no room");
        left_out.forget_old(now + LEFT_OUT_FOR);
        assert_eq!(left_out.room(), 0, "since the last of them came");
        left_out.forget_old(later + LEFT_OUT_FOR);
        assert_eq!(left_out.room(), MOST);
    }
}
