//! How to go through a backlog by ranges of `expiresAt`: pure functions over times.
//!
//! Orders of a backlog are cancelled by range, without listing them first: that would cost as much as cancelling them.
//! The orders in a range are counted up to a limit. A range with too many is narrowed; the length of the next one
//! follows from how many the last one had.

use jiff::{SignedDuration, Timestamp};

/// A range of `expiresAt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The lower bound, exclusive.
    pub after: Timestamp,
    /// The upper bound, inclusive.
    pub until: Timestamp,
}

/// The shortest range: `expiresAt` is stored in milliseconds.
const SHORTEST: SignedDuration = SignedDuration::from_millis(1);

/// The largest factor by which one range is longer or shorter than the one before.
const MAX_FACTOR: f64 = 4.0;

/// The position in a backlog, and the length of the next range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    position: Timestamp,
    length: SignedDuration,
}

impl Cursor {
    /// Starts at the oldest of `sample`, orders that are due, with a range that would have about `wanted` orders at
    /// their density. A sample that is not sorted may lack older orders; a later query finds those.
    pub fn new(sample: &[Timestamp], wanted: u32) -> Option<Self> {
        let (oldest, newest) = (sample.iter().min()?, sample.iter().max()?);
        let share = f64::from(wanted) / sample.len() as f64;
        let length = scaled(newest.duration_since(*oldest), share);
        Some(Self { position: oldest.checked_sub(SHORTEST).ok()?, length })
    }

    /// The next range up to `end`; none once that is reached.
    pub fn next(self, end: Timestamp) -> Option<Range> {
        let until = self.position.checked_add(self.length).map_or(end, |until| until.min(end));
        (self.position < end).then_some(Range { after: self.position, until })
    }

    /// The cursor with a shorter range at the same position, because this one has too many orders; none if it is the
    /// shortest already.
    pub fn narrowed(self, range: Range) -> Option<Self> {
        let length = range.until.duration_since(range.after);
        (length > SHORTEST).then(|| Self { length: scaled(length, 1.0 / MAX_FACTOR), ..self })
    }

    /// The cursor after a range up to `end` that had `count` orders, where a batch should have `wanted`; none at the end,
    /// since what becomes due from then on may be behind it.
    #[must_use]
    pub fn advanced(self, range: Range, end: Timestamp, count: u64, wanted: u32) -> Option<Self> {
        if range.until >= end {
            return None;
        }
        let factor = (f64::from(wanted) / count as f64).clamp(1.0 / MAX_FACTOR, MAX_FACTOR);
        Some(Self { position: range.until, length: scaled(range.until.duration_since(range.after), factor) })
    }
}

/// `length` times `factor`, in whole milliseconds, and never zero.
fn scaled(length: SignedDuration, factor: f64) -> SignedDuration {
    // The cast saturates.
    SignedDuration::from_millis((length.as_millis() as f64 * factor).ceil() as i64).max(SHORTEST)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millisecond: i64) -> Timestamp {
        Timestamp::from_millisecond(millisecond).unwrap()
    }

    /// Goes through these orders as the sweeper does: the sizes of its batches, the number of its queries, and the
    /// orders left.
    fn walk(mut due: Vec<i64>, first: usize, wanted: u32, end: i64) -> (Vec<u64>, usize, Vec<i64>) {
        let (mut batches, mut queries) = (Vec::new(), 0);
        let seen: Vec<_> = due.iter().take(first).copied().map(at).collect();
        let mut cursor = Cursor::new(&seen, wanted).unwrap();
        while let Some(range) = cursor.next(at(end)) {
            queries += 1;
            let within = |due: &i64| at(*due) > range.after && at(*due) <= range.until;
            let count = due.iter().filter(|due| within(due)).count() as u64;
            if count > 2 * u64::from(wanted)
                && let Some(narrowed) = cursor.narrowed(range)
            {
                cursor = narrowed;
                continue;
            }
            due.retain(|due| !within(due));
            batches.push(count);
            let Some(next) = cursor.advanced(range, at(end), count, wanted) else { break };
            cursor = next;
        }
        (batches, queries, due)
    }

    proptest! {
        #[test]
        fn all_due_orders_are_covered_in_batches_of_about_the_wanted_size(
            gaps in proptest::collection::vec((0i64..5_000, 1usize..20), 1..200), wanted in 1u32..100
        ) {
            let mut last = 0;
            let mut due = Vec::new();
            for (gap, count) in gaps {
                last += gap;
                due.extend(std::iter::repeat_n(last, count));
            }
            let most_at_once = due.chunk_by(|a, b| a == b).map(<[_]>::len).max().unwrap() as u64;
            let orders = due.len();
            let (batches, queries, left) = walk(due, 20, wanted, last + 10_000);
            prop_assert_eq!(left, Vec::<i64>::new());
            prop_assert!(batches.iter().all(|batch| *batch <= (2 * u64::from(wanted)).max(most_at_once)));
            prop_assert!(queries <= 60 + 4 * orders, "{queries} queries for {orders} orders");
        }

        #[test]
        fn orders_that_are_not_due_are_not_covered(due in proptest::collection::vec(0i64..10_000, 1..100), end in 0i64..10_000) {
            let expected: Vec<_> = due.iter().copied().filter(|due| *due > end).collect();
            let mut sorted = due;
            sorted.sort_unstable();
            let mut expected_sorted = expected;
            expected_sorted.sort_unstable();
            prop_assert_eq!(walk(sorted, 10, 5, end).2, expected_sorted);
        }
    }

    #[test]
    fn an_even_backlog_takes_few_queries() {
        let (batches, queries, left) = walk((0..100_000).collect(), 500, 4_000, 200_000);
        assert!(left.is_empty() && queries <= 40, "{queries}: {batches:?}");
    }

    #[test]
    fn a_gap_of_years_is_skipped_in_few_queries() {
        let year = 31_536_000_000;
        let (batches, queries, left) = walk(vec![0, 1, 10 * year], 2, 500, 20 * year);
        assert!(left.is_empty() && queries < 40, "{queries}: {batches:?}");
    }

    #[test]
    fn the_ends_of_the_calendar_do_not_overflow() {
        assert_eq!(Cursor::new(&[], 1), None);
        assert_eq!(Cursor::new(&[Timestamp::MIN], 1), None);
        let cursor = Cursor::new(&[Timestamp::from_second(0).unwrap(), Timestamp::MAX], 10_000).unwrap();
        let range = cursor.next(Timestamp::MAX).unwrap();
        assert_eq!(range.until, Timestamp::MAX);
        assert_eq!(cursor.advanced(range, Timestamp::MAX, 0, 1), None);
    }
}
