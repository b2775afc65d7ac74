//! The sweep of one database: correct by the write, not by the timer.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio_util::task::AbortOnDropHandle;

use super::{
    clock::ServerClock,
    metrics::TargetMetrics,
    outlook::{Outlook, Seen},
    pacing::{BatchSize, rest, within},
    targets::Target,
};
use crate::store::{ConnectOptions, Look, Pools, Query, Refused, Store, StoreError};

/// Up to how many overdue orders are counted.
const COUNTED: u64 = 100_000;

/// How often they are counted while there are more than one batch of them.
const COUNT_EVERY: Duration = Duration::from_secs(10);

/// How many batches are claimed at once in a backlog …
const BATCHES_AT_ONCE: u32 = 8;

/// … and how many orders, which is some megabytes.
const CLAIMED_AT_MOST: u32 = 40_000;

/// For how long orders are left alone that the database refuses to cancel.
const REFUSED_FOR: Duration = Duration::from_secs(300);

/// How many of them are remembered: each query names them.
const REFUSED_AT_MOST: usize = 1000;

/// How soon indexes are tried again that could not be made.
const INDEXES_EVERY: Duration = Duration::from_secs(30);

/// How late this sweeper comes to a target, and how long it sleeps at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// It takes only what is overdue by this.
    pub delay: Duration,
    /// The longest sleep between two looks.
    pub cap: Duration,
}

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Swept {
    /// Orders that were seen to be due.
    pub claimed: u64,
    /// Those that were cancelled.
    pub expired: u64,
    /// By how much the oldest order is overdue that may be left; nothing when none is.
    pub overdue: Duration,
    /// Whether more is due.
    pub is_backlog: bool,
    /// How long to wait before the next step.
    pub pause: Duration,
}

/// The sweep of one database: its connection, its clock and its pace.
pub struct Sweep {
    store: Store,
    grace: Duration,
    /// The most orders to cancel in a second.
    limit: Option<u32>,
    turn: Turn,
    clock: Option<ServerClock>,
    batch: BatchSize,
    outlook: Outlook,
    /// The earliest moment at which an order became due, or will, that was seen and not cancelled.
    waiting: Option<Timestamp>,
    counted: Option<Instant>,
    /// What was seen to be due in a backlog, and not written yet.
    claimed: Look,
    /// The look for what comes after it.
    ahead: Option<AbortOnDropHandle<Result<Look, StoreError>>>,
    missing_index: Option<(StoreError, Instant)>,
    /// Orders that the database refuses to cancel, and since when they are left alone.
    refused: Option<(Refused, Instant)>,
}

impl Sweep {
    /// Connects, and sees to the indexes that the sweep needs.
    ///
    /// # Errors
    /// When the connection string is wrong, or the database is away.
    pub async fn open(target: &Target, turn: Turn, pools: &Pools) -> Result<Self, StoreError> {
        let mut sweep = Self::connect(target, turn, pools).await?;
        sweep.index(target).await?;
        Ok(sweep)
    }

    /// Prepares a connection, and changes nothing.
    ///
    /// # Errors
    /// When the connection string is wrong.
    pub async fn connect(target: &Target, turn: Turn, pools: &Pools) -> Result<Self, StoreError> {
        let options = ConnectOptions {
            uri: &target.uri,
            database: Some(&target.id.database),
            namespace: target.namespace.as_deref(),
        };
        Ok(Self {
            store: Store::connect_in(pools, options).await?,
            grace: target.grace,
            limit: target.max_per_second,
            turn,
            clock: None,
            batch: BatchSize::default(),
            outlook: Outlook::new(turn.cap),
            waiting: None,
            counted: None,
            claimed: Look::default(),
            ahead: None,
            missing_index: None,
            refused: None,
        })
    }

    /// Sees to the indexes; one that cannot be made is remembered, for expiry is correct without, only
    /// slower.
    async fn index(&mut self, target: &Target) -> Result<(), StoreError> {
        let was_missing = self.missing_index.take().is_some();
        match self.store.ensure_indexes().await {
            Ok(()) if was_missing => tracing::info!(target = %target.id, "all indexes are there now"),
            Ok(()) => {}
            Err(error) if error.is_unavailable() => return Err(error),
            Err(error) => {
                if !was_missing {
                    tracing::warn!(target = %target.id, %error, "an index is missing");
                }
                self.missing_index = Some((error, Instant::now()));
            }
        }
        Ok(())
    }

