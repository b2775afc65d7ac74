//! How far to go at once through a backlog: pure functions over times.
//!
//! A backlog is cancelled by ranges of `expiresAt`, without asking for the orders first: that would cost as much
//! as cancelling them. How many there are in a range is counted, up to a limit, and one with too many is made
//! shorter. The next is as long as it would have to be for one batch.

use jiff::{SignedDuration, Timestamp};

/// Orders that expire after one moment, and not after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// They expire after this one …
    pub after: Timestamp,
    /// … and not after this one.
    pub until: Timestamp,
}

/// The shortest range: expiry is stored in milliseconds.
const SHORTEST: SignedDuration = SignedDuration::from_millis(1);

/// By how much ranges grow or shrink at once.
const AT_ONCE: f64 = 4.0;

/// How far a backlog has been gone through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stride {
    after: Timestamp,
    length: SignedDuration,
}

impl Stride {
    /// Begins with the oldest of those that were seen to be due, so far that it would be about `wanted` of them.
    /// Where a server gives them in any order, there may be older ones: those a later look finds.
    pub fn new(due: &[Timestamp], wanted: u32) -> Option<Self> {
        let (oldest, newest) = (due.iter().min()?, due.iter().max()?);
        let share = f64::from(wanted) / due.len() as f64;
        let length = newest.duration_since(*oldest).mul(share);
        Some(Self { after: oldest.checked_sub(SHORTEST).ok()?, length })
    }

    /// What comes next, up to `end`; nothing when that is reached.
    pub fn next(self, end: Timestamp) -> Option<Range> {
        let until = self.after.checked_add(self.length).map_or(end, |until| until.min(end));
        (self.after < end).then_some(Range { after: self.after, until })
    }

    /// With a shorter range at the same place, since this one has too many; none when it is the shortest.
    pub fn shorter(self, range: Range) -> Option<Self> {
        let length = range.until.duration_since(range.after);
        (length > SHORTEST).then(|| Self { length: length.mul(1.0 / AT_ONCE), ..self })
    }

    /// After a range that had `seen` orders where `wanted` make a batch.
    #[must_use]
    pub fn after(self, range: Range, seen: u64, wanted: u32) -> Self {
        let factor = (f64::from(wanted) / seen as f64).clamp(1.0 / AT_ONCE, AT_ONCE);
        Self { after: range.until, length: range.until.duration_since(range.after).mul(factor) }
    }
}

/// A length times a number, in whole milliseconds, and never none.
trait Mul {
    fn mul(self, factor: f64) -> Self;
}

impl Mul for SignedDuration {
    fn mul(self, factor: f64) -> Self {
        // A cast saturates.
        Self::from_millis((self.as_millis() as f64 * factor).ceil() as i64).max(SHORTEST)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millisecond: i64) -> Timestamp {
        Timestamp::from_millisecond(millisecond).unwrap()
    }

    /// Goes through these orders as the sweeper does; gives how large its batches were, and how often it asked.
    fn gone_through(mut due: Vec<i64>, first: usize, wanted: u32, end: i64) -> (Vec<u64>, usize, Vec<i64>) {
        let (mut batches, mut asked) = (Vec::new(), 0);
        let seen: Vec<_> = due.iter().take(first).copied().map(at).collect();
        let mut stride = Stride::new(&seen, wanted).unwrap();
        while let Some(range) = stride.next(at(end)) {
            asked += 1;
            let within = |due: &i64| at(*due) > range.after && at(*due) <= range.until;
            let count = due.iter().filter(|due| within(due)).count() as u64;
            if count > 2 * u64::from(wanted)
                && let Some(shorter) = stride.shorter(range)
            {
                stride = shorter;
                continue;
            }
            due.retain(|due| !within(due));
            batches.push(count);
            stride = stride.after(range, count, wanted);
        }
        (batches, asked, due)
    }

    proptest! {
        #[test]
        fn all_that_is_due_is_gone_through_in_batches_of_about_the_size_that_is_wanted(
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
            let (batches, asked, left) = gone_through(due, 20, wanted, last + 10_000);
            prop_assert_eq!(left, Vec::<i64>::new());
            prop_assert!(batches.iter().all(|batch| *batch <= (2 * u64::from(wanted)).max(most_at_once)));
            prop_assert!(asked <= 60 + 4 * orders, "{asked} questions for {orders} orders");
        }

        #[test]
        fn what_is_not_due_yet_is_left_alone(due in proptest::collection::vec(0i64..10_000, 1..100), end in 0i64..10_000) {
            let expected: Vec<_> = due.iter().copied().filter(|due| *due > end).collect();
            let mut sorted = due;
            sorted.sort_unstable();
            let mut expected_sorted = expected;
            expected_sorted.sort_unstable();
            prop_assert_eq!(gone_through(sorted, 10, 5, end).2, expected_sorted);
        }
    }

    #[test]
    fn an_even_backlog_takes_few_questions() {
        let (batches, asked, left) = gone_through((0..100_000).collect(), 500, 4_000, 200_000);
        assert!(left.is_empty() && asked <= 40, "{asked}: {batches:?}");
    }

    #[test]
    fn what_is_empty_for_years_is_soon_passed() {
        let year = 31_536_000_000;
        let (batches, asked, left) = gone_through(vec![0, 1, 10 * year], 2, 500, 20 * year);
        assert!(left.is_empty() && asked < 40, "{asked}: {batches:?}");
    }

    #[test]
    fn no_time_of_the_calendar_is_too_early_or_too_late() {
        assert_eq!(Stride::new(&[], 1), None);
        assert_eq!(Stride::new(&[Timestamp::MIN], 1), None);
        let stride = Stride::new(&[Timestamp::from_second(0).unwrap(), Timestamp::MAX], 10_000).unwrap();
        let range = stride.next(Timestamp::MAX).unwrap();
        assert_eq!(range.until, Timestamp::MAX);
        assert_eq!(stride.after(range, 0, 1).next(Timestamp::MAX), None);
    }
}
