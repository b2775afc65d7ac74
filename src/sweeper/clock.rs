//! The database server's clock, as seen from here: the one clock by which orders expire.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

/// How far two machines' clocks drift apart at most, as a fraction of the time that passes: what time
/// synchronisation may slew them by.
const DRIFT: f64 = 0.0005;

/// The server tells whole milliseconds.
const GRAIN: Duration = Duration::from_millis(1);

/// Bounds of the server's clock. They go on by the monotonic clock of this machine, so that a wrong or
/// jumping wall clock here changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerClock {
    /// At the moment `at`, the server's clock was not before this …
    earliest: Timestamp,
    /// … and not after this.
    latest: Timestamp,
    at: Instant,
    /// When the server was asked last.
    asked: Instant,
}

impl ServerClock {
    /// A reading: asked at `asked`, the answer `said` was heard at `heard`. The server looked at its clock
    /// at some moment between the two.
    pub fn new(said: Timestamp, asked: Instant, heard: Instant) -> Self {
        let took = heard.saturating_duration_since(asked);
        Self { earliest: said, latest: later(said, took + GRAIN), at: heard, asked: heard }
    }

    /// A time that the server's clock has reached for certain at `at`: never too late, too early by
    /// [`Self::error`] at most.
    pub fn reached(&self, at: Instant) -> Timestamp {
        let since = at.saturating_duration_since(self.at);
        later(self.earliest, since.saturating_sub(since.mul_f64(DRIFT)))
    }

    /// A time that it has not passed at `at`.
    fn not_passed(&self, at: Instant) -> Timestamp {
        let since = at.saturating_duration_since(self.at);
        later(self.latest, since.saturating_add(since.mul_f64(DRIFT)))
    }

    /// How far [`Self::reached`] may be behind at `at`.
    pub fn error(&self, at: Instant) -> Duration {
        self.not_passed(at).duration_since(self.reached(at)).unsigned_abs()
    }

    /// How far the server's clock is ahead of `wall`, what this machine's wall clock shows at `at`: by the
    /// middle of the bounds.
    pub fn offset(&self, at: Instant, wall: Timestamp) -> SignedDuration {
        self.reached(at).duration_since(wall)
            + SignedDuration::try_from(self.error(at) / 2).unwrap_or_default()
    }

    /// What both readings allow. A newer one that contradicts this one holds alone: the server's clock was
    /// set, or it is another server's.
    #[must_use]
    pub fn refined(self, newer: Self) -> Self {
        let (earliest, latest) =
            (self.reached(newer.at).max(newer.earliest), self.not_passed(newer.at).min(newer.latest));
        if earliest <= latest { Self { earliest, latest, ..newer } } else { newer }
    }

    /// Whether the server should be asked again at `at`.
    pub fn is_stale(&self, at: Instant) -> bool {
        at.saturating_duration_since(self.asked) > Duration::from_secs(30)
    }
}

fn later(moment: Timestamp, by: Duration) -> Timestamp {
    moment.checked_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Time here passes for the server at another rate, by less than it may drift.
    fn server_time(start: Timestamp, passed: Duration, rate: f64) -> Timestamp {
        later(start, passed.mul_f64(1.0 + rate))
    }

    proptest! {
        #[test]
        fn it_is_never_ahead_of_the_server_nor_behind_by_more_than_the_error(
            readings in proptest::collection::vec((0u64..40_000, 0u64..3_000, 0.0f64..1.0), 1..12),
            rate in -0.0004f64..0.0004, ahead_ms in -5_000i64..5_000,
        ) {
            let (here, start) = (Instant::now(), Timestamp::UNIX_EPOCH + SignedDuration::from_millis(ahead_ms));
            let (mut passed, mut clock) = (Duration::ZERO, None::<ServerClock>);
            for (wait_ms, round_trip_ms, share) in readings {
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
                    // Rounding of the arithmetic above aside.
                    prop_assert!(behind >= SignedDuration::from_micros(-5), "ahead by {behind:?}");
                    prop_assert!(behind.unsigned_abs() <= refined.error(now) + Duration::from_micros(5));
                }
            }
        }
    }

    #[test]
    fn a_quick_answer_makes_up_for_a_slow_one_and_a_clock_that_was_set_is_believed() {
        let (asked, said) = (Instant::now(), Timestamp::UNIX_EPOCH);
        let heard = asked + Duration::from_millis(800);
        let slow = ServerClock::new(said, asked, heard);
        assert_eq!(slow.error(heard), Duration::from_millis(801));
        assert_eq!(slow.reached(heard), said);

        let quick = ServerClock::new(said + SignedDuration::from_millis(700), heard, heard + GRAIN);
        let both = slow.refined(quick);
        assert!(both.error(heard + GRAIN) <= Duration::from_millis(2));

        let set = ServerClock::new(said - SignedDuration::from_secs(60), heard, heard + GRAIN);
        assert_eq!(both.refined(set).reached(heard + GRAIN), said - SignedDuration::from_secs(60));
    }

    #[test]
    fn the_offset_is_that_of_the_wall_clock_here_and_a_reading_gets_stale() {
        let (asked, said) = (Instant::now(), Timestamp::UNIX_EPOCH);
        let clock = ServerClock::new(said, asked, asked + GRAIN);
        let wall = said - SignedDuration::from_secs(5);
        let offset = clock.offset(asked + GRAIN, wall).as_secs_f64();
        assert!((5.0..5.01).contains(&offset), "{offset}");
        assert!(!clock.is_stale(asked + Duration::from_secs(29)));
        assert!(clock.is_stale(asked + Duration::from_secs(31)));
    }
}
