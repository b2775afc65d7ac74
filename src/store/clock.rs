//! An estimate of the database server's clock, with bounds. Orders expire by that clock and no other.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};

/// The largest relative drift between this machine's clock and the server's, in either direction: the maximum rate
/// at which time synchronisation slews a clock.
const DRIFT: f64 = 0.0005;

/// The server reports whole milliseconds, rounded down.
const GRAIN: Duration = Duration::from_millis(1);

/// Bounds of the server's clock. They advance by this machine's monotonic clock, so a wall clock that is wrong or
/// jumps does not affect them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerClock {
    /// The lower bound at the moment `at`.
    earliest: Timestamp,
    /// The upper bound at the moment `at`.
    latest: Timestamp,
    at: Instant,
}

impl ServerClock {
    /// A reading: the request was sent at `asked`, and the answer `said` arrived at `heard`. The server read its
    /// clock at some moment between the two; if at once, its clock has advanced by the whole round trip since, and
    /// by the drift during it.
    #[must_use]
    pub fn new(said: Timestamp, asked: Instant, heard: Instant) -> Self {
        let round_trip = heard.saturating_duration_since(asked);
        let latest = later(said, GRAIN + at_most(round_trip));
        Self { earliest: said, latest, at: heard }
    }

    /// The lower bound at `at`: the server's clock has certainly reached it, and is ahead of it by [`Self::error`]
    /// at most.
    #[must_use]
    pub fn reached(&self, at: Instant) -> Timestamp {
        let since = at.saturating_duration_since(self.at);
        later(self.earliest, at_least(since))
    }

    /// The upper bound at `at`: the server's clock has certainly not passed it.
    #[must_use]
    pub fn not_passed(&self, at: Instant) -> Timestamp {
        let since = at.saturating_duration_since(self.at);
        later(self.latest, at_most(since))
    }

    /// How far [`Self::reached`] may be behind the server's clock at `at`.
    #[must_use]
    pub fn error(&self, at: Instant) -> Duration {
        self.not_passed(at).duration_since(self.reached(at)).unsigned_abs()
    }

    /// How far the server's clock is ahead of `wall`, the reading of this machine's wall clock at `at`. Taken from
    /// the middle of the bounds.
    #[must_use]
    pub fn offset(&self, at: Instant, wall: Timestamp) -> SignedDuration {
        self.reached(at).duration_since(wall)
            + SignedDuration::try_from(self.error(at) / 2).unwrap_or_default()
    }

    /// The intersection of both bounds. If they contradict each other, only the newer reading counts: the server's
    /// clock was set, or another server answered.
    #[must_use]
    pub fn refined(self, newer: Self) -> Self {
        let (earliest, latest) =
            (self.reached(newer.at).max(newer.earliest), self.not_passed(newer.at).min(newer.latest));
        if earliest <= latest { Self { earliest, latest, ..newer } } else { newer }
    }

    /// Whether the server should be asked again at `at`.
    #[must_use]
    pub fn is_stale(&self, at: Instant) -> bool {
        at.saturating_duration_since(self.at) > Duration::from_secs(30)
    }
}

/// What is known of the database's clock. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedClock(Arc<Mutex<Option<ServerClock>>>);

