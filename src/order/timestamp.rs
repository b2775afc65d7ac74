//! Timestamps as the database and the clients represent them: UTC, whole milliseconds.

use jiff::Timestamp;

/// `timestamp` truncated to milliseconds, the precision of a BSON date, so that a response has what is stored.
#[must_use]
pub fn to_millis(timestamp: Timestamp) -> Timestamp {
    // Fails only within the first millisecond of jiff's range.
    Timestamp::from_millisecond(timestamp.as_millisecond()).unwrap_or(timestamp)
}
