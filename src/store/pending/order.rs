//! An order with something in its outbox, as its document says it.

use jiff::Timestamp;
use mongodb::bson::{Bson, Document, RawDocument, RawDocumentBuf};

use crate::{
    order::{Order, OrderStatus, Refusal, TicketId, Version},
    store::{
        cast,
        document::{self, ORDERS, timestamp, to_order},
        error::StoreError,
        outbox::{AGAIN, CREATED, OUTBOX, REFUSED, SINCE, UPDATED},
        settle::{PAYMENT_ID, payment_of},
    },
};

/// An order with something in its outbox.
#[derive(Clone, Debug, PartialEq)]
pub struct PendingOrder {
    /// The order as it is now.
    pub order: Order,
    /// The ticket that it holds or held.
    pub ticket: TicketId,
    /// The payment that it was completed by, if it says so.
    pub payment: Option<String>,
    /// The changes to publish, by version.
    pub changes: Vec<Change>,
    /// Payments that were refused.
    pub refused: Vec<RefusedPayment>,
    /// The time of the oldest of these changes, or a little earlier, by the database's clock.
    pub since: Option<Timestamp>,
    /// A mark, if it was published before and is published again.
    pub again: Option<String>,
}

/// A payment that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedPayment {
    /// The payment.
    pub payment: String,
    /// Why.
    pub reason: Refusal,
    /// When, or a little earlier, by the database's clock.
    pub since: Option<Timestamp>,
}

/// One change to publish.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// The version that it made.
    pub version: Version,
    /// What it was.
    pub kind: ChangeKind,
}

/// What is published of an order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ChangeKind {
    /// It was made.
    Created {
        /// The price of its ticket then.
        price: f64,
    },
    /// Its payment has begun.
    Updated,
    /// It was cancelled, or has expired.
    Cancelled,
    /// It was paid for.
    Completed,
}

impl PendingOrder {
    /// The time of the oldest change or refusal that is pending.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        self.refused.iter().map(|refused| refused.since).chain([self.since]).flatten().min()
    }

    pub(super) fn is_creation_pending(&self) -> bool {
        self.price().is_some()
    }

    /// The price with which its creation is published.
    pub(super) fn price(&self) -> Option<f64> {
        self.changes.iter().find_map(|change| match change.kind {
            ChangeKind::Created { price } => Some(price),
            ChangeKind::Updated | ChangeKind::Cancelled | ChangeKind::Completed => None,
        })
    }

    /// Whether consumers that get it again forget which order holds its ticket.
    pub(super) fn is_over_and_republished(&self) -> bool {
        self.order.status == OrderStatus::Cancelled && self.again.is_some()
    }
}

/// The fields that are read. Others may have put in more.
pub(super) fn needed() -> Document {
    ["userId", "status", "version", "expiresAt", "ticket", OUTBOX, PAYMENT_ID]
        .into_iter()
        .map(|field| (field.to_owned(), Bson::Int32(1)))
        .collect()
}

/// Parses an order with something in its outbox.
pub(super) fn to_pending(document: &RawDocumentBuf) -> Result<PendingOrder, StoreError> {
    let order = to_order(document)?;
    let malformed = |detail: &str| StoreError::Malformed {
        collection: ORDERS,
        id: document::id(document),
        detail: detail.to_owned(),
    };
    let ticket = order.ticket.ok_or_else(|| malformed("ticket: it is not an ObjectId"))?;
    let outbox = document.get_document(OUTBOX).map_err(|_| malformed("outbox: it is not a document"))?;
    let field = |path: &str| {
        let name = path.rsplit('.').next().unwrap_or(path);
        outbox.get(name).ok().flatten()
    };
    let mut changes = Vec::new();
    if let Some(price) = field(CREATED) {
        let price = cast::price(price).ok_or_else(|| malformed("outbox.created: it is not a price"))?;
        changes.push(Change { version: Version(0), kind: ChangeKind::Created { price } });
    }
    let since = field(SINCE);
    let last = match order.status {
        // Only refusals are pending.
        _ if since.is_none() => None,
        OrderStatus::Cancelled => Some(ChangeKind::Cancelled),
        OrderStatus::Complete => Some(ChangeKind::Completed),
        OrderStatus::Created | OrderStatus::AwaitingPayment => None,
    };
    if field(UPDATED).is_some() {
        let since = u32::from(last.is_some());
        let version = Version(order.version.0.saturating_sub(since));
        changes.push(Change { version, kind: ChangeKind::Updated });
    }
    changes.extend(last.map(|kind| Change { version: order.version, kind }));
    let since = since.and_then(|since| since.as_datetime()).and_then(timestamp);
    let mut refused = Vec::new();
    if let Some(list) = field(REFUSED) {
        let list = list.as_array().ok_or_else(|| malformed("outbox.refused: it is not a list"))?;
        for entry in list {
            let entry = entry.ok().and_then(|entry| entry.as_document().and_then(to_refused));
            refused.push(entry.ok_or_else(|| malformed("outbox.refused: it has an invalid entry"))?);
        }
    }
    let payment = payment_of(document);
    let again = field(AGAIN).and_then(|again| again.as_str()).map(str::to_owned);
    Ok(PendingOrder { order, ticket, payment, changes, refused, since, again })
}

