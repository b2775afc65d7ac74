//! The sweeps of all targets, one task for each: none waits for another.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, Semaphore, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{
    behind::Behind,
    health::{DatabaseProblem, TargetHealth, reason_of},
    metrics::{Metrics, TargetMetrics},
    outlook::LONGEST_SLEEP,
    ranks::{Members, turn},
    sweep::{Sweep, Swept},
    targets::Target,
};
use crate::{
    runtime::exponential,
    store::{Pools, StoreError, TargetId},
};

/// The longest pause of a target that cannot be reached.
const LONGEST_BACKOFF: Duration = Duration::from_secs(15);

/// How many databases of one server get batches of their backlogs at the same time. A batch is the
/// quantum: they take turns, and one that only has a little due waits for none.
const BACKLOGS_PER_SERVER: usize = 2;

/// What the sweeps of a target came to since this process began, for whoever wants to know now and then.
#[derive(Debug)]
pub struct Progress {
    expired: AtomicU64,
    overdue_seconds: AtomicU64,
    behind: Mutex<Behind>,
    began: Instant,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            expired: AtomicU64::default(),
            overdue_seconds: AtomicU64::default(),
            behind: Mutex::default(),
            began: Instant::now(),
        }
    }
}

impl Progress {
    /// Orders that were cancelled.
    pub fn expired(&self) -> u64 {
        self.expired.load(Ordering::Relaxed)
    }

    /// By how many whole seconds the oldest order is overdue.
    pub fn overdue_seconds(&self) -> u64 {
        self.overdue_seconds.load(Ordering::Relaxed)
    }

    /// Takes note of what is overdue, and says whether the target falls behind.
    fn overdue(&self, by: Duration) -> bool {
        self.overdue_seconds.store(by.as_secs(), Ordering::Relaxed);
        let mut behind = self.behind.lock().unwrap_or_else(PoisonError::into_inner);
        *behind = behind.after(by, self.began.elapsed());
        behind.is_behind()
    }
}

/// What all sweeps share.
pub struct Sweeps {
    running: HashMap<TargetId, Running>,
    /// Kept while a sweep is begun again, because something about its target changed.
    progress: HashMap<TargetId, Arc<Progress>>,
    lanes: HashMap<Vec<String>, Arc<Semaphore>>,
    pools: Arc<Pools>,
    metrics: Metrics,
    members: watch::Receiver<Arc<Members>>,
    changed: Arc<Notify>,
    shutdown: CancellationToken,
    /// The longest sleep of a target's owner.
    cap: Duration,
}

struct Running {
    target: Target,
    health: watch::Receiver<TargetHealth>,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Sweeps {
    /// None yet. They end with `shutdown`; `changed` is notified when the health of one changes.
    pub fn new(
        metrics: Metrics,
        members: watch::Receiver<Arc<Members>>,
        changed: Arc<Notify>,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            running: HashMap::new(),
            progress: HashMap::new(),
            lanes: HashMap::new(),
            pools: Arc::default(),
            metrics,
            members,
            changed,
            shutdown,
            cap: LONGEST_SLEEP,
        }
    }

    /// With sleeps of another length at most.
    #[must_use]
    pub fn with_cap(self, cap: Duration) -> Self {
        Self { cap, ..self }
    }

    /// Starts what is new, stops what is gone, and does both for what changed.
    pub fn follow(&mut self, wanted: HashMap<TargetId, Target>) {
        self.running.retain(|id, running| {
            let keep = wanted.get(id).is_some_and(|target| target.is_swept_as(&running.target))
                && !running.task.is_finished();
            if !keep {
                // It ends at its next pause; being interrupted anywhere does no harm.
                running.cancel.cancel();
                tracing::info!(target = %id, "sweep stopped");
            }
            keep
        });
        self.progress.retain(|id, _| wanted.contains_key(id));
        self.lanes.retain(|hosts, _| wanted.keys().any(|id| id.hosts == *hosts));
        for (id, target) in wanted {
            if !self.running.contains_key(&id) {
                tracing::info!(target = %id, resources = target.resources.join(","), suspended = target.suspended, "sweep started");
                let running = self.start(target);
                self.running.insert(id, running);
            }
        }
        self.metrics.targets(self.running.len());
    }

    fn start(&mut self, target: Target) -> Running {
        let lane = self.lanes.entry(target.id.hosts.clone());
        let (sender, health) = watch::channel(TargetHealth::Unknown);
        let cancel = self.shutdown.child_token();
        let task = Task {
            metrics: self.metrics.of(&target.id),
            health: sender,
            changed: self.changed.clone(),
            progress: self.progress.entry(target.id.clone()).or_default().clone(),
            members: self.members.clone(),
            lane: lane.or_insert_with(|| Arc::new(Semaphore::new(BACKLOGS_PER_SERVER))).clone(),
            pools: self.pools.clone(),
            cap: self.cap,
            failures: 0,
            target: target.clone(),
        };
        let (sweep, cancelled) = (task.run(), cancel.clone());
        let task = tokio::spawn(async move {
            // Being dropped between any two writes does no harm: what is left is due still.
            tokio::select! {
                () = cancelled.cancelled() => {}
                () = sweep => {}
            }
        });
        Running { target, health, cancel, task }
    }

