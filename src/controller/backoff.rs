//! Exponential backoff with jitter for each object: one that fails neither floods the API server nor slows
//! the others down.

use std::time::Duration;

use crate::runtime::exponential;

const MIN_DELAY: Duration = Duration::from_secs(1);
const MAX_DELAY: Duration = Duration::from_secs(300);

/// The consecutive failures of one object.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Counts a failure, and gives the delay before the next attempt: 1 s, doubled each time up to 5 min, minus a
    /// random share of up to a quarter.
    pub fn next(&mut self) -> Duration {
        let delay = exponential(MIN_DELAY, MAX_DELAY, self.failures);
        self.failures = self.failures.saturating_add(1);
        delay.mul_f64(1.0 - 0.25 * fastrand::f64())
    }

    /// Starts again from the shortest delay, after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_five_minutes_and_starts_again_after_success() {
        let mut backoff = Backoff::default();
        let delays: Vec<_> = (0..40).map(|_| backoff.next()).collect();
        for (at, expected) in [1u64, 2, 4, 8, 16].into_iter().enumerate() {
            let expected = Duration::from_secs(expected);
            assert!(delays[at] <= expected && delays[at] >= expected.mul_f64(0.75), "{:?}", delays[at]);
        }
        assert!(delays[39] <= MAX_DELAY && delays[39] >= MAX_DELAY.mul_f64(0.75));
        backoff.reset();
        assert!(backoff.next() <= MIN_DELAY);
    }
}
