//! What the controller counts. Label values are bounded: results, reasons, kinds.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kube::runtime::reflector::{Lookup, ObjectRef};
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
use tokio::time::Instant;

use super::watched::Key;
use crate::crd::Reason;

/// The controller's metrics. Clones share one state.
#[derive(Clone)]
pub struct Metrics {
    reconciles: Family<ResultLabels, Counter>,
    seconds: Histogram,
    queue_seconds: Histogram,
    queue: Arc<Mutex<HashMap<Key, Instant>>>,
    requests: Family<RequestLabels, Counter>,
    watch_errors: Family<KindLabels, Counter>,
    running: Arc<Mutex<BTreeSet<(Instant, u64)>>>,
    in_flight: Gauge,
    objects: Gauge,
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
            queue_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 17)),
            queue: Arc::default(),
            requests: Family::default(),
            watch_errors: Family::default(),
            running: Arc::default(),
            in_flight: Gauge::default(),
            objects: Gauge::default(),
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
            "queue_seconds",
            "How long a change waited for its reconcile to begin",
            metrics.queue_seconds.clone(),
        );
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
        registry.register("objects", "OrdersServices that are watched", metrics.objects.clone());
        registry.register("leading", "1 while this controller leads, else 0", metrics.leading.clone());
        metrics
    }

    /// Starts the clock of a change that calls for a reconcile, unless one is waiting already.
    pub fn queued<K: Lookup>(&self, object: &ObjectRef<K>) {
        self.queue().entry(key(object)).or_insert_with(Instant::now);
    }

    /// Forgets a change of an object that is gone, and so is not reconciled.
    pub fn not_found<K: Lookup>(&self, object: &ObjectRef<K>) {
        self.queue().remove(&key(object));
    }

    fn queue(&self) -> MutexGuard<'_, HashMap<Key, Instant>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the clock of one reconcile, and counts how long the change waited that called for it.
    pub fn start<K: Lookup>(&self, object: &ObjectRef<K>) -> Timer {
        let waited = {
            let mut queue = self.queue();
            let since = queue.remove(&key(object));
            // All resources of a cluster wait at the start, and then hardly any.
            if queue.len() < queue.capacity() / 8 {
                let room = 2 * queue.len();
                queue.shrink_to(room);
            }
            since
        };
        if let Some(since) = waited {
            self.queue_seconds.observe(since.elapsed().as_secs_f64());
        }
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

    /// Says that this controller leads. What waited for that did not wait for its turn.
    pub fn leads(&self) {
        self.queue().clear();
        self.leading.set(1);
    }

    /// Counts OrdersServices that came, or with a negative number went.
    pub fn came(&self, number: i64) {
        self.objects.inc_by(number);
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

fn key<K: Lookup>(object: &ObjectRef<K>) -> Key {
    (object.namespace.clone().unwrap_or_default(), object.name.clone())
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
    use crate::crd::OrdersService;

    #[test]
    fn a_reconcile_that_runs_is_seen_until_it_ends_or_is_dropped() {
        let metrics = Metrics::register(&mut Registry::default());
        assert_eq!(metrics.longest_running(), Duration::ZERO);
        let object = ObjectRef::<OrdersService>::new("a");
        let (first, second) = (metrics.start(&object), metrics.start(&object));
        let since = metrics.longest_running();
        assert!(since > Duration::ZERO);
        drop(second);
        assert!(metrics.longest_running() >= since);
        first.stop(Outcome::Ok);
        assert_eq!(metrics.longest_running(), Duration::ZERO);
    }

    #[test]
    fn a_change_waits_once_however_often_it_is_told_and_not_for_what_is_gone() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let waited = || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            let line = text.lines().find(|line| line.contains("queue_seconds_count")).unwrap();
            line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
        };
        let (one, gone) = (ObjectRef::<OrdersService>::new("a"), ObjectRef::<OrdersService>::new("b"));
        metrics.queued(&one);
        metrics.queued(&one);
        metrics.queued(&gone);
        metrics.not_found(&gone);
        for _ in 0..2 {
            metrics.start(&one).stop(Outcome::Ok);
            metrics.start(&gone).stop(Outcome::Ok);
        }
        assert_eq!(waited(), 1);
        metrics.queued(&one);
        metrics.leads();
        metrics.start(&one).stop(Outcome::Ok);
        assert_eq!(waited(), 1);
    }
}
