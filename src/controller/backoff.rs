//! Per-object exponential backoff with jitter: one failing object neither hammers the API server
//! nor slows the others.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::runtime::exponential;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);

/// Failures in a row of each object, by UID.
#[derive(Debug, Default)]
pub struct Backoff(Mutex<HashMap<String, u32>>);

impl Backoff {
    /// Counts a failure and gives the time to wait: 1 s, doubling up to 5 min, less up to a quarter.
    pub fn next(&self, uid: &str) -> Duration {
        let mut failures = self.lock();
        let count = failures.entry(uid.to_owned()).or_default();
        let delay = exponential(FIRST, LONGEST, *count);
        *count += 1;
        delay.mul_f64(1.0 - 0.25 * fastrand::f64())
    }

    /// Forgets an object that succeeded or is gone.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_five_minutes_and_starts_again_after_success() {
        let backoff = Backoff::default();
        let delays: Vec<_> = (0..40).map(|_| backoff.next("a")).collect();
        for (at, expected) in [1u64, 2, 4, 8, 16].into_iter().enumerate() {
            let expected = Duration::from_secs(expected);
            assert!(delays[at] <= expected && delays[at] >= expected.mul_f64(0.75), "{:?}", delays[at]);
        }
        assert!(delays[39] <= LONGEST && delays[39] >= LONGEST.mul_f64(0.75));
        backoff.forget("a");
        assert!(backoff.next("a") <= FIRST);
    }
}
