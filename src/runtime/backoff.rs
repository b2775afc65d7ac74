//! Exponential backoff.

use std::time::Duration;

/// The pause after `failures` earlier failures: `first`, doubled for each of them, up to `longest`. Without jitter, which
/// is up to the caller.
pub fn exponential(first: Duration, longest: Duration, failures: u32) -> Duration {
    first.saturating_mul(1 << failures.min(16)).min(longest)
}