fn to_refused(entry: &RawDocument) -> Option<RefusedPayment> {
    Some(RefusedPayment {
        payment: entry.get_str("payment").ok()?.to_owned(),
        reason: Refusal::parse(entry.get_str("reason").ok()?)?,
        since: entry.get_datetime("since").ok().and_then(timestamp),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use mongodb::bson::{DateTime, doc};

    use super::*;
    use crate::store::document::object_id;

    fn stored(id: u8, ticket: u8, status: &str, version: i32, outbox: Document) -> RawDocumentBuf {
        let order = doc! {
            "_id": object_id([id; 12]), "userId": "u1", "status": status, "version": version,
            "expiresAt": DateTime::from_millis(5), "ticket": object_id([ticket; 12]), "outbox": outbox,
        };
        RawDocumentBuf::try_from(&order).unwrap()
    }

    pub(in super::super) fn pending(id: u8, ticket: u8, status: &str, outbox: Document) -> PendingOrder {
        to_pending(&stored(id, ticket, status, i32::from(status != "created"), outbox)).unwrap()
    }

    #[test]
    fn what_is_to_be_told_follows_from_status_version_and_note() {
        let since = || DateTime::from_millis(7);
        let changes = |status, version, outbox| {
            let pending = to_pending(&stored(1, 2, status, version, outbox)).unwrap();
            assert_eq!(pending.since.map(Timestamp::as_millisecond), Some(7));
            pending.changes.into_iter().map(|change| (change.version.0, change.kind)).collect::<Vec<_>>()
        };
        let (created, updated, cancelled, completed) = (
            ChangeKind::Created { price: 20.0 },
            ChangeKind::Updated,
            ChangeKind::Cancelled,
            ChangeKind::Completed,
        );
        assert_eq!(changes("created", 0, doc! { "since": since(), "created": 20 }), [(0, created)]);
        assert_eq!(changes("cancelled", 1, doc! { "since": since() }), [(1, cancelled)]);
        assert_eq!(changes("complete", 5, doc! { "since": since() }), [(5, completed)]);
        assert_eq!(
            changes("cancelled", 1, doc! { "since": since(), "created": 20.0 }),
            [(0, created), (1, cancelled)]
        );
        assert_eq!(
            changes("complete", 2, doc! { "since": since(), "created": 20, "updated": true }),
            [(0, created), (1, updated), (2, completed)]
        );
        assert_eq!(
            changes("awaiting:payment", 1, doc! { "since": since(), "updated": true }),
            [(1, updated)]
        );
    }

    #[test]
    fn a_refusal_alone_is_no_change() {
        let entry = doc! { "payment": "p1", "reason": "too-late", "since": DateTime::from_millis(9) };
        let order = pending(1, 2, "cancelled", doc! { "refused": [entry] });
        assert_eq!((order.changes, order.since), (Vec::new(), None));
        let since = Timestamp::from_millisecond(9).ok();
        let refused = RefusedPayment { payment: "p1".into(), reason: Refusal::TooLate, since };
        assert_eq!(order.refused, [refused]);
        for spoilt in [doc! { "refused": 1 }, doc! { "refused": [{ "payment": "p1", "reason": "whim" }] }] {
            assert!(to_pending(&stored(1, 2, "cancelled", 1, spoilt)).is_err());
        }
    }

    #[test]
    fn what_cannot_be_told_is_an_error_that_names_the_order() {
        for document in [
            stored(1, 2, "paid", 1, doc! {}),
            stored(1, 2, "created", 0, doc! { "created": "cheap" }),
            RawDocumentBuf::try_from(&doc! {
                "_id": object_id([1; 12]), "userId": "u", "status": "cancelled", "version": 1, "outbox": {},
            })
            .unwrap(),
        ] {
            let error = to_pending(&document).unwrap_err().to_string();
            assert!(error.contains("010101010101010101010101"), "{error}");
        }
    }
}
