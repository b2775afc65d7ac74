//! Numbers as they come from JavaScript, as mongoose casts them.

use serde_json::Value;

use crate::order::{Foreign, Version};

/// A price: a finite number, or the text of one.
pub(super) fn price(value: &Value) -> Option<f64> {
    Foreign::from(value).price()
}

/// A version: a whole number that is not negative, or the text of one; 0 where there is none.
pub(super) fn version(value: Option<&Value>) -> Option<Version> {
    match value {
        None | Some(Value::Null) => Some(Version(0)),
        Some(value) => price(value).and_then(Version::from_number),
    }
}
