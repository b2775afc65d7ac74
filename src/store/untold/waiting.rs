//! How much waits to be told, and for how long.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use mongodb::{
    bson::{RawDocumentBuf, doc},
    options::Hint,
};

use super::{looks::LOOKING, order::to_untold};
use crate::store::{
    database::Store,
    error::StoreError,
    outbox::{REFUSED_SINCE, SINCE},
    own_indexes::{is_untold, untold_keys},
    retry,
};

impl Store {
    /// How many orders there are of which something is to be told, up to `limit`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn count_untold(&self, limit: u64) -> Result<u64, StoreError> {
        let orders = self.orders();
        retry::transient(LOOKING, || async {
            orders.count_documents(is_untold()).hint(Hint::Keys(untold_keys())).limit(limit).await
        })
        .await
    }

    /// How long ago the oldest change was made that is to be told, or a little longer; none if nothing is to be told.
    ///
    /// It reads all that is to be told, and there may be millions while the broker is away: whoever has to go on soon does not
    /// wait for it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn oldest_untold(&self) -> Result<Option<Duration>, StoreError> {
        let mut oldest: Option<Timestamp> = None;
        // A change and a refusal have a time each.
        for field in [SINCE, REFUSED_SINCE] {
            if let Some(document) = self.find_oldest(field).await? {
                let since = to_untold(&document).ok().and_then(|untold| untold.oldest());
                let since = since.unwrap_or(Timestamp::MIN);
                oldest = Some(oldest.map_or(since, |known| known.min(since)));
            }
        }
        let Some(oldest) = oldest else { return Ok(None) };
        let now = self.clock().await?.not_passed(Instant::now());
        Ok(Some(Duration::try_from(now.duration_since(oldest)).unwrap_or_default()))
    }

    async fn find_oldest(&self, field: &'static str) -> Result<Option<RawDocumentBuf>, StoreError> {
        let (orders, mut filter) = (self.acknowledged_orders(), is_untold());
        filter.insert(field, doc! { "$exists": true });
        retry::slow(LOOKING, || async {
            let find = orders.find_one(filter.clone()).sort(doc! { field: 1 });
            find.hint(Hint::Keys(untold_keys())).session(self.telling().await?.get()).await
        })
        .await
    }
}