    /// Why an index is missing.
    pub fn missing_index(&self) -> Option<&StoreError> {
        self.missing_index.as_ref().map(|(error, _)| error)
    }

    /// Comes earlier or later from now on.
    pub fn take(&mut self, turn: Turn) {
        if self.turn != turn {
            (self.turn, self.outlook) = (turn, Outlook::new(turn.cap));
        }
    }

    /// Cancels one batch of what is due, and says when to come back.
    ///
    /// # Errors
    /// When the database is away; trying again is always safe.
    pub async fn step(&mut self, target: &Target, metrics: &TargetMetrics) -> Result<Swept, StoreError> {
        if self.missing_index.as_ref().is_some_and(|(_, tried)| tried.elapsed() > INDEXES_EVERY) {
            self.index(target).await?;
        }
        let clock = self.clock(metrics).await?;
        let begun = Instant::now();
        let cutoff = self.cutoff(&clock, begun);
        let until = cutoff.checked_add(self.outlook.window()).unwrap_or(cutoff);
        let batch = within(self.batch, self.limit);
        let look = self.claim(cutoff, until, batch).await.inspect_err(|_| self.struggles())?;
        metrics.looked(Timestamp::now());

        let claimed = look.due().len() as u64;
        let oldest = look.due().iter().min().copied();
        self.waiting = oldest.or(look.next());
        let writing = Instant::now();
        let written = self.expire(&look, cutoff, metrics).await;
        let expired = written.inspect_err(|_| self.struggles())?;
        if claimed > 0 {
            let took = writing.elapsed();
            metrics.batch(claimed, expired, took);
            observe(look.due(), expired, clock.reached(Instant::now()), metrics);
            self.batch = self.batch.after(claimed, took);
        }

        let now = Instant::now();
        let is_backlog = look.is_full() && claimed > 0;
        let overdue = if is_backlog { self.overdue(now) } else { Duration::ZERO };
        if !is_backlog {
            self.waiting = look.next();
        }
        self.count(cutoff, is_backlog, metrics).await?;
        metrics.overdue(overdue);
        let worked = (claimed > 0).then(|| begun.elapsed());
        let sleep = if look.is_full() {
            Duration::ZERO
        } else {
            self.outlook.sleep(self.cutoff(&clock, now), cutoff, look.next(), worked)
        };
        let seen = match (look.is_full(), self.waiting.is_some() || claimed > 0) {
            (true, _) => Seen::Full,
            (false, true) => Seen::Some,
            (false, false) => Seen::Nothing,
        };
        self.outlook = self.outlook.after(seen);
        let pause = sleep.max(rest(claimed, begun.elapsed(), self.limit));
        Ok(Swept { claimed, expired, overdue, is_backlog, pause })
    }

    /// The next orders to cancel. In a backlog many batches are claimed at once, and the next ones are looked for
    /// while these are written: where a server goes through all that is due for each look, looks would take longer
    /// than the writes.
    async fn claim(&mut self, cutoff: Timestamp, until: Timestamp, batch: u32) -> Result<Look, StoreError> {
        let count = usize::try_from(batch).unwrap_or(usize::MAX);
        if self.claimed.due().is_empty()
            && let Some(ahead) = self.ahead.take()
            && let Ok(Ok(look)) = ahead.await
            && look.is_full()
        {
            self.claim_ahead(&look, cutoff);
            self.claimed = look;
        }
        if !self.claimed.due().is_empty() {
            return Ok(self.claimed.take(count));
        }
        self.refused = self.refused.take().filter(|(_, since)| since.elapsed() < REFUSED_FOR);
        let is_backlog = self.limit.is_none() && self.outlook.window().is_zero() && self.waiting.is_some();
        let limit = if is_backlog { self.many() } else { batch };
        let query = Query { until, ..self.query(cutoff, limit) };
        let mut look = self.store.look(&query).await?;
        if is_backlog && look.is_full() {
            self.claim_ahead(&look, cutoff);
            let first = look.take(count);
            self.claimed = look;
            return Ok(first);
        }
        Ok(look)
    }

    /// Looks, in the background, for what expires after all of `look`. What is left out, because the server knows no
    /// order or many expire in the same moment, a later look finds.
    fn claim_ahead(&mut self, look: &Look, cutoff: Timestamp) {
        let query = Query { after: look.due().iter().max().copied(), ..self.query(cutoff, self.many()) };
        let store = self.store.clone();
        self.ahead = Some(AbortOnDropHandle::new(tokio::spawn(async move { store.look(&query).await })));
    }

