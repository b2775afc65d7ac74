//! Our indexes. A unique one guarantees that each ticket is sold only once.

use mongodb::{
    IndexModel,
    bson::{Document, doc},
    options::IndexOptions,
};

use super::{
    document::{IDEMPOTENCY_KEY, statuses, user_orders_keys},
    outbox::OUTBOX,
    positions,
    ticket_index::ONE_ACTIVE_ORDER,
};
use crate::order::OrderStatus;

/// One of our indexes.
pub(super) struct OwnIndex {
    pub(super) name: &'static str,
    pub(super) keys: Document,
    pub(super) is_unique: bool,
    /// The documents that are in it; all, if there is no filter.
    filter: Option<Document>,
}

impl OwnIndex {
    /// As `listIndexes` describes it.
    pub(super) fn description(&self) -> Document {
        let mut index = doc! { "name": self.name, "key": &self.keys, "unique": self.is_unique };
        index.extend(self.filter.iter().map(|filter| ("partialFilterExpression".to_owned(), filter.into())));
        index
    }

    pub(super) fn model(&self, name: &str) -> IndexModel {
        let options = IndexOptions::builder()
            .name(name.to_owned())
            .unique(self.is_unique.then_some(true))
            .partial_filter_expression(self.filter.clone())
            .build();
        IndexModel::builder().keys(self.keys.clone()).options(options).build()
    }
}

/// The indexes that the orders need. The first one is the sweeper's, which may not wait for those that stored orders can be in
/// the way of.
pub(super) fn own_indexes() -> [OwnIndex; 5] {
    [
        open_orders_by_expiry(),
        user_orders(),
        one_active_order_per_ticket(),
        one_order_per_idempotency_key(),
        one_order_per_list_position(),
    ]
}

/// The orders with something in their outbox. The index is there only where events are on, and says that they are.
///
/// Its name in the database stays that of the first version that had it: another name would have every database build the
/// index anew, and pods of two versions would disagree during an upgrade.
pub(super) fn outbox_index() -> OwnIndex {
    OwnIndex { name: "untold_orders", keys: pending_keys(), is_unique: false, filter: Some(is_pending()) }
}

/// By ticket, since whatever is pending of one ticket is published in order. With the id, so that queries can name the index
/// by its keys: the unique one has the ticket alone.
pub(super) fn pending_keys() -> Document {
    doc! { "ticket": 1, "_id": 1 }
}

/// The condition for orders that are pending.
pub(super) fn is_pending() -> Document {
    doc! { OUTBOX: { "$exists": true } }
}

/// A user's orders, oldest first.
fn user_orders() -> OwnIndex {
    OwnIndex { name: "user_orders", keys: user_orders_keys(), is_unique: false, filter: None }
}

/// Guarantees that a ticket is sold only once.
fn one_active_order_per_ticket() -> OwnIndex {
    let filter = doc! {
        "status": { "$in": statuses(&OrderStatus::ACTIVE) },
        // Otherwise orders without a ticket would violate the index, all having the same missing value.
        "ticket": { "$exists": true },
    };
    OwnIndex { name: ONE_ACTIVE_ORDER, keys: doc! { "ticket": 1 }, is_unique: true, filter: Some(filter) }
}

/// One order per idempotency key of a user, whatever its status.
fn one_order_per_idempotency_key() -> OwnIndex {
    let (keys, filter) =
        (doc! { "userId": 1, IDEMPOTENCY_KEY: 1 }, doc! { IDEMPOTENCY_KEY: { "$exists": true } });
    OwnIndex { name: "one_order_per_idempotency_key", keys, is_unique: true, filter: Some(filter) }
}

/// One order per position of a user's list.
fn one_order_per_list_position() -> OwnIndex {
    let (keys, filter) = (positions::keys(), positions::is_placed());
    OwnIndex { name: "one_order_per_list_position", keys, is_unique: true, filter: Some(filter) }
}

/// For the sweeper. Only open orders are in it, so it stays small however many orders are stored.
fn open_orders_by_expiry() -> OwnIndex {
    let filter = doc! { "status": { "$in": statuses(&OrderStatus::OPEN) } };
    let keys = doc! { "expiresAt": 1, "_id": 1 };
    OwnIndex { name: "open_orders_by_expiry", keys, is_unique: false, filter: Some(filter) }
}
