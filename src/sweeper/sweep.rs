//! The sweep of one database: correct by the write, not by the timer.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{
    clock::ServerClock,
    health::reason_of,
    metrics::TargetMetrics,
    outlook::{Outlook, Seen},
    pacing::{BatchSize, rest, within},
    ranks::Turn,
    stride::Stride,
    targets::Target,
};
use crate::store::{ConnectOptions, Look, Pools, Query, Refused, Store, StoreError};

/// Up to how many overdue orders are counted.
const COUNTED: u32 = 100_000;

/// How often they are counted while there are more than one batch of them.
const COUNT_EVERY: Duration = Duration::from_secs(10);

/// For how long orders are left alone that the database refuses to cancel.
const REFUSED_FOR: Duration = Duration::from_secs(300);

/// How many of them are remembered: each query names them.
const REFUSED_AT_MOST: usize = 1000;

/// How soon indexes are tried again that could not be made.
const INDEXES_EVERY: Duration = Duration::from_secs(30);

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

/// What is to be cancelled next.
enum Found {
    /// Those that a look has seen.
    Listed(Look),
    /// So many that nobody has looked at.
    Within(Query, u64),
}

impl Found {
    /// The earliest moment at which any of them became due, or will.
    fn oldest(&self) -> Option<Timestamp> {
        match self {
            Self::Listed(look) => look.due().iter().min().copied().or(look.next()),
            Self::Within(query, _) => query.after,
        }
    }

    /// The earliest moment at which another becomes due, as far as was seen.
    fn next(&self) -> Option<Timestamp> {
        match self {
            Self::Listed(look) => look.next(),
            Self::Within(..) => None,
        }
    }

    /// Whether any of them are due.
    fn is_due(&self) -> bool {
        match self {
            Self::Listed(look) => !look.due().is_empty(),
            Self::Within(..) => true,
        }
    }

    /// Whether there may be more.
    fn is_full(&self) -> bool {
        match self {
            Self::Listed(look) => look.is_full(),
            Self::Within(..) => true,
        }
    }

    /// Observes the lateness of the `expired` that were cancelled. Where others took some of them it is not known
    /// which, so those are left out that would look best; and of what nobody has looked at, each counts as the oldest.
    fn observe(&self, expired: u64, now: Timestamp, metrics: &TargetMetrics) {
        let late = |moment| metrics.late(Duration::try_from(now.duration_since(moment)).unwrap_or_default());
        let expired = usize::try_from(expired).unwrap_or(usize::MAX);
        match self {
            Self::Listed(look) => {
                let mut due = look.due().to_vec();
                due.sort_unstable();
                due.into_iter().take(expired).for_each(late);
            }
            Self::Within(query, _) => {
                std::iter::repeat_n(query.after.unwrap_or(query.until), expired).for_each(late);
            }
        }
    }
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
    /// How far a backlog has been gone through.
    stride: Option<Stride>,
    /// Since when the database has refused to cancel all of a range, so that orders are cancelled by their ids.
    by_ids: Option<Instant>,
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
            stride: None,
            by_ids: None,
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
        let found = self.claim(cutoff, until, batch).await.inspect_err(|_| self.struggles())?;
        metrics.looked(Timestamp::now());

        let writing = Instant::now();
        self.waiting = found.oldest();
        let written = self.expire(&found, cutoff, metrics).await;
        let (claimed, expired) = written.inspect_err(|_| self.struggles())?;
        if claimed > 0 {
            let took = writing.elapsed();
            metrics.batch(claimed, expired, took);
            found.observe(expired, clock.reached(Instant::now()), metrics);
            self.batch = self.batch.after(claimed, took);
        }

