//! Values of documents, as mongoose casts them: [`Foreign`] has the rules, and here is what only BSON has.

use mongodb::bson::{Bson, oid::ObjectId, raw::RawBsonRef};

use crate::order::{ExpiresAt, Foreign};

/// When an order expires.
pub(super) fn expires_at(value: Option<RawBsonRef<'_>>) -> ExpiresAt {
    match value {
        None => ExpiresAt::Missing,
        Some(RawBsonRef::Null | RawBsonRef::Undefined) => ExpiresAt::Null,
        Some(RawBsonRef::DateTime(date)) => {
            let millis = date.timestamp_millis();
            let in_range = millis.unsigned_abs() <= ExpiresAt::MAX_MILLIS.unsigned_abs();
            if in_range { ExpiresAt::At(millis) } else { ExpiresAt::Missing }
        }
        Some(value) => foreign(value).expires_at(),
    }
}

/// The price of a ticket.
pub(super) fn price(value: RawBsonRef<'_>) -> Option<f64> {
    match value {
        RawBsonRef::Decimal128(price) => Foreign::Text(&price.to_string()).price(),
        value => foreign(value).price(),
    }
}

/// The id of a user or of a payment.
pub(super) fn id(value: RawBsonRef<'_>) -> Option<String> {
    match value {
        RawBsonRef::ObjectId(id) => Some(id.to_hex()),
        value => foreign(value).id(),
    }
}

fn foreign(value: RawBsonRef<'_>) -> Foreign<'_> {
    match value {
        RawBsonRef::String(text) => Foreign::Text(text),
        RawBsonRef::Int32(number) => Foreign::Integer(number.into()),
        RawBsonRef::Int64(number) => Foreign::Integer(number),
        RawBsonRef::Double(number) => Foreign::Number(number),
        RawBsonRef::Boolean(boolean) => Foreign::Boolean(boolean),
        _ => Foreign::Other,
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

#[cfg(test)]
mod tests {
    use mongodb::bson::{DateTime, Decimal128, RawBson};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_a_date_is_a_time_by_which_an_order_expires() {
        let date = |millis| Some(RawBsonRef::DateTime(DateTime::from_millis(millis)));
        assert_eq!(expires_at(date(5)), ExpiresAt::At(5));
        assert_eq!(expires_at(date(i64::MAX)), ExpiresAt::Missing);
        assert_eq!(expires_at(Some(RawBsonRef::Int32(5))), ExpiresAt::Text(5));
        assert_eq!(expires_at(Some(RawBsonRef::String(""))), ExpiresAt::Null);
        assert_eq!(expires_at(Some(RawBsonRef::Null)), ExpiresAt::Null);
        assert_eq!(expires_at(None), ExpiresAt::Missing);
    }

    #[test]
    fn prices_are_read_from_decimals() {
        let decimal: Decimal128 = "20.50".parse().unwrap();
        assert_eq!(price(RawBsonRef::Decimal128(decimal)), Some(20.5));
        assert_eq!(price(RawBsonRef::Null), None);
    }

    proptest! {
        #[test]
        fn the_forms_of_a_user_are_read_as_that_user(id in "[0-9]{1,3}|-?[0-9]{1,20}|[0-9a-f]{24}|[0-9A-F]{24}|.{1,30}") {
            for form in forms_of_user(&id) {
                let raw = RawBson::try_from(form).unwrap();
                prop_assert_eq!(super::id(raw.as_raw_bson_ref()), Some(id.clone()));
            }
        }
    }
}
