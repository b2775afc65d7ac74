//! What the sweeper asks of a database: its clock, which orders are due or soon will be, and to cancel them.
//!
//! Nothing here trusts the clock of the machine it runs on, and nothing is decided by reading: the
//! write repeats every condition, so an order that was paid for between the two stays paid for.

use std::time::Duration;

use futures::TryStreamExt;
use jiff::Timestamp;
use mongodb::bson::{Bson, Document, RawDocumentBuf, doc};
use tracing::Instrument;

use super::{
    connect::majority,
    database::Store,
    document::{before, date, moment, statuses, transition_update},
    error::StoreError,
    retry,
};
use crate::{
    order::{OrderStatus, Transition},
    runtime::traces,
};

/// Which of the open orders are meant.
#[derive(Clone, Debug)]
pub struct Query {
    /// What is due at this moment is to be cancelled.
    pub cutoff: Timestamp,
    /// The last moment at which they expire: before the cutoff, or after it, since that says when to come back.
    pub until: Timestamp,
    /// Only those that expire after this moment.
    pub after: Option<Timestamp>,
    /// How much later orders are due that are being paid for.
    pub grace: Duration,
    /// How many to look at, or to count.
    pub limit: u32,
    /// Those are left out.
    pub but: Refused,
}

impl Query {
    /// Whatever is due at `cutoff`, up to `limit`.
    #[must_use]
    pub fn due(cutoff: Timestamp, grace: Duration, limit: u32) -> Self {
        Self { cutoff, until: cutoff, after: None, grace, limit, but: Refused::default() }
    }

    fn filter(&self) -> Document {
        let mut filter = due(self.cutoff.max(self.until), self.grace);
        let mut expires_at = doc! { "$lte": date(self.until) };
        if let Some(after) = self.after {
            expires_at.insert("$gt", date(after));
        }
        filter.insert("expiresAt", expires_at);
        if !self.but.0.is_empty() {
            filter.insert("_id", doc! { "$nin": &self.but.0 });
        }
        filter
    }
}

/// What a look at the open orders found.
#[derive(Debug, Default)]
pub struct Look {
    ids: Vec<Bson>,
    due: Vec<Timestamp>,
    next: Option<Timestamp>,
    full: bool,
}

impl Look {
    /// The moments at which the orders that are due became so, in no order.
    #[must_use]
    pub fn due(&self) -> &[Timestamp] {
        &self.due
    }

    /// The earliest moment at which another of those that were seen becomes due.
    #[must_use]
    pub fn next(&self) -> Option<Timestamp> {
        self.next
    }

    /// Whether as many were seen as were asked for, so that there may be more of either kind.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.full
    }
}

/// Orders that the database refuses to cancel.
#[derive(Clone, Debug, Default)]
pub struct Refused(Vec<Bson>);

impl Refused {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Adds others.
    pub fn add(&mut self, others: Self) {
        self.0.extend(others.0);
    }
}

const EXPIRING: &str = "expiring orders";
const LOOKING: &str = "looking for expired orders";
const COUNTING: &str = "counting expired orders";

impl Store {
    /// The database's own clock, which alone says what is due.
    ///
    /// # Errors
    /// When the database fails or does not tell the time.
    pub async fn server_time(&self) -> Result<Timestamp, StoreError> {
        let doing = "asking the database for the time";
        let hello =
            retry::transient(doing, || async { self.database.run_command(doc! { "hello": 1 }).await })
                .await?;
        hello.get_datetime("localTime").ok().and_then(|time| moment(*time)).ok_or_else(|| {
            StoreError::Failed { doing, detail: "its answer to hello has no localTime".into() }
        })
    }

