//! The requests of a round: one status, its Events, and a resource that is read again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams},
    core::DeserializeGuard,
};
use tokio::time::timeout;

use super::update::StatusUpdate;
use crate::{
    crd::{OrdersService, SWEEPER_MANAGER, status_patch},
    runtime::events::{EventContent, Events},
    sweeper::{status::Transition, targets::resource_key},
};

/// The longest that one write may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// What became of a status update.
pub(super) enum Outcome<'a> {
    /// The resource has this version since then.
    Written(StatusUpdate<'a>, Option<String>),
    /// Somebody else has changed the resource since it was read.
    Outdated(String),
    Failed,
}

/// Writes the status, and then its Events, by `ends` at the latest.
pub(super) async fn send<'a>(
    client: &Client,
    events: &Events,
    update: StatusUpdate<'a>,
    ends: Instant,
) -> Outcome<'a> {
    let left = || WRITE_TIMEOUT.min(ends.saturating_duration_since(Instant::now()));
    let resource = &update.key;
    match timeout(left(), write(client, &update)).await {
        Ok(Ok(version)) => {
            // Whatever becomes of the events, the status is written, and must not be counted again.
            if timeout(left(), publish_all(events, &update)).await.is_err() {
                tracing::warn!(resource, "the API server did not accept its events in time");
            }
            return Outcome::Written(update, version);
        }
        // The controller or another sweeper has written it meanwhile; its watch event starts another round.
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => return Outcome::Outdated(update.key),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => {}
        // The next round tries again.
        Ok(Err(error)) => tracing::warn!(resource, %error, "cannot write the status"),
        Err(_) => tracing::warn!(resource, "the API server did not accept the status in time"),
    }
    Outcome::Failed
}

/// The resource as it is now; none if it is gone. By a list, as no other right to read it is needed for anything else.
pub(super) async fn read_again(
    client: &Client,
    before: &OrdersService,
) -> Option<Arc<DeserializeGuard<OrdersService>>> {
    let api = Api::<DeserializeGuard<OrdersService>>::namespaced(
        client.clone(),
        &before.namespace().unwrap_or_default(),
    );
    let name = ListParams::default().fields(&format!("metadata.name={}", before.name_any()));
    match timeout(WRITE_TIMEOUT, api.list(&name)).await {
        Ok(Ok(listed)) => {
            let is_same = |now: &DeserializeGuard<OrdersService>| {
                now.0.as_ref().is_ok_and(|service| service.uid() == before.uid())
            };
            listed.items.into_iter().find(is_same).map(Arc::new)
        }
        Ok(Err(error)) => {
            tracing::warn!(resource = resource_key(before), %error, "cannot read the resource again");
            None
        }
        Err(_) => {
            tracing::warn!(
                resource = resource_key(before),
                "the API server did not show the resource in time"
            );
            None
        }
    }
}

/// Writes the status. Gives the version of the resource then.
async fn write(client: &Client, update: &StatusUpdate<'_>) -> kube::Result<Option<String>> {
    let service = update.service;
    let api = Api::<OrdersService>::namespaced(client.clone(), &service.namespace().unwrap_or_default());
    let mut status = serde_json::json!({"conditions": update.conditions});
    if let Some(expiry) = &update.expiry {
        status["expiry"] = serde_json::to_value(expiry).map_err(kube::Error::SerdeError)?;
    }
    let mut patch = status_patch(service, &status);
    // The new total is based on the one that was read, which must not have changed.
    patch["metadata"]["resourceVersion"] = service.resource_version().into();
    let params = PatchParams::apply(SWEEPER_MANAGER).force();
    let written = api.patch_status(&service.name_any(), &params, &Patch::Apply(&patch)).await?;
    Ok(written.resource_version())
}

async fn publish_all(events: &Events, update: &StatusUpdate<'_>) {
    for Transition { is_warning, reason, note } in &update.transitions {
        let event = EventContent { is_warning: *is_warning, reason, note, action: "Sweep" };
        if let Err(error) = events.publish(update.service, &event).await {
            tracing::warn!(%error, reason, "cannot write an event");
        }
    }
}
