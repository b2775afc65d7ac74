//! The controller's metrics. Their labels have a bounded set of values: results, reasons, kinds, verbs; and the OrdersServices
//! that are not ready.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
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
use tokio::time::Instant;

use super::object_key::ObjectKey;
use crate::crd::Reason;

/// The controller's metrics. Clones share one state.
#[derive(Clone)]
pub struct Metrics {
    reconciles: Family<ResultLabels, Counter>,
    seconds: Histogram,
    queue_seconds: Histogram,
    queue: Arc<Mutex<HashMap<ObjectKey, Instant>>>,
    requests: Family<RequestLabels, Counter>,
    watch_errors: Family<KindLabels, Counter>,
    running: Arc<Mutex<BTreeSet<(Instant, u64)>>>,
    in_flight: Gauge,
    objects: Gauge,
    not_ready: Family<NotReadyLabels, Gauge>,
    /// Why the OrdersServices that have a series are not ready.
    reasons: Arc<Mutex<HashMap<ObjectKey, &'static str>>>,
    leading: Gauge,
    hosts_file_broken: Gauge,
    upgrades: Family<StateLabels, Gauge>,
    upgrade_stopped: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

/// Where the OrdersServices that name no image are on the way to the operator's.
#[derive(Clone, Copy, Debug, Default)]
pub struct UpgradeCounts {
    /// Those that have it.
    pub there: usize,
    /// Those that have another still.
    pub waiting: usize,
    /// Those that are on their way.
    pub moving: usize,
    /// Those that do not work with it.
    pub failed: usize,
    /// Those that cannot be moved now: suspended, not valid, or lacking something that they need.
    pub blocked: usize,
    /// Whether those that failed keep others from being moved.
    pub is_stopped: bool,
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
struct NotReadyLabels {
    // Not `namespace`, which is the label of the pod that is scraped.
    resource: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

/// The result of a reconcile.
#[derive(Clone, Copy, Debug)]
pub enum ReconcileResult {
    /// It succeeded.
    Ok,
    /// It failed for this reason, and is tried again.
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
            not_ready: Family::default(),
            reasons: Arc::default(),
            leading: Gauge::default(),
            hosts_file_broken: Gauge::default(),
            upgrades: Family::default(),
            upgrade_stopped: Gauge::default(),
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
        registry.register(
            "not_ready",
            "1 for each OrdersService that is not ready, by the reason of its condition Ready",
            metrics.not_ready.clone(),
        );
        registry.register("leading", "1 while this controller leads, else 0", metrics.leading.clone());
        registry.register(
            "hosts_file_broken",
            "1 while the file of allowed hosts cannot be used and what it allowed before stays in force, else 0",
            metrics.hosts_file_broken.clone(),
        );
        registry.register(
            "image_upgrades",
            "OrdersServices without spec.image, by the state of their rollout to the operator's image: current, \
             waiting, moving, failed, blocked",
            metrics.upgrades.clone(),
        );
        registry.register(
            "image_upgrade_stopped",
            "1 while the rollout of the operator's image is stopped by OrdersServices that fail with it, else 0",
            metrics.upgrade_stopped.clone(),
        );
        metrics
    }

    /// Starts measuring how long an object waits for its reconcile, unless it is waiting already.
    pub fn queued(&self, object: &ObjectKey) {
        self.queue().entry(object.clone()).or_insert_with(Instant::now);
    }

    /// Drops the measurement for an object that is gone, and so is not reconciled.
    pub fn not_found(&self, object: &ObjectKey) {
        self.queue().remove(object);
    }

    fn queue(&self) -> MutexGuard<'_, HashMap<ObjectKey, Instant>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts measuring one reconcile, and records how long the object waited for it.
    pub fn reconcile_started(&self, object: &ObjectKey) -> Timer {
        let queued = self.queue().remove(object);
        if let Some(since) = queued {
            self.queue_seconds.observe(since.elapsed().as_secs_f64());
        }
        self.in_flight.inc();
        let entry = (Instant::now(), fastrand::u64(..));
        self.running().insert(entry);
        Timer { metrics: self.clone(), entry }
    }

    /// For how long the longest-running of the current reconciles has been running.
    pub fn longest_running(&self) -> Duration {
        self.running().first().map_or(Duration::ZERO, |(since, _)| since.elapsed())
    }

    fn running(&self) -> MutexGuard<'_, BTreeSet<(Instant, u64)>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This controller leads now. Until then, objects waited for its leadership and not for a slot; that is not measured.
    pub fn became_leader(&self) {
        self.queue().clear();
        self.leading.set(1);
    }

    /// Sets the number of OrdersServices.
    pub fn set_objects(&self, number: usize) {
        self.objects.set(i64::try_from(number).unwrap_or(i64::MAX));
    }