    /// Looks for open orders that are due, or soon will be.
    ///
    /// In the index's order where the server walks it, which is oldest first. It is not asked for: some
    /// servers would read and sort all that is due, for each batch.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn look(&self, query: &Query) -> Result<Look, StoreError> {
        let (orders, filter) = (self.raw_orders(), query.filter());
        let (limit, grace) = (query.limit, query.grace);
        let found: Vec<RawDocumentBuf> = retry::transient(LOOKING, || async {
            orders
                .find(filter.clone())
                .projection(doc! { "_id": 1, "expiresAt": 1, "status": 1 })
                .limit(i64::from(limit))
                .batch_size(limit)
                .await?
                .try_collect()
                .await
        })
        .await?;
        let mut look = Look { full: found.len() as u64 >= u64::from(limit), ..Look::default() };
        for order in &found {
            let Some((id, at)) = due_of(order, grace) else { continue };
            if at <= query.cutoff {
                look.ids.push(id);
                look.due.push(at);
            } else {
                look.next = Some(look.next.map_or(at, |next| next.min(at)));
            }
        }
        Ok(look)
    }

    /// Cancels those of the orders that were seen that are due at `cutoff` still, and says how many they
    /// were. Each order is cancelled at most once, however many callers there are. The others had moved
    /// meanwhile: paid for, cancelled by their user, or taken by another sweeper; or the reply to the
    /// first of two attempts was lost.
    ///
    /// # Errors
    /// When the database fails; some of the orders may have been cancelled then.
    pub async fn expire(&self, look: &Look, cutoff: Timestamp, grace: Duration) -> Result<u64, StoreError> {
        if look.ids.is_empty() { Ok(0) } else { self.expire_these(&look.ids, cutoff, grace).await }
    }

    /// The same where the database refuses the whole for the sake of some, such as one whose version is a
    /// text: cancels the others, and says which are left. For them somebody has to see to.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn expire_apart(
        &self,
        look: &Look,
        cutoff: Timestamp,
        grace: Duration,
    ) -> Result<(u64, Refused), StoreError> {
        let (mut expired, mut refused) = (0, Refused::default());
        let mut parts = vec![look.ids.as_slice()];
        while let Some(ids) = parts.pop() {
            match self.expire_these(ids, cutoff, grace).await {
                Ok(now) => expired += now,
                Err(error) if error.is_unavailable() => return Err(error),
                Err(error) => match ids {
                    [id] => {
                        tracing::warn!(order = %id, %error, "this order cannot be cancelled, and is left alone for a while");
                        refused.0.push(id.clone());
                    }
                    ids => parts.extend(<[_; 2]>::from(ids.split_at(ids.len() / 2))),
                },
            }
        }
        Ok((expired, refused))
    }

    async fn expire_these(
        &self,
        ids: &[Bson],
        cutoff: Timestamp,
        grace: Duration,
    ) -> Result<u64, StoreError> {
        let mut filter = doc! { "_id": { "$in": ids } };
        filter.extend(due(cutoff, grace));
        self.cancel_all(filter).await
    }

    /// Cancels all of them that are due, without looking at them before, and says how many they were.
    ///
    /// # Errors
    /// As [`Store::expire`].
    pub async fn expire_within(&self, query: &Query) -> Result<u64, StoreError> {
        let query = Query { until: query.until.min(query.cutoff), ..query.clone() };
        self.cancel_all(query.filter()).await
    }

    async fn cancel_all(&self, filter: Document) -> Result<u64, StoreError> {
        let orders = self.orders();
        // A trace of its own: the many looks at an idle database make none.
        let result = retry::transient(EXPIRING, || async {
            let update = orders.update_many(filter.clone(), transition_update(Transition::Cancel));
            update.write_concern(majority()).await
        })
        .instrument(traces::root(EXPIRING))
        .await?;
        Ok(result.modified_count)
    }

    /// How many of them are due, counted up to the limit.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn count(&self, query: &Query) -> Result<u64, StoreError> {
        let query = Query { until: query.until.min(query.cutoff), ..query.clone() };
        let (orders, filter, most) = (self.orders(), query.filter(), u64::from(query.limit));
        retry::transient(COUNTING, || async { orders.count_documents(filter.clone()).limit(most).await })
            .await
    }
}

/// The id of an open order, and when it becomes due.
fn due_of(order: &RawDocumentBuf, grace: Duration) -> Option<(Bson, Timestamp)> {
    let id = order.get("_id").ok()??.try_into().ok()?;
    let expires_at = moment(order.get_datetime("expiresAt").ok()?)?;
    let is_paying =
        order.get_str("status").is_ok_and(|status| status == OrderStatus::AwaitingPayment.as_str());
    let grace = if is_paying { grace } else { Duration::ZERO };
    Some((id, expires_at.checked_add(grace).unwrap_or(Timestamp::MAX)))
}

/// What is due at `cutoff`. The first two conditions are word for word those of the partial index,
/// so that every planner sees that the index has all of it; the grace is a check on what it yields.
fn due(cutoff: Timestamp, grace: Duration) -> Document {
    let mut due = doc! {
        "status": { "$in": statuses(&OrderStatus::OPEN) },
        "expiresAt": { "$lte": date(cutoff) },
    };
    if !grace.is_zero() {
        let graceless = doc! { "status": OrderStatus::Created.as_str() };
        due.insert("$or", vec![graceless, doc! { "expiresAt": { "$lte": date(before(cutoff, grace)) } }]);
    }
    due
}
