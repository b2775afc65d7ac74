//! Tells each resource how its database is: the conditions `DatabaseReady` and `Sweeping`, `status.expiry`,
//! and events.
//!
//! Only the owner of a target does, so that two sweepers do not write in turns. An idle target sees no
//! write: conditions are written when their status or reason changes, the rest at most once a minute and
//! only when it changes.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
    core::DeserializeGuard,
};

use super::{
    health::{DatabaseProblem, TargetHealth},
    resolve::Resolver,
    run::Sweeps,
    status::{News, conditions, expiry, news},
    targets::resource_key,
};
use crate::{
    crd::{
        ConditionType, ExpiryStatus, OrdersService, Reason, SWEEPER_MANAGER, find_condition, status_patch,
    },
    runtime::events::{self, Events},
};

/// The longest that one write may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// How many writes are sent at the same time.
const CONCURRENCY: usize = 8;

/// How often `status.expiry` is written at most.
const EXPIRY_EVERY: Duration = Duration::from_secs(60);

/// The OrdersServices as they are watched.
pub type Services = [Arc<DeserializeGuard<OrdersService>>];

/// What has been told so far.
pub struct Reporter {
    client: Client,
    events: Events,
    told: HashMap<String, Told>,
}

/// What one resource has been told.
#[derive(Default)]
struct Told {
    uid: Option<String>,
    /// How many of the orders that this process cancelled in its database are in its total.
    counted: u64,
    /// When its `status.expiry` was written last.
    at: Option<Instant>,
}

/// A status to be written.
struct Change<'a> {
    key: String,
    service: &'a OrdersService,
    conditions: Vec<Condition>,
    expiry: Option<ExpiryStatus>,
    news: Vec<News>,
    /// What is counted once it is written.
    counted: u64,
}

impl Reporter {
    /// Has told nothing yet.
    pub fn new(client: Client) -> Self {
        let events = Events::new(client.clone(), "orders-operator-sweeper");
        Self { client, events, told: HashMap::new() }
    }

    /// Gets to know new resources. What was cancelled in their databases before they were there, for
    /// others, is not theirs.
    pub fn meet(&mut self, services: &Services, resolver: &Resolver, sweeps: &Sweeps) {
        let mut told = std::mem::take(&mut self.told);
        for service in services.iter().filter_map(|guarded| guarded.0.as_ref().ok()) {
            let (key, uid) = (resource_key(service), service.uid());
            let known = told.remove(&key).filter(|told| told.uid == uid);
            let counted = || match resolver.target_of(&key) {
                Some(Ok(id)) => sweeps.progress(id).map_or(0, |progress| progress.expired()),
                _ => 0,
            };
            let known = known.unwrap_or_else(|| Told { uid, counted: counted(), at: None });
            self.told.insert(key, known);
        }
    }

    /// Writes what changed. With `all`, also what would be written within a minute.
    pub async fn report(&mut self, services: &Services, resolver: &Resolver, sweeps: &Sweeps, all: bool) {
        let changes: Vec<_> = services
            .iter()
            .filter_map(|guarded| self.change(guarded.0.as_ref().ok()?, resolver, sweeps, all))
            .collect();
        let (client, events) = (&self.client, &self.events);
        let written: Vec<_> = stream::iter(changes)
            .map(|change| async move {
                let written = tokio::time::timeout(WRITE_TIMEOUT, write(client, events, &change)).await;
                match written {
                    Ok(Ok(())) => return Some((change.key, change.counted, change.expiry.is_some())),
                    // It was written meanwhile, by the controller or another sweeper; the watch will show how.
                    Ok(Err(kube::Error::Api(status))) if [404, 409].contains(&status.code) => {}
                    // It is tried again at the next round.
                    Ok(Err(error)) => {
                        tracing::warn!(resource = change.key, %error, "cannot write the status")
                    }
                    Err(_) => {
                        tracing::warn!(
                            resource = change.key,
                            "the API server did not take the status in time"
                        );
                    }
                }
                None
            })
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await;
        for (key, counted, has_expiry) in written.into_iter().flatten() {
            if let Some(told) = self.told.get_mut(&key).filter(|_| has_expiry) {
                (told.counted, told.at) = (counted, Some(Instant::now()));
            }
        }
    }

    /// What is to be written of one resource; none where another sweeper does it, or nothing is new.
    fn change<'a>(
        &self,
        service: &'a OrdersService,
        resolver: &Resolver,
        sweeps: &Sweeps,
        all: bool,
    ) -> Option<Change<'a>> {
        let key = resource_key(service);
        let (health, progress, rank) = match resolver.target_of(&key)? {
            Ok(id) => (sweeps.health(id), sweeps.progress(id), sweeps.rank(&id.to_string())),
            Err(problem) => {
                let message = format!("the database is not known: {problem}");
                let problem = DatabaseProblem { reason: Reason::DatabaseUnreachable, message };
                (TargetHealth::Failing(problem), None, sweeps.rank(&key))
            }
        };
        let told = self.told.get(&key)?;
        if rank > 0 || health == TargetHealth::Unknown {
            return None;
        }
        let status = service.status.clone().unwrap_or_default();
        let now = Timestamp::now();
        let expired = progress.as_ref().map_or(told.counted, |progress| progress.expired());
        let overdue = progress.as_ref().map_or(0, |progress| progress.overdue_seconds());
        let new = conditions(&health, overdue, &status.conditions, service.metadata.generation, now);
        let news = new.as_ref().map_or(Vec::new(), |new| news(&status.conditions, new));
        let due = all || new.is_some() || told.at.is_none_or(|at| at.elapsed() >= EXPIRY_EVERY);
        let mut counted = told.counted;
        let mut next = status.expiry.clone();
        if progress.is_some() && due {
            let changed = expiry(status.expiry.as_ref(), expired.saturating_sub(told.counted), overdue, now);
            if changed.is_none() && new.is_none() {
                return None;
            }
            (next, counted) = (changed.or(next), expired);
        } else if new.is_none() {
            return None;
        }
        // What is left out of an apply is taken away, so it has all that is the sweeper's.
        let kept = || {
            let ours = ConditionType::SWEEPER.iter();
            ours.filter_map(|kind| find_condition(&status.conditions, *kind).cloned()).collect()
        };
        Some(Change { key, service, conditions: new.unwrap_or_else(kept), expiry: next, news, counted })
    }
}

async fn write(client: &Client, events: &Events, change: &Change<'_>) -> kube::Result<()> {
    let service = change.service;
    let api = Api::<OrdersService>::namespaced(client.clone(), &service.namespace().unwrap_or_default());
    let mut status = serde_json::json!({"conditions": change.conditions});
    if let Some(expiry) = &change.expiry {
        status["expiry"] = serde_json::to_value(expiry).map_err(kube::Error::SerdeError)?;
    }
    let mut patch = status_patch(service, &status);
    // The total goes on from what is there: it must not be another one by now.
    patch["metadata"]["resourceVersion"] = service.resource_version().into();
    let params = PatchParams::apply(SWEEPER_MANAGER).force();
    api.patch_status(&service.name_any(), &params, &Patch::Apply(&patch)).await?;
    for news in &change.news {
        publish(events, service, news).await;
    }
    Ok(())
}

async fn publish(events: &Events, service: &OrdersService, news: &News) {
    let event =
        events::News { is_warning: news.is_warning, reason: &news.reason, note: &news.note, action: "Sweep" };
    if let Err(error) = events.tell(service, &event).await {
        tracing::warn!(%error, reason = news.reason, "cannot write an event");
    }
}
