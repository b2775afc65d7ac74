//! Moves the OrdersServices that name no image to the operator's own, when that is a new one: a few at a time, the ready
//! ones first, and no further once one of them does not become ready.
//!
//! Which image a resource has is in its status, and so is the one before while it is not ready with the new one. So a
//! controller that has just started goes on where another has ended.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kube::Resource;
use serde::Deserialize;
use tokio::{sync::Notify, time::Instant};

use super::{
    api_server::ApiServer,
    metrics::{Metrics, UpgradeCounts},
    object_key::ObjectKey,
    raw_orders_service::RawOrdersService,
    services::OrdersServices,
    trigger::Trigger,
};
use crate::{
    crd::{ConditionType, OrdersService, Reason, UPGRADE_ANNOTATION},
    runtime::{
        cache_sync::CacheSync,
        events::{EventContent, Events},
    },
};

/// How long a resource may take to become ready before that counts as a failure. A Deployment takes as long to give up.
const READY_WITHIN: Duration = Duration::from_secs(600);

/// How often to look while nobody waits.
const IDLE: Duration = Duration::from_secs(60);

/// How often to look while some wait. Looking takes longer the more resources there are.
const BUSY: Duration = Duration::from_millis(500);

/// How many may be on their way, and when to stop.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How many are on their way at the same time.
    pub concurrent: usize,
    /// For how long one must have been ready before another takes its place.
    pub pause: Duration,
    /// How many that do not become ready stop the others.
    pub failures: usize,
}

/// Who has the operator's image, and who waits for it. Clones share one state.
#[derive(Clone)]
pub struct Upgrades(Arc<Shared>);

struct Shared {
    /// The operator's own image; none if it was not told.
    image: Option<String>,
    limits: Limits,
    /// Those on their way.
    moving: Mutex<HashMap<ObjectKey, Move>>,
    /// Notified when a resource waits.
    wanted: Notify,
}

/// One that is on its way.
#[derive(Clone, Copy, Debug)]
struct Move {
    since: Instant,
    ready_since: Option<Instant>,
}

impl Upgrades {
    /// Nobody is on the way.
    pub fn new(image: Option<String>, limits: Limits) -> Self {
        let moving = Mutex::default();
        Self(Arc::new(Shared { image, limits, moving, wanted: Notify::new() }))
    }

    /// The image for `service` if its spec names none: that which it has until it is its turn, or the operator's own; and
    /// whether it waits.
    pub fn image_for(&self, service: &OrdersService) -> (Option<String>, bool) {
        let ours = self.0.image.as_ref();
        let status = service.status.as_ref();
        let Some(pinned) = status.and_then(|status| status.image.as_ref()) else {
            return (ours.cloned(), false);
        };
        let is_other = ours.is_some_and(|ours| ours != pinned) && service.spec.image.is_none();
        let is_its_turn = || self.moving().contains_key(&ObjectKey::of(&service.metadata));
        if !is_other || jumps_the_queue(service) || is_its_turn() {
            return (ours.or(Some(pinned)).cloned(), false);
        }
        self.0.wanted.notify_one();
        (Some(pinned.clone()), true)
    }

    fn moving(&self) -> MutexGuard<'_, HashMap<ObjectKey, Move>> {
        self.0.moving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether whoever wrote the resource does not want it to wait.
fn jumps_the_queue(service: &OrdersService) -> bool {
    let annotations = service.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(UPGRADE_ANNOTATION)).is_some_and(|when| when == "now")
}

/// The task that moves them, and what it needs.
pub struct Mover<'a> {
    /// Who has which image.
    pub upgrades: &'a Upgrades,
    /// The API server.
    pub api: &'a ApiServer,
    /// The resources.
    pub services: &'a OrdersServices,
    /// The initial lists.
    pub initial_lists: &'a CacheSync,
    /// Requeues them.
    pub trigger: &'a Trigger,
    /// Tells who stops the others.
    pub events: &'a Events,
    /// Counts.
    pub metrics: &'a Metrics,
}

