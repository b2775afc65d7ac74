//! The sweeper's side of the store: the orders that are due or will be soon, and their expiry.
//!
//! An order is *due* when the database's clock has reached its `expiresAt`, plus the grace period if its payment has
//! begun. The clock of this machine does not matter. Expiring an order is a conditional write that repeats every
//! condition of the query, so an order that is paid for between the two stays paid for.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use mongodb::bson::{Bson, DateTime, Document, RawDocumentBuf, doc};
use tracing::Instrument;

use super::{
    answer::{at_most, on_one_line},
    connect::majority,
    database::Store,
    document::{self, before, date, statuses},
    error::StoreError,
    retry,
};
use crate::{
    order::{ExpiresAt, OrderStatus, Transition},
    runtime::traces,
};

/// Selects open orders by when they expire.
#[derive(Clone, Debug)]
pub struct ExpiryQuery {
    /// Orders that are due at this time are to be cancelled.
    pub cutoff: Timestamp,
    /// Only orders that expire at this time or earlier. After the cutoff, to learn when the next order will be due.
    pub until: Timestamp,
    /// Only orders that expire after this time.
    pub after: Option<Timestamp>,
    /// The grace period of orders whose payment has begun.
    pub grace: Duration,
    /// The most orders to read or to count.
    pub limit: u32,
    /// Orders to leave out.
    pub exclude: RejectedOrders,
}

impl ExpiryQuery {
    /// The orders that are due at `cutoff`, up to `limit`.
    #[must_use]
    pub fn due(cutoff: Timestamp, grace: Duration, limit: u32) -> Self {
        Self { cutoff, until: cutoff, after: None, grace, limit, exclude: RejectedOrders::default() }
    }

    fn filter(&self) -> Document {
        let mut filter = due(self.cutoff.max(self.until), self.grace);
        let mut expires_at = doc! { "$lte": date(self.until) };
        if let Some(after) = self.after {
            expires_at.insert("$gt", date(after));
        }
        filter.insert("expiresAt", expires_at);
        if !self.exclude.0.is_empty() {
            filter.insert("_id", doc! { "$nin": &self.exclude.0 });
        }
        filter
    }
}

/// The result of [`Store::find_expiring`].
#[derive(Debug, Default)]
pub struct ExpiringOrders {
    due_ids: Vec<Bson>,
    due: Vec<Timestamp>,
    expires_at: Vec<Timestamp>,
    next: Option<Timestamp>,
    is_full: bool,
    unreadable: RejectedOrders,
}

impl ExpiringOrders {
    /// When the orders that are due became due, in no particular order.
    #[must_use]
    pub fn due(&self) -> &[Timestamp] {
        &self.due
    }

    /// The `expiresAt` of these, to which the grace period of a payment is added.
    #[must_use]
    pub fn expires_at(&self) -> &[Timestamp] {
        &self.expires_at
    }

    /// Orders that the query matches, and of which it cannot be said when they are due.
    #[must_use]
    pub fn unreadable(&self) -> &RejectedOrders {
        &self.unreadable
    }

    /// When the next of the orders that were read becomes due.
    #[must_use]
    pub fn next(&self) -> Option<Timestamp> {
        self.next
    }

    /// Orders that became due at these times, and the next one.
    #[cfg(test)]
    pub(crate) fn listed(due: &[Timestamp], next: Option<Timestamp>) -> Self {
        Self { due: due.to_vec(), next, ..Self::default() }
    }

    /// Whether the limit was reached, so that there may be more orders.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.is_full
    }
}

/// Orders whose update the database rejects.
#[derive(Clone, Debug, Default)]
pub struct RejectedOrders(Vec<Bson>);

/// The most rejected orders that a log line names: how many there are is the database's choice.
const NAMED: usize = 5;

