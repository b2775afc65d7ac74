//! Runs the sweeps of all targets, each in a task of its own, so that none delays another.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{
    events::EventsState,
    falling_behind::FallingBehind,
    health::{DatabaseProblem, TargetHealth, reason_of},
    lookahead::DEFAULT_MAX_SLEEP,
    metrics::{Metrics, TargetMetrics},
    peers::{Peers, Schedule},
    sweep::{StepResult, Sweep},
    targets::{Target, TargetKey},
};
use crate::{
    crd::Reason,
    runtime::exponential,
    store::{Pools, StoreError},
};

/// The pause after a first failure.
const MIN_BACKOFF: Duration = Duration::from_secs(1);

/// The longest pause after failures.
const MAX_BACKOFF: Duration = Duration::from_secs(15);

/// After how long without an answer of the database a sweep that has just begun says so. Two looks that fail take less in most
/// cases; one that has the indexes made may take minutes, and what a sweeper before this one has said need not be so any more.
const KNOWN_WITHIN: Duration = Duration::from_secs(30);

/// For how long a database that could not be used must have been used without a failure until that is told. One that fails
/// every other second would otherwise be written about as often, and each of these writes wakes the controller.
const STEADY: Duration = Duration::from_secs(5);

/// How many databases of one namespace on one server may cancel backlogs at the same time. A permit is held for one batch, so they take
/// turns; a database without a backlog needs none.
const BACKLOGS_PER_SERVER: usize = 2;

/// How many databases of one namespace may do so, on whatever servers: how many of them there are is the namespace's choice.
const BACKLOGS_PER_NAMESPACE: usize = 8;

/// The progress of a target since this process started, for the reports in its resources' statuses.
#[derive(Debug)]
pub struct Progress {
    expired: AtomicU64,
    overdue_seconds: AtomicU64,
    falling_behind: Mutex<FallingBehind>,
    events: Mutex<Option<EventsState>>,
    started: Instant,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            expired: AtomicU64::default(),
            overdue_seconds: AtomicU64::default(),
            falling_behind: Mutex::default(),
            events: Mutex::default(),
            started: Instant::now(),
        }
    }
}

impl Progress {
    /// How many orders were cancelled.
    pub fn expired(&self) -> u64 {
        self.expired.load(Ordering::Relaxed)
    }

    /// By how many whole seconds the oldest order is overdue.
    pub fn overdue_seconds(&self) -> u64 {
        self.overdue_seconds.load(Ordering::Relaxed)
    }

    /// Whether events flow, where a resource has them.
    pub fn events(&self) -> Option<EventsState> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Records that so many more orders were cancelled.
    pub(super) fn record_expired(&self, orders: u64) {
        self.expired.fetch_add(orders, Ordering::Relaxed);
    }

    /// Records whether events flow. Returns whether that has changed.
    fn record_events(&self, now: Option<&EventsState>) -> bool {
        let mut last = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let has_changed = last.as_ref() != now;
        if has_changed {
            *last = now.cloned();
        }
        has_changed
    }

    /// Records by how much the oldest order is overdue. Returns whether the target falls behind.
    fn record_overdue(&self, by: Duration) -> bool {
        self.overdue_seconds.store(by.as_secs(), Ordering::Relaxed);
        let mut verdict = self.falling_behind.lock().unwrap_or_else(PoisonError::into_inner);
        *verdict = verdict.after(by, self.started.elapsed());
        verdict.is_behind()
    }
}

/// The running sweeps, and what they share.
pub struct Sweeps {
    running: HashMap<TargetKey, Running>,
    /// Apart from `running`, so that it survives the restart of a sweep whose target has changed.
    progress: HashMap<TargetKey, Arc<Progress>>,
    /// The permits for backlogs, by [`TargetKey::servers`].
    backlog_permits: HashMap<(Option<String>, Vec<String>), Arc<Semaphore>>,
    /// The same by namespace, which may give one server any number of names.
    namespace_permits: HashMap<Option<String>, Arc<Semaphore>>,
    pools: Arc<Pools>,
    metrics: Metrics,
    peers: watch::Receiver<Arc<Peers>>,
    changed: Arc<Notify>,
    shutdown: CancellationToken,
    /// The longest sleep of a target's owner.
    max_sleep: Duration,
    known_within: Duration,
}

struct Running {
    target: Target,
    health: watch::Receiver<TargetHealth>,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Sweeps {
    /// No sweeps yet. `changed` is notified when the health of a target changes; all sweeps end with `shutdown`.
    pub fn new(
        metrics: Metrics,
        peers: watch::Receiver<Arc<Peers>>,
        changed: Arc<Notify>,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            running: HashMap::new(),
            progress: HashMap::new(),
            backlog_permits: HashMap::new(),
            namespace_permits: HashMap::new(),
            pools: Arc::new(Pools::guarded()),
            metrics,
            peers,
            changed,
            shutdown,
            max_sleep: DEFAULT_MAX_SLEEP,
            known_within: KNOWN_WITHIN,
        }
    }

