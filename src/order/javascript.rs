//! Numbers as JavaScript writes them in JSON.

use serde::Serializer;

use super::cast::whole;

/// Writes whole numbers without a fraction, as JavaScript does: `20`, not `20.0`.
///
/// # Errors
/// When the serializer fails.
pub fn javascript_number<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    match whole(*number) {
        Some(whole) => serializer.serialize_i64(whole),
        None => serializer.serialize_f64(*number),
    }
}
