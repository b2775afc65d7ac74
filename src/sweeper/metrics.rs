//! The sweeper's metrics.
//!
//! A target is labelled with its namespace, its servers and its database, so the number of series is that of the databases. Reasons are
//! a fixed set.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use jiff::Timestamp;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use super::targets::TargetKey;
use crate::{
    crd::Reason,
    store::{ErrorCategory, ServerClock},
};

/// 10 ms to 1 h.
const LATENESS: [f64; 16] =
    [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 1800.0, 3600.0];

/// 1 ms to 16 s.
const BATCH_SECONDS: (f64, f64, u16) = (0.001, 2.0, 15);

/// 1 to 16,384 orders.
const BATCH_ORDERS: (f64, f64, u16) = (1.0, 2.0, 15);

type Seconds = Gauge<f64, AtomicU64>;

/// The sweeper's metrics. Clones share one state.
#[derive(Clone)]
pub struct Metrics {
    lateness: Histogram,
    batch_seconds: Histogram,
    batch_orders: Histogram,
    watch_errors: Counter,
    targets: Gauge,
    sweepers: Gauge,
    expired: Family<Labels, Counter>,
    conflicts: Family<Labels, Counter>,
    looks: Family<Labels, Counter>,
    errors: Family<ErrorLabels, Counter>,
    overdue: Family<Labels, Seconds>,
    backlog: Family<Labels, Gauge>,
    without_due_time: Family<Labels, Gauge>,
    rank: Family<Labels, Gauge>,
    last_look: Family<Labels, Seconds>,
    clock_offset: Family<Labels, Seconds>,
    clock_error: Family<Labels, Seconds>,
    /// The targets that have series.
    known: Arc<Mutex<HashMap<Labels, Known>>>,
}

/// What is known of a target that has series.
#[derive(Default)]
struct Known {
    /// How many sweeps of it there are: one that was restarted may overlap with the one before.
    sweeps: usize,
    /// Whether no resource names it any more.
    is_gone: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    target: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    target: String,
    reason: &'static str,
}

