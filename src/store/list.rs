//! A user's orders, page by page: each is one query for the orders, and one for all of their tickets, however many
//! there are. The first pages of several users are one query, when they are asked for at the same time.
//!
//! Pages follow the ids and not a position, so that what is added or cancelled meanwhile neither
//! repeats an order nor skips one, and no server keeps a cursor open for a slow reader.

use std::collections::HashMap;

use futures::{TryStreamExt, future::join_all};
use mongodb::{
    Collection,
    bson::{Document, RawDocumentBuf, doc, raw::RawBsonRef},
    options::Hint,
};

use super::{
    Store, StoreError,
    batch::Batches,
    document::{kept, object_id, statuses, to_order, to_ticket},
    indexes::user_orders,
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
        let first = FirstPage { user: listing.user.clone(), limit };
        self.first_pages.0.ask(first, 1, move |pages| find_first(orders.clone(), pages)).await?
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

async fn find(
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
            find = find.hint(Hint::Keys(user_orders()));
        }
        find.await?.try_collect().await
    })
    .await
}

/// The first of a user's orders, in any status, that are asked for at the time.
#[derive(Clone)]
pub(super) struct FirstPages(Batches<FirstPage, Result<Vec<RawDocumentBuf>, StoreError>>);

impl Default for FirstPages {
    fn default() -> Self {
        Self(Batches::new(LISTING))
    }
}

#[derive(Clone)]
struct FirstPage {
    user: UserId,
    limit: u32,
}

/// How many orders are asked for at once for several users: most have few. Who has so many that others do not fit in
/// is asked for by himself, and so are those.
const TOGETHER: u32 = 1000;

/// The orders of each of `pages`.
async fn find_first(
    orders: Collection<RawDocumentBuf>,
    pages: Vec<FirstPage>,
) -> Vec<Result<Vec<RawDocumentBuf>, StoreError>> {
    let together = if pages.len() > 1 { find_together(&orders, &pages).await } else { Ok(HashMap::new()) };
    let found = match together {
        Ok(found) => found,
        Err(error) => return vec![Err(error); pages.len()],
    };
    join_all(pages.iter().map(|page| async {
        match found.get(page.user.as_str()) {
            Some(found) => Ok(found.iter().take(page.limit as usize).cloned().collect()),
            None => {
                let listing = Listing { user: page.user.clone(), statuses: Vec::new(), after: None };
                find(&orders, &listing, page.limit).await
            }
        }
    }))
    .await
}

/// All orders of those users of whom all were found, by user.
async fn find_together(
    orders: &Collection<RawDocumentBuf>,
    pages: &[FirstPage],
) -> Result<HashMap<String, Vec<RawDocumentBuf>>, StoreError> {
    let users: Vec<_> = pages.iter().map(|page| page.user.as_str()).collect();
    let found: Vec<RawDocumentBuf> = retry::transient(LISTING, || async {
        let find = orders.find(doc! { "userId": { "$in": &users } }).sort(user_orders());
        find.limit(i64::from(TOGETHER)).batch_size(TOGETHER).await?.try_collect().await
    })
    .await?;
    let is_cut = found.len() as u64 >= u64::from(TOGETHER);
    let last = found.last().and_then(|order| order.get_str("userId").ok()).unwrap_or_default().to_owned();
    // Servers sort texts by their bytes, as we do.
    let is_whole = |user: &&str| !is_cut || **user < *last;
    let mut by_user: HashMap<_, _> =
        users.into_iter().filter(is_whole).map(|user| (user.to_owned(), Vec::new())).collect();
    for order in found {
        if let Some(orders) = order.get_str("userId").ok().and_then(|user| by_user.get_mut(user)) {
            orders.push(order);
        }
    }
    Ok(by_user)
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
