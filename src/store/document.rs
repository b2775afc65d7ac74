//! Orders and tickets as BSON documents.
//!
//! Parsing accepts what mongoose reads, which casts most types to those of its schema (see `cast`): numbers may be int32,
//! int64 or double, `version` may be missing (then it is 0, from which `$inc` counts too), `expiresAt` may be anything, and other fields are ignored. A
//! document that cannot be parsed is an error with its `_id`, which does not affect any other document.

use std::time::Duration;

use jiff::Timestamp;
use mongodb::bson::{Bson, DateTime, Document, RawDocument, doc, oid::ObjectId, raw::RawBsonRef};

use super::{cast, error::StoreError};
use crate::order::{
    ExpiresAt, Order, OrderId, OrderStatus, Ticket, TicketId, Transition, UserId, Version, whole,
};

/// The collection of orders.
pub(super) const ORDERS: &str = "orders";
/// The collection of tickets.
pub(super) const TICKETS: &str = "tickets";

/// The field of an order that was reserved with an idempotency key.
pub(super) const IDEMPOTENCY_KEY: &str = "idempotencyKey";

/// The document of a new order.
pub(super) fn from_order(order: &Order) -> Document {
    let mut document = doc! {
        "_id": object_id(order.id.bytes()),
        "userId": order.user.as_str(),
        "status": order.status.as_str(),
    };
    if order.expires_at != ExpiresAt::Missing {
        document.insert("expiresAt", expires_at(order.expires_at));
    }
    if let Some(ticket) = order.ticket {
        document.insert("ticket", object_id(ticket.bytes()));
    }
    document.insert("version", version(order.version));
    document
}

/// Parses an order.
pub(super) fn to_order(document: &RawDocument) -> Result<Order, StoreError> {
    let fields = Fields { collection: ORDERS, document };
    let status = fields.text("status")?;
    let user = cast::id(fields.required("userId")?)
        .ok_or_else(|| fields.malformed("userId", "it is not the id of a user"))?;
    Ok(Order {
        id: OrderId::from_bytes(fields.object_id("_id")?.bytes()),
        user: UserId::new(user).map_err(|error| fields.malformed("userId", error))?,
        status: status.parse().map_err(|error| fields.malformed("status", error))?,
        expires_at: cast::expires_at(fields.any("expiresAt")?),
        // An order whose ticket is missing, null or of another type is still shown, without a ticket.
        ticket: fields.object_id("ticket").ok().map(|id| TicketId::from_bytes(id.bytes())),
        version: fields.countable_version()?,
    })
}

/// Parses a ticket.
pub(super) fn to_ticket(document: &RawDocument) -> Result<Ticket, StoreError> {
    let fields = Fields { collection: TICKETS, document };
    Ok(Ticket {
        id: TicketId::from_bytes(fields.object_id("_id")?.bytes()),
        title: fields.text("title")?.to_owned(),
        price: cast::price(fields.required("price")?)
            .ok_or_else(|| fields.malformed("price", "it is not a finite number"))?,
        version: fields.version()?,
    })
}

/// A ticket's id, and its version if that is valid.
pub(super) fn ticket_version(document: &RawDocument) -> Option<(TicketId, Option<Version>)> {
    let fields = Fields { collection: TICKETS, document };
    let id = TicketId::from_bytes(fields.object_id("_id").ok()?.bytes());
    let is_there = fields.get("version").is_ok_and(|version| version.is_some());
    Some((id, if is_there { fields.version().ok() } else { None }))
}

/// The `_id` of a document, for a message.
pub(super) fn id(document: &RawDocument) -> String {
    match document.get("_id") {
        Ok(Some(RawBsonRef::ObjectId(id))) => id.to_hex(),
        Ok(Some(other)) => format!("{other:?}").chars().take(80).collect(),
        Ok(None) | Err(_) => "without an _id".into(),
    }
}

/// Logs the error of a malformed document and drops it, so that it does not fail a whole list.
pub(super) fn skip_malformed<T>(parsed: Result<T, StoreError>) -> Option<T> {
    parsed.inspect_err(|error| tracing::warn!(%error, "leaving out a malformed document")).ok()
}

