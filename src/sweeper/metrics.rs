//! What the sweeper counts and measures.
//!
//! The labels of a target are its servers and its database, so there are as many series as databases;
//! they go when the target does. Reasons are a fixed set.

use std::{sync::atomic::AtomicU64, time::Duration};

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

use super::clock::ServerClock;
use crate::{crd::Reason, store::TargetId};

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
    rank: Family<Labels, Gauge>,
    last_look: Family<Labels, Seconds>,
    clock_offset: Family<Labels, Seconds>,
    clock_error: Family<Labels, Seconds>,
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
            rank: Family::default(),
            last_look: Family::default(),
            clock_offset: Family::default(),
            clock_error: Family::default(),
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
        all.register("conflicts", "Orders that were seen to be due, but moved by others first", of.conflicts);
        all.register("looks", "Looks at the orders that are due", of.looks);
        all.register("errors", "Failed sweeps, by what was wrong", of.errors);
        let help = "By how much the oldest order is overdue that is not cancelled";
        all.register_with_unit("oldest_overdue", help, Unit::Seconds, of.overdue);
        all.register("backlog", "Orders that are overdue, counted up to 100,000", of.backlog);
        all.register(
            "rank",
            "0 for the sweeper that owns the target; the others come in when it is late",
            of.rank,
        );
        let help = "When the database last answered, as seconds since 1970";
        all.register_with_unit("last_look_timestamp", help, Unit::Seconds, of.last_look);
        let help = "How far the database's clock is ahead of this machine's";
        all.register_with_unit("clock_offset", help, Unit::Seconds, of.clock_offset);
        let help = "By how much the database's clock may be ahead of what is taken for it";
        all.register_with_unit("clock_error", help, Unit::Seconds, of.clock_error);
        metrics
    }

    /// Those of one target; its series are there as long as this is.
    pub fn of(&self, target: &TargetId) -> TargetMetrics {
        TargetMetrics { all: self.clone(), labels: Labels { target: target.to_string() } }
    }

    /// Counts an error of a watch.
    pub fn watch_failed(&self) {
        self.watch_errors.inc();
    }

    /// Says how many targets there are.
    pub fn targets(&self, count: usize) {
        self.targets.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Says how many sweepers there are.
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
    /// Counts a look, which the database answered at `now`.
    pub fn looked(&self, now: Timestamp) {
        self.all.looks.get_or_create(&self.labels).inc();
        self.all.last_look.get_or_create(&self.labels).set(now.as_duration().as_secs_f64());
    }

    /// Counts one batch: of `claimed` orders `expired` were cancelled; the write took so long.
    pub fn batch(&self, claimed: u64, expired: u64, took: Duration) {
        self.all.expired.get_or_create(&self.labels).inc_by(expired);
        self.all.conflicts.get_or_create(&self.labels).inc_by(claimed.saturating_sub(expired));
        self.all.batch_seconds.observe(took.as_secs_f64());
        self.all.batch_orders.observe(claimed as f64);
    }

    /// Says by how much an order was late.
    pub fn late(&self, by: Duration) {
        self.all.lateness.observe(by.as_secs_f64());
    }

    /// Says by how much the oldest order is overdue that is left.
    pub fn overdue(&self, by: Duration) {
        self.all.overdue.get_or_create(&self.labels).set(by.as_secs_f64());
    }

    /// Says how many overdue orders are left.
    pub fn backlog(&self, orders: u64) {
        self.all.backlog.get_or_create(&self.labels).set(i64::try_from(orders).unwrap_or(i64::MAX));
    }

    /// Says how this sweeper ranks among all of them.
    pub fn rank(&self, rank: u32) {
        self.all.rank.get_or_create(&self.labels).set(rank.into());
    }

    /// Says how the database's clock is.
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

/// Counters stay, as those of a process do: a target may come back, and a sum must not go down. What says
/// how things are now goes.
impl Drop for TargetMetrics {
    fn drop(&mut self) {
        for gauges in [&self.all.overdue, &self.all.last_look, &self.all.clock_offset, &self.all.clock_error]
        {
            gauges.remove(&self.labels);
        }
        for gauges in [&self.all.backlog, &self.all.rank] {
            gauges.remove(&self.labels);
        }
    }
}
