//! A user's orders, page by page: each is one query for the orders, and one for all of their tickets, however many
//! there are. The first pages of several users are one query, when they are asked for at the same time.
//!
//! Pages follow the ids and not a position, so that what is added or cancelled meanwhile neither
//! repeats an order nor skips one, and no server keeps a cursor open for a slow reader.

use mongodb::bson::{RawDocumentBuf, raw::RawBsonRef};

use super::{
    database::Store,
    document::{kept, object_id, to_order, to_ticket},
    error::StoreError,
    page_query::{LISTING, Listing, find},
    retry,
};
use crate::order::{Order, OrderId, Reservation};

/// Some of a user's orders, oldest first.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The orders with their tickets. Malformed ones are logged and left out.
    pub orders: Vec<Reservation>,
    /// The order that the next page begins after; `None` when there are no more.
    pub next: Option<OrderId>,
}

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
            let orders = found.iter().filter_map(|document| kept(to_order(document))).collect();
            Ok(Page { orders: self.with_tickets(orders).await?, next })
        })
        .await
    }

    async fn find_after(&self, listing: &Listing, limit: u32) -> Result<Vec<RawDocumentBuf>, StoreError> {
        let orders = self.raw_orders();
        if listing.after.is_some() || !listing.statuses.is_empty() {
            return find(&orders, listing, limit).await;
        }
        self.first_pages.find(orders, listing.user.clone(), limit).await
    }

    async fn with_tickets(&self, orders: Vec<Order>) -> Result<Vec<Reservation>, StoreError> {
        let tickets = orders.iter().filter_map(|order| order.ticket);
        let ids = tickets.map(|ticket| object_id(ticket.bytes())).collect();
        let mut tickets = self.tickets_by_id.all(ids).await?.into_iter();
        let with_ticket = |order: Order| {
            let ticket = order.ticket.and_then(|_| tickets.next().flatten());
            Reservation { order, ticket: ticket.and_then(|ticket| kept(to_ticket(&ticket))) }
        };
        Ok(orders.into_iter().map(with_ticket).collect())
    }
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