pub(super) fn object_id(bytes: [u8; 12]) -> ObjectId {
    ObjectId::from(bytes)
}

pub(super) fn date(timestamp: Timestamp) -> DateTime {
    DateTime::from_millis(timestamp.as_millisecond())
}

pub(super) fn timestamp(date: DateTime) -> Option<Timestamp> {
    Timestamp::from_millisecond(date.timestamp_millis()).ok()
}

/// An order's `expiresAt` as it is stored. In a filter, null also matches an order without the field.
pub(super) fn expires_at(expires_at: ExpiresAt) -> Bson {
    match expires_at {
        ExpiresAt::At(millis) | ExpiresAt::Text(millis) => DateTime::from_millis(millis).into(),
        ExpiresAt::Null | ExpiresAt::Missing => Bson::Null,
    }
}

/// The condition on `userId` for the orders of `user`, in every form in which copies of the Node service store it.
pub(super) fn owned_by(user: &UserId) -> Bson {
    let mut forms = cast::forms_of_user(user.as_str());
    match forms.len() {
        1 => forms.remove(0),
        _ => doc! { "$in": forms }.into(),
    }
}

/// A version as the Node service stores it.
pub(super) fn version(version: Version) -> Bson {
    match i32::try_from(version.0) {
        Ok(small) => Bson::Int32(small),
        Err(_) => Bson::Int64(version.0.into()),
    }
}

/// A number as the Node service stores it: a whole number as an integer, any other as a double.
pub(super) fn number(value: f64) -> Bson {
    match whole(value) {
        None => Bson::Double(value),
        Some(whole) => i32::try_from(whole).map_or(Bson::Int64(whole), Bson::Int32),
    }
}

/// The stored form of `statuses`, for a filter.
pub(super) fn statuses(statuses: &[OrderStatus]) -> Vec<&'static str> {
    statuses.iter().map(|status| status.as_str()).collect()
}

/// The keys of the index of a user's orders, oldest first.
pub(super) fn user_orders_keys() -> Document {
    doc! { "userId": 1, "_id": 1 }
}

/// The update for `transition`. It sets these two fields only, since other services may write theirs.
pub(super) fn transition_update(transition: Transition) -> Document {
    doc! { "$set": { "status": transition.to().as_str() }, "$inc": { "version": 1 } }
}

/// `timestamp - duration`, saturating at the earliest timestamp.
pub(super) fn before(timestamp: Timestamp, duration: Duration) -> Timestamp {
    timestamp.checked_sub(duration).unwrap_or(Timestamp::MIN)
}

struct Fields<'a> {
    collection: &'static str,
    document: &'a RawDocument,
}

impl<'a> Fields<'a> {
    fn get(&self, name: &str) -> Result<Option<RawBsonRef<'a>>, StoreError> {
        match self.document.get(name) {
            Ok(None | Some(RawBsonRef::Null | RawBsonRef::Undefined)) => Ok(None),
            Ok(value) => Ok(value),
            Err(error) => Err(self.malformed(name, error)),
        }
    }

    /// The value, which may be null.
    fn any(&self, name: &str) -> Result<Option<RawBsonRef<'a>>, StoreError> {
        self.document.get(name).map_err(|error| self.malformed(name, error))
    }

    fn required(&self, name: &str) -> Result<RawBsonRef<'a>, StoreError> {
        self.get(name)?.ok_or_else(|| self.malformed(name, "it is missing"))
    }

    fn text(&self, name: &str) -> Result<&'a str, StoreError> {
        self.required(name)?.as_str().ok_or_else(|| self.malformed(name, "it is not a string"))
    }

    fn object_id(&self, name: &str) -> Result<ObjectId, StoreError> {
        self.required(name)?.as_object_id().ok_or_else(|| self.malformed(name, "it is not an ObjectId"))
    }

    #[allow(
        clippy::cast_precision_loss,
        reason = "JavaScript, which writes these numbers, has the same precision"
    )]
    fn number(&self, name: &str) -> Result<Option<f64>, StoreError> {
        match self.get(name)? {
            None => Ok(None),
            Some(RawBsonRef::Int32(value)) => Ok(Some(value.into())),
            Some(RawBsonRef::Int64(value)) => Ok(Some(value as f64)),
            Some(RawBsonRef::Double(value)) if value.is_finite() => Ok(Some(value)),
            Some(_) => Err(self.malformed(name, "it is not a finite number")),
        }
    }

    fn version(&self) -> Result<Version, StoreError> {
        let version = self.number("version")?.unwrap_or_default();
        Version::from_number(version)
            .ok_or_else(|| self.malformed("version", format!("{version} is not a version")))
    }

    /// A version to which 1 can be added: null is one for mongoose when it reads, and no server adds anything to it.
    fn countable_version(&self) -> Result<Version, StoreError> {
        match self.any("version")? {
            Some(RawBsonRef::Null | RawBsonRef::Undefined) => Err(self.malformed("version", "it is null")),
            _ => self.version(),
        }
    }

    fn malformed(&self, field: &str, why: impl std::fmt::Display) -> StoreError {
        let detail = format!("{field}: {why}");
        StoreError::Malformed { collection: self.collection, id: id(self.document), detail }
    }
}

