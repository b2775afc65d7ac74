//! How long to wait after failures in a row.

use std::time::Duration;

/// `first`, doubled for each failure before this one, up to `longest`. Jitter is the caller's choice.
pub fn exponential(first: Duration, longest: Duration, failures: u32) -> Duration {
    first.saturating_mul(1 << failures.min(16)).min(longest)
}