    /// How a target is.
    pub fn health(&self, id: &TargetId) -> TargetHealth {
        self.running.get(id).map_or(TargetHealth::Unknown, |running| running.health.borrow().clone())
    }

    /// What its sweep came to.
    pub fn progress(&self, id: &TargetId) -> Option<Arc<Progress>> {
        self.progress.get(id).cloned()
    }

    /// How this sweeper ranks for `key`.
    pub fn rank(&self, key: &str) -> u32 {
        self.members.borrow().rank(key)
    }

    /// Ends all sweeps, and waits until they have.
    pub async fn stop(&mut self) {
        for running in self.running.values() {
            running.cancel.cancel();
        }
        for (id, running) in &mut self.running {
            if (&mut running.task).await.is_err() {
                tracing::error!(target = %id, "the sweep had panicked");
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
    members: watch::Receiver<Arc<Members>>,
    lane: Arc<Semaphore>,
    pools: Arc<Pools>,
    cap: Duration,
    /// In a row.
    failures: u32,
}

impl Task {
    /// Sweeps for ever, and says how it goes. A database that is away is waited for, and delays no other.
    async fn run(mut self) {
        if self.target.suspended {
            self.tell(TargetHealth::Suspended);
            tracing::info!(target = %self.target.id, "suspended: overdue orders stay as they are");
            return std::future::pending().await;
        }
        let key = self.target.id.to_string();
        let (mut sweep, mut is_backlog) = (None, false);
        loop {
            let rank = self.members.borrow_and_update().rank(&key);
            self.metrics.rank(rank);
            let turn = turn(rank, self.cap);
            // Taken for one batch: then it is the turn of another.
            let permit = if is_backlog { self.lane.acquire().await.ok() } else { None };
            let step = async {
                let sweep = match &mut sweep {
                    Some(sweep) => sweep,
                    none => none.insert(Sweep::open(&self.target, turn, &self.pools).await?),
                };
                sweep.take(turn);
                sweep.step(&self.target, &self.metrics).await
            };
            // It is large, and most targets sleep most of the time.
            let result = Box::pin(step).await;
            drop(permit);
            let pause = match result {
                Ok(swept) => {
                    is_backlog = swept.is_backlog;
                    self.swept(swept, sweep.as_ref());
                    swept.pause
                }
                Err(error) => {
                    is_backlog = false;
                    self.failed(&error, sweep.as_ref())
                }
            };
            tokio::select! {
                // Another has come or gone: it may be this one's turn.
                Ok(()) = self.members.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn swept(&mut self, swept: Swept, sweep: Option<&Sweep>) {
        if self.failures > 0 {
            tracing::info!(target = %self.target.id, failures = self.failures, "the database is back");
            self.failures = 0;
        }
        self.progress.expired.fetch_add(swept.expired, Ordering::Relaxed);
        let is_behind = self.progress.overdue(swept.overdue);
        let missing_index = sweep.and_then(Sweep::missing_index).map(DatabaseProblem::from);
        self.tell(TargetHealth::Swept { missing_index, is_behind });
        if swept.expired > 0 {
            tracing::debug!(target = %self.target.id, expired = swept.expired, "orders expired");
        }
    }

    /// How long to wait before it is tried again.
    fn failed(&mut self, error: &StoreError, sweep: Option<&Sweep>) -> Duration {
        self.metrics.failed(reason_of(error));
        let overdue = sweep.map_or(Duration::ZERO, |sweep| sweep.overdue(Instant::now()));
        self.metrics.overdue(overdue);
        self.progress.overdue(overdue);
        // One failure may be a failover; the next attempt comes within a second.
        if self.failures > 0 {
            self.tell(TargetHealth::Failing(error.into()));
        } else {
            let resources = self.target.resources.join(",");
            tracing::warn!(target = %self.target.id, resources, %error, "cannot sweep; it is tried again");
        }
        let pause = exponential(LONGEST_SLEEP, LONGEST_BACKOFF, self.failures);
        self.failures = self.failures.saturating_add(1);
        pause.mul_f64(1.0 - 0.25 * fastrand::f64())
    }

    fn tell(&self, now: TargetHealth) {
        if self.health.send_if_modified(|last| std::mem::replace(last, now.clone()) != now) {
            self.changed.notify_one();
        }
    }
}
