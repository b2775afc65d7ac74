//! What the controller counts. Label values are bounded: results, reasons, kinds.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

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
    requests: Family<RequestLabels, Counter>,
    watch_errors: Family<KindLabels, Counter>,
    running: Arc<Mutex<BTreeSet<(Instant, u64)>>>,
    in_flight: Gauge,
    leading: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    kind: &'static str,
    verb: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
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
            requests: Family::default(),
            watch_errors: Family::default(),
            running: Arc::default(),
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
            "api_requests",
            "Requests to the API server by kind and verb, watches aside",
            metrics.requests.clone(),
        );
        registry.register(
            "watch_errors",
            "Errors of the watches on the API server by kind",
            metrics.watch_errors.clone(),
        );
        registry.register("reconciles_in_flight", "Reconciles running now", metrics.in_flight.clone());
        registry.register("leading", "1 while this controller leads, else 0", metrics.leading.clone());
        metrics
    }

    /// Starts the clock of one reconcile.
    pub fn start(&self) -> Timer {
        self.in_flight.inc();
        let entry = (Instant::now(), fastrand::u64(..));
        self.running().insert(entry);
        Timer { metrics: self.clone(), entry }
    }

    /// For how long the longest of the reconciles has been running that run now.
    pub fn longest_running(&self) -> Duration {
        self.running().first().map_or(Duration::ZERO, |(since, _)| since.elapsed())
    }

    fn running(&self) -> MutexGuard<'_, BTreeSet<(Instant, u64)>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that this controller leads.
    pub fn leads(&self) {
        self.leading.set(1);
    }

    /// Counts a request to the API server.
    pub fn requested(&self, kind: &'static str, verb: &'static str) {
        self.requests.get_or_create(&RequestLabels { kind, verb }).inc();
    }

    /// Counts an error of the watch on a kind.
    pub fn watch_failed(&self, kind: &'static str) {
        self.watch_errors.get_or_create(&KindLabels { kind }).inc();
    }
}

/// The clock of one reconcile; dropping it, as a cancelled reconcile does, only ends it.
pub struct Timer {
    metrics: Metrics,
    entry: (Instant, u64),
}

impl Timer {
    /// Counts the reconcile.
    pub fn stop(self, outcome: Outcome) {
        let result = match outcome {
            Outcome::Ok => "ok",
            Outcome::Error(reason) => reason.as_str(),
        };
        self.metrics.reconciles.get_or_create(&ResultLabels { result }).inc();
        self.metrics.seconds.observe(self.entry.0.elapsed().as_secs_f64());
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.metrics.in_flight.dec();
        self.metrics.running().remove(&self.entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reconcile_that_runs_is_seen_until_it_ends_or_is_dropped() {
        let metrics = Metrics::register(&mut Registry::default());
        assert_eq!(metrics.longest_running(), Duration::ZERO);
        let (first, second) = (metrics.start(), metrics.start());
        let since = metrics.longest_running();
        assert!(since > Duration::ZERO);
        drop(second);
        assert!(metrics.longest_running() >= since);
        first.stop(Outcome::Ok);
        assert_eq!(metrics.longest_running(), Duration::ZERO);
    }
}
