//! Numbers as JavaScript writes them in JSON.

use serde::Serializer;

/// The largest whole number that JavaScript represents exactly.
const MAX_SAFE: f64 = 9_007_199_254_740_991.0;

/// Writes whole numbers without a fraction, as JavaScript does: `20`, not `20.0`.
///
/// # Errors
/// When the serializer fails.
#[allow(clippy::cast_possible_truncation, reason = "the range is checked first")]
pub fn javascript_number<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if number.fract() == 0.0 && number.abs() <= MAX_SAFE {
        serializer.serialize_i64(*number as i64)
    } else {
        serializer.serialize_f64(*number)
    }
}
