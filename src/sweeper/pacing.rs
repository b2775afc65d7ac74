//! The size of batches and the pauses between them: pure functions.

use std::time::Duration;

/// The number of orders in one batch when no more than `limit` may be cancelled in a second: an eighth of that at
/// most, so that they are spread over the second.
pub fn limited(batch: BatchSize, limit: Option<u32>) -> u32 {
    limit.map_or(batch.get(), |limit| batch.get().min(limit.div_ceil(8)).max(1))
}

/// How long to wait after a batch of `orders` orders that took `took`, so that no more than `limit` are cancelled in
/// a second.
pub fn pause(orders: u64, took: Duration, limit: Option<u32>) -> Duration {
    let Some(limit) = limit else { return Duration::ZERO };
    Duration::from_secs_f64(orders as f64 / f64::from(limit.max(1))).saturating_sub(took)
}

/// The number of orders to cancel in one write, adapted so that a write takes 100 to 150 ms: long enough to be worth
/// its round trip, short enough not to block other writers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchSize(u32);

const SMALLEST: u32 = 50;
const FAST: Duration = Duration::from_millis(100);
const SLOW: Duration = Duration::from_millis(150);

impl Default for BatchSize {
    fn default() -> Self {
        Self(500)
    }
}

impl BatchSize {
    /// The largest number.
    pub const LARGEST: u32 = 10_000;

    /// The number of orders.
    pub fn get(self) -> u32 {
        self.0
    }

    /// The size after a batch of `orders` orders that took `took`: larger if the batch was full and fast, smaller if
    /// it was slow.
    #[must_use]
    pub fn after(self, orders: u64, took: Duration) -> Self {
        if took > SLOW {
            self.halved()
        } else if took < FAST && orders >= u64::from(self.0) {
            Self((self.0 + self.0 / 2).min(Self::LARGEST))
        } else {
            self
        }
    }

    /// The size after an error of the server.
    #[must_use]
    pub fn halved(self) -> Self {
        Self((self.0 / 2).max(SMALLEST))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_more_than_the_limit_is_cancelled_in_a_second(
            limit in 1u32..100_000, took_ms in proptest::collection::vec(0u64..300, 1..50)
        ) {
            let (mut time, mut cancelled) = (Duration::ZERO, 0);
            for took in took_ms.into_iter().map(Duration::from_millis) {
                let batch = u64::from(limited(BatchSize::default(), Some(limit)));
                cancelled += batch;
                time += took + pause(batch, took, Some(limit));
            }
            prop_assert!(cancelled as f64 <= time.as_secs_f64() * f64::from(limit) + 1.0);
            prop_assert_eq!(limited(BatchSize::default(), None), BatchSize::default().get());
            prop_assert_eq!(pause(1_000_000, Duration::ZERO, None), Duration::ZERO);
        }

        #[test]
        fn the_batch_size_stays_within_its_bounds(took_ms in proptest::collection::vec(0u64..1_000, 0..60)) {
            let mut size = BatchSize::default();
            for took in took_ms {
                size = size.after(u64::from(size.get()), Duration::from_millis(took));
                prop_assert!((SMALLEST..=BatchSize::LARGEST).contains(&size.get()));
            }
        }
    }

    #[test]
    fn batches_take_100_to_150_ms_whatever_the_speed_of_the_server() {
        for per_second in [1_000u32, 5_000, 40_000, 1_000_000] {
            let mut size = BatchSize::default();
            for _ in 0..20 {
                size = size.after(size.get().into(), Duration::from_secs(1) * size.get() / per_second);
            }
            let took = Duration::from_secs(1) * size.get() / per_second;
            assert!(
                (FAST..=SLOW).contains(&took) || size.get() == BatchSize::LARGEST,
                "{per_second}/s: {took:?}"
            );
        }
    }

    #[test]
    fn a_batch_grows_only_when_it_was_full_and_fast() {
        let size = BatchSize::default();
        assert!(size.after(500, Duration::from_millis(10)).get() > 500);
        assert_eq!(size.after(499, Duration::from_millis(10)), size);
        assert_eq!(size.after(500, Duration::from_millis(120)), size);
        assert_eq!(size.after(10, Duration::from_millis(151)).get(), 250);
    }
}
