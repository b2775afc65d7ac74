//! The sweep of one database. Every write repeats all conditions, so its correctness does not depend on timing.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{
    backlog::Cursor,
    batch::Batch,
    events::EventsState,
    health::{WithoutDueTime, reason_of},
    index_repair::IndexRepair,
    left_out::{LEFT_OUT_FOR, LeftOut},
    lookahead::{Fill, Lookahead},
    metrics::TargetMetrics,
    pacing::{self, BatchSize},
    peers::Schedule,
    targets::Target,
};
use crate::store::{ExpiringOrders, ExpiryQuery, Pools, ServerClock, Store, StoreError};

/// The most orders that one write cancels, whatever the server says: each is observed, and added to what operators sum up.
/// A range has at most two batches, and a few more that were inserted after it was counted.
const MOST_EXPIRED: u64 = 4 * BatchSize::LARGEST as u64;

/// The largest backlog that is counted exactly.
const COUNT_LIMIT: u32 = 100_000;

/// How often a backlog of more than one batch is counted.
const COUNT_INTERVAL: Duration = Duration::from_secs(10);

/// How often orders that never become due are looked for.
const NO_DUE_TIME_INTERVAL: Duration = Duration::from_secs(300);

/// How many of them are named in the log and in the condition.
const NAMED: usize = 3;

/// How long to wait after a full batch of which nothing was to be cancelled.
const USELESS_BATCH: Duration = Duration::from_millis(50);

/// The largest batch that any number of databases may cancel at the same time.
const COMMON_BATCH: u32 = 1000;

/// How often it is looked whether events are on for the database.
const EVENTS_INTERVAL: Duration = Duration::from_secs(30);

/// How often it is looked whether events flow, where a resource has them.
const FLOW_INTERVAL: Duration = Duration::from_secs(10);

/// How long a backlog is cancelled by ranges before the oldest orders are looked at again: some become due behind the
/// position, since their payment has begun or somebody has edited them.
const PASS: Duration = Duration::from_secs(2);

/// If the database refuses so many orders and cancels none, the reason is not in particular orders.
const FEW: usize = 20;

/// The result of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepResult {
    /// Orders that the step tried to cancel.
    pub attempted: u64,
    /// Orders that it cancelled; others had moved the rest.
    pub expired: u64,
    /// By how much the oldest order that may be left is overdue; zero if none is left.
    pub overdue: Duration,
    /// Whether more orders are due.
    pub is_backlog: bool,
    /// How long to wait before the next step.
    pub pause: Duration,
}

/// The sweep of one database: its connection, its clock and the state of its pacing.
pub struct Sweep {
    store: Store,
    grace: Duration,
    /// The most orders to cancel in a second.
    limit: Option<u32>,
    schedule: Schedule,
    clock: Option<ServerClock>,
    batch_size: BatchSize,
    lookahead: Lookahead,
    /// The earliest known `expiresAt` of an order that is not cancelled, due or not.
    oldest_open: Option<Timestamp>,
    /// When the backlog was last counted.
    counted: Option<Instant>,
    /// The position in a backlog that is cancelled by ranges.
    cursor: Option<Cursor>,
    /// When it was at the oldest orders.
    cursor_since: Instant,
    /// When the database refused to cancel a whole range; for a while after that, orders are cancelled by their ids.
    range_refused: Option<Instant>,
    indexes: IndexRepair,
    left_out: LeftOut,
    /// Orders without a due time, and when they were counted.
    without_due_time: Option<(WithoutDueTime, Instant)>,
    /// When it was last looked whether events are on.
    looked_for_events: Instant,
    /// Whether events flow, as far as it is known, and when that was looked at.
    events: Option<EventsState>,
    looked_at_events: Option<Instant>,
}

impl Sweep {
    /// Connects, and creates the indexes that the sweep needs.
    ///
    /// # Errors
    /// When the connection string is wrong, or the database is unavailable.
    pub async fn open(target: &Target, schedule: Schedule, pools: &Pools) -> Result<Self, StoreError> {
        let mut sweep = Self::connect(target, schedule, pools).await?;
        sweep.prepare(target).await?;
        Ok(sweep)
    }

