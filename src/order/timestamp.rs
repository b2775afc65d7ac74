//! Timestamps as the database and the clients represent them: UTC, whole milliseconds.

use jiff::Timestamp;

/// The format of `Date.prototype.toJSON`: `2026-11-22T17:29:24.464Z`, always three fractional digits.
#[must_use]
pub fn iso_millis(timestamp: Timestamp) -> String {
    format!("{:.3}", to_millis(timestamp))
}

/// `timestamp` truncated to milliseconds, the precision of a BSON date, so that a response has what is stored.
#[must_use]
pub fn to_millis(timestamp: Timestamp) -> Timestamp {
    // Fails only within the first millisecond of jiff's range.
    Timestamp::from_millisecond(timestamp.as_millisecond()).unwrap_or(timestamp)
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
