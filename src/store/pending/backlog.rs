//! How much is pending, and for how long.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use mongodb::{
    bson::{RawDocumentBuf, doc},
    options::Hint,
};

use super::{order::to_pending, queries::LOOKING};
use crate::store::{
    database::Store,
    error::StoreError,
    outbox::{REFUSED_SINCE, SINCE},
    own_indexes::{is_pending, pending_keys},
    retry,
};

impl Store {
    /// The number of orders that are pending, up to `limit`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn count_pending(&self, limit: u64) -> Result<u64, StoreError> {
        let orders = self.orders();
        retry::transient(LOOKING, || async {
            orders.count_documents(is_pending()).hint(Hint::Keys(pending_keys())).limit(limit).await
        })
        .await
    }

    /// The age of the oldest pending change, or a little more; none if nothing is pending.
    ///
    /// It reads everything that is pending, which may be millions of orders while the broker is away: a caller that has to go
    /// on soon must not wait for it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn oldest_pending(&self) -> Result<Option<Duration>, StoreError> {
        let mut oldest: Option<Timestamp> = None;
        // A change and a refusal have a time each.
        for field in [SINCE, REFUSED_SINCE] {
            if let Some(document) = self.find_oldest(field).await? {
                let since = to_pending(&document).ok().and_then(|pending| pending.oldest());
                let since = since.unwrap_or(Timestamp::MIN);
                oldest = Some(oldest.map_or(since, |known| known.min(since)));
            }
        }
        let Some(oldest) = oldest else { return Ok(None) };
        let now = self.clock().await?.not_passed(Instant::now());
        Ok(Some(Duration::try_from(now.duration_since(oldest)).unwrap_or_default()))
    }

    async fn find_oldest(&self, field: &'static str) -> Result<Option<RawDocumentBuf>, StoreError> {
        let (orders, mut filter) = (self.acknowledged_orders(), is_pending());
        filter.insert(field, doc! { "$exists": true });
        retry::slow(LOOKING, || async {
            let find = orders.find_one(filter.clone()).sort(doc! { field: 1 });
            find.hint(Hint::Keys(pending_keys())).session(self.relay_session().await?.get()).await
        })
        .await
    }
}
