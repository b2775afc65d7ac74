//! How values of other types than a schema says are taken: as mongoose casts them, by which the Node.js services read and
//! write. `tests/it/express.rs` compares it with the real one.
//!
//! mongoose casts what it can, and leaves out of the document what it cannot; it refuses no document. Documents, messages and
//! sessions bring such values in formats of their own, which become a [`Foreign`] first.

use jiff::{Timestamp, civil, tz::TimeZone};
use serde_json::Value;

use super::{ExpiresAt, Version};

/// The largest whole number, positive or negative, that JavaScript represents exactly: `Number.MAX_SAFE_INTEGER`.
pub const MAX_SAFE_INTEGER: f64 = 9_007_199_254_740_991.0;

/// mongoose takes the text of a number for a year up to here, and for milliseconds beyond.
const LAST_YEAR: f64 = 275_761.0;
const FIRST_YEAR: f64 = -271_820.0;

/// A value of whatever type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Foreign<'a> {
    /// A text.
    Text(&'a str),
    /// A number, as JavaScript has them.
    Number(f64),
    /// A whole number of 64 bits, which JavaScript need not represent exactly.
    Integer(i64),
    /// True or false.
    Boolean(bool),
    /// Anything else: null, a list, a document.
    Other,
}

impl<'a> From<&'a Value> for Foreign<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::String(text) => Self::Text(text),
            Value::Number(number) => number.as_f64().map_or(Self::Other, Self::Number),
            // Nobody sends a boolean for a number, as documents may have it.
            _ => Self::Other,
        }
    }
}

impl Foreign<'_> {
    /// A price, by mongoose's cast to `Number`.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "JavaScript has the same precision")]
    pub fn price(self) -> Option<f64> {
        let price = match self {
            Self::Text(text) => number(text)?,
            Self::Number(number) => number,
            Self::Integer(number) => number as f64,
            Self::Boolean(boolean) => boolean.into(),
            Self::Other => return None,
        };
        price.is_finite().then_some(price)
    }

    /// The id of a user or of a payment, by mongoose's cast to `String`: a copy of the auth service may number its users.
    #[must_use]
    pub fn id(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.to_owned()),
            Self::Number(number) => whole(number).map(|number| number.to_string()),
            Self::Integer(number) => Some(number.to_string()),
            Self::Boolean(_) | Self::Other => None,
        }
    }

    /// A time, by mongoose's cast to `Date`. Of texts it takes whatever JavaScript parses; here that is ISO 8601 and
    /// milliseconds.
    #[must_use]
    pub fn expires_at(self) -> ExpiresAt {
        let millis = match self {
            Self::Text("") => return ExpiresAt::Null,
            Self::Text(text) => millis(text),
            Self::Number(millis) => whole(millis.trunc()),
            Self::Integer(millis) => Some(millis),
            Self::Boolean(_) | Self::Other => None,
        };
        let in_range = |millis: &i64| millis.unsigned_abs() <= ExpiresAt::MAX_MILLIS.unsigned_abs();
        millis.filter(in_range).map_or(ExpiresAt::Missing, ExpiresAt::Text)
    }
}

impl Version {
    /// The version that a number is, if it is a whole one that is not negative.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked first")]
    pub fn from_number(number: f64) -> Option<Self> {
        let is_version = number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number);
        is_version.then_some(Self(number as u32))
    }
}

/// A whole number that JavaScript represents exactly.
#[must_use]
#[allow(clippy::cast_possible_truncation, reason = "the range is checked first")]
pub fn whole(number: f64) -> Option<i64> {
    (number.fract() == 0.0 && number.abs() <= MAX_SAFE_INTEGER).then_some(number as i64)
}

/// A text as `Number` reads it; in decimal digits only.
fn number(text: &str) -> Option<f64> {
    let text = text.trim();
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    if is_decimal { text.parse().ok() } else { None }
}

/// The milliseconds since 1970 that a text stands for.
fn millis(text: &str) -> Option<i64> {
    match number(text) {
        Some(millis) if !(FIRST_YEAR..LAST_YEAR).contains(&millis) => return whole(millis.trunc()),
        _ => {}
    }
    let utc = |time: civil::DateTime| time.to_zoned(TimeZone::UTC).ok().map(|time| time.timestamp());
    let time = text.parse::<Timestamp>().ok();
    let time = time.or_else(|| utc(text.parse::<civil::DateTime>().ok()?));
    time.or_else(|| utc(text.parse::<civil::Date>().ok()?.into())).map(Timestamp::as_millisecond)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_and_numbers_are_read_as_times_and_no_order_expires_by_them() {
        for (text, millis) in [
            ("2026-11-22T17:29:24.464Z", Some(1_795_368_564_464)),
            ("2026-11-22T18:29:24.464+01:00", Some(1_795_368_564_464)),
            ("2026-11-22", Some(1_795_305_600_000)),
            ("1795368564464", Some(1_795_368_564_464)),
            ("tomorrow", None),
            ("9e15", None),
            ("1e400", None),
        ] {
            let wanted = millis.map_or(ExpiresAt::Missing, ExpiresAt::Text);
            assert_eq!(Foreign::Text(text).expires_at(), wanted, "{text}");
        }
        assert_eq!(Foreign::Number(5.7).expires_at(), ExpiresAt::Text(5));
        assert_eq!(Foreign::Number(f64::NAN).expires_at(), ExpiresAt::Missing);
        assert_eq!(Foreign::Integer(i64::MIN).expires_at(), ExpiresAt::Missing);
        assert_eq!(Foreign::Text("").expires_at(), ExpiresAt::Null);
        assert_eq!(Foreign::Boolean(true).expires_at(), ExpiresAt::Missing);
    }

    #[test]
    fn prices_are_read_from_texts() {
        for (text, wanted) in
            [("20", Some(20.0)), (" 20.5 ", Some(20.5)), ("1e2", Some(100.0)), ("inf", None)]
        {
            assert_eq!(Foreign::Text(text).price(), wanted, "{text}");
        }
        for none in ["", "cheap", "NaN", "1e400", "-"] {
            assert_eq!(Foreign::Text(none).price(), None, "{none}");
        }
        assert_eq!(Foreign::Boolean(true).price(), Some(1.0));
        assert_eq!(Foreign::from(&json!(true)).price(), None);
    }

    #[test]
    fn whole_numbers_are_ids_as_long_as_javascript_represents_them_exactly() {
        for (value, wanted) in [
            (json!("u"), Some("u")),
            (json!(42), Some("42")),
            (json!(-0.0), Some("0")),
            (json!(7.5), None),
            (json!(9_007_199_254_740_991_u64), Some("9007199254740991")),
            (json!(9_007_199_254_740_992_u64), None),
            (json!(null), None),
        ] {
            assert_eq!(Foreign::from(&value).id().as_deref(), wanted, "{value}");
        }
        assert_eq!(Foreign::Integer(i64::MAX).id().as_deref(), Some("9223372036854775807"));
    }

    #[test]
    fn a_version_is_a_whole_number_from_0_on() {
        assert_eq!(Version::from_number(4_294_967_295.0), Some(Version(u32::MAX)));
        for none in [-1.0, 0.5, 4_294_967_296.0, f64::NAN, f64::INFINITY] {
            assert_eq!(Version::from_number(none), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,40}|[0-9T:Z+.-]{0,30}") {
            let _ = (Foreign::Text(&text).expires_at(), Foreign::Text(&text).price());
        }
    }
}
