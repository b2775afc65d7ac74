//! The sweep of one target: correct by the write, not by the timer.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::{
    clock::ServerClock,
    metrics::Metrics,
    pacing::{BatchSize, LONGEST_NAP, nap, rest, within},
    targets::Target,
};
use crate::{
    runtime::exponential,
    store::{ConnectOptions, Store, StoreError},
};

/// The longest pause of a target that cannot be reached.
const LONGEST_BACKOFF: Duration = Duration::from_secs(15);

/// How a target is, as its resources' conditions say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Not tried yet.
    Unknown,
    /// Left alone, as the user wants it.
    Suspended,
    /// Swept, and everything is in place.
    Well,
    /// Swept, but an index is missing.
    IndexMissing(StoreProblem),
    /// Not swept: the database cannot be used.
    Failing(StoreProblem),
}

/// What is wrong with a database: a word for machines, and a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreProblem {
    /// The category.
    pub reason: &'static str,
    /// What is wrong, and what to do.
    pub message: String,
}

impl From<&StoreError> for StoreProblem {
    fn from(error: &StoreError) -> Self {
        Self { reason: error.reason(), message: error.to_string() }
    }
}

/// Sweeps `target` until `cancel`, and says how it goes. A database that is away is waited for, and
/// delays no other.
pub async fn run(target: Target, metrics: Metrics, health: HealthSender, cancel: CancellationToken) {
    if target.suspended {
        health.tell(Health::Suspended);
        tracing::info!(target = %target.id, "suspended: overdue orders stay as they are");
        return cancel.cancelled().await;
    }
    let mut failures = 0u32;
    let mut sweep = None;
    while !cancel.is_cancelled() {
        let step = async {
            let sweep = match &mut sweep {
                Some(sweep) => sweep,
                none => none.insert(Sweep::open(&target).await?),
            };
            sweep.step(&metrics).await
        };
        // Being dropped between any two writes does no harm: what is left is due still.
        let result = tokio::select! {
            () = cancel.cancelled() => return,
            result = step => result,
        };
        let pause = match result {
            Ok(swept) => {
                if failures > 0 {
                    tracing::info!(target = %target.id, failures, "the database is back");
                }
                failures = 0;
                if let Some(sweep) = &sweep {
                    let now = sweep.missing_index.clone().map_or(Health::Well, Health::IndexMissing);
                    health.tell(now);
                }
                if swept.expired > 0 {
                    tracing::info!(target = %target.id, expired = swept.expired, "orders expired");
                }
                swept.pause
            }
            Err(error) => {
                metrics.failed();
                // One failure may be a failover; the next attempt comes within a second.
                if failures > 0 {
                    health.tell(Health::Failing((&error).into()));
                }
                let pause = exponential(LONGEST_NAP, LONGEST_BACKOFF, failures);
                if failures == 0 {
                    tracing::warn!(target = %target.id, resources = target.resources.join(","), %error, "cannot sweep; it is tried again");
                }
                failures = failures.saturating_add(1);
                pause.mul_f64(1.0 - 0.25 * fastrand::f64())
            }
        };
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Where a sweep says how it goes.
pub struct HealthSender {
    health: watch::Sender<Health>,
    changed: Arc<Notify>,
}

impl HealthSender {
    /// A sender whose changes wake whoever waits for `changed`, and the receiver of its last word.
    pub fn new(changed: Arc<Notify>) -> (Self, watch::Receiver<Health>) {
        let (health, receiver) = watch::channel(Health::Unknown);
        (Self { health, changed }, receiver)
    }

    fn tell(&self, now: Health) {
        if self.health.send_if_modified(|last| std::mem::replace(last, now.clone()) != now) {
            self.changed.notify_one();
        }
    }
}

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Swept {
    /// Orders that were cancelled.
    pub expired: u64,
    /// How long to wait before the next step.
    pub pause: Duration,
}

/// The sweep of one database: its connection, its clock and its pace.
pub struct Sweep {
    store: Store,
    grace: Duration,
    /// The most orders to cancel in a second.
    limit: Option<u32>,
    clock: Option<ServerClock>,
    batch: BatchSize,
    missing_index: Option<StoreProblem>,
}

impl Sweep {
    /// Connects, and sees to the indexes that the sweep needs.
    ///
    /// # Errors
    /// When the connection string is wrong, or the database is away.
    pub async fn open(target: &Target) -> Result<Self, StoreError> {
        let options = ConnectOptions {
            uri: &target.uri,
            database: Some(&target.id.database),
            namespace: Some(&target.namespace),
        };
        let store = Store::connect(options).await?;
        let mut sweep = Self::new(store, target.grace, target.max_per_second);
        if let Err(error) = sweep.store.ensure_indexes().await {
            if error.is_unavailable() {
                return Err(error);
            }
            // Expiry is correct without them, only slower.
            tracing::warn!(target = %target.id, %error, "an index is missing");
            sweep.missing_index = Some((&error).into());
        }
        Ok(sweep)
    }

    /// A sweep of an open store.
    pub fn new(store: Store, grace: Duration, limit: Option<u32>) -> Self {
        Self { store, grace, limit, clock: None, batch: BatchSize::default(), missing_index: None }
    }

    /// Cancels one batch of what is due, and says when to come back.
    ///
    /// # Errors
    /// When the database is away; trying again is always safe.
    pub async fn step(&mut self, metrics: &Metrics) -> Result<Swept, StoreError> {
        let clock = self.clock().await?;
        let begun = Instant::now();
        let cutoff = clock.reached(begun);
        let batch = within(self.batch, self.limit);
        let done = match self.store.expire_batch(cutoff, self.grace, batch).await {
            Ok(done) => done,
            Err(error) => {
                self.batch = self.batch.halved();
                return Err(error);
            }
        };
        let took = begun.elapsed();
        if done.claimed > 0 {
            metrics.batch(done.claimed, done.expired, took);
        }
        let full = done.claimed >= u64::from(batch);
        self.batch = self.batch.after(done.claimed, took);
        let pause = if full {
            rest(done.claimed, took, self.limit)
        } else {
            let horizon = cutoff.saturating_add(LONGEST_NAP).unwrap_or(cutoff);
            let due = self.store.next_due(cutoff, horizon, self.grace).await?;
            nap(clock.reached(Instant::now()), due)
        };
        Ok(Swept { expired: done.expired, pause })
    }

    async fn clock(&mut self) -> Result<ServerClock, StoreError> {
        if let Some(clock) = self.clock.filter(|clock| !clock.is_stale(Instant::now())) {
            return Ok(clock);
        }
        let asked = Instant::now();
        let clock = ServerClock::new(self.store.server_time().await?, asked, Instant::now());
        tracing::debug!(error_seconds = clock.error().as_secs_f64(), "read the server's clock");
        Ok(*self.clock.insert(clock))
    }
}