#[cfg(test)]
mod tests {
    use mongodb::bson::RawDocumentBuf;

    use super::*;

    const ID: [u8; 12] = [7; 12];

    fn raw(document: &Document) -> RawDocumentBuf {
        RawDocumentBuf::try_from(document).unwrap()
    }

    fn mongoose() -> Document {
        doc! {
            "_id": object_id(ID), "userId": "u1", "status": "created", "__v": 0,
            "expiresAt": DateTime::from_millis(1_795_368_564_464), "ticket": object_id([9; 12]), "version": 0,
        }
    }

    #[test]
    fn an_order_round_trips() {
        let order = to_order(&raw(&mongoose())).unwrap();
        assert_eq!(to_order(&raw(&from_order(&order))).unwrap(), order);
    }

    #[test]
    fn versions_and_prices_are_read_in_every_numeric_type() {
        for version in [Bson::Int32(3), Bson::Int64(3), Bson::Double(3.0)] {
            let mut document = mongoose();
            document.insert("version", version);
            assert_eq!(to_order(&raw(&document)).unwrap().version, Version(3));
        }
        for (price, read) in [(Bson::Int32(20), 20.0), (Bson::Int64(20), 20.0), (Bson::Double(20.5), 20.5)] {
            let ticket =
                to_ticket(&raw(&doc! { "_id": object_id(ID), "title": "t", "price": price })).unwrap();
            assert_eq!((ticket.price, ticket.version), (read, Version(0)));
        }
    }

    #[test]
    fn a_missing_version_is_0_and_a_ticket_of_another_type_is_none() {
        let mut document = mongoose();
        document.remove("version");
        document.insert("ticket", "not an ObjectId");
        let order = to_order(&raw(&document)).unwrap();
        assert_eq!((order.version, order.ticket), (Version(0), None));
    }

    #[test]
    fn a_parse_error_names_the_document_and_the_field() {
        for (field, value) in [
            ("status", Bson::String("paid".into())),
            ("status", Bson::Null),
            ("userId", Bson::Array(Vec::new())),
            ("userId", Bson::String(String::new())),
            ("version", Bson::Double(0.5)),
            ("version", Bson::Double(f64::NAN)),
            ("version", Bson::Int32(-1)),
            ("version", Bson::Null),
            ("version", Bson::Undefined),
        ] {
            let mut document = mongoose();
            document.insert(field, value);
            let error = to_order(&raw(&document)).unwrap_err().to_string();
            assert!(error.contains("070707070707070707070707") && error.contains(field), "{error}");
        }
    }

    #[test]
    fn numbers_are_stored_as_the_node_service_stores_them() {
        assert_eq!(number(20.0), Bson::Int32(20));
        assert_eq!(number(20.5), Bson::Double(20.5));
        assert_eq!(number(5_000_000_000.0), Bson::Int64(5_000_000_000));
        assert_eq!(number(1e300), Bson::Double(1e300));
        assert_eq!(version(Version(u32::MAX)), Bson::Int64(4_294_967_295));
    }
}
