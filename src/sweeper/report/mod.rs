//! Writes the health of each resource's database to the resource: the conditions `DatabaseReady`, `Sweeping` and
//! `EventsFlowing`, `status.expiry`, and Kubernetes Events.
//!
//! Only the owner of a target writes, so that two sweepers do not overwrite each other. Nothing is written about an idle
//! target: conditions are written when their status or reason changes, `status.expiry` when it changes and at most once
//! a minute.
//!
//! ```text
//! update       what is to be written to one resource
//! alternation  reasons that alternate, which wait until one stays
//! send         the requests
//! ```

mod alternation;
mod send;
#[cfg(test)]
mod tests;
mod update;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, future::join_all, stream};
use k8s_openapi::jiff::Timestamp;
use kube::{Client, ResourceExt, core::DeserializeGuard};

use self::{
    send::{Outcome, read_again, send},
    update::{Figures, Known, Reported, StatusUpdate},
};
use super::{
    health::{DatabaseProblem, TargetHealth},
    resolve::Resolver,
    targets::resource_key,
    tasks::{Progress, Sweeps},
};
use crate::{
    crd::{EventsSpec, OrdersService},
    runtime::events::Events,
};

/// The longest that all writes of a round may take: what is left is written in the next one. The process counts as hanging
/// when its rounds take longer than two minutes.
const ROUND_TIMEOUT: Duration = Duration::from_secs(30);

/// How many writes are sent at the same time.
const CONCURRENCY: usize = 8;

/// How often the final status of a resource is written at most, as each time somebody else may have changed it meanwhile.
const FINAL_ATTEMPTS: u32 = 3;

/// The OrdersServices as the watches deliver them.
pub type Services = [Arc<DeserializeGuard<OrdersService>>];

/// Writes statuses and events, and remembers what was written.
pub struct Reporter {
    client: Client,
    events: Events,
    reported: HashMap<String, Reported>,
}

impl Reporter {
    /// A reporter that has written nothing yet.
    pub fn new(client: Client) -> Self {
        let events = Events::new(client.clone(), "orders-operator-sweeper");
        Self { client, events, reported: HashMap::new() }
    }

    /// Tracks new resources, and stops tracking those that are gone. Orders that were cancelled in a database before
    /// the resource existed, or had that database, do not count for it.
    pub fn track(&mut self, services: &Services, resolver: &Resolver, sweeps: &Sweeps) {
        let mut before = std::mem::take(&mut self.reported);
        for service in services {
            let (key, uid) = (resource_key(&**service), service.uid());
            let mut reported = before
                .remove(&key)
                .filter(|reported| reported.uid == uid)
                .unwrap_or_else(|| Reported { uid, ..Reported::default() });
            if let Some(Ok(target)) = resolver.target_of(&key)
                && reported.target.as_ref() != Some(&target.key)
            {
                reported.is_about_former |= reported.target.is_some();
                reported.expired = sweeps.progress(&target.key).map_or(0, |progress| progress.expired());
                reported.target = Some(target.key.clone());
                reported.writes.forget_unanswered();
            }
            self.reported.insert(key, reported);
        }
    }

    /// Writes what has changed. What cannot be written now is written in the next round.
    pub async fn report(&mut self, services: &Services, resolver: &Resolver, sweeps: &Sweeps) {
        self.write_all(services, resolver, sweeps, false).await;
    }

    /// Writes what has changed, also what could otherwise wait for up to a minute. There is no next round: a resource that
    /// has changed since the watch showed it is read again.
    pub async fn flush(&mut self, services: &Services, resolver: &Resolver, sweeps: &Sweeps) {
        let mut left = services.to_vec();
        for _ in 0..FINAL_ATTEMPTS {
            let outdated = self.write_all(&left, resolver, sweeps, true).await;
            if outdated.is_empty() {
                return;
            }
            let again = left.iter().filter_map(|guarded| {
                let service = guarded.0.as_ref().ok()?;
                outdated.contains(&resource_key(service)).then(|| read_again(&self.client, service))
            });
            let again = join_all(again).await;
            left = again.into_iter().flatten().collect();
        }
        for service in left.iter().filter_map(|guarded| guarded.0.as_ref().ok()) {
            let resource = resource_key(service);
            tracing::warn!(resource, "cannot write the final status: the resource keeps changing");
        }
    }