    fn query(&self, cutoff: Timestamp, limit: u32) -> Query {
        let but = self.refused.as_ref().map(|(refused, _)| refused.clone()).unwrap_or_default();
        Query { but, ..Query::due(cutoff, self.grace, limit) }
    }

    /// How many orders are claimed at once in a backlog.
    fn many(&self) -> u32 {
        self.batch.get().saturating_mul(BATCHES_AT_ONCE).min(CLAIMED_AT_MOST)
    }

    /// Cancels what is due. One order that the database refuses to cancel must not keep the others.
    async fn expire(
        &mut self,
        look: &Look,
        cutoff: Timestamp,
        metrics: &TargetMetrics,
    ) -> Result<u64, StoreError> {
        let error = match self.store.expire(look, cutoff, self.grace).await {
            Err(error) if !error.is_unavailable() => error,
            result => return result,
        };
        let (expired, others) = self.store.expire_apart(look, cutoff, self.grace).await?;
        metrics.failed(error.reason());
        let all = others.count() == look.due().len() && others.count() > 1;
        let (refused, _) = self.refused.get_or_insert_with(|| (Refused::default(), Instant::now()));
        // Where it refuses all of them, it is not for the sake of some.
        if all || refused.count() + others.count() > REFUSED_AT_MOST {
            return Err(error);
        }
        refused.add(others);
        Ok(expired)
    }

    /// By how much an order is overdue, as far as that is known, also while the database is away.
    pub fn overdue(&self, at: Instant) -> Duration {
        let (Some(waiting), Some(clock)) = (self.waiting, &self.clock) else { return Duration::ZERO };
        Duration::try_from(clock.reached(at).duration_since(waiting)).unwrap_or(Duration::ZERO)
    }

    /// What is due at `cutoff` and not cancelled; nothing is changed.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn count_overdue(&mut self, metrics: &TargetMetrics) -> Result<u64, StoreError> {
        let cutoff = self.clock(metrics).await?.reached(Instant::now());
        self.store.overdue(cutoff, self.grace, u64::MAX >> 1).await
    }

    fn cutoff(&self, clock: &ServerClock, at: Instant) -> Timestamp {
        clock.reached(at).checked_sub(self.turn.delay).unwrap_or(Timestamp::MIN)
    }

    fn struggles(&mut self) {
        (self.claimed, self.ahead) = (Look::default(), None);
        self.batch = self.batch.halved();
    }

    /// Counts a backlog, now and then: it costs the server as much as a look at so many orders.
    async fn count(
        &mut self,
        cutoff: Timestamp,
        is_backlog: bool,
        metrics: &TargetMetrics,
    ) -> Result<(), StoreError> {
        if !is_backlog {
            self.counted = None;
            metrics.backlog(0);
        } else if self.counted.is_none_or(|last| last.elapsed() > COUNT_EVERY) {
            // Not the first time: most backlogs are gone with the next batch.
            if self.counted.is_some() {
                metrics.backlog(self.store.overdue(cutoff, self.grace, COUNTED).await?);
            }
            self.counted = Some(Instant::now());
        }
        Ok(())
    }

    async fn clock(&mut self, metrics: &TargetMetrics) -> Result<ServerClock, StoreError> {
        if let Some(clock) = self.clock.filter(|clock| !clock.is_stale(Instant::now())) {
            return Ok(clock);
        }
        let asked = Instant::now();
        let said = self.store.server_time().await?;
        let (heard, wall) = (Instant::now(), Timestamp::now());
        let new = ServerClock::new(said, asked, heard);
        let clock = *self.clock.insert(self.clock.map_or(new, |clock| clock.refined(new)));
        metrics.clock(&clock, heard, wall);
        Ok(clock)
    }
}

/// Observes the lateness of the orders that were cancelled. Where others took some of them it is not known
/// which, so those are left out that would look best.
fn observe(due: &[Timestamp], expired: u64, now: Timestamp, metrics: &TargetMetrics) {
    let mut due = due.to_vec();
    due.sort_unstable();
    for moment in due.into_iter().take(usize::try_from(expired).unwrap_or(usize::MAX)) {
        metrics.late(Duration::try_from(now.duration_since(moment)).unwrap_or(Duration::ZERO));
    }
}
