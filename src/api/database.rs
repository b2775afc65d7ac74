//! Connects to the database, and reconnects after an outage, while the process keeps running.
//!
//! Requests get no access to the store until the indexes exist: without the unique index, a ticket could be sold
//! twice.

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

/// How often a database that is available is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(3);
/// After so many checks the indexes are ensured again, since somebody may have dropped the database.
const CHECKS_PER_INDEX_CHECK: u32 = 100;
/// The first and the longest pause after a failed check.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// The store, once it can be used. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Database(Arc<OnceLock<Store>>);

impl Database {
    /// Gives requests access to `store`, whose indexes exist.
    pub(super) fn set(&self, store: Store) {
        // An error means that it is set already, to a clone of the same store.
        let _ = self.0.set(store);
    }

    /// The store, or the error to answer with while there is none.
    pub(super) fn store(&self) -> Result<&Store, ApiError> {
        self.0.get().ok_or(ApiError::Unavailable)
    }

    /// Connects to the database and keeps checking it; `readiness` follows. Returns only an error that cannot be
    /// retried: the URI turns out to be unusable.
    pub(super) async fn connect_and_check(
        self,
        options: ConnectOptions<'_>,
        readiness: Readiness,
    ) -> StoreError {
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
        let mut checks = 0;
        loop {
            let result = if checks == 0 { store.ensure_indexes().await } else { store.ping().await };
            match result {
                Ok(()) => {
                    self.set(store.clone());
                    report.up(&store);
                    backoff = Backoff::default();
                    checks = (checks + 1) % CHECKS_PER_INDEX_CHECK;
                    sleep(CHECK_INTERVAL).await;
                }
                Err(error) => {
                    report.down(&error);
                    checks = 0;
                    backoff.pause().await;
                }
            }
        }
    }
}

/// Reports the state of the database: to the readiness probe after every check, to the log when it changes.
struct Report {
    readiness: Readiness,
    last: Option<&'static str>,
}

const UP: &str = "up";

impl Report {
    fn up(&mut self, store: &Store) {
        self.readiness.set(Ok(()));
        if self.last.replace(UP) != Some(UP) {
            tracing::info!(database = %store.target(), "the database is available, and its indexes exist");
        }
    }

    fn down(&mut self, error: &StoreError) {
        self.readiness.set(Err(error.remedy()));
        if self.last.replace(error.reason()) != Some(error.reason()) {
            tracing::warn!(%error, reason = error.reason(), "not ready; retrying");
        }
    }
}

#[derive(Default)]
struct Backoff(u32);

impl Backoff {
    /// Sleeps twice as long each time, up to the longest pause. With jitter, because all pods lose the database at the
    /// same time.
    async fn pause(&mut self) {
        let longest = exponential(BACKOFF.0, BACKOFF.1, self.0);
        self.0 = self.0.saturating_add(1);
        sleep(longest.mul_f64(fastrand::f64().mul_add(0.5, 0.5))).await;
    }
}
