//! A user's orders, page by page: each is two queries, however many orders and tickets are in it.
//!
//! Pages follow the ids and not a position, so that what is added or cancelled meanwhile neither
//! repeats an order nor skips one, and no server keeps a cursor open for a slow reader.

use futures::TryStreamExt;
use mongodb::bson::{Document, RawDocumentBuf, doc, oid::ObjectId, raw::RawBsonRef};

use super::{
    Store, StoreError,
    document::{kept, object_id, statuses, to_order},
    retry,
};
use crate::order::{Order, OrderId, OrderStatus, Reservation, UserId};

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

/// Some of a user's orders, oldest first.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The orders with their tickets. Malformed ones are logged and left out.
    pub orders: Vec<Reservation>,
    /// The order that the next page begins after; `None` when there are no more.
    pub next: Option<OrderId>,
}

const LISTING: &str = "listing a user's orders";

impl Store {
    /// The first `limit` orders of `listing`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn page(&self, listing: &Listing, limit: u32) -> Result<Page, StoreError> {
        retry::within(retry::DEADLINE, LISTING, async {
            // One more than asked for tells whether there are more.
            let mut found = self.find_after(listing, limit.saturating_add(1)).await?;
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            let more = found.len() > limit;
            found.truncate(limit);
            let next = if more { found.last().and_then(id_of) } else { None };

            let orders: Vec<Order> = found.iter().filter_map(|document| kept(to_order(document))).collect();
            let tickets = self.tickets_by_id(orders.iter().filter_map(|order| order.ticket)).await?;
            let with_ticket = |order: Order| {
                let ticket = order.ticket.and_then(|id| tickets.get(&id).cloned());
                Reservation { order, ticket }
            };
            Ok(Page { orders: orders.into_iter().map(with_ticket).collect(), next })
        })
        .await
    }

    async fn find_after(&self, listing: &Listing, limit: u32) -> Result<Vec<RawDocumentBuf>, StoreError> {
        let (orders, filter) = (self.raw_orders(), filter(listing));
        retry::transient(LISTING, || async {
            // Ids begin with the time that they were made.
            let find = orders.find(filter.clone()).sort(doc! { "_id": 1 });
            find.limit(i64::from(limit)).batch_size(limit).await?.try_collect().await
        })
        .await
    }
}

fn filter(listing: &Listing) -> Document {
    // Also the first page asks for ObjectIds only: no order of ours or of the Node service has
    // another kind of id, and no page could begin after one.
    let after = match listing.after {
        Some(id) => doc! { "$gt": object_id(id.bytes()) },
        None => doc! { "$gte": ObjectId::from_bytes([0; 12]) },
    };
    let mut filter = doc! { "userId": listing.user.as_str(), "_id": after };
    if !listing.statuses.is_empty() {
        filter.insert("status", doc! { "$in": statuses(&listing.statuses) });
    }
    filter
}

fn id_of(document: &RawDocumentBuf) -> Option<OrderId> {
    match document.get("_id") {
        Ok(Some(RawBsonRef::ObjectId(id))) => Some(OrderId::from_bytes(id.bytes())),
        _ => None,
    }
}
