//! Whether a target falls behind: orders wait for long, and not only for a moment.

use std::time::Duration;

/// An order that is overdue by more than this is late.
const LATE: Duration = Duration::from_secs(10);

/// A target falls behind when orders are late for as long as this without a break …
const FOR: Duration = Duration::from_secs(10);

/// … and has caught up when none was for as long as this. The difference keeps a target at the edge from
/// going to and fro.
const WELL_FOR: Duration = Duration::from_secs(30);

/// The judgement. Times are since any beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Behind {
    /// Since when it has been other than it is judged to be.
    otherwise: Option<Duration>,
    is_behind: bool,
}

impl Behind {
    /// After it was seen, at `now`, that the oldest order left is overdue by `overdue`.
    #[must_use]
    pub fn after(self, overdue: Duration, now: Duration) -> Self {
        if (overdue > LATE) == self.is_behind {
            return Self { otherwise: None, ..self };
        }
        let since = self.otherwise.unwrap_or(now);
        let limit = if self.is_behind { WELL_FOR } else { FOR };
        if now.saturating_sub(since) >= limit {
            Self { otherwise: None, is_behind: !self.is_behind }
        } else {
            Self { otherwise: Some(since), ..self }
        }
    }

    /// Whether it falls behind.
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
    fn it_takes_a_while_to_fall_behind_and_longer_to_have_caught_up() {
        let mut behind = Behind::default();
        let mut at = |overdue, now| {
            behind = behind.after(seconds(overdue), seconds(now));
            behind.is_behind()
        };
        assert!(!at(3600, 0) && !at(3600, 9), "a backlog that is gone soon");
        assert!(!at(0, 9) && !at(3600, 10) && !at(3600, 19));
        assert!(at(3600, 20) && at(0, 21) && at(0, 50));
        assert!(at(11, 50) && at(10, 51) && at(0, 80));
        assert!(!at(0, 81));
    }

    proptest! {
        #[test]
        fn it_does_not_change_more_often_than_its_limits_allow(
            seen in proptest::collection::vec((0u64..40, 0u64..8), 0..200)
        ) {
            let (mut behind, mut now, mut changed) = (Behind::default(), 0, None);
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
