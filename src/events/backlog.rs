//! How much is pending, for the metrics. Each pod looks by itself, whoever leads: while the broker is away nobody does.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use crate::store::{Store, StoreError};

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(10);

/// The most orders that are counted.
const MOST: u64 = 100_000;

/// How many times as long as a look took nothing is asked: where much is pending, a look must not be felt.
const REST: u32 = 20;

/// Looks until `stop`.
pub(super) async fn watch(store: &Store, metrics: &Metrics, stop: &CancellationToken) {
    while !stop.is_cancelled() {
        let started = Instant::now();
        // Where very much is pending, a look takes minutes.
        let looked = tokio::select! {
            looked = look(store) => looked,
            () = stop.cancelled() => return,
        };
        match looked {
            Ok((orders, oldest)) => metrics.backlog(orders, oldest),
            Err(error) => tracing::debug!(%error, "pending orders are not counted"),
        }
        tokio::select! {
            () = sleep(LOOK.max(started.elapsed() * REST)) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// The number of pending orders, and the age of their oldest change.
async fn look(store: &Store) -> Result<(u64, Duration), StoreError> {
    let orders = store.count_pending(MOST).await?;
    let oldest = if orders == 0 { None } else { store.oldest_pending().await? };
    Ok((orders, oldest.unwrap_or_default()))
}
