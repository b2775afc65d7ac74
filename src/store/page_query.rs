//! The query for a user's orders after some id.

use futures::TryStreamExt;
use mongodb::{
    Collection,
    bson::{Document, RawDocumentBuf, doc},
    options::Hint,
};

use super::{
    document::{object_id, statuses, user_orders_keys},
    error::StoreError,
    retry,
};
use crate::order::{OrderId, OrderStatus, UserId};

/// Which of a user's orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Whose.
    pub user: UserId,
    /// Only those in one of these statuses; in any, when empty.
    pub statuses: Vec<OrderStatus>,
    /// Only those that come after this one.
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
        // Ids begin with the time that they were made. All in one batch: each further one is a way to the server
        // and back, and dear to some.
        let find = orders.find(filter.clone()).sort(doc! { "_id": 1 });
        let mut find = find.limit(i64::from(limit)).batch_size(limit);
        if listing.after.is_some() {
            // Some planners would rather walk the ids of all users from there on.
            find = find.hint(Hint::Keys(user_orders_keys()));
        }
        find.await?.try_collect().await
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