impl Metrics {
    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let (first, factor, count) = BATCH_SECONDS;
        let (least, by, sizes) = BATCH_ORDERS;
        let metrics = Self {
            lateness: Histogram::new(LATENESS),
            batch_seconds: Histogram::new(exponential_buckets(first, factor, count)),
            batch_orders: Histogram::new(exponential_buckets(least, by, sizes)),
            watch_errors: Counter::default(),
            targets: Gauge::default(),
            sweepers: Gauge::default(),
            expired: Family::default(),
            conflicts: Family::default(),
            looks: Family::default(),
            errors: Family::default(),
            overdue: Family::default(),
            backlog: Family::default(),
            without_due_time: Family::default(),
            rank: Family::default(),
            last_look: Family::default(),
            clock_offset: Family::default(),
            clock_error: Family::default(),
            known: Arc::default(),
        };
        let of = metrics.clone();
        let all = registry.sub_registry_with_prefix("orders_operator_sweeper");
        let unit = Unit::Seconds;
        all.register_with_unit(
            "lateness",
            "From when an order was due until it was cancelled",
            unit,
            of.lateness,
        );
        all.register_with_unit(
            "batch",
            "Duration of the write of one batch",
            Unit::Seconds,
            of.batch_seconds,
        );
        all.register("batch_orders", "Orders in one batch", of.batch_orders);
        all.register("watch_errors", "Errors of the watches on OrdersServices and Leases", of.watch_errors);
        all.register("targets", "Databases being swept", of.targets);
        all.register("sweepers", "Sweepers that are alive, this one included", of.sweepers);
        all.register("expired", "Orders moved to cancelled", of.expired);
        all.register("conflicts", "Due orders that someone else changed first", of.conflicts);
        all.register("looks", "Queries for orders that are due", of.looks);
        all.register("errors", "Failed sweeps, by what was wrong", of.errors);
        let help = "By how much the oldest order that is not cancelled is overdue";
        all.register_with_unit("oldest_overdue", help, Unit::Seconds, of.overdue);
        all.register("backlog", "Orders that are overdue, counted up to 100,000", of.backlog);
        let help = "Open orders that never become due, counted up to 1,000";
        all.register("without_due_time", help, of.without_due_time);
        all.register("rank", "0 for the owner of the target; standbys have higher ranks", of.rank);
        let help = "Unix time at which the database last answered, or the sweep of it began";
        all.register_with_unit("last_look_timestamp", help, Unit::Seconds, of.last_look);
        let help = "How far the database's clock is ahead of this machine's";
        all.register_with_unit("clock_offset", help, Unit::Seconds, of.clock_offset);
        let help = "Uncertainty of the database's clock: the most that orders can be late because of it";
        all.register_with_unit("clock_error", help, Unit::Seconds, of.clock_error);
        metrics
    }

    /// The metrics of one target. Its gauges exist as long as this value does.
    pub fn of(&self, target: &TargetKey) -> TargetMetrics {
        let labels = Labels { target: target.to_string() };
        let mut all = self.known();
        let known = all.entry(labels.clone()).or_default();
        known.sweeps += 1;
        known.is_gone = false;
        drop(all);
        TargetMetrics { all: self.clone(), labels }
    }

    /// Removes the counters of a target that no resource names any more, so that they do not add up for ever.
    pub fn forget(&self, target: &TargetKey) {
        let labels = Labels { target: target.to_string() };
        let mut all = self.known();
        match all.get_mut(&labels) {
            // Its sweep, which is about to end, could make them again.
            Some(known) if known.sweeps > 0 => known.is_gone = true,
            _ => {
                all.remove(&labels);
                self.remove_counters(&labels);
            }
        }
    }

    fn ended(&self, labels: &Labels) {
        let mut all = self.known();
        let Some(known) = all.get_mut(labels) else { return };
        known.sweeps -= 1;
        if known.sweeps > 0 {
            return;
        }
        for gauges in [&self.overdue, &self.last_look, &self.clock_offset, &self.clock_error] {
            gauges.remove(labels);
        }
        for gauges in [&self.backlog, &self.without_due_time, &self.rank] {
            gauges.remove(labels);
        }
        // Else they stay: the sweep may only be started again.
        if known.is_gone {
            all.remove(labels);
            self.remove_counters(labels);
        }
    }

    fn remove_counters(&self, labels: &Labels) {
        for counters in [&self.expired, &self.conflicts, &self.looks] {
            counters.remove(labels);
        }
        for category in ErrorCategory::ALL {
            self.errors.remove(&ErrorLabels { target: labels.target.clone(), reason: category.as_str() });
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Labels, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an error of a watch.
    pub fn watch_failed(&self) {
        self.watch_errors.inc();
    }

    /// Sets the number of targets.
    pub fn targets(&self, count: usize) {
        self.targets.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Sets the number of live sweepers.
    pub fn sweepers(&self, count: usize) {
        self.sweepers.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

/// The metrics of one target.
pub struct TargetMetrics {
    all: Metrics,
    labels: Labels,
}

impl TargetMetrics {
    /// The sweep begins at `now`. All that alerts are about is there from here on, even if the database never answers.
    pub fn begin(&self, now: Timestamp) {
        for counters in [&self.all.expired, &self.all.conflicts, &self.all.looks] {
            drop(counters.get_or_create(&self.labels));
        }
        self.all.last_look.get_or_create(&self.labels).set(now.as_duration().as_secs_f64());
        self.overdue(Duration::ZERO);
        self.backlog(0);
    }

    /// Counts a query for due orders, which the database answered at `now`.
    pub fn looked(&self, now: Timestamp) {
        self.all.looks.get_or_create(&self.labels).inc();
        self.all.last_look.get_or_create(&self.labels).set(now.as_duration().as_secs_f64());
    }

    /// Counts one batch: of `attempted` orders, `expired` were cancelled by a write that took `took`.
    pub fn batch(&self, attempted: u64, expired: u64, took: Duration) {
        self.all.expired.get_or_create(&self.labels).inc_by(expired);
        self.all.conflicts.get_or_create(&self.labels).inc_by(attempted.saturating_sub(expired));
        self.all.batch_seconds.observe(took.as_secs_f64());
        self.all.batch_orders.observe(attempted as f64);
    }

    /// Observes by how much an order was cancelled late.
    pub fn lateness(&self, by: Duration) {
        self.all.lateness.observe(by.as_secs_f64());
    }

    /// Sets by how much the oldest order that is left is overdue.
    pub fn overdue(&self, by: Duration) {
        self.all.overdue.get_or_create(&self.labels).set(by.as_secs_f64());
    }

    /// Sets how many overdue orders are left.
    pub fn backlog(&self, orders: u64) {
        self.all.backlog.get_or_create(&self.labels).set(i64::try_from(orders).unwrap_or(i64::MAX));
    }

    /// Sets how many open orders never become due.
    pub fn without_due_time(&self, orders: u64) {
        let orders = i64::try_from(orders).unwrap_or(i64::MAX);
        self.all.without_due_time.get_or_create(&self.labels).set(orders);
    }

    /// Sets the rank of this sweeper.
    pub fn rank(&self, rank: u32) {
        self.all.rank.get_or_create(&self.labels).set(rank.into());
    }

    /// Sets the offset of the database's clock, and its uncertainty.
    pub fn clock(&self, clock: &ServerClock, at: std::time::Instant, wall: Timestamp) {
        let (offset, error) = (clock.offset(at, wall).as_secs_f64(), clock.error(at).as_secs_f64());
        self.all.clock_offset.get_or_create(&self.labels).set(offset);
        self.all.clock_error.get_or_create(&self.labels).set(error);
    }

    /// Counts a failed sweep.
    pub fn failed(&self, reason: Reason) {
        let labels = ErrorLabels { target: self.labels.target.clone(), reason: reason.as_str() };
        self.all.errors.get_or_create(&labels).inc();
    }
}

impl Drop for TargetMetrics {
    fn drop(&mut self) {
        self.all.ended(&self.labels);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::TargetId;

    #[test]
    fn a_target_has_series_from_the_start_of_its_sweep_until_it_is_gone() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let page = || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            text.lines().filter(|line| line.contains("target=")).map(str::to_owned).collect::<Vec<_>>()
        };
        let id = TargetId { hosts: vec!["mongo:27017".into()], database: "a".into() };
        let key = TargetKey { namespace: Some("shop".into()), id };
        let begin = || {
            let of = metrics.of(&key);
            of.begin(Timestamp::UNIX_EPOCH);
            of
        };
        let first = begin();
        let gauges = ["last_look_timestamp_seconds", "oldest_overdue_seconds", "backlog"];
        let has = |name: &str| page().iter().any(|line| line.contains(name));
        for name in gauges.iter().chain(&["expired_total", "looks_total", "conflicts_total"]) {
            assert!(has(name), "{name}");
        }
        // It is restarted with other settings, and the former sweep ends a moment later.
        let second = begin();
        drop(first);
        assert!(gauges.iter().all(|name| has(name)), "{:?}", page());
        drop(second);
        assert!(!gauges.iter().any(|name| has(name)) && has("expired_total"));
        let third = begin();
        metrics.forget(&key);
        third.failed(Reason::DatabaseUnreachable);
        drop(third);
        assert_eq!(page(), Vec::<String>::new());
        drop(begin());
        metrics.forget(&key);
        assert_eq!(page(), Vec::<String>::new());
    }
}
