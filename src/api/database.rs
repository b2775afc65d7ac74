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
/// The first and the longest pause after a check that failed because the database is away.
const WHILE_AWAY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// The same after any other failure. It lasts until somebody changes what is stored, or the server; and each attempt to
/// make the indexes reads the whole collection.
const UNTIL_REPAIRED: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(300));

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
                Err(error) => {
                    report.down(&error);
                    sleep(backoff.after(&error)).await;
                }
            }
        };
        let mut checks = 0;
        loop {
            let result = if checks == 0 { prepare(&store).await } else { store.ping().await };
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
                    sleep(backoff.after(&error)).await;
                }
            }
        }
    }
}

/// Makes the database ready for orders, if it is the one that is meant.
async fn prepare(store: &Store) -> Result<(), StoreError> {
    store.check_choice().await?;
    store.ensure_indexes().await
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

/// How many checks have failed one after the other, for the same kind of reason.
#[derive(Default)]
struct Backoff {
    failures: u32,
    /// Whether the last one failed because the database is away.
    away: bool,
}

impl Backoff {
    /// The pause after a check that failed with `error`: twice as long each time, up to the longest. With jitter,
    /// because all pods lose the database at the same time.
    fn after(&mut self, error: &StoreError) -> Duration {
        let away = error.is_unavailable();
        self.failures = if away == self.away { self.failures.saturating_add(1) } else { 1 };
        self.away = away;
        let (first, longest) = if away { WHILE_AWAY } else { UNTIL_REPAIRED };
        let pause = exponential(first, longest, self.failures.saturating_sub(1));
        pause.mul_f64(fastrand::f64().mul_add(0.5, 0.5))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_must_repair_is_tried_again_in_minutes_and_an_outage_in_seconds() {
        let duplicates = StoreError::DuplicateActiveOrders("65f0c1d2a3b4c5d6e7f80912".into());
        let outage = StoreError::Unavailable { doing: "testing", detail: "gone".into() };
        let pauses = |error: &StoreError| {
            let mut backoff = Backoff::default();
            (0..10).map(|_| backoff.after(error)).collect::<Vec<_>>()
        };
        let repaired = pauses(&duplicates);
        assert!(repaired.iter().all(|pause| (30..=300).contains(&pause.as_secs())), "{repaired:?}");
        let outages = pauses(&outage);
        assert!(outages.iter().all(|pause| *pause <= WHILE_AWAY.1), "{outages:?}");
        assert!(outages.first().is_some_and(|pause| *pause <= WHILE_AWAY.0), "{outages:?}");

        // An outage on the way does not shorten the one, nor the other lengthen it.
        let mut backoff = Backoff::default();
        for _ in 0..10 {
            backoff.after(&duplicates);
        }
        assert!(backoff.after(&outage) <= WHILE_AWAY.0);
        assert!(backoff.after(&duplicates) >= UNTIL_REPAIRED.0 / 2);
    }
}
