//! Moments as the database and the clients have them: UTC, whole milliseconds.

use jiff::Timestamp;

/// The form of `Date.prototype.toJSON`: `2026-11-22T17:29:24.464Z`, always three fractional digits.
#[must_use]
pub fn iso_millis(moment: Timestamp) -> String {
    format!("{:.3}", to_millis(moment))
}

/// `moment` without what a database date cannot hold, so that what was answered is what is stored.
#[must_use]
pub fn to_millis(moment: Timestamp) -> Timestamp {
    // Only the very first moments of jiff's range lie outside the whole milliseconds within it.
    Timestamp::from_millisecond(moment.as_millisecond()).unwrap_or(moment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_always_three_fractional_digits() {
        for (text, written) in [
            ("2026-11-22T17:29:24Z", "2026-11-22T17:29:24.000Z"),
            ("2026-11-22T17:29:24.4Z", "2026-11-22T17:29:24.400Z"),
            ("2026-11-22T17:29:24.464Z", "2026-11-22T17:29:24.464Z"),
            ("2026-11-22T17:29:24.464999Z", "2026-11-22T17:29:24.464Z"),
            ("2026-11-22T18:29:24.464+01:00", "2026-11-22T17:29:24.464Z"),
        ] {
            assert_eq!(iso_millis(text.parse().unwrap()), written);
        }
    }
}
