//! Two operators, or two sweepers, that write to one resource: noticed, and ended by a pause.
//!
//! With different settings, such as different default images, each would take back at once what the other has written,
//! without end. Whoever loses a resource several times within a minute leaves it alone for a while, and longer each
//! time.

use std::time::{Duration, Instant};

use super::backoff::exponential;

/// Losing a resource this often within [`WINDOW`] is a fight; less often, it may be one that takes over from another.
const MAX_LOSSES: usize = 4;

const WINDOW: Duration = Duration::from_secs(60);

const MIN_PAUSE: Duration = Duration::from_secs(60);
const MAX_PAUSE: Duration = Duration::from_secs(1800);

/// The recent losses of one resource to another process.
#[derive(Debug, Default)]
pub struct Contention {
    /// The last few, the oldest first.
    losses: Vec<Instant>,
    /// Pauses without a quiet time between them.
    pauses: u32,
    until: Option<Instant>,
}

impl Contention {
    /// The other one has taken the resource back. Gives the pause that this calls for, if it is a fight.
    pub fn lost(&mut self, now: Instant) -> Option<Duration> {
        // After a time as long as the last pause without a fight, the next one starts with the shortest pause.
        if self.until.is_some_and(|until| now > until + pause(self.pauses.saturating_sub(1)) + WINDOW) {
            (self.pauses, self.until) = (0, None);
        }
        self.losses.retain(|loss| now.saturating_duration_since(*loss) < WINDOW);
        self.losses.push(now);
        if self.losses.len() < MAX_LOSSES {
            return None;
        }
        Some(self.pause(now))
    }

    /// Leaves the resource alone from `now` on. Gives for how long.
    pub fn pause(&mut self, now: Instant) -> Duration {
        self.losses.clear();
        let pause = pause(self.pauses);
        self.pauses = self.pauses.saturating_add(1);
        self.until = Some(now + pause);
        pause
    }

    /// For how long the resource is left alone still.
    pub fn paused(&self, now: Instant) -> Option<Duration> {
        self.until?.checked_duration_since(now).filter(|left| !left.is_zero())
    }
}

fn pause(before: u32) -> Duration {
    exponential(MIN_PAUSE, MAX_PAUSE, before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_that_is_lost_again_and_again_is_left_alone_for_longer_each_time() {
        let (mut contention, start) = (Contention::default(), Instant::now());
        let mut now = start;
        let fight = |contention: &mut Contention, now: &mut Instant| {
            for _ in 1..MAX_LOSSES {
                *now += Duration::from_secs(1);
                assert_eq!(contention.lost(*now), None);
            }
            *now += Duration::from_secs(1);
            contention.lost(*now)
        };
        for expected in [60, 120, 240, 480, 960, 1800, 1800].map(Duration::from_secs) {
            assert_eq!(fight(&mut contention, &mut now), Some(expected));
            assert_eq!(contention.paused(now), Some(expected));
            now += expected;
            assert_eq!(contention.paused(now), None);
        }
        now += MAX_PAUSE + WINDOW + Duration::from_secs(60);
        assert_eq!(fight(&mut contention, &mut now), Some(MIN_PAUSE), "it was quiet for long");
    }

    #[test]
    fn losses_that_are_far_apart_are_no_fight() {
        let (mut contention, start) = (Contention::default(), Instant::now());
        for minute in 0..100 {
            assert_eq!(contention.lost(start + WINDOW * minute), None);
            assert_eq!(contention.lost(start + WINDOW * minute + WINDOW / 4), None);
        }
    }
}