    /// With another longest sleep.
    #[must_use]
    pub fn with_max_sleep(self, max_sleep: Duration) -> Self {
        Self { max_sleep, ..self }
    }

    /// Starts the sweeps of new targets, stops those of targets that are gone, and restarts those of targets that have
    /// changed.
    pub fn set_targets(&mut self, targets: HashMap<TargetKey, Target>) {
        self.running.retain(|key, running| {
            let keep = targets.get(key).is_some_and(|target| target.is_swept_like(&running.target))
                && !running.task.is_finished();
            if !keep {
                // The task is dropped at its next await, which is safe anywhere.
                running.cancel.cancel();
                tracing::info!(target = %key, "sweep stopped");
            }
            keep
        });
        self.progress.retain(|key, _| {
            let keep = targets.contains_key(key);
            if !keep {
                self.metrics.forget(key);
            }
            keep
        });
        self.backlog_permits.retain(|servers, _| targets.keys().any(|key| key.servers() == *servers));
        self.namespace_permits.retain(|namespace, _| targets.keys().any(|key| key.namespace == *namespace));
        for (key, target) in targets {
            if !self.running.contains_key(&key) {
                tracing::info!(target = %key, resources = target.resources.join(","), suspended = target.suspended, "sweep started");
                let running = self.start(target);
                self.running.insert(key, running);
            }
        }
        self.metrics.targets(self.running.len());
    }

    fn start(&mut self, target: Target) -> Running {
        let (task, health) = self.task(&target);
        let cancel = self.shutdown.child_token();
        let (sweep, cancelled) = (task.run(), cancel.clone());
        let task = tokio::spawn(async move {
            // Dropping it between two writes is safe: the orders that are left are still due.
            tokio::select! {
                () = cancelled.cancelled() => {}
                () = sweep => {}
            }
        });
        Running { target, health, cancel, task }
    }

    /// The sweep of a target, and what it will say of its health.
    fn task(&mut self, target: &Target) -> (Task, watch::Receiver<TargetHealth>) {
        let permits = self.backlog_permits.entry(target.key.servers());
        let of_namespace = self.namespace_permits.entry(target.key.namespace.clone());
        let (sender, health) = watch::channel(TargetHealth::Unknown);
        let task = Task {
            metrics: self.metrics.of(&target.key),
            health: sender,
            changed: self.changed.clone(),
            progress: self.progress.entry(target.key.clone()).or_default().clone(),
            peers: self.peers.clone(),
            backlog_permits: permits.or_insert_with(|| Arc::new(Semaphore::new(BACKLOGS_PER_SERVER))).clone(),
            namespace_permits: of_namespace
                .or_insert_with(|| Arc::new(Semaphore::new(BACKLOGS_PER_NAMESPACE)))
                .clone(),
            pools: self.pools.clone(),
            max_sleep: self.max_sleep,
            pending_from: tokio::time::Instant::now() + self.known_within,
            failures: 0,
            well_since: None,
            logged: None,
            target: target.clone(),
        };
        (task, health)
    }

    /// The health of a target.
    pub fn health(&self, key: &TargetKey) -> TargetHealth {
        self.running.get(key).map_or(TargetHealth::Unknown, |running| running.health.borrow().clone())
    }

    /// The progress of a target.
    pub fn progress(&self, key: &TargetKey) -> Option<Arc<Progress>> {
        self.progress.get(key).cloned()
    }

    /// The rank of this sweeper for `key`.
    pub fn rank(&self, key: &str) -> u32 {
        self.peers.borrow().rank(key)
    }

    /// Stops all sweeps, and waits for their tasks.
    pub async fn stop(&mut self) {
        for running in self.running.values() {
            running.cancel.cancel();
        }
        for (key, running) in &mut self.running {
            if (&mut running.task).await.is_err() {
                tracing::error!(target = %key, "the sweep has panicked");
            }
        }
    }
}

/// The sweep of one target.
struct Task {
    target: Target,
    metrics: TargetMetrics,
    health: watch::Sender<TargetHealth>,
    changed: Arc<Notify>,
    progress: Arc<Progress>,
    peers: watch::Receiver<Arc<Peers>>,
    backlog_permits: Arc<Semaphore>,
    namespace_permits: Arc<Semaphore>,
    pools: Arc<Pools>,
    max_sleep: Duration,
    /// When it is said that nothing is known yet, if so it is.
    pending_from: tokio::time::Instant,
    /// Consecutive ones.
    failures: u32,
    /// Since when there was none.
    well_since: Option<tokio::time::Instant>,
    /// The reason that was logged last; the statuses of the resources do not have the details that the log has.
    logged: Option<Reason>,
}

