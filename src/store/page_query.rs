//! The query for one page of a user's orders.

use mongodb::{
    Collection,
    bson::{Document, RawDocumentBuf, doc},
    options::Hint,
};

use super::{
    answer::at_most,
    document::{object_id, statuses, user_orders_keys},
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
}

pub(super) const LISTING: &str = "listing a user's orders";

/// The first `limit` orders of `listing`.
pub(super) async fn find(
    orders: &Collection<RawDocumentBuf>,
    listing: &Listing,
    limit: u32,
) -> Result<Vec<RawDocumentBuf>, StoreError> {
    let filter = filter(listing);
    retry::transient(LISTING, || async {
        // An ObjectId begins with its creation time, so this is oldest first. One batch saves round trips, which are
        // expensive with some servers.
        let find = orders.find(filter.clone()).sort(doc! { "_id": 1 });
        let mut find = find.limit(i64::from(limit)).batch_size(limit);
        if listing.after.is_some() {
            // Some planners would otherwise scan the `_id` index across all users.
            find = find.hint(Hint::Keys(user_orders_keys()));
        }
        at_most(limit, find.await?).await
    })
    .await
}

fn filter(listing: &Listing) -> Document {
    let mut filter = doc! { "userId": listing.user.as_str() };
    if let Some(id) = listing.after {
        filter.insert("_id", doc! { "$gt": object_id(id.bytes()) });
    }
    if !listing.statuses.is_empty() {
        filter.insert("status", doc! { "$in": statuses(&listing.statuses) });
    }
    filter
}