impl Mover<'_> {
    /// Moves one after the other, without end. Only the leader does.
    pub async fn run(&self) {
        let Shared { image, limits, wanted, .. } = &*self.upgrades.0;
        let Some(image) = image else { return std::future::pending().await };
        self.api.leadership.begins().await;
        self.initial_lists.synced().await;
        let mut told = BTreeSet::new();
        loop {
            let started = Instant::now();
            let standings: Vec<_> =
                self.services.iter().map(|raw| (raw.key(), Standing::of(&raw, image))).collect();
            let step = next(&standings, &mut self.upgrades.moving(), *limits, started);
            self.metrics.set_upgrades(&step.counts);
            for key in &step.begin {
                let (namespace, name) = (key.namespace(), key.name());
                tracing::info!(namespace, name, image, "moved to the operator's image");
                self.trigger.requeue(key);
            }
            self.tell_stopped(image, &step, &mut told).await;
            let is_busy = step.counts.waiting + step.counts.moving + step.counts.failed > 0;
            let pause = if is_busy { BUSY.max(started.elapsed() * 20) } else { IDLE };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = wanted.notified(), if !is_busy => {}
            }
        }
    }

    /// Tells once of each resource that stops the others: in the log, and by an event about it. The event has nothing of
    /// the others.
    async fn tell_stopped(&self, image: &str, step: &Step, told: &mut BTreeSet<ObjectKey>) {
        told.retain(|key| step.failed.contains(key));
        if !step.counts.is_stopped {
            return;
        }
        for key in &step.failed {
            if !told.insert(key.clone()) {
                continue;
            }
            tracing::error!(
                namespace = key.namespace(),
                name = key.name(),
                image,
                waiting = step.counts.waiting,
                "this OrdersService does not become ready with the operator's image, so the others keep theirs: mend it, or \
                 name another image in its spec.image"
            );
            let note = format!(
                "it does not become ready with the operator's new image, {image}: mend what its conditions name, or name \
                 another image in spec.image; until then no other resource is moved to that image"
            );
            let Some(raw) = self.services.get(key) else { continue };
            let event =
                EventContent { is_warning: true, reason: "UpgradeStopped", note: &note, action: "Upgrade" };
            let request = self.events.publish(raw.as_ref(), &event);
            if let Err(error) = self.api.write("Event", "create", request).await {
                tracing::warn!(%error, "cannot write an event");
            }
        }
    }
}

/// Where a resource is on the way to the operator's image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It names an image of its own, or cannot be reconciled now.
    Aside,
    /// It has the image, and is ready or never had another.
    There,
    /// It has another one still.
    Waiting {
        /// Whether it is ready with that.
        is_ready: bool,
    },
    /// It has the image, and is not ready yet.
    Moving,
    /// It has the image, and something keeps its pods from running.
    Failed,
}

/// What is read of an OrdersService.
#[derive(Deserialize)]
struct Glance {
    spec: SpecGlance,
    status: Option<StatusGlance>,
}

#[derive(Deserialize)]
struct SpecGlance {
    image: Option<String>,
    #[serde(default)]
    suspend: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StatusGlance {
    image: Option<String>,
    previous_image: Option<String>,
    #[serde(default)]
    conditions: Vec<ConditionGlance>,
}

#[derive(Deserialize)]
struct ConditionGlance {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: String,
}

impl StatusGlance {
    fn condition(&self, kind: ConditionType) -> Option<&ConditionGlance> {
        self.conditions.iter().find(|condition| condition.kind == kind.as_str())
    }