    /// Sets why an OrdersService is not ready; nothing if it is.
    pub fn set_not_ready(&self, object: &ObjectKey, reason: Option<&'static str>) {
        let mut reasons = self.reasons();
        let before = match reason {
            Some(reason) => reasons.insert(object.clone(), reason),
            None => reasons.remove(object),
        };
        if before == reason {
            return;
        }
        let labels = |reason| NotReadyLabels { resource: object.to_string(), reason };
        if let Some(before) = before {
            self.not_ready.remove(&labels(before));
        }
        if let Some(reason) = reason {
            self.not_ready.get_or_create(&labels(reason)).set(1);
        }
    }

    /// Drops what is said of OrdersServices in `namespace`, or in all, that are not `listed`.
    pub fn retain_not_ready(&self, namespace: Option<&str>, listed: &HashSet<ObjectKey>) {
        let is_gone = |key: &&ObjectKey| {
            namespace.is_none_or(|namespace| namespace == key.namespace()) && !listed.contains(*key)
        };
        let gone: Vec<_> = self.reasons().keys().filter(is_gone).cloned().collect();
        gone.iter().for_each(|key| self.set_not_ready(key, None));
    }

    fn reasons(&self) -> MutexGuard<'_, HashMap<ObjectKey, &'static str>> {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets whether the file of allowed hosts cannot be used.
    pub fn set_hosts_file_broken(&self, is_broken: bool) {
        self.hosts_file_broken.set(i64::from(is_broken));
    }

    /// Sets where the OrdersServices are on the way to the operator's image.
    pub fn set_upgrades(&self, counts: &UpgradeCounts) {
        let UpgradeCounts { there, waiting, moving, failed, blocked, is_stopped } = *counts;
        for (state, count) in [
            ("current", there),
            ("waiting", waiting),
            ("moving", moving),
            ("failed", failed),
            ("blocked", blocked),
        ] {
            let gauge = self.upgrades.get_or_create(&StateLabels { state });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.upgrade_stopped.set(i64::from(is_stopped));
    }

    /// Counts a request to the API server.
    pub fn request_sent(&self, kind: &'static str, verb: &'static str) {
        self.requests.get_or_create(&RequestLabels { kind, verb }).inc();
    }

    /// The watch on a kind begins. Its errors are counted from zero, so that the first one is an increase.
    pub fn watch_begins(&self, kind: &'static str) {
        drop(self.watch_errors.get_or_create(&KindLabels { kind }));
    }

    /// Counts an error of the watch on a kind.
    pub fn watch_failed(&self, kind: &'static str) {
        self.watch_errors.get_or_create(&KindLabels { kind }).inc();
    }
}

/// Measures one reconcile. If it is dropped, since the reconcile was cancelled, nothing is counted.
pub struct Timer {
    metrics: Metrics,
    entry: (Instant, u64),
}

impl Timer {
    /// Counts the reconcile.
    pub fn stop(self, result: ReconcileResult) {
        let result = match result {
            ReconcileResult::Ok => "ok",
            ReconcileResult::Error(reason) => reason.as_str(),
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
    fn a_running_reconcile_is_measured_until_it_ends_or_is_dropped() {
        let metrics = Metrics::register(&mut Registry::default());
        assert_eq!(metrics.longest_running(), Duration::ZERO);
        let object = ObjectKey::new("shop", "a");
        let (first, second) = (metrics.reconcile_started(&object), metrics.reconcile_started(&object));
        let since = metrics.longest_running();
        assert!(since > Duration::ZERO);
        drop(second);
        assert!(metrics.longest_running() >= since);
        first.stop(ReconcileResult::Ok);
        assert_eq!(metrics.longest_running(), Duration::ZERO);
    }

    #[test]
    fn an_object_waits_once_however_often_it_is_queued_and_not_at_all_when_it_is_gone() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let waited = || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            let line = text.lines().find(|line| line.contains("queue_seconds_count")).unwrap();
            line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
        };
        let (one, gone) = (ObjectKey::new("shop", "a"), ObjectKey::new("shop", "b"));
        metrics.queued(&one);
        metrics.queued(&one);
        metrics.queued(&gone);
        metrics.not_found(&gone);
        for _ in 0..2 {
            metrics.reconcile_started(&one).stop(ReconcileResult::Ok);
            metrics.reconcile_started(&gone).stop(ReconcileResult::Ok);
        }
        assert_eq!(waited(), 1);
        metrics.queued(&one);
        metrics.became_leader();
        metrics.reconcile_started(&one).stop(ReconcileResult::Ok);
        assert_eq!(waited(), 1);
    }
}