    /// Creates the indexes that the sweep needs, if the database is the one that is meant.
    ///
    /// # Errors
    /// When it is not, or is unavailable.
    pub async fn prepare(&mut self, target: &Target) -> Result<(), StoreError> {
        self.store.check_choice().await?;
        self.ensure_indexes(target).await
    }

    /// Closes the connections, unless another sweep shares them.
    pub async fn close(self) {
        self.store.shutdown().await;
    }

    /// Prepares a connection, without changing anything in the database.
    ///
    /// # Errors
    /// When the connection string is wrong.
    pub async fn connect(target: &Target, schedule: Schedule, pools: &Pools) -> Result<Self, StoreError> {
        let store = Store::connect_in(pools, target.connect_options()).await?;
        Ok(Self {
            store: if !target.events.is_empty() { store.with_events() } else { store },
            grace: target.grace,
            limit: target.max_per_second,
            schedule,
            clock: None,
            batch_size: BatchSize::default(),
            lookahead: Lookahead::new(schedule.max_sleep),
            oldest_open: None,
            counted: None,
            cursor: None,
            cursor_since: Instant::now(),
            range_refused: None,
            indexes: IndexRepair::default(),
            left_out: LeftOut::default(),
            without_due_time: None,
            looked_for_events: Instant::now(),
            events: None,
            looked_at_events: None,
        })
    }

    /// Creates missing indexes. A failure is remembered and does not stop the sweep, which is correct without
    /// indexes, only slower.
    async fn ensure_indexes(&mut self, target: &Target) -> Result<(), StoreError> {
        let before = std::mem::take(&mut self.indexes);
        match self.store.ensure_indexes().await {
            Ok(()) if before.error().is_some() => {
                tracing::info!(target = %target.key, "all indexes exist now")
            }
            Ok(()) => {}
            Err(error) if error.is_unavailable() && !error.is_of_an_index() => return Err(error),
            Err(error) => {
                if before.error().is_none() {
                    tracing::warn!(target = %target.key, %error, "an index is missing");
                }
                self.indexes = before.failed(error, Instant::now());
            }
        }
        Ok(())
    }