impl SharedClock {
    pub(super) fn lock(&self) -> MutexGuard<'_, Option<ServerClock>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far the server's clock advances at least while `passed` goes by on this machine's.
fn at_least(passed: Duration) -> Duration {
    passed.saturating_sub(passed.mul_f64(DRIFT))
}

/// How far it advances at most.
fn at_most(passed: Duration) -> Duration {
    passed.saturating_add(passed.mul_f64(DRIFT))
}

fn later(moment: Timestamp, by: Duration) -> Timestamp {
    moment.checked_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The server's time after `passed` on this machine's clock, when the server's clock runs faster by `rate`.
    fn server_time(start: Timestamp, passed: Duration, rate: f64) -> Timestamp {
        later(start, passed.mul_f64(1.0 + rate))
    }

    /// Takes readings (wait before it in ms, round trip in ms, at which share of the round trip the server read its
    /// clock), and compares the bounds with the server's true time after each.
    fn check_bounds(readings: &[(u64, u64, f64)], rate: f64, ahead_ms: i64) -> Result<(), TestCaseError> {
        // The arithmetic of this test rounds to nanoseconds.
        let rounding = Duration::from_nanos(50);
        // After 1970, because `as_millisecond` truncates towards it and the server rounds down.
        let start = Timestamp::UNIX_EPOCH + SignedDuration::from_millis(1_000_000 + ahead_ms);
        let (here, mut passed, mut clock) = (Instant::now(), Duration::ZERO, None::<ServerClock>);
        for &(wait_ms, round_trip_ms, share) in readings {
            let asked = passed + Duration::from_millis(wait_ms);
            let round_trip = Duration::from_millis(round_trip_ms);
            let looked = server_time(start, asked + round_trip.mul_f64(share), rate);
            let said = Timestamp::from_millisecond(looked.as_millisecond()).unwrap();
            let new = ServerClock::new(said, here + asked, here + asked + round_trip);
            let refined = clock.map_or(new, |clock| clock.refined(new));
            passed = asked + round_trip;
            let now = here + passed;
            prop_assert!(refined.error(now) <= new.error(now));
            clock = Some(refined);
            for after in [passed, passed + Duration::from_secs(30)] {
                let (now, truth) = (here + after, server_time(start, after, rate));
                let behind = truth.duration_since(refined.reached(now));
                prop_assert!(behind >= -SignedDuration::try_from(rounding).unwrap(), "ahead by {behind:?}");
                let bound = refined.error(now);
                prop_assert!(behind.unsigned_abs() <= bound + rounding, "{behind:?} behind, bound {bound:?}");
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn the_lower_bound_is_never_ahead_of_the_server_nor_behind_by_more_than_the_error(
            readings in proptest::collection::vec((0u64..40_000, 0u64..3_000, 0.0f64..=1.0), 1..12),
            rate in -DRIFT..=DRIFT, ahead_ms in -5_000i64..5_000,
        ) {
            check_bounds(&readings, rate, ahead_ms)?;
        }
    }

    #[test]
    fn the_error_includes_the_drift_during_the_round_trip() {
        check_bounds(&[(2642, 1581, 0.0), (0, 0, 0.0)], 0.00035, 0).unwrap();
        // The server read its clock at once, and then ran faster than this machine by all that is assumed.
        check_bounds(&[(0, 3000, 0.0)], DRIFT, 0).unwrap();
        check_bounds(&[(0, 3000, 1.0)], -DRIFT, 0).unwrap();
    }

    #[test]
    fn a_fast_reading_narrows_a_slow_one_and_a_clock_that_was_set_is_followed() {
        let (asked, said) = (Instant::now(), Timestamp::UNIX_EPOCH);
        let heard = asked + Duration::from_millis(800);
        let slow = ServerClock::new(said, asked, heard);
        assert_eq!(slow.error(heard), Duration::from_micros(801_400));
        assert_eq!(slow.reached(heard), said);

        let quick = ServerClock::new(said + SignedDuration::from_millis(700), heard, heard + GRAIN);
        let both = slow.refined(quick);
        assert!(both.error(heard + GRAIN) <= Duration::from_micros(2_001));

        let set = ServerClock::new(said - SignedDuration::from_secs(60), heard, heard + GRAIN);
        assert_eq!(both.refined(set).reached(heard + GRAIN), said - SignedDuration::from_secs(60));
    }

    #[test]
    fn the_offset_is_relative_to_the_local_wall_clock_and_a_reading_gets_stale() {
        let (asked, said) = (Instant::now(), Timestamp::UNIX_EPOCH);
        let clock = ServerClock::new(said, asked, asked + GRAIN);
        let wall = said - SignedDuration::from_secs(5);
        let offset = clock.offset(asked + GRAIN, wall).as_secs_f64();
        assert!((5.0..5.01).contains(&offset), "{offset}");
        assert!(!clock.is_stale(asked + Duration::from_secs(29)));
        assert!(clock.is_stale(asked + Duration::from_secs(31)));
    }
}
