//! The task that moves resources to the operator's image: it notes in their statuses that it is their turn. Each reconcile
//! then does the rest.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::time::Instant;

use super::{
    Shared, Upgrades,
    plan::{Attempt, Attempts, Plan, plan},
    standing::{Standing, note},
};
use crate::{
    controller::{
        api_server::{ApiServer, RequestError},
        metrics::Metrics,
        object_key::ObjectKey,
        raw_orders_service::RawOrdersService,
        services::OrdersServices,
    },
    crd::{OrdersService, UPGRADE_MANAGER, UpgradeStatus, status_patch},
    runtime::{
        cache_sync::CacheSync,
        events::{EventContent, Events},
    },
};

/// How often to look while nobody waits.
const IDLE: Duration = Duration::from_secs(60);

/// How often to look while some wait. Looking takes longer the more resources there are.
const BUSY: Duration = Duration::from_millis(500);

/// For how long to look as often after a reconcile has asked for a turn: the status may not show yet that its resource waits.
const AWAKE: Duration = Duration::from_secs(15);

/// The task that moves them, and what it needs.
pub struct Mover<'a> {
    /// Which image they are moved to.
    pub upgrades: &'a Upgrades,
    /// The API server.
    pub api: &'a ApiServer,
    /// The resources.
    pub services: &'a OrdersServices,
    /// The initial lists.
    pub initial_lists: &'a CacheSync,
    /// Tells who stops the others.
    pub events: &'a Events,
    /// Counts.
    pub metrics: &'a Metrics,
}

/// Why it cannot be noted that a move begins.
#[derive(Debug, Error)]
enum NoteError {
    #[error("the stored object does not match the schema: {0}")]
    Mismatch(String),
    #[error("{0}")]
    Request(#[from] RequestError),
    #[error(
        "the CRD of this cluster is of an older version and drops status.upgrade: apply the one of this version; \
         until then OrdersServices without spec.image keep their current image"
    )]
    OldCrd,
}

/// What is read of the answer to a note.
#[derive(Deserialize)]
struct Answer {
    status: Option<NotedStatus>,
}

#[derive(Deserialize)]
struct NotedStatus {
    upgrade: Option<UpgradeStatus>,
}

impl Mover<'_> {
    /// Moves one after the other, without end. Only the leader does.
    pub async fn run(&self) {
        let Shared { image, limits, wanted } = &*self.upgrades.0;
        let Some(image) = image else { return std::future::pending().await };
        self.api.leadership.begins().await;
        self.initial_lists.synced().await;
        let pause = SignedDuration::try_from(limits.pause).unwrap_or(SignedDuration::MAX);
        let (mut told, mut attempts) = (BTreeSet::new(), Attempts::default());
        let mut awake_until = Instant::now();
        loop {
            let started = Instant::now();
            let now = Timestamp::now();
            let standing = |raw: &RawOrdersService| {
                let (standing, is_noted) = Standing::of(raw, image, pause, now);
                (raw.key(), standing, is_noted)
            };
            let standings: Vec<_> = self.services.iter().map(|raw| standing(&raw)).collect();
            let plan = plan(&standings, &mut attempts, *limits, started);
            let looked_for = started.elapsed();
            self.metrics.set_upgrades(&plan.counts);
            for key in &plan.end {
                self.end(key).await;
                attempts.record_end(key.clone(), Instant::now());
            }
            for key in &plan.begin {
                let attempt = self.begin(key, image).await;
                attempts.record(key.clone(), attempt, Instant::now());
                if attempt == Attempt::Refused {
                    // Perhaps the next would be refused too; but then that will show.
                    break;
                }
            }
            self.tell_stopped(image, &plan, &mut told).await;
            let is_awake = plan.is_busy || started < awake_until;
            let until_next = if is_awake { BUSY.max(looked_for * 20) } else { IDLE };
            tokio::select! {
                () = tokio::time::sleep(until_next) => {}
                () = wanted.notified(), if !is_awake => awake_until = Instant::now() + AWAKE,
            }
        }
    }

    /// Notes that the move of a resource begins.
    async fn begin(&self, key: &ObjectKey, image: &str) -> Attempt {
        let (namespace, name) = (key.namespace(), key.name());
        match self.note_beginning(key, image).await {
            Ok(()) => {
                tracing::info!(namespace, name, image, "moved to the operator's image");
                Attempt::Noted
            }
            Err(error @ NoteError::OldCrd) => {
                tracing::error!(namespace, name, image, "{error}");
                Attempt::Refused
            }
            Err(error) => {
                tracing::warn!(namespace, name, image, %error, "cannot be moved to the operator's image now");
                Attempt::Refused
            }
        }
    }

    async fn note_beginning(&self, key: &ObjectKey, image: &str) -> Result<(), NoteError> {
        // Gone, or moved by someone else: the next look shows it.
        let Some(raw) = self.services.get(key) else { return Ok(()) };
        let service = raw.parse().map_err(NoteError::Mismatch)?;
        let status = service.status.clone().unwrap_or_default();
        let Some(note) = note(&status, image, Timestamp::now()) else { return Ok(()) };
        let answer = self.write(&service, json!({"upgrade": note})).await?;
        let noted = answer.glance::<Answer>().ok().and_then(|answer| answer.status);
        noted.and_then(|status| status.upgrade).map(drop).ok_or(NoteError::OldCrd)
    }

    /// Takes the note of a move away, since that is over.
    async fn end(&self, key: &ObjectKey) {
        let Some(service) = self.services.get(key).and_then(|raw| raw.parse().ok()) else { return };
        if let Err(error) = self.write(&service, json!({})).await {
            tracing::warn!(
                namespace = key.namespace(), name = key.name(), %error, "cannot note that a move to another image is over"
            );
        }
    }

    /// Writes this part of the status, which is nobody else's.
    async fn write(&self, service: &OrdersService, part: Value) -> Result<RawOrdersService, RequestError> {
        let key = ObjectKey::of(&service.metadata);
        let api = Api::<RawOrdersService>::namespaced(self.api.client.clone(), key.namespace());
        let params = PatchParams::apply(UPGRADE_MANAGER).force();
        let patch = Patch::Apply(status_patch(service, &part));
        self.api.write("OrdersService", "patch", api.patch_status(key.name(), &params, &patch)).await
    }

    /// Tells once of each resource that stops the others: in the log, and by an event about it. The event has nothing of
    /// the others.
    async fn tell_stopped(&self, image: &str, plan: &Plan, told: &mut BTreeSet<ObjectKey>) {
        told.retain(|key| plan.failed.contains(key));
        if !plan.counts.is_stopped {
            return;
        }
        for key in &plan.failed {
            if !told.insert(key.clone()) {
                continue;
            }
            tracing::error!(
                namespace = key.namespace(),
                name = key.name(),
                image,
                waiting = plan.counts.waiting,
                "this OrdersService does not work with the operator's new image, so the rollout to the others has \
                 stopped: fix it, or set its spec.image to another image"
            );
            let note = format!(
                "it does not work with the operator's new image, {image}: fix what its conditions report, or set \
                 spec.image to another image; until then no other resource is moved to the new image"
            );
            let Some(raw) = self.services.get(key) else { continue };
            let event =
                EventContent { is_warning: true, reason: "UpgradeStopped", note: &note, action: "Upgrade" };
            let request = || self.events.publish(raw.as_ref(), &event);
            if let Err(error) = self.api.write_again("Event", "create", request).await {
                tracing::warn!(%error, "cannot write an event");
            }
        }
    }
}
