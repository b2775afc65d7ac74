//! What the sweeper asks of a database: its clock, a batch of expired orders, the next one due.
//!
//! Nothing here trusts the clock of the machine it runs on, and nothing is decided by reading: the
//! write repeats every condition, so an order that was paid for between the two stays paid for.

use std::time::Duration;

use futures::TryStreamExt;
use jiff::Timestamp;
use mongodb::bson::{Bson, Document, RawDocumentBuf, doc};
use tracing::Instrument;

use super::{
    Store, StoreError,
    connect::majority,
    document::{date, moment, statuses},
    orders::advanced,
    retry,
};
use crate::{
    order::{OrderStatus, Transition},
    runtime::traces,
};

/// What one batch found and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpiredBatch {
    /// Orders that were due when it looked.
    pub claimed: u64,
    /// Those that it cancelled. Others had moved meanwhile: paid for, cancelled by their user, or
    /// taken by another sweeper; or the reply to the first of two attempts was lost.
    pub expired: u64,
}

const EXPIRING: &str = "expiring orders";
const LOOKING: &str = "looking for the next order to expire";

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

    /// Cancels up to `limit` open orders whose time was over at `cutoff`; those that are being paid
    /// for have `grace` on top. Each order is cancelled at most once, however many callers there are.
    ///
    /// # Errors
    /// When the database fails; some of the orders may have been cancelled then.
    pub async fn expire_batch(
        &self,
        cutoff: Timestamp,
        grace: Duration,
        limit: u32,
    ) -> Result<ExpiredBatch, StoreError> {
        let due = due(cutoff, grace);
        retry::within(retry::DEADLINE, EXPIRING, async {
            let ids = self.claim(&due, limit).await?;
            if ids.is_empty() {
                return Ok(ExpiredBatch::default());
            }
            let claimed = ids.len() as u64;
            let mut filter = doc! { "_id": { "$in": ids } };
            filter.extend(due.clone());
            let orders = self.orders();
            // Only now, so that the many looks at an idle database make no traces.
            let result = retry::transient(EXPIRING, || async {
                let update = orders.update_many(filter.clone(), advanced(Transition::Cancel));
                update.write_concern(majority()).await
            })
            .instrument(traces::root(EXPIRING))
            .await?;
            Ok(ExpiredBatch { claimed, expired: result.modified_count })
        })
        .await
    }

    /// The earliest moment, later than `after` and not later than `until`, at which an order that is
    /// open now becomes due.
    ///
    /// Both bounds matter: without them some servers read every open order for it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn next_due(
        &self,
        after: Timestamp,
        until: Timestamp,
        grace: Duration,
    ) -> Result<Option<Timestamp>, StoreError> {
        retry::within(retry::DEADLINE, LOOKING, async {
            if grace.is_zero() {
                return self.earliest(after, until, None).await;
            }
            let (created, paying) = (OrderStatus::Created, OrderStatus::AwaitingPayment);
            let created = self.earliest(after, until, Some(created)).await?;
            let until = created.unwrap_or(until);
            let paying = self.earliest(before(after, grace), before(until, grace), Some(paying)).await?;
            let paying = paying.map(|moment| moment.checked_add(grace).unwrap_or(Timestamp::MAX));
            Ok(created.into_iter().chain(paying).min())
        })
        .await
    }

    /// The ids of orders that are due. In the index's order where the server walks it, which is
    /// oldest first; asking for that order would make others sort all that is due, for each batch.
    async fn claim(&self, due: &Document, limit: u32) -> Result<Vec<Bson>, StoreError> {
        let orders = self.raw_orders();
        let found: Vec<RawDocumentBuf> = retry::transient("looking for expired orders", || async {
            orders
                .find(due.clone())
                .projection(doc! { "_id": 1 })
                .limit(i64::from(limit))
                .batch_size(limit)
                .await?
                .try_collect()
                .await
        })
        .await?;
        Ok(found.iter().filter_map(|document| document.get("_id").ok()??.try_into().ok()).collect())
    }

    async fn earliest(
        &self,
        after: Timestamp,
        until: Timestamp,
        status: Option<OrderStatus>,
    ) -> Result<Option<Timestamp>, StoreError> {
        let mut filter = doc! {
            "status": { "$in": statuses(&OrderStatus::OPEN) },
            "expiresAt": { "$gt": date(after), "$lte": date(until) },
        };
        if let Some(status) = status {
            filter.insert("$and", vec![doc! { "status": status.as_str() }]);
        }
        let orders = self.raw_orders();
        let found = retry::transient(LOOKING, || async {
            orders
                .find_one(filter.clone())
                .projection(doc! { "_id": 0, "expiresAt": 1 })
                .sort(doc! { "expiresAt": 1 })
                .await
        })
        .await?;
        Ok(found.and_then(|document| moment(document.get_datetime("expiresAt").ok()?)))
    }
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

/// Saturates at the beginning of the calendar.
pub(super) fn before(moment: Timestamp, by: Duration) -> Timestamp {
    moment.checked_sub(by).unwrap_or(Timestamp::MIN)
}