impl Task {
    /// Waits for its turn among the backlogs of its servers, and of its namespace.
    async fn turn(&self) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let of_servers = self.backlog_permits.clone().acquire_owned().await.ok()?;
        Some((of_servers, self.namespace_permits.clone().acquire_owned().await.ok()?))
    }

    /// Sweeps forever and publishes the health. While the database is unavailable it is tried again with backoff.
    async fn run(mut self) {
        if self.target.suspended {
            self.set_health(TargetHealth::Suspended);
            tracing::info!(target = %self.target.key, "suspended: overdue orders stay as they are");
            return std::future::pending().await;
        }
        self.metrics.begin(jiff::Timestamp::now());
        let key = self.target.key.to_string();
        let (mut sweep, mut is_backlog) = (None::<Sweep>, false);
        loop {
            let rank = self.peers.borrow_and_update().rank(&key);
            self.metrics.rank(rank);
            let schedule = Schedule::of_rank(rank, self.max_sleep);
            if let Some(sweep) = &mut sweep
                && let Err(error) = sweep.repair_indexes(&self.target).await
            {
                tracing::debug!(target = %key, %error, "the indexes are not repaired");
            }
            // For one batch; then another database may have its turn.
            let permit = if is_backlog { self.turn().await } else { None };
            let step = async {
                let sweep = match &mut sweep {
                    Some(sweep) => sweep,
                    none => none.insert(Sweep::open(&self.target, schedule, &self.pools).await?),
                };
                sweep.set_schedule(schedule);
                sweep.step(&self.target, &self.metrics).await
            };
            // On the heap, as it is large and most targets are asleep most of the time.
            let result = {
                let mut step = Box::pin(step);
                tokio::select! {
                    result = &mut step => result,
                    () = self.is_still_unknown() => {
                        let hosts = self.target.connect_options().hosts_to_tell();
                        self.set_health(TargetHealth::Failing(DatabaseProblem::pending_at(&hosts)));
                        step.await
                    }
                }
            };
            drop(permit);
            let pause = match result {
                Ok(step) => {
                    is_backlog = step.is_backlog;
                    self.succeeded(step, sweep.as_ref())
                }
                Err(error) => {
                    is_backlog = false;
                    self.failed(&error, sweep.as_ref())
                }
            };
            tokio::select! {
                // The rank may have changed.
                Ok(()) = self.peers.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Records a step. Returns how long to wait before the next one.
    fn succeeded(&mut self, step: StepResult, sweep: Option<&Sweep>) -> Duration {
        self.failures = 0;
        self.progress.record_expired(step.expired);
        let is_behind = self.progress.record_overdue(step.overdue);
        if self.progress.record_events(sweep.and_then(Sweep::events)) {
            self.changed.notify_one();
        }
        if step.expired > 0 {
            tracing::debug!(target = %self.target.key, expired = step.expired, "orders expired");
        }
        let now = tokio::time::Instant::now();
        let steady_from = *self.well_since.get_or_insert(now) + STEADY;
        if now < steady_from && matches!(*self.health.borrow(), TargetHealth::Failing(_)) {
            return step.pause.min(steady_from - now);
        }
        if self.logged.take().is_some() {
            tracing::info!(target = %self.target.key, "the database is available again");
        }
        let missing_index = sweep.and_then(Sweep::missing_index).map(DatabaseProblem::from);
        let without_due_time = sweep.and_then(Sweep::without_due_time).cloned();
        self.set_health(TargetHealth::Swept {
            problem: missing_index,
            ignored_options: None,
            without_due_time,
            is_behind,
        });
        step.pause
    }

    /// Records a failure. Returns how long to wait before the next attempt.
    fn failed(&mut self, error: &StoreError, sweep: Option<&Sweep>) -> Duration {
        self.metrics.failed(reason_of(error));
        self.well_since = None;
        let overdue = sweep.map_or(Duration::ZERO, |sweep| sweep.overdue(Instant::now()));
        self.metrics.overdue(overdue);
        self.progress.record_overdue(overdue);
        // A single failure may be a failover; the next attempt follows within a second.
        let is_pending = matches!(
            &*self.health.borrow(), TargetHealth::Failing(problem) if problem.reason == Reason::DatabasePending
        );
        if self.failures > 0 || is_pending {
            let hosts = self.target.connect_options().hosts_to_tell();
            self.set_health(TargetHealth::Failing(DatabaseProblem::at(&hosts, error)));
        }
        if self.logged.replace(reason_of(error)) != Some(reason_of(error)) {
            let resources = self.target.resources.join(",");
            tracing::warn!(target = %self.target.key, resources, %error, "cannot sweep; retrying");
        }
        let pause = exponential(MIN_BACKOFF, MAX_BACKOFF, self.failures);
        self.failures = self.failures.saturating_add(1);
        pause.mul_f64(1.0 - 0.25 * fastrand::f64())
    }

    /// Ends when nothing is known of the database although the sweep began long ago.
    async fn is_still_unknown(&self) {
        if *self.health.borrow() != TargetHealth::Unknown {
            return std::future::pending().await;
        }
        tokio::time::sleep_until(self.pending_from).await;
    }

    fn set_health(&self, now: TargetHealth) {
        if self.health.send_if_modified(|last| std::mem::replace(last, now.clone()) != now) {
            self.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;
    use tokio::time::{advance, sleep};

    use super::*;
    use crate::store::TargetId;

    fn task() -> (Task, watch::Receiver<TargetHealth>) {
        let (_, peers) = watch::channel(Arc::new(Peers::alone()));
        let metrics = Metrics::register(&mut Registry::default());
        let mut sweeps = Sweeps::new(metrics, peers, Arc::new(Notify::new()), CancellationToken::new());
        sweeps.task(&Target {
            key: TargetKey {
                namespace: Some("shop".into()),
                id: TargetId { hosts: vec!["mongo:27017".into()], database: "orders".into() },
            },
            uri: "mongodb://mongo/orders".into(),
            database: None,
            tls: None,
            grace: Duration::ZERO,
            max_per_second: None,
            suspended: false,
            events: std::collections::BTreeSet::new(),
            warnings: Vec::new(),
            resources: vec!["shop/orders".into()],
        })
    }

    /// A step that succeeds.
    fn step() -> StepResult {
        let pause = Duration::from_secs(60);
        StepResult { attempted: 0, expired: 0, overdue: Duration::ZERO, is_backlog: false, pause }
    }

    fn away() -> StoreError {
        StoreError::Unavailable { doing: "sweeping", detail: "no primary".into() }
    }

    #[tokio::test(start_paused = true)]
    async fn that_nothing_is_known_is_told_after_half_a_minute_and_what_fails_then_at_once() {
        let (mut task, health) = task();
        let begun = tokio::time::Instant::now();
        // A single failure may be a failover.
        task.failed(&away(), None);
        assert_eq!(*health.borrow(), TargetHealth::Unknown);
        task.is_still_unknown().await;
        assert_eq!(begun.elapsed(), KNOWN_WITHIN);
        task.failures = 0;
        task.set_health(TargetHealth::Failing(DatabaseProblem::pending_at(&[])));
        task.failed(&away(), None);
        assert!(
            matches!(&*health.borrow(), TargetHealth::Failing(problem) if problem.reason == Reason::DatabaseUnreachable)
        );
        // Something is known, so this does not end.
        let waited = tokio::time::timeout(2 * KNOWN_WITHIN, task.is_still_unknown()).await;
        assert!(waited.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_database_that_fails_every_other_second_is_told_to_fail_once() {
        let (mut task, mut health) = task();
        task.succeeded(step(), None);
        assert!(matches!(*health.borrow_and_update(), TargetHealth::Swept { .. }));
        for round in 0..20 {
            for _ in 0..2 {
                task.failed(&away(), None);
                advance(Duration::from_secs(1)).await;
            }
            assert_eq!(health.has_changed().unwrap(), round == 0, "{round}");
            assert!(matches!(*health.borrow_and_update(), TargetHealth::Failing(_)));
            task.succeeded(step(), None);
            advance(Duration::from_secs(1)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn that_a_database_is_mended_is_told_after_some_seconds_however_long_a_sleep_may_be() {
        let (mut task, health) = task();
        task.failed(&away(), None);
        assert_eq!(*health.borrow(), TargetHealth::Unknown, "a single failure may be a failover");
        task.failed(&away(), None);
        let begun = tokio::time::Instant::now();
        while matches!(*health.borrow(), TargetHealth::Failing(_)) {
            let pause = task.succeeded(step(), None);
            if matches!(*health.borrow(), TargetHealth::Failing(_)) {
                sleep(pause).await;
            }
        }
        assert!(matches!(*health.borrow(), TargetHealth::Swept { .. }));
        assert!(begun.elapsed() <= STEADY + Duration::from_millis(10), "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_single_failure_is_not_told() {
        let (mut task, mut health) = task();
        task.succeeded(step(), None);
        health.borrow_and_update();
        for _ in 0..10 {
            task.failed(&away(), None);
            task.succeeded(step(), None);
        }
        assert!(!health.has_changed().unwrap());
    }
}