    /// Writes what has changed. Gives the resources that somebody else has changed since they were read.
    async fn write_all(
        &mut self,
        services: &Services,
        resolver: &Resolver,
        sweeps: &Sweeps,
        flush: bool,
    ) -> HashSet<String> {
        let updates: Vec<_> = services
            .iter()
            .filter_map(|guarded| self.update(guarded.0.as_ref().ok()?, resolver, sweeps, flush))
            .collect();
        self.note_what_is_told(services, &updates, resolver, sweeps);
        for update in &updates {
            if let Some(total) = update.expiry.as_ref().and_then(|expiry| expiry.expired_total)
                && let Some(reported) = self.reported.get_mut(&update.key)
                && update.expired > reported.expired
            {
                reported.writes.sent(update.service, total, update.expired);
            }
        }
        let (client, events, ends) = (&self.client, &self.events, Instant::now() + ROUND_TIMEOUT);
        let outcomes: Vec<_> = stream::iter(updates)
            .map(|update| send(client, events, update, ends))
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await;
        let mut outdated = HashSet::new();
        for outcome in outcomes {
            match outcome {
                Outcome::Written(update, version) => {
                    let Some(reported) = self.reported.get_mut(&update.key) else { continue };
                    reported.is_about_former = false;
                    if update.expiry.is_some() {
                        (reported.expired, reported.at) = (update.expired, Some(Instant::now()));
                    }
                    reported.writes.answered(update.service, version, update.conditions);
                }
                Outcome::Outdated(key) => {
                    outdated.insert(key);
                }
                Outcome::Failed => {}
            }
        }
        outdated
    }

    /// Notes of which resources nothing is written any more that was about a former database: it is known how it is with that
    /// of now, and either that is told, or it is another sweeper's to tell.
    fn note_what_is_told(
        &mut self,
        services: &Services,
        updates: &[StatusUpdate<'_>],
        resolver: &Resolver,
        sweeps: &Sweeps,
    ) {
        let to_write: HashSet<_> = updates.iter().map(|update| update.key.as_str()).collect();
        for key in services.iter().filter_map(|guarded| guarded.0.as_ref().ok()).map(resource_key) {
            let Some(Ok(target)) = resolver.target_of(&key) else { continue };
            let is_known = sweeps.health(&target.key) != TargetHealth::Unknown;
            if let Some(reported) = self.reported.get_mut(&key)
                && is_known
                && !to_write.contains(key.as_str())
            {
                reported.is_about_former = false;
            }
        }
    }

    /// The status update of one resource; none if another sweeper writes it, or nothing has changed.
    fn update<'a>(
        &mut self,
        service: &'a OrdersService,
        resolver: &Resolver,
        sweeps: &Sweeps,
        flush: bool,
    ) -> Option<StatusUpdate<'a>> {
        let key = resource_key(service);
        let (known, rank) = known(&key, service, resolver, sweeps)?;
        let reported = self.reported.get_mut(&key)?;
        let now = Instant::now();
        if let Some(expired) = reported.writes.carried_out(service) {
            (reported.expired, reported.at) = (expired, Some(now));
        }
        if rank > 0 {
            return None;
        }
        reported.update(key, service, &known, flush, (now, Timestamp::now()))
    }
}

/// What is known of the database of a resource, and the rank of this sweeper for it; none before the resource is resolved.
fn known(key: &str, service: &OrdersService, resolver: &Resolver, sweeps: &Sweeps) -> Option<(Known, u32)> {
    let problem = resolver.problem_of(key);
    Some(match resolver.target_of(key)? {
        Ok(target) => {
            let progress = sweeps.progress(&target.key);
            // What is known of events may be known of former settings, with which the target was made.
            let mark = service.spec.events.as_ref().map(EventsSpec::mark);
            let is_current = mark.is_some_and(|mark| target.events.contains(&mark));
            let known = Known {
                health: sweeps.health(&target.key).reported(problem, &target.warnings),
                events: progress.as_ref().filter(|_| is_current).and_then(|progress| progress.events()),
                progress: progress.as_deref().map(figures),
            };
            (known, sweeps.rank(&target.key.to_string()))
        }
        Err(problem) => {
            let message = format!("the database is not known: {}", problem.message);
            let problem = DatabaseProblem { message, ..*problem };
            let health = TargetHealth::Failing(problem);
            (Known { health, progress: None, events: None }, sweeps.rank(key))
        }
    })
}

fn figures(progress: &Progress) -> Figures {
    Figures { expired: progress.expired(), overdue_seconds: progress.overdue_seconds() }
}
