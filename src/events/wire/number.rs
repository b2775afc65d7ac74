//! Numbers as they come from JavaScript: mongoose casts a text to the number that it spells.

use serde_json::Value;

use crate::order::Version;

/// A price: a finite number, or the text of one.
pub(super) fn price(value: &Value) -> Option<f64> {
    let price = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => {
            let text = text.trim();
            let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
            if !is_decimal {
                return None;
            }
            text.parse().ok()?
        }
        _ => return None,
    };
    price.is_finite().then_some(price)
}

/// A version: a whole number that is not negative, or the text of one; 0 where there is none.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked first")]
pub(super) fn version(value: Option<&Value>) -> Option<Version> {
    let number = match value {
        None | Some(Value::Null) => return Some(Version(0)),
        Some(value) => price(value)?,
    };
    let is_version = number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number);
    is_version.then_some(Version(number as u32))
}
