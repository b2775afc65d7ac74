//! How mongoose reads values of another type than its schema says: `tests/it/express.rs` compares it with the real one.
//!
//! mongoose casts what it can, and leaves out of the document what it cannot; it refuses no document.

use jiff::{Timestamp, civil, tz::TimeZone};
use mongodb::bson::{Bson, oid::ObjectId, raw::RawBsonRef};

use crate::order::ExpiresAt;

/// The largest whole number, positive or negative, that JavaScript represents exactly.
const MAX_SAFE: i64 = 9_007_199_254_740_991;

/// mongoose takes the text of a number for a year up to here, and for milliseconds beyond.
const LAST_YEAR: f64 = 275_761.0;
const FIRST_YEAR: f64 = -271_820.0;

/// A time, by mongoose's cast to `Date`. Of texts it takes whatever JavaScript parses; here that is ISO 8601 and
/// milliseconds.
pub(super) fn expires_at(value: Option<RawBsonRef<'_>>) -> ExpiresAt {
    let in_range = |millis: &i64| millis.unsigned_abs() <= ExpiresAt::MAX_MILLIS.unsigned_abs();
    let shown = |millis: Option<i64>| millis.filter(in_range).map_or(ExpiresAt::Missing, ExpiresAt::Text);
    match value {
        None => ExpiresAt::Missing,
        Some(RawBsonRef::Null | RawBsonRef::Undefined | RawBsonRef::String("")) => ExpiresAt::Null,
        Some(RawBsonRef::DateTime(date)) => {
            Some(date.timestamp_millis()).filter(in_range).map_or(ExpiresAt::Missing, ExpiresAt::At)
        }
        Some(RawBsonRef::Int32(millis)) => shown(Some(millis.into())),
        Some(RawBsonRef::Int64(millis)) => shown(Some(millis)),
        Some(RawBsonRef::Double(millis)) => shown(whole(millis.trunc())),
        Some(RawBsonRef::String(text)) => shown(millis(text)),
        Some(_) => ExpiresAt::Missing,
    }
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

/// A price, by mongoose's cast to `Number`.
#[allow(clippy::cast_precision_loss, reason = "JavaScript has the same precision")]
pub(super) fn price(value: RawBsonRef<'_>) -> Option<f64> {
    let price = match value {
        RawBsonRef::Int32(price) => price.into(),
        RawBsonRef::Int64(price) => price as f64,
        RawBsonRef::Double(price) => price,
        RawBsonRef::Boolean(price) => price.into(),
        RawBsonRef::String(text) => number(text)?,
        RawBsonRef::Decimal128(price) => number(&price.to_string())?,
        _ => return None,
    };
    price.is_finite().then_some(price)
}

/// The id of a user or of a payment, by mongoose's cast to `String`.
pub(super) fn id(value: RawBsonRef<'_>) -> Option<String> {
    match value {
        RawBsonRef::String(text) => Some(text.to_owned()),
        RawBsonRef::ObjectId(id) => Some(id.to_hex()),
        RawBsonRef::Int32(number) => Some(number.to_string()),
        RawBsonRef::Int64(number) => Some(number.to_string()),
        RawBsonRef::Double(number) => whole(number).map(|number| number.to_string()),
        _ => None,
    }
}

/// Every value that [`id()`] reads as this id.
pub(super) fn forms_of_user(id: &str) -> Vec<Bson> {
    let mut forms = vec![Bson::String(id.to_owned())];
    // Not in upper case, in which no ObjectId is read.
    forms.extend(ObjectId::parse_str(id).ok().filter(|parsed| parsed.to_hex() == id).map(Bson::ObjectId));
    // Servers compare numbers by their value, whatever their type.
    forms.extend(id.parse::<i64>().ok().filter(|number| number.to_string() == id).map(Bson::Int64));
    forms
}

/// A text as `Number` reads it; in decimal digits only.
fn number(text: &str) -> Option<f64> {
    let text = text.trim();
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    if is_decimal { text.parse().ok() } else { None }
}

/// A whole number that JavaScript represents exactly.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "the range is checked first")]
fn whole(number: f64) -> Option<i64> {
    (number.fract() == 0.0 && number.abs() <= MAX_SAFE as f64).then_some(number as i64)
}

#[cfg(test)]
mod tests {
    use mongodb::bson::{Decimal128, RawBson};
    use proptest::prelude::*;

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
            assert_eq!(expires_at(Some(RawBsonRef::String(text))), wanted, "{text}");
        }
        assert_eq!(expires_at(Some(RawBsonRef::Double(5.7))), ExpiresAt::Text(5));
        assert_eq!(expires_at(Some(RawBsonRef::Double(f64::NAN))), ExpiresAt::Missing);
        assert_eq!(expires_at(Some(RawBsonRef::String(""))), ExpiresAt::Null);
        assert_eq!(expires_at(Some(RawBsonRef::Boolean(true))), ExpiresAt::Missing);
    }

    #[test]
    fn prices_are_read_from_texts_and_decimals() {
        let decimal: Decimal128 = "20.50".parse().unwrap();
        assert_eq!(price(RawBsonRef::Decimal128(decimal)), Some(20.5));
        for (text, wanted) in
            [("20", Some(20.0)), (" 20.5 ", Some(20.5)), ("1e2", Some(100.0)), ("inf", None)]
        {
            assert_eq!(price(RawBsonRef::String(text)), wanted, "{text}");
        }
        for none in ["", "cheap", "NaN", "1e400", "-"] {
            assert_eq!(price(RawBsonRef::String(none)), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn the_forms_of_a_user_are_read_as_that_user(id in "[0-9]{1,3}|-?[0-9]{1,20}|[0-9a-f]{24}|[0-9A-F]{24}|.{1,30}") {
            for form in forms_of_user(&id) {
                let raw = RawBson::try_from(form).unwrap();
                prop_assert_eq!(super::id(raw.as_raw_bson_ref()), Some(id.clone()));
            }
        }

        #[test]
        fn no_text_panics(text in ".{0,40}|[0-9T:Z+.-]{0,30}") {
            expires_at(Some(RawBsonRef::String(&text)));
            price(RawBsonRef::String(&text));
        }
    }
}
