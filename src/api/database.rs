//! The database comes, goes and comes back, while the process stays.
//!
//! Until the indexes are in place no request is let through to the store: without the unique one, a
//! ticket could be sold twice.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::time::sleep;

use super::error::ApiError;
use crate::{
    runtime::{admin::Readiness, exponential},
    store::{ConnectOptions, Store, StoreError},
};

/// Between two looks at a database that is there.
const RECHECK: Duration = Duration::from_secs(3);
/// How many looks until the indexes are looked at again: somebody may have dropped the database.
const LOOKS_PER_INDEX_CHECK: u32 = 100;
/// The first pause after a failure, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// The store, once it may be used. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Database(Arc<OnceLock<Store>>);

impl Database {
    /// Lets requests through to `store`, whose indexes are in place. The first one stays.
    pub(super) fn set(&self, store: Store) {
        let _ = self.0.set(store);
    }

    /// The store, or the answer that there is none yet.
    pub(super) fn store(&self) -> Result<&Store, ApiError> {
        self.0.get().ok_or(ApiError::Unavailable)
    }

    /// Brings the database up and watches it, for as long as the process lives; `readiness` says at
    /// any time how it is. It ends only with an error that no waiting can help: the URI turns out not
    /// to be usable.
    pub(super) async fn keep(self, options: ConnectOptions<'_>, readiness: Readiness) -> StoreError {
        let mut report = Report { readiness, last: None };
        let mut backoff = Backoff::default();
        let store = loop {
            match Store::connect(options).await {
                Ok(store) => break store,
                Err(error) if error.is_misconfigured() => return error,
                Err(error) => report.down(&error),
            }
            backoff.pause().await;
        };
        let mut looks = 0;
        loop {
            let result = if looks == 0 { store.ensure_indexes().await } else { store.ping().await };
            match result {
                Ok(()) => {
                    self.set(store.clone());
                    report.up(&store);
                    backoff = Backoff::default();
                    looks = (looks + 1) % LOOKS_PER_INDEX_CHECK;
                    sleep(RECHECK).await;
                }
                Err(error) => {
                    report.down(&error);
                    looks = 0;
                    backoff.pause().await;
                }
            }
        }
    }
}

/// Says how the database is: to the probe always, to the log when it changes.
struct Report {
    readiness: Readiness,
    last: Option<&'static str>,
}

const UP: &str = "up";

impl Report {
    fn up(&mut self, store: &Store) {
        self.readiness.set(Ok(()));
        if self.last.replace(UP) != Some(UP) {
            tracing::info!(database = %store.target(), "the database is there, and its indexes are in place");
        }
    }

    fn down(&mut self, error: &StoreError) {
        self.readiness.set(Err(error.to_string()));
        if self.last.replace(error.reason()) != Some(error.reason()) {
            tracing::warn!(%error, reason = error.reason(), "not ready; trying again until it is");
        }
    }
}

#[derive(Default)]
struct Backoff(u32);

impl Backoff {
    /// Twice as long each time, up to the longest; with jitter, for all pods lose one database at once.
    async fn pause(&mut self) {
        let longest = exponential(BACKOFF.0, BACKOFF.1, self.0);
        self.0 = self.0.saturating_add(1);
        sleep(longest.mul_f64(fastrand::f64().mul_add(0.5, 0.5))).await;
    }
}
