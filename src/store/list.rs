//! A user's orders, page by page, without their tickets.
//!
//! Pagination is by id or by position (see `positions`) and not by offset, so orders that are cancelled meanwhile cause no
//! duplicates and no gaps, and the server keeps no cursor open for a slow client.

use mongodb::bson::{RawDocumentBuf, raw::RawBsonRef};

use super::{
    database::Store,
    document::{skip_malformed, to_order},
    error::StoreError,
    page_query::{LISTING, ListOrder, Listing, find},
    retry,
};
use crate::order::{Order, OrderId};

/// One page of a user's orders.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The orders. Malformed orders are logged and left out.
    pub orders: Vec<Order>,
    /// The id to continue after; `None` on the last page.
    pub next: Option<OrderId>,
}

impl Store {
    /// The first `limit` orders of `listing`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn page(&self, listing: &Listing, limit: u32) -> Result<Page, StoreError> {
        retry::patiently(LISTING, || async {
            // One more than requested, to learn whether there is another page.
            let mut found = self.find_after(listing, limit.saturating_add(1)).await?;
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            let more = found.len() > limit;
            found.truncate(limit);
            let next = if more { last_id(&found).or_else(|| first_id(listing)) } else { None };
            let orders = found.iter().filter_map(|document| skip_malformed(to_order(document))).collect();
            Ok(Page { orders, next })
        })
        .await
    }

    async fn find_after(&self, listing: &Listing, limit: u32) -> Result<Vec<RawDocumentBuf>, StoreError> {
        let orders = self.raw_orders();
        let is_first = listing.after.is_none() && listing.statuses.is_empty();
        match listing.order {
            ListOrder::AsShown => self.find_as_shown(listing, limit).await,
            ListOrder::OldestFirst if is_first => {
                self.first_pages.find(orders, listing.user.clone(), limit).await
            }
            ListOrder::OldestFirst | ListOrder::NewestFirst => find(&orders, listing, limit).await,
        }
    }
}

/// The last ObjectId of the page. Ids of other BSON types, which no known service writes, sort before all ObjectIds or
/// after them.
fn last_id(found: &[RawDocumentBuf]) -> Option<OrderId> {
    found.iter().rev().find_map(|document| match document.get("_id") {
        Ok(Some(RawBsonRef::ObjectId(id))) => Some(OrderId::from_bytes(id.bytes())),
        _ => None,
    })
}

/// The smallest ObjectId, to continue from after a first page without any.
fn first_id(listing: &Listing) -> Option<OrderId> {
    listing.after.is_none().then(|| OrderId::from_bytes([0; 12]))
}
