//! Missing indexes: when their creation is tried again. Pure.

use std::time::{Duration, Instant};

use crate::{runtime::exponential, store::StoreError};

/// How soon that is, at first and at the latest: each attempt may read all orders.
const RETRY: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(600));

/// Whether an index is missing, and what was done about it.
#[derive(Default)]
pub struct IndexRepair(Option<Missing>);

struct Missing {
    error: StoreError,
    /// How many attempts to create it have failed, and when the last one was made; none before the first.
    failures: u32,
    tried: Option<Instant>,
}

impl IndexRepair {
    /// One that has been found missing and is to be created at once.
    pub fn at_once(error: StoreError) -> Self {
        Self(Some(Missing { error, failures: 1, tried: None }))
    }

    /// The same after one more attempt, which has failed.
    pub fn failed(self, error: StoreError, now: Instant) -> Self {
        let failures = self.0.map_or(0, |missing| missing.failures) + 1;
        Self(Some(Missing { error, failures, tried: Some(now) }))
    }

    /// Why an index is missing.
    pub fn error(&self) -> Option<&StoreError> {
        self.0.as_ref().map(|missing| &missing.error)
    }

    /// Whether it is time for the next attempt.
    pub fn is_due(&self, now: Instant) -> bool {
        let Some(Missing { failures, tried, .. }) = &self.0 else { return false };
        let pause = exponential(RETRY.0, RETRY.1, failures.saturating_sub(1));
        tried.is_none_or(|tried| now.saturating_duration_since(tried) > pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error() -> StoreError {
        StoreError::Unavailable { doing: "creating an index", detail: "no".into() }
    }

    #[test]
    fn attempts_become_rarer_while_they_fail() {
        let now = Instant::now();
        let mut indexes = IndexRepair::default();
        assert!(indexes.error().is_none() && !indexes.is_due(now));
        let mut pauses = Vec::new();
        for _ in 0..8 {
            indexes = indexes.failed(error(), now);
            let due = (0..2000).find(|seconds| indexes.is_due(now + Duration::from_secs(*seconds)));
            pauses.push(due.unwrap());
        }
        assert!(pauses.is_sorted() && pauses[0] >= 15 && pauses[0] < pauses[5], "{pauses:?}");
        assert!(pauses[7] <= RETRY.1.as_secs() + 1, "{pauses:?}");
    }

    #[test]
    fn an_index_that_somebody_has_dropped_is_created_at_once_and_then_counts_as_any_other() {
        let now = Instant::now();
        let dropped = IndexRepair::at_once(error());
        assert!(dropped.is_due(now) && dropped.error().is_some());
        assert!(!dropped.failed(error(), now).is_due(now));
    }
}
