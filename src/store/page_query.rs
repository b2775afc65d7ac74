//! The query for one page of a user's orders, by their ids.

use mongodb::{
    Collection,
    bson::{Document, RawDocumentBuf, doc},
    options::Hint,
};

use super::{
    answer::at_most,
    document::{object_id, owned_by, statuses, user_orders_keys},
    error::StoreError,
    retry,
};
use crate::order::{OrderId, OrderStatus, UserId};

/// Selects orders of one user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The user.
    pub user: UserId,
    /// Only orders in one of these statuses; empty for all statuses.
    pub statuses: Vec<OrderStatus>,
    /// Only orders after this one.
    pub after: Option<OrderId>,
    /// The order in which they are listed.
    pub order: ListOrder,
}

/// How a list is sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListOrder {
    /// By id: an ObjectId begins with the second in which it was made, so this is oldest first. Of the orders that were
    /// there when the first page was read, none is missing; of those that are added meanwhile, any may be.
    OldestFirst,
    /// The same the other way round.
    NewestFirst,
    /// By the position that each order is given when a page first shows it, see `positions`: nothing is added before what
    /// a page has shown.
    AsShown,
}

pub(super) const LISTING: &str = "listing a user's orders";

/// The first `limit` orders of `listing`, by id.
pub(super) async fn find(
    orders: &Collection<RawDocumentBuf>,
    listing: &Listing,
    limit: u32,
) -> Result<Vec<RawDocumentBuf>, StoreError> {
    let filter = filter(listing);
    let direction = if listing.order == ListOrder::NewestFirst { -1 } else { 1 };
    retry::transient(LISTING, || async {
        // One batch saves round trips, which are expensive with some servers.
        let find = orders.find(filter.clone()).sort(doc! { "_id": direction });
        let mut find = find.limit(i64::from(limit)).batch_size(limit);
        if filter.contains_key("_id") {
            // Some planners would otherwise scan the `_id` index across all users.
            find = find.hint(Hint::Keys(user_orders_keys()));
        }
        at_most(limit, find.await?).await
    })
    .await
}

fn filter(listing: &Listing) -> Document {
    let mut filter = doc! { "userId": owned_by(&listing.user) };
    let after = listing.after.map(|id| object_id(id.bytes()));
    match (listing.order, after) {
        // Not the ids of other types, which sort after all ObjectIds, so that each page ends with one to continue from.
        (ListOrder::NewestFirst, None) => filter.insert("_id", doc! { "$lte": object_id([0xff; 12]) }),
        (ListOrder::NewestFirst, Some(id)) => filter.insert("_id", doc! { "$lt": id }),
        (_, Some(id)) => filter.insert("_id", doc! { "$gt": id }),
        (_, None) => None,
    };
    if !listing.statuses.is_empty() {
        filter.insert("status", doc! { "$in": statuses(&listing.statuses) });
    }
    filter
}