impl RejectedOrders {
    /// The ids of the first few.
    #[must_use]
    pub fn named(&self) -> String {
        let ids: Vec<_> = self.0.iter().take(NAMED).map(|id| on_one_line(&id.to_string())).collect();
        ids.join(", ")
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// So many of them.
    #[cfg(test)]
    pub(crate) fn numbered(count: usize) -> Self {
        Self((0..count).map(|number| Bson::Int64(i64::try_from(number).unwrap_or(i64::MAX))).collect())
    }

    /// Adds `others`, up to `most` in all.
    pub fn add(&mut self, others: &Self, most: usize) {
        let room = most.saturating_sub(self.0.len());
        self.0.extend(others.0.iter().take(room).cloned());
    }
}

/// The largest document with the fields of an order that are read here, in bytes. Ours have some 80; thousands are kept at a
/// time.
const MAX_PROJECTED: usize = 256;

const EXPIRING: &str = "expiring orders";
const LOOKING: &str = "looking for expired orders";
const COUNTING: &str = "counting expired orders";

impl Store {
    /// Reads open orders that are due, or will be soon.
    ///
    /// The query has no sort, for which some servers would read and sort all due orders for each batch. A server that
    /// scans the index returns them oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find_expiring(&self, query: &ExpiryQuery) -> Result<ExpiringOrders, StoreError> {
        let (orders, filter) = (self.raw_orders(), query.filter());
        let (limit, grace) = (query.limit, query.grace);
        let found: Vec<Found> = retry::transient(LOOKING, || async {
            let cursor = orders
                .find(filter.clone())
                .projection(doc! { "_id": 1, "expiresAt": 1, "status": 1 })
                .limit(i64::from(limit))
                .batch_size(limit)
                .await?;
            let due = cursor.map_ok(|order| due_of(&order, grace));
            due.take(usize::try_from(limit).unwrap_or(usize::MAX)).try_collect().await
        })
        .await?;
        let is_full = found.len() as u64 >= u64::from(limit);
        let mut expiring = ExpiringOrders { is_full, ..ExpiringOrders::default() };
        for found in found {
            match found {
                Found::Order { id, expires_at, due } if due <= query.cutoff => {
                    expiring.due_ids.push(id);
                    expiring.expires_at.push(expires_at);
                    expiring.due.push(due);
                }
                Found::Order { due, .. } => {
                    expiring.next = Some(expiring.next.map_or(due, |next| next.min(due)));
                }
                Found::Unreadable(id) => expiring.unreadable.0.extend(id),
            }
        }
        Ok(expiring)
    }

    /// Cancels those of the due orders in `expiring` that are still due at `cutoff`, and returns their number. Each
    /// order is cancelled at most once, however many callers there are. The others have been paid for or cancelled
    /// meanwhile; or they are not counted because the reply to a first attempt was lost.
    ///
    /// # Errors
    /// When the database fails. Some of the orders may have been cancelled then.
    pub async fn expire(
        &self,
        expiring: &ExpiringOrders,
        cutoff: Timestamp,
        grace: Duration,
    ) -> Result<u64, StoreError> {
        if expiring.due_ids.is_empty() {
            Ok(0)
        } else {
            self.expire_by_id(&expiring.due_ids, cutoff, grace).await
        }
    }

