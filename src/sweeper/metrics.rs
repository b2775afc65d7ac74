//! What the sweeper counts.

use std::time::Duration;

use prometheus_client::{
    metrics::{
        counter::Counter,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

/// The sweeper's metrics. Clones share one state.
#[derive(Clone)]
pub struct Metrics {
    expired: Counter,
    conflicts: Counter,
    errors: Counter,
    watch_errors: Counter,
    targets: Gauge,
    batch_seconds: Histogram,
}

impl Metrics {
    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            expired: Counter::default(),
            conflicts: Counter::default(),
            errors: Counter::default(),
            watch_errors: Counter::default(),
            targets: Gauge::default(),
            batch_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 15)),
        };
        let registry = registry.sub_registry_with_prefix("orders_operator_sweeper");
        registry.register("expired", "Orders moved to cancelled", metrics.expired.clone());
        registry.register(
            "conflicts",
            "Orders that were claimed, but moved by others first",
            metrics.conflicts.clone(),
        );
        registry.register("errors", "Failed sweeps of a target", metrics.errors.clone());
        registry.register(
            "watch_errors",
            "Errors of the watch on OrdersServices",
            metrics.watch_errors.clone(),
        );
        registry.register("targets", "Databases being swept", metrics.targets.clone());
        registry.register("batch_seconds", "Duration of one batch", metrics.batch_seconds.clone());
        metrics
    }

    /// Counts one batch.
    pub fn batch(&self, claimed: u64, expired: u64, took: Duration) {
        self.expired.inc_by(expired);
        self.conflicts.inc_by(claimed.saturating_sub(expired));
        self.batch_seconds.observe(took.as_secs_f64());
    }

    /// Counts a failed sweep.
    pub fn failed(&self) {
        self.errors.inc();
    }

    /// Counts an error of the watch.
    pub fn watch_failed(&self) {
        self.watch_errors.inc();
    }

    /// Says how many targets there are.
    pub fn targets(&self, count: usize) {
        self.targets.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}