    fn is(&self, kind: ConditionType, status: &str) -> bool {
        self.condition(kind).is_some_and(|condition| condition.status == status)
    }
}

impl Standing {
    fn of(raw: &RawOrdersService, image: &str) -> Self {
        let Ok(Glance { spec, status }) = raw.glance() else { return Self::Aside };
        // One that has no status yet gets the operator's image at once.
        let Some(status) = status else { return Self::Aside };
        let is_gone = raw.meta().deletion_timestamp.is_some();
        if spec.image.is_some() || spec.suspend || is_gone || status.is(ConditionType::Valid, "False") {
            return Self::Aside;
        }
        match &status.image {
            None => Self::Aside,
            // It would keep its place for ever: nothing of it is applied now.
            Some(has) if has != image && status.is(ConditionType::Reconciled, "False") => Self::Aside,
            Some(has) if has != image => Self::Waiting { is_ready: status.is(ConditionType::Ready, "True") },
            Some(_) if status.previous_image.is_none() => Self::There,
            Some(_) => {
                let keeps_pods_from_running = [
                    Reason::ImagePullFailed,
                    Reason::CrashLoopBackOff,
                    Reason::PodCreationFailed,
                    Reason::ProgressDeadlineExceeded,
                ];
                let available = status.condition(ConditionType::Available);
                let is_failing =
                    available.filter(|available| available.status == "False").is_some_and(|available| {
                        keeps_pods_from_running.iter().any(|reason| available.reason == reason.as_str())
                    });
                if is_failing { Self::Failed } else { Self::Moving }
            }
        }
    }
}

/// What to do next.
#[derive(Debug, Default)]
struct Step {
    /// Those that move from now on.
    begin: Vec<ObjectKey>,
    /// Those that do not become ready.
    failed: BTreeSet<ObjectKey>,
    /// Whether these are so many that no other moves.
    is_stopped: bool,
    counts: UpgradeCounts,
}

/// Whose turn it is, and how many stand where; those are `moving` from now on.
fn next(
    standings: &[(ObjectKey, Standing)],
    moving: &mut HashMap<ObjectKey, Move>,
    limits: Limits,
    now: Instant,
) -> Step {
    let mut step = Step::default();
    let mut here = HashSet::new();
    let mut candidates = Vec::new();
    for (key, standing) in standings {
        let on_the_way = moving.get_mut(key);
        match (standing, on_the_way) {
            (Standing::Aside, _) => continue,
            (Standing::There, None) => step.counts.there += 1,
            (Standing::There, Some(on_the_way)) => {
                step.counts.there += 1;
                let ready_since = on_the_way.ready_since.get_or_insert(now);
                if now.duration_since(*ready_since) >= limits.pause {
                    continue;
                }
            }
            (Standing::Waiting { is_ready }, None) => {
                step.counts.waiting += 1;
                candidates.push((!is_ready, key));
                continue;
            }
            // Its status does not show it yet.
            (Standing::Waiting { .. }, Some(_)) => step.counts.moving += 1,
            (Standing::Moving | Standing::Failed, on_the_way) => {
                let begun = Move { since: now, ready_since: None };
                let on_the_way = match on_the_way {
                    Some(known) => known,
                    None => moving.entry(key.clone()).or_insert(begun),
                };
                on_the_way.ready_since = None;
                let is_late = now.duration_since(on_the_way.since) >= READY_WITHIN;
                if *standing == Standing::Failed || is_late {
                    step.failed.insert(key.clone());
                } else {
                    step.counts.moving += 1;
                }
            }
        }
        here.insert(key.clone());
    }
    moving.retain(|key, _| here.contains(key));
    step.counts.failed = step.failed.len();
    step.is_stopped = step.failed.len() >= limits.failures.max(1);
    step.counts.is_stopped = step.is_stopped && step.counts.waiting > 0;
    if !step.is_stopped {
        candidates.sort();
        for (_, key) in candidates.into_iter().take(limits.concurrent.saturating_sub(moving.len())) {
            moving.insert(key.clone(), Move { since: now, ready_since: None });
            step.begin.push(key.clone());
            step.counts.waiting -= 1;
            step.counts.moving += 1;
        }
    }
    step
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::controller::fixture::service;

    const LIMITS: Limits = Limits { concurrent: 2, pause: Duration::from_secs(10), failures: 1 };

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("shop", name)
    }

    fn names(keys: &[ObjectKey]) -> Vec<&str> {
        keys.iter().map(ObjectKey::name).collect()
    }

    /// The standings of some resources, which a test changes.
    struct Fleet {
        standings: Vec<(ObjectKey, Standing)>,
        moving: HashMap<ObjectKey, Move>,
        now: Instant,
    }

    impl Fleet {
        fn of(names: &[(&str, bool)]) -> Self {
            let standing =
                |(name, is_ready): &(&str, bool)| (key(name), Standing::Waiting { is_ready: *is_ready });
            let standings = names.iter().map(standing).collect();
            Self { standings, moving: HashMap::new(), now: Instant::now() }
        }

        fn stands(&mut self, name: &str, now: Standing) {
            let (_, standing) = self.standings.iter_mut().find(|(other, _)| *other == key(name)).unwrap();
            *standing = now;
        }

        fn next(&mut self, seconds: u64) -> Step {
            self.now += Duration::from_secs(seconds);
            next(&self.standings, &mut self.moving, LIMITS, self.now)
        }
    }

    #[test]
    fn a_few_move_at_a_time_the_ready_ones_first_and_each_has_been_ready_for_a_while_before_the_next() {
        let mut fleet = Fleet::of(&[("a", false), ("b", true), ("c", true), ("d", true)]);
        assert_eq!(names(&fleet.next(0).begin), ["b", "c"]);
        assert_eq!(names(&fleet.next(5).begin), [""; 0], "their statuses do not show it yet");
        fleet.stands("b", Standing::Moving);
        fleet.stands("c", Standing::There);
        let step = fleet.next(1);
        assert_eq!((step.counts.there, step.counts.moving, step.counts.waiting), (1, 1, 2));
        assert!(fleet.next(9).begin.is_empty());
        assert_eq!(names(&fleet.next(1).begin), ["d"]);
        // It was ready, and is not any more.
        fleet.stands("b", Standing::There);
        fleet.next(1);
        fleet.stands("b", Standing::Moving);
        fleet.next(5);
        fleet.stands("b", Standing::There);
        assert!(fleet.next(5).begin.is_empty());
        assert_eq!(names(&fleet.next(10).begin), ["a"]);
    }