    /// Like [`Store::expire`], after that failed because the database rejects the update of some of the orders, such as
    /// one whose version is a string: finds these by bisection, cancels all others, and returns those that were
    /// rejected, which need manual repair. When it has found more than `most`, it gives up: then the reason is not in
    /// particular orders.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn expire_bisecting(
        &self,
        expiring: &ExpiringOrders,
        cutoff: Timestamp,
        grace: Duration,
        most: usize,
    ) -> Result<(u64, RejectedOrders), StoreError> {
        let (mut expired, mut rejected) = (0, RejectedOrders::default());
        let mut parts = vec![expiring.due_ids.as_slice()];
        while let Some(ids) = parts.pop() {
            match self.expire_by_id(ids, cutoff, grace).await {
                Ok(count) => expired = u64::saturating_add(expired, count),
                Err(error) if error.is_unavailable() => return Err(error),
                Err(_) => match ids {
                    [id] => {
                        rejected.0.push(id.clone());
                        if rejected.count() > most {
                            break;
                        }
                    }
                    ids => parts.extend(<[_; 2]>::from(ids.split_at(ids.len() / 2))),
                },
            }
        }
        Ok((expired, rejected))
    }

    async fn expire_by_id(
        &self,
        ids: &[Bson],
        cutoff: Timestamp,
        grace: Duration,
    ) -> Result<u64, StoreError> {
        let mut filter = doc! { "_id": { "$in": ids } };
        filter.extend(due(cutoff, grace));
        self.cancel_all(filter).await
    }

    /// Cancels all orders of `query` that are due, without reading them first, and returns their number.
    ///
    /// # Errors
    /// As [`Store::expire`].
    pub async fn expire_matching(&self, query: &ExpiryQuery) -> Result<u64, StoreError> {
        let query = ExpiryQuery { until: query.until.min(query.cutoff), ..query.clone() };
        self.cancel_all(query.filter()).await
    }

    /// The ids of open orders that never become due, because their `expiresAt` is missing or is no date; up to `limit`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn without_due_time(&self, limit: u32) -> Result<Vec<String>, StoreError> {
        let orders = self.raw_orders();
        let found: Vec<RawDocumentBuf> = retry::transient(COUNTING, || async {
            let find = orders.find(no_due_time()).projection(doc! { "_id": 1 });
            at_most(limit, find.limit(i64::from(limit)).batch_size(limit).await?).await
        })
        .await?;
        Ok(found.iter().map(|order| document::id(order)).collect())
    }

    async fn cancel_all(&self, filter: Document) -> Result<u64, StoreError> {
        let (orders, transition) = (self.orders(), self.transition_with_entry(Transition::Cancel).await?);
        // A trace begins here and not in the query, so that polling an idle database creates none.
        let result = retry::transient(EXPIRING, || async {
            let update = orders.update_many(filter.clone(), transition.clone());
            update.write_concern(majority()).await
        })
        .instrument(traces::root(EXPIRING))
        .await?;
        Ok(result.modified_count)
    }

    /// The number of orders of `query` that are due, counted up to its limit.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn count_due(&self, query: &ExpiryQuery) -> Result<u64, StoreError> {
        let query = ExpiryQuery { until: query.until.min(query.cutoff), ..query.clone() };
        let (orders, filter, limit) = (self.orders(), query.filter(), u64::from(query.limit));
        retry::transient(COUNTING, || async { orders.count_documents(filter.clone()).limit(limit).await })
            .await
    }

    /// The number of all orders that are due at `cutoff`, however many there are, for somebody who waits for it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn count_all_due(&self, cutoff: Timestamp, grace: Duration) -> Result<u64, StoreError> {
        let (orders, filter) = (self.orders(), due(cutoff, grace));
        retry::slow(COUNTING, || async { orders.count_documents(filter.clone()).await }).await
    }
}

/// The filter for open orders that never become due.
fn no_due_time() -> Document {
    doc! {
        "status": { "$in": statuses(&OrderStatus::OPEN) },
        // Whatever is no date, as an index can find it: no range of `$type` can be looked up.
        "expiresAt": { "$not": { "$gte": DateTime::MIN } },
    }
}

/// What a query for open orders has found.
enum Found {
    Order {
        id: Bson,
        expires_at: Timestamp,
        due: Timestamp,
    },
    /// No order of ours, by its id unless that is so large that thousands of its kind could not be kept.
    Unreadable(Option<Bson>),
}

fn due_of(order: &RawDocumentBuf, grace: Duration) -> Found {
    let is_small = order.as_bytes().len() <= MAX_PROJECTED;
    let id = || order.get("_id").ok().flatten().filter(|_| is_small)?.try_into().ok();
    match (id(), times(order, grace)) {
        (Some(id), Some((expires_at, due))) => Found::Order { id, expires_at, due },
        (id, _) => Found::Unreadable(id),
    }
}

/// The `expiresAt` of an open order, and when it is due.
fn times(order: &RawDocumentBuf, grace: Duration) -> Option<(Timestamp, Timestamp)> {
    let expires_at = ExpiresAt::At(order.get_datetime("expiresAt").ok()?.timestamp_millis()).time()?;
    let is_paying =
        order.get_str("status").is_ok_and(|status| status == OrderStatus::AwaitingPayment.as_str());
    let grace = if is_paying { grace } else { Duration::ZERO };
    Some((expires_at, expires_at.checked_add(grace).unwrap_or(Timestamp::MAX)))
}

/// The filter for orders that are due at `cutoff`. The conditions on status and `expiresAt` are those of the partial
/// index, so that every query planner can use it; the grace period is checked on its results.
fn due(cutoff: Timestamp, grace: Duration) -> Document {
    let mut due = doc! {
        "status": { "$in": statuses(&OrderStatus::OPEN) },
        "expiresAt": { "$lte": date(cutoff) },
    };
    if !grace.is_zero() {
        let not_paying = doc! { "status": OrderStatus::Created.as_str() };
        due.insert("$or", vec![not_paying, doc! { "expiresAt": { "$lte": date(before(cutoff, grace)) } }]);
    }
    due
}
