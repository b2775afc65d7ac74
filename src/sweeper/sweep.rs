//! The sweep of one database: correct by the write, not by the timer.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{
    clock::ServerClock,
    metrics::TargetMetrics,
    outlook::{Outlook, Seen},
    pacing::{BatchSize, rest, within},
    targets::Target,
};
use crate::store::{ConnectOptions, Store, StoreError};

/// Up to how many overdue orders are counted.
const COUNTED: u64 = 100_000;

/// How often they are counted while there are more than one batch of them.
const COUNT_EVERY: Duration = Duration::from_secs(10);

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
    missing_index: Option<(StoreError, Instant)>,
}

impl Sweep {
    /// Connects, and sees to the indexes that the sweep needs.
    ///
    /// # Errors
    /// When the connection string is wrong, or the database is away.
    pub async fn open(target: &Target, turn: Turn) -> Result<Self, StoreError> {
        let mut sweep = Self::connect(target, turn).await?;
        sweep.index(target).await?;
        Ok(sweep)
    }

    /// Prepares a connection, and changes nothing.
    ///
    /// # Errors
    /// When the connection string is wrong.
    pub async fn connect(target: &Target, turn: Turn) -> Result<Self, StoreError> {
        let options = ConnectOptions {
            uri: &target.uri,
            database: Some(&target.id.database),
            namespace: target.namespace.as_deref(),
        };
        Ok(Self {
            store: Store::connect(options).await?,
            grace: target.grace,
            limit: target.max_per_second,
            turn,
            clock: None,
            batch: BatchSize::default(),
            outlook: Outlook::new(turn.cap),
            waiting: None,
            counted: None,
            missing_index: None,
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
        let look =
            self.store.look(cutoff, until, self.grace, batch).await.inspect_err(|_| self.struggles())?;
        metrics.looked(Timestamp::now());

        let claimed = look.due().len() as u64;
        let oldest = look.due().iter().min().copied();
        self.waiting = oldest.or(look.next());
        let writing = Instant::now();
        let written = self.store.expire(&look, cutoff, self.grace).await;
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
