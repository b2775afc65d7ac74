//! Connects to the database, and checks it while the process runs.
//!
//! Requests get no access to the store until the indexes exist: without the unique index, a ticket could be sold
//! twice. Whenever it is not certain that they still do, nothing is reserved until a check has succeeded; orders can
//! still be read and cancelled. Reservations wait for that check while the database is away, as they wait out an election,
//! and are refused at once while it is known that an index does not hold.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::{
    sync::{Notify, SetOnce, watch},
    time::{sleep, timeout},
};

use super::{error::ApiError, metrics::Metrics};
use crate::{
    runtime::{admin::Readiness, exponential},
    store::{ConnectOptions, DEADLINE, ServerClock, Store, StoreError},
};

/// How often a database that is available is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(3);
/// The first and the longest pause after a check that failed because the database is away.
const WHILE_AWAY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// The same after any other failure. It lasts until somebody changes what is stored, or the server; and each attempt to
/// make the indexes reads the whole collection.
const UNTIL_REPAIRED: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(300));

/// By how much this machine's clock may differ from the database's without a warning, in seconds.
const CLOCK_TOLERANCE: f64 = 1.0;

/// The store, once it can be used. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Database(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    store: SetOnce<Store>,
    guarantee: watch::Sender<Guarantee>,
    /// Ends the pause before the next check.
    doubt: Notify,
}

/// Whether each ticket is certain to be sold only once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Guarantee {
    /// It is not, or nobody has looked yet.
    #[default]
    Missing,
    /// It was when the database could last be asked.
    Unknown,
    /// The last check has found that it is.
    Holds,
}

impl Database {
    /// Gives requests access to `store`, in which each ticket can be sold only once.
    pub(super) fn holds(&self, store: Store) {
        // An error means that it is set already, to a clone of the same store.
        let _ = self.0.store.set(store);
        self.0.guarantee.send_replace(Guarantee::Holds);
    }

    /// The store, once there is one.
    pub(super) async fn prepared(&self) -> Store {
        self.0.store.wait().await.clone()
    }

    /// The store, or the error to answer with while there is none.
    pub(super) fn store(&self) -> Result<&Store, ApiError> {
        self.0.store.get().ok_or(ApiError::Unavailable)
    }

    /// The store to reserve a ticket in, or the error to answer with while a ticket could be sold twice.
    pub(super) async fn to_reserve(&self) -> Result<&Store, ApiError> {
        let mut guarantee = self.0.guarantee.subscribe();
        let known = guarantee.wait_for(|guarantee| *guarantee != Guarantee::Unknown);
        let holds = match timeout(DEADLINE, known).await {
            Ok(Ok(guarantee)) => *guarantee == Guarantee::Holds,
            // The check still fails. The sender is never dropped before `self`.
            Err(_) | Ok(Err(_)) => false,
        };
        if holds { self.store() } else { Err(ApiError::Unavailable) }
    }

    /// Stops reservations until the next check if `error` says that an index does not hold, and checks at once.
    pub(super) fn doubt(&self, error: &StoreError) {
        if error.is_of_an_index() {
            self.0.guarantee.send_replace(Guarantee::Missing);
            self.0.doubt.notify_one();
        }
    }

    /// Connects to the database and keeps checking it; `readiness` follows. Returns only an error that cannot be
    /// retried: the URI turns out to be unusable.
    pub(super) async fn connect_and_check(
        self,
        options: ConnectOptions<'_>,
        has_events: bool,
        readiness: Readiness,
        metrics: Metrics,
    ) -> StoreError {
        let mut report = Report { readiness, metrics, last: None, is_clock_off: false };
        let mut backoff = Backoff::default();
        let store = loop {
            match Store::connect(options).await {
                Ok(store) => break if has_events { store.with_events() } else { store },
                Err(error) if error.is_misconfigured() => return error,
                Err(error) => {
                    report.down(&error);
                    sleep(backoff.after(&error)).await;
                }
            }
        };
        let mut is_prepared = false;
        loop {
            let result = if is_prepared { check(&store).await } else { prepare(&store).await };
            match result {
                Ok(clock) => {
                    is_prepared = true;
                    self.holds(store.clone());
                    report.up(&store, &clock);
                    backoff = Backoff::default();
                    // Either end of the pause is followed by a check.
                    let _ = timeout(CHECK_INTERVAL, self.0.doubt.notified()).await;
                }
                Err(error) => {
                    // A database that was away is checked; one that has lost an index is prepared again.
                    is_prepared &= error.is_unavailable() && !error.is_of_an_index();
                    let guarantee = if is_prepared { Guarantee::Unknown } else { Guarantee::Missing };
                    self.0.guarantee.send_replace(guarantee);
                    report.down(&error);
                    sleep(backoff.after(&error)).await;
                }
            }
        }
    }
}

/// Makes the database ready for orders, if it is the one that is meant: creates the indexes, and makes sure that every
/// stored order counts in them.
async fn prepare(store: &Store) -> Result<ServerClock, StoreError> {
    store.check_choice().await?;
    store.ensure_indexes().await?;
    store.check_orders().await?;
    store.read_clock().await
}

async fn check(store: &Store) -> Result<ServerClock, StoreError> {
    store.check_indexes().await?;
    store.read_clock().await
}

/// Reports the state of the database: to the readiness probe after every check, to the log when it changes.
struct Report {
    readiness: Readiness,
    metrics: Metrics,
    last: Option<&'static str>,
    is_clock_off: bool,
}

const UP: &str = "up";

impl Report {
    fn up(&mut self, store: &Store, clock: &ServerClock) {
        self.readiness.set(Ok(()));
        if self.last.replace(UP) != Some(UP) {
            tracing::info!(database = %store.target(), "the database is available, and its indexes exist");
        }
        self.clock(clock);
    }

    fn down(&mut self, error: &StoreError) {
        self.readiness.set(Err(error.remedy()));
        if self.last.replace(error.reason()) != Some(error.reason()) {
            tracing::warn!(%error, reason = error.reason(), "not ready, and nothing is reserved; retrying");
        }
    }

    /// Orders expire by the database's clock, so a wrong one here does no harm to them. It is still worth knowing: it
    /// decides when sessions end, and the logs have its time.
    fn clock(&mut self, clock: &ServerClock) {
        let now = Instant::now();
        let offset = clock.offset(now, Timestamp::now()).as_secs_f64();
        self.metrics.clock_offset(offset);
        let is_off = offset.abs() > CLOCK_TOLERANCE + clock.error(now).as_secs_f64();
        if is_off && !self.is_clock_off {
            tracing::warn!(
                seconds = -offset,
                "this machine's clock differs from the database's by more than a second; synchronize both"
            );
        }
        // It is told again only after the clocks have agreed for a while.
        self.is_clock_off = is_off || self.is_clock_off && offset.abs() > CLOCK_TOLERANCE / 2.0;
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