    /// Tries once in a while to create indexes that are missing.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn repair_indexes(&mut self, target: &Target) -> Result<(), StoreError> {
        if self.indexes.is_due(Instant::now()) { self.ensure_indexes(target).await } else { Ok(()) }
    }

    /// Why an index is missing.
    pub fn missing_index(&self) -> Option<&StoreError> {
        self.indexes.error()
    }

    /// The orders that never become due, if there are any.
    pub fn without_due_time(&self) -> Option<&WithoutDueTime> {
        self.without_due_time.as_ref().map(|(found, _)| found).filter(|found| found.count > 0)
    }

    /// Changes the schedule, because the rank has changed.
    pub fn set_schedule(&mut self, schedule: Schedule) {
        if self.schedule != schedule {
            (self.schedule, self.lookahead) = (schedule, Lookahead::new(schedule.max_sleep));
        }
    }

    /// Cancels one batch of the orders that are due, and determines when the next step should be.
    ///
    /// # Errors
    /// When the database is unavailable; trying again is always safe.
    pub async fn step(&mut self, target: &Target, metrics: &TargetMetrics) -> Result<StepResult, StoreError> {
        self.look_at_indexes(target).await;
        let clock = self.clock(metrics).await?;
        let started = Instant::now();
        let cutoff = self.cutoff(&clock, started);
        let until = cutoff.checked_add(self.lookahead.window()).unwrap_or(cutoff);
        let size = pacing::limited(self.batch_size, self.limit);
        // Held until the batch is gone.
        let room = (size > COMMON_BATCH).then(|| self.store.large_batch()).flatten();
        let size = if room.is_some() { size } else { size.min(COMMON_BATCH) };
        let batch = self.next_batch(cutoff, until, size).await.inspect_err(|_| self.slow_down())?;
        metrics.looked(Timestamp::now());

        let write_started = Instant::now();
        self.oldest_open = batch.oldest();
        let written = self.expire(&batch, cutoff, metrics).await;
        let (attempted, expired) = written.inspect_err(|_| self.slow_down())?;
        if attempted > 0 {
            let took = write_started.elapsed();
            metrics.batch(attempted, expired, took);
            let late = batch.lateness(expired, clock.reached(Instant::now()));
            late.into_iter().for_each(|late| metrics.lateness(late));
            self.batch_size = self.batch_size.after(attempted, took);
        }

        let now = Instant::now();
        let has_left_out = self.leave_out_unreadable(&batch, target);
        let is_backlog = batch.is_full() && (batch.is_due() || has_left_out);
        let overdue = if is_backlog { self.overdue(now) } else { Duration::ZERO };
        let next = batch.next();
        if !is_backlog {
            self.oldest_open = next;
        }
        // None of these may keep orders from being cancelled.
        let counted = self.count_backlog(cutoff, is_backlog, metrics).await;
        self.only_log("cannot count the backlog", target, counted);
        let counted = self.count_without_due_time(target, metrics).await;
        self.only_log("cannot count orders without a due time", target, counted);
        let looked = self.look_at_events(target).await;
        self.only_log("cannot check whether events flow", target, looked);
        metrics.overdue(overdue);
        let worked = (attempted > 0).then(|| started.elapsed());
        let sleep = if batch.is_full() && attempted > 0 {
            Duration::ZERO
        } else if batch.is_full() {
            // More than a batch that is not due, or is none of ours.
            USELESS_BATCH
        } else {
            self.lookahead.sleep(self.cutoff(&clock, now), cutoff, next, worked)
        };
        let fill = match (batch.is_full(), self.oldest_open.is_some() || attempted > 0) {
            (true, _) => Fill::Full,
            (false, true) => Fill::Partial,
            (false, false) => Fill::Empty,
        };
        self.lookahead = self.lookahead.after(fill);
        let pause = sleep.max(pacing::pause(attempted, started.elapsed(), self.limit));
        Ok(StepResult { attempted, expired, overdue, is_backlog, pause })
    }

    /// The next orders to cancel, about `size` of them. In a backlog that is a range of `expiresAt`, whose orders are
    /// counted but not listed.
    async fn next_batch(
        &mut self,
        cutoff: Timestamp,
        until: Timestamp,
        size: u32,
    ) -> Result<Batch, StoreError> {
        self.left_out.forget_old(Instant::now());
        self.range_refused = self.range_refused.filter(|since| since.elapsed() < LEFT_OUT_FOR);
        if self.cursor_since.elapsed() > PASS {
            self.cursor = None;
        }
        while let Some((cursor, range)) = self.cursor.and_then(|cursor| Some((cursor, cursor.next(cutoff)?)))
        {
            let most = size.saturating_mul(2);
            let due = self.query(cutoff, most.saturating_add(1));
            let in_range = ExpiryQuery { after: Some(range.after), until: range.until, ..due };
            let count = self.store.count_due(&in_range).await?;
            if count <= u64::from(most) {
                self.cursor = cursor.advanced(range, cutoff, count, size);
                if count > 0 {
                    return Ok(Batch::Range(in_range, count));
                }
            } else if let Some(narrowed) = cursor.narrowed(range) {
                self.cursor = Some(narrowed);
            } else {
                // Too many orders expire in this one millisecond for a range.
                return self
                    .store
                    .find_expiring(&ExpiryQuery { limit: size, ..in_range })
                    .await
                    .map(Batch::Listed);
            }
        }
        self.cursor = None;
        let look = self.store.find_expiring(&ExpiryQuery { until, ..self.query(cutoff, size) }).await?;
        if look.is_full() && look.next().is_none() && self.limit.is_none() && self.range_refused.is_none() {
            self.cursor = Cursor::new(look.expires_at(), size);
            self.cursor_since = Instant::now();
        }
        Ok(Batch::Listed(look))
    }

    fn query(&self, cutoff: Timestamp, limit: u32) -> ExpiryQuery {
        ExpiryQuery { exclude: self.left_out.orders().clone(), ..ExpiryQuery::due(cutoff, self.grace, limit) }
    }

    /// Cancels the orders of a batch that are due. Returns how many it tried to cancel, and how many it cancelled.
    async fn expire(
        &mut self,
        batch: &Batch,
        cutoff: Timestamp,
        metrics: &TargetMetrics,
    ) -> Result<(u64, u64), StoreError> {
        match batch {
            Batch::Listed(look) => {
                let (expired, refused) = self.expire_listed(look, cutoff, metrics).await?;
                let attempted = look.due().len().saturating_sub(refused) as u64;
                Ok((attempted, expired.min(attempted)))
            }
            Batch::Range(query, count) => match self.store.expire_matching(query).await {
                Err(error) if !error.is_unavailable() => {
                    metrics.failed(reason_of(&error));
                    (self.cursor, self.range_refused) = (None, Some(Instant::now()));
                    Ok((0, 0))
                }
                expired => Ok((*count, expired?.min(MOST_EXPIRED))),
            },
        }
    }

    /// An order that the database refuses to cancel must not block the others: if the whole batch fails, its orders
    /// are cancelled one by one, and those that are refused are left out for a while.
    async fn expire_listed(
        &mut self,
        look: &ExpiringOrders,
        cutoff: Timestamp,
        metrics: &TargetMetrics,
    ) -> Result<(u64, usize), StoreError> {
        let error = match self.store.expire(look, cutoff, self.grace).await {
            Err(error) if !error.is_unavailable() => error,
            result => return result.map(|expired| (expired, 0)),
        };
        let most = self.left_out.room();
        let (expired, others) = self.store.expire_bisecting(look, cutoff, self.grace, most).await?;
        metrics.failed(reason_of(&error));
        let all = others.count() == look.due().len() && others.count() > FEW;
        // If all of them are refused, the reason is not in particular orders.
        if all || others.count() > most {
            return Err(error);
        }
        if others.count() > 0 {
            let (count, orders) = (others.count(), others.named());
            tracing::warn!(count, orders, %error, "some orders cannot be cancelled; leaving them out for a while");
        }
        self.left_out.add(&others, Instant::now());
        Ok((expired, others.count()))
    }

    /// Orders that the query matches and nobody can read, such as those with several times, would fill each batch. Whether
    /// there were any, and room to remember them.
    fn leave_out_unreadable(&mut self, batch: &Batch, target: &Target) -> bool {
        let Batch::Listed(look) = batch else { return false };
        let unreadable = look.unreadable();
        if !look.is_full() || unreadable.count() == 0 {
            return false;
        }
        // Without room they come with each batch, which is neither to be logged each time nor to keep the others for ever.
        let has_room = self.left_out.add(unreadable, Instant::now());
        if has_room {
            let (count, orders) = (unreadable.count(), unreadable.named());
            tracing::warn!(
                target = %target.key, count, orders,
                "the due time of these open orders cannot be read; skipping them for a while"
            );
        }
        has_room
    }

    /// Looks whether events are on, and whether all indexes are still there.
    async fn look_at_indexes(&mut self, target: &Target) {
        if self.looked_for_events.elapsed() <= EVENTS_INTERVAL {
            return;
        }
        self.looked_for_events = Instant::now();
        match self.store.has_indexes().await {
            Ok(()) => {}
            // Somebody has dropped it; it is made at once.
            Err(error) if error.is_of_an_index() && self.indexes.error().is_none() => {
                tracing::warn!(target = %target.key, %error, "an index is missing");
                self.indexes = IndexRepair::at_once(error);
            }
            result => self.only_log("cannot check the indexes", target, result),
        }
    }

    fn only_log(&self, what: &'static str, target: &Target, result: Result<(), StoreError>) {
        if let Err(error) = result {
            tracing::debug!(target = %target.key, %error, "{what}");
        }
    }

    /// By how much the oldest known order is overdue. Known also while the database is unavailable.
    pub fn overdue(&self, at: Instant) -> Duration {
        let (Some(oldest), Some(clock)) = (self.oldest_open, &self.clock) else { return Duration::ZERO };
        Duration::try_from(clock.reached(at).duration_since(oldest)).unwrap_or(Duration::ZERO)
    }

    /// How many orders are due and not cancelled. Changes nothing.
    ///
    /// # Errors
    /// When the database is not the one that is meant, or is unavailable.
    pub async fn count_overdue(&mut self, metrics: &TargetMetrics) -> Result<u64, StoreError> {
        self.store.check_choice().await?;
        let cutoff = self.clock(metrics).await?.reached(Instant::now());
        self.store.count_all_due(cutoff, self.grace).await
    }

    fn cutoff(&self, clock: &ServerClock, at: Instant) -> Timestamp {
        clock.reached(at).checked_sub(self.schedule.delay).unwrap_or(Timestamp::MIN)
    }

    /// After an error: a smaller batch, and no range.
    fn slow_down(&mut self) {
        self.cursor = None;
        self.batch_size = self.batch_size.halved();
    }

    /// Counts a backlog once in a while: to count orders costs the server as much as to list them.
    async fn count_backlog(
        &mut self,
        cutoff: Timestamp,
        is_backlog: bool,
        metrics: &TargetMetrics,
    ) -> Result<(), StoreError> {
        if !is_backlog {
            self.counted = None;
            metrics.backlog(0);
        } else if self.counted.is_none_or(|last| last.elapsed() > COUNT_INTERVAL) {
            // Not the first time, as most backlogs are gone after the next batch.
            let is_first = self.counted.is_none();
            self.counted = Some(Instant::now());
            if !is_first {
                metrics
                    .backlog(self.store.count_due(&ExpiryQuery::due(cutoff, self.grace, COUNT_LIMIT)).await?);
            }
        }
        Ok(())
    }

    /// Whether events flow, where a resource has them, and once pods with its settings have shown it.
    pub fn events(&self) -> Option<&EventsState> {
        self.events.as_ref()
    }

    /// Looks whether events flow; once for all sweepers is enough.
    async fn look_at_events(&mut self, target: &Target) -> Result<(), StoreError> {
        let is_recent = self.looked_at_events.is_some_and(|looked| looked.elapsed() < FLOW_INTERVAL);
        if !target.events.is_empty() && !is_recent && self.schedule.delay.is_zero() {
            self.looked_at_events = Some(Instant::now());
            self.events = EventsState::of(&self.store.events_health().await?, &target.events);
        }
        Ok(())
    }

    /// Counts the orders that never become due, and names some of them in the log when there are more than before: they hold
    /// their tickets until somebody cancels them.
    async fn count_without_due_time(
        &mut self,
        target: &Target,
        metrics: &TargetMetrics,
    ) -> Result<(), StoreError> {
        let before = match &self.without_due_time {
            Some((_, counted)) if counted.elapsed() < NO_DUE_TIME_INTERVAL => return Ok(()),
            Some((before, _)) => before.count,
            None => 0,
        };
        // Once is enough, and the sweep itself does not depend on it.
        if !self.schedule.delay.is_zero() {
            return Ok(());
        }
        // What is known of them stays, if they cannot be counted.
        let known = self.without_due_time.take().map(|(known, _)| known).unwrap_or_default();
        self.without_due_time = Some((known, Instant::now()));
        let mut found = self.store.without_due_time(WithoutDueTime::LIMIT).await?;
        let count = found.len() as u64;
        // The same of them each time, as long as they stay the same.
        found.sort_unstable();
        let examples: Vec<_> = found.into_iter().take(NAMED).collect();
        if count > before {
            tracing::warn!(
                target = %target.key, count, orders = examples.join(", "),
                "open orders without a due time hold their tickets forever: their expiresAt is missing or not a \
                 date; `orders-operator orders check` lists them"
            );
        }
        self.without_due_time = Some((WithoutDueTime { count, examples }, Instant::now()));
        metrics.without_due_time(count);
        Ok(())
    }

    async fn clock(&mut self, metrics: &TargetMetrics) -> Result<ServerClock, StoreError> {
        let clock = *self.clock.insert(self.store.clock().await?);
        metrics.clock(&clock, Instant::now(), Timestamp::now());
        Ok(clock)
    }
}
