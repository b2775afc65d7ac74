//! Whether a target falls behind: whether orders stay overdue for longer than a moment.

use std::time::Duration;

/// An order that is overdue by more than this is late.
const OVERDUE_LIMIT: Duration = Duration::from_secs(10);

/// A target falls behind once orders have been late for this long without a break.
const RAISE_AFTER: Duration = Duration::from_secs(10);

/// It has caught up once no order has been late for this long. That it is longer than [`RAISE_AFTER`] keeps a target
/// near the limit from flapping.
const CLEAR_AFTER: Duration = Duration::from_secs(30);

/// The verdict, with hysteresis. Times are durations since any fixed moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FallingBehind {
    is_behind: bool,
    /// Since when the observations have contradicted the verdict.
    contradicted_since: Option<Duration>,
}

impl FallingBehind {
    /// The verdict after an observation at `now`: the oldest order left is overdue by `overdue`.
    #[must_use]
    pub fn after(self, overdue: Duration, now: Duration) -> Self {
        if (overdue > OVERDUE_LIMIT) == self.is_behind {
            return Self { contradicted_since: None, ..self };
        }
        let since = self.contradicted_since.unwrap_or(now);
        let limit = if self.is_behind { CLEAR_AFTER } else { RAISE_AFTER };
        if now.saturating_sub(since) >= limit {
            Self { contradicted_since: None, is_behind: !self.is_behind }
        } else {
            Self { contradicted_since: Some(since), ..self }
        }
    }

    /// Whether the target falls behind.
    pub fn is_behind(self) -> bool {
        self.is_behind
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_verdict_is_raised_after_10_seconds_and_cleared_after_30() {
        let mut behind = FallingBehind::default();
        let mut at = |overdue, now| {
            behind = behind.after(seconds(overdue), seconds(now));
            behind.is_behind()
        };
        assert!(!at(3600, 0) && !at(3600, 9), "a short backlog");
        assert!(!at(0, 9) && !at(3600, 10) && !at(3600, 19));
        assert!(at(3600, 20) && at(0, 21) && at(0, 50));
        assert!(at(11, 50) && at(10, 51) && at(0, 80));
        assert!(!at(0, 81));
    }

    proptest! {
        #[test]
        fn the_verdict_never_changes_twice_within_10_seconds(
            seen in proptest::collection::vec((0u64..40, 0u64..8), 0..200)
        ) {
            let (mut behind, mut now, mut changed) = (FallingBehind::default(), 0, None);
            for (overdue, wait) in seen {
                now += wait;
                let next = behind.after(seconds(overdue), seconds(now));
                if next.is_behind() != behind.is_behind() {
                    if let Some(last) = changed {
                        prop_assert!(now - last >= 10);
                    }
                    changed = Some(now);
                }
                behind = next;
            }
        }
    }
}