    #[test]
    fn one_that_does_not_become_ready_stops_the_others_until_it_does_or_goes_its_own_way() {
        let names_of = [("a", true), ("b", true), ("c", true), ("d", true)];
        for (failure, after) in [(Standing::Failed, 0), (Standing::Moving, 600)] {
            for way_out in [Standing::There, Standing::Aside] {
                let mut fleet = Fleet::of(&names_of);
                fleet.next(0);
                fleet.stands("a", failure);
                fleet.stands("b", Standing::There);
                fleet.next(0);
                let step = fleet.next(after + 11);
                assert!(step.is_stopped && step.begin.is_empty() && step.counts.is_stopped, "{step:?}");
                assert_eq!(step.failed, BTreeSet::from([key("a")]));
                fleet.stands("a", way_out);
                assert!(!fleet.next(0).is_stopped);
                fleet.next(10);
                assert!(fleet.moving.contains_key(&key("c")) && fleet.moving.contains_key(&key("d")));
            }
        }
    }

    #[test]
    fn a_controller_that_has_just_started_goes_on_where_another_has_ended() {
        let mut fleet = Fleet::of(&[("a", true), ("b", true), ("c", true)]);
        fleet.stands("a", Standing::Moving);
        assert_eq!(names(&fleet.next(0).begin), ["b"]);
        fleet.stands("a", Standing::Failed);
        assert!(fleet.next(0).is_stopped);
    }

    #[test]
    fn the_standing_is_read_from_the_status() {
        let of = |image: Option<&str>, status: Value| {
            let mut object = serde_json::to_value(service(json!({"image": image}))).unwrap();
            object["status"] = status;
            Standing::of(&serde_json::from_value(object).unwrap(), "new")
        };
        let condition = |kind: &str, status: &str, reason: &str| json!({"type": kind, "status": status, "reason": reason});
        let ready = json!([condition("Ready", "True", "AsExpected")]);
        let failing = json!([condition("Available", "False", "ImagePullFailed")]);
        let waits = json!([condition("Available", "False", "RolloutInProgress")]);
        let unreconciled = json!([condition("Reconciled", "False", "SecretNotFound")]);
        let invalid = json!([condition("Valid", "False", "InvalidSpec")]);
        for (image, status, expected) in [
            (None, json!(null), Standing::Aside),
            (None, json!({"observedGeneration": -1}), Standing::Aside),
            (Some("own"), json!({"image": "own"}), Standing::Aside),
            (None, json!({"image": "old", "conditions": invalid}), Standing::Aside),
            (None, json!({"image": "old", "conditions": unreconciled}), Standing::Aside),
            (None, json!({"image": "old", "conditions": ready}), Standing::Waiting { is_ready: true }),
            (None, json!({"image": "old"}), Standing::Waiting { is_ready: false }),
            (None, json!({"image": "new", "conditions": failing}), Standing::There),
            (None, json!({"image": "new", "previousImage": "old", "conditions": waits}), Standing::Moving),
            (None, json!({"image": "new", "previousImage": "old", "conditions": failing}), Standing::Failed),
        ] {
            assert_eq!(of(image, status.clone()), expected, "{status}");
        }
    }

    #[test]
    fn a_resource_keeps_its_image_until_it_is_its_turn_or_jumps_the_queue() {
        let upgrades = Upgrades::new(Some("new".into()), LIMITS);
        let of = |upgrades: &Upgrades, object: &OrdersService| {
            let (image, waits) = upgrades.image_for(object);
            (image.unwrap(), waits)
        };
        let (old, new) = (("old".to_owned(), true), ("new".to_owned(), false));
        let mut object = service(json!({}));
        assert_eq!(of(&upgrades, &object), new, "it never had one");
        object.status = serde_json::from_value(json!({"image": "old"})).unwrap();
        assert_eq!(of(&upgrades, &object), old);
        let jump = [(UPGRADE_ANNOTATION.to_owned(), "now".to_owned())];
        object.metadata.annotations = Some(jump.into());
        assert_eq!(of(&upgrades, &object), new);
        object.metadata.annotations = None;
        upgrades.moving().insert(key("orders"), Move { since: Instant::now(), ready_since: None });
        assert_eq!(of(&upgrades, &object), new);
        let untold = Upgrades::new(None, LIMITS);
        assert_eq!(of(&untold, &object), ("old".to_owned(), false), "the operator was not told its own");
    }
}
