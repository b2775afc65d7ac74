//! What the controller counts. Label values are bounded: results, reasons, kinds.

use std::time::Instant;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use crate::crd::Reason;

/// The controller's metrics. Clones share one state.
#[derive(Clone)]
pub struct Metrics {
    reconciles: Family<ResultLabels, Counter>,
    seconds: Histogram,
    status_writes: Counter,
    watch_errors: Counter,
    in_flight: Gauge,
    leading: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

/// How a reconcile ended.
#[derive(Clone, Copy, Debug)]
pub enum Outcome {
    /// Nothing is left to do.
    Ok,
    /// It is tried again, for this reason.
    Error(Reason),
}

impl Metrics {
    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            reconciles: Family::default(),
            seconds: Histogram::new(exponential_buckets(0.001, 2.0, 15)),
            status_writes: Counter::default(),
            watch_errors: Counter::default(),
            in_flight: Gauge::default(),
            leading: Gauge::default(),
        };
        let registry = registry.sub_registry_with_prefix("orders_operator_controller");
        registry.register(
            "reconciles",
            "Reconciles by result: ok, or the reason of the error",
            metrics.reconciles.clone(),
        );
        registry.register("reconcile_seconds", "Duration of a reconcile", metrics.seconds.clone());
        registry.register(
            "status_writes",
            "Status updates sent to the API server",
            metrics.status_writes.clone(),
        );
        registry.register(
            "watch_errors",
            "Errors of the watches on the API server",
            metrics.watch_errors.clone(),
        );
        registry.register("reconciles_in_flight", "Reconciles running now", metrics.in_flight.clone());
        registry.register("leading", "1 while this controller leads, else 0", metrics.leading.clone());
        metrics
    }

    /// Starts the clock of one reconcile.
    pub fn start(&self) -> Timer {
        self.in_flight.inc();
        Timer { metrics: self.clone(), started: Instant::now() }
    }

    /// Says that this controller leads.
    pub fn leads(&self) {
        self.leading.set(1);
    }

    /// Counts a written status.
    pub fn status_written(&self) {
        self.status_writes.inc();
    }

    /// Counts an error of a watch.
    pub fn watch_failed(&self) {
        self.watch_errors.inc();
    }
}

/// The clock of one reconcile; dropping it, as a cancelled reconcile does, only ends it.
pub struct Timer {
    metrics: Metrics,
    started: Instant,
}

impl Timer {
    /// Counts the reconcile.
    pub fn stop(self, outcome: Outcome) {
        let result = match outcome {
            Outcome::Ok => "ok",
            Outcome::Error(reason) => reason.as_str(),
        };
        self.metrics.reconciles.get_or_create(&ResultLabels { result }).inc();
        self.metrics.seconds.observe(self.started.elapsed().as_secs_f64());
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.metrics.in_flight.dec();
    }
}
