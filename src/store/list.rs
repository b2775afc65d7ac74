//! A user's orders, page by page: each is one query, however many orders and tickets are in it.
//!
//! Pages follow the ids and not a position, so that what is added or cancelled meanwhile neither
//! repeats an order nor skips one, and no server keeps a cursor open for a slow reader.

use futures::TryStreamExt;
use mongodb::{
    bson::{Document, RawDocument, RawDocumentBuf, doc, raw::RawBsonRef},
    options::Hint,
};

use super::{
    Store, StoreError, TICKETS,
    document::{kept, object_id, statuses, to_order, to_ticket},
    indexes::user_orders,
    retry,
};
use crate::order::{OrderId, OrderStatus, Reservation, UserId};

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
            let next = if more { last_id(&found).or_else(|| first_id(listing)) } else { None };
            Ok(Page { orders: found.iter().filter_map(|document| reservation(document)).collect(), next })
        })
        .await
    }

    async fn find_after(&self, listing: &Listing, limit: u32) -> Result<Vec<RawDocumentBuf>, StoreError> {
        let (orders, pipeline) = (self.raw_orders(), pipeline(listing, limit));
        retry::transient(LISTING, || async {
            // All in one batch: each further one is a way to the server and back, and dear to some.
            let mut aggregate = orders.aggregate(pipeline.clone()).batch_size(limit);
            if listing.after.is_some() {
                // Some planners would rather walk the ids of all users from there on.
                aggregate = aggregate.hint(Hint::Keys(user_orders()));
            }
            aggregate.with_type::<RawDocumentBuf>().await?.try_collect().await
        })
        .await
    }
}

/// The field that an order's ticket is put into, as a list of at most one.
const JOINED: &str = "joined";

fn pipeline(listing: &Listing, limit: u32) -> [Document; 4] {
    [
        doc! { "$match": filter(listing) },
        // Ids begin with the time that they were made.
        doc! { "$sort": { "_id": 1 } },
        doc! { "$limit": i64::from(limit) },
        doc! { "$lookup": { "from": TICKETS, "localField": "ticket", "foreignField": "_id", "as": JOINED } },
    ]
}

/// The order in `document` with the ticket that was joined to it.
fn reservation(document: &RawDocument) -> Option<Reservation> {
    let order = kept(to_order(document))?;
    let joined = document.get_array(JOINED).ok().and_then(|tickets| tickets.into_iter().next()?.ok());
    let ticket = joined.and_then(|ticket| kept(to_ticket(ticket.as_document()?)));
    Some(Reservation { order, ticket })
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

/// The last order that another page can begin after. Ids of other types than ours, which no one is
/// known to write, come before all ObjectIds or after them.
fn last_id(found: &[RawDocumentBuf]) -> Option<OrderId> {
    found.iter().rev().find_map(|document| match document.get("_id") {
        Ok(Some(RawBsonRef::ObjectId(id))) => Some(OrderId::from_bytes(id.bytes())),
        _ => None,
    })
}

/// Where the ObjectIds begin, after a first page that has none.
fn first_id(listing: &Listing) -> Option<OrderId> {
    listing.after.is_none().then(|| OrderId::from_bytes([0; 12]))
}