        let now = Instant::now();
        let is_backlog = found.is_full() && found.is_due();
        let overdue = if is_backlog { self.overdue(now) } else { Duration::ZERO };
        let next = found.next();
        if !is_backlog {
            self.waiting = next;
        }
        self.count(cutoff, is_backlog, metrics).await?;
        metrics.overdue(overdue);
        let worked = (claimed > 0).then(|| begun.elapsed());
        let sleep = if found.is_full() {
            Duration::ZERO
        } else {
            self.outlook.sleep(self.cutoff(&clock, now), cutoff, next, worked)
        };
        let seen = match (found.is_full(), self.waiting.is_some() || claimed > 0) {
            (true, _) => Seen::Full,
            (false, true) => Seen::Some,
            (false, false) => Seen::Nothing,
        };
        self.outlook = self.outlook.after(seen);
        let pause = sleep.max(rest(claimed, begun.elapsed(), self.limit));
        Ok(Swept { claimed, expired, overdue, is_backlog, pause })
    }

    /// The next orders to cancel. In a backlog they are not looked at one by one, but taken by the time at which they
    /// expire.
    async fn claim(&mut self, cutoff: Timestamp, until: Timestamp, batch: u32) -> Result<Found, StoreError> {
        self.refused = self.refused.take().filter(|(_, since)| since.elapsed() < REFUSED_FOR);
        self.by_ids = self.by_ids.filter(|since| since.elapsed() < REFUSED_FOR);
        while let Some((stride, range)) = self.stride.and_then(|stride| Some((stride, stride.next(cutoff)?)))
        {
            let most = batch.saturating_mul(2);
            let due = self.query(cutoff, most.saturating_add(1));
            let within = Query { after: Some(range.after), until: range.until, ..due };
            let count = self.store.count(&within).await?;
            if count <= u64::from(most) {
                self.stride = Some(stride.after(range, count, batch));
                if count > 0 {
                    return Ok(Found::Within(within, count));
                }
            } else if let Some(shorter) = stride.shorter(range) {
                self.stride = Some(shorter);
            } else {
                // So many in one moment.
                return self.store.look(&Query { limit: batch, ..within }).await.map(Found::Listed);
            }
        }
        self.stride = None;
        let look = self.store.look(&Query { until, ..self.query(cutoff, batch) }).await?;
        if look.is_full() && look.next().is_none() && self.limit.is_none() && self.by_ids.is_none() {
            self.stride = Stride::new(look.due(), batch);
        }
        Ok(Found::Listed(look))
    }

    fn query(&self, cutoff: Timestamp, limit: u32) -> Query {
        let but = self.refused.as_ref().map(|(refused, _)| refused.clone()).unwrap_or_default();
        Query { but, ..Query::due(cutoff, self.grace, limit) }
    }

    /// Cancels what is due; gives how many orders that should have been, and how many it were.
    async fn expire(
        &mut self,
        found: &Found,
        cutoff: Timestamp,
        metrics: &TargetMetrics,
    ) -> Result<(u64, u64), StoreError> {
        match found {
            Found::Listed(look) => {
                let expired = self.expire_listed(look, cutoff, metrics).await?;
                Ok((look.due().len() as u64, expired))
            }
            Found::Within(query, count) => match self.store.expire_within(query).await {
                Err(error) if !error.is_unavailable() => {
                    metrics.failed(reason_of(&error));
                    (self.stride, self.by_ids) = (None, Some(Instant::now()));
                    Ok((0, 0))
                }
                expired => Ok((*count, expired?)),
            },
        }
    }

    /// One order that the database refuses to cancel must not keep the others.
    async fn expire_listed(
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
        metrics.failed(reason_of(&error));
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
        self.store.count(&Query::due(cutoff, self.grace, u32::MAX)).await
    }

    fn cutoff(&self, clock: &ServerClock, at: Instant) -> Timestamp {
        clock.reached(at).checked_sub(self.turn.delay).unwrap_or(Timestamp::MIN)
    }

    fn struggles(&mut self) {
        self.stride = None;
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
                metrics.backlog(self.store.count(&Query::due(cutoff, self.grace, COUNTED)).await?);
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
