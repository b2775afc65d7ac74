//! Writes the health of each resource's database to the resource: the conditions `DatabaseReady`, `Sweeping` and
//! `EventsFlowing`, `status.expiry`, and Kubernetes Events.
//!
//! Only the owner of a target writes, so that two sweepers do not overwrite each other. Nothing is written about an idle
//! target: conditions are written when their status or reason changes, `status.expiry` when it changes and at most once
//! a minute.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, future::join_all, stream};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams},
    core::DeserializeGuard,
};
use tokio::time::timeout;

use super::{
    events::with_events,
    health::{DatabaseProblem, TargetHealth},
    resolve::Resolver,
    status::{Transition, conditions, expiry, transitions},
    targets::{TargetKey, resource_key},
    tasks::Sweeps,
    writes::Writes,
};
use crate::{
    crd::{
        ConditionType, EventsSpec, ExpiryStatus, OrdersService, SWEEPER_MANAGER, find_condition, status_patch,
    },
    runtime::events::{EventContent, Events},
};

/// The longest that one write may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest that all writes of a round may take: what is left is written in the next one. The process counts as hanging
/// when its rounds take longer than two minutes.
const ROUND_TIMEOUT: Duration = Duration::from_secs(30);

/// How many writes are sent at the same time.
const CONCURRENCY: usize = 8;

/// How often the final status of a resource is written at most, as each time somebody else may have changed it meanwhile.
const FINAL_ATTEMPTS: u32 = 3;

/// The shortest interval between two writes of `status.expiry`.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(60);

/// The OrdersServices as the watches deliver them.
pub type Services = [Arc<DeserializeGuard<OrdersService>>];

/// Writes statuses and events, and remembers what was written.
pub struct Reporter {
    client: Client,
    events: Events,
    reported: HashMap<String, Reported>,
}

/// What was reported to one resource.
#[derive(Default)]
struct Reported {
    uid: Option<String>,
    /// Its database, once that is known.
    target: Option<TargetKey>,
    /// Whether what is written may still be about another database, which it had before.
    is_about_former: bool,
    /// How many of the orders that this process has cancelled in its database are in its `expiredTotal`.
    expired: u64,
    /// When its `status.expiry` was last written.
    at: Option<Instant>,
    writes: Writes,
}

/// A status update to be written.
struct StatusUpdate<'a> {
    key: String,
    service: &'a OrdersService,
    conditions: Vec<Condition>,
    expiry: Option<ExpiryStatus>,
    transitions: Vec<Transition>,
    /// [`Reported::expired`] once it is written.
    expired: u64,
}

/// What became of a status update.
enum Outcome<'a> {
    /// The resource has this version since then.
    Written(StatusUpdate<'a>, Option<String>),
    /// Somebody else has changed the resource since it was read.
    Outdated(String),
    Failed,
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
            tracing::warn!(
                resource,
                "cannot write the final status: the resource is changed again and again"
            );
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
            .map(|update| async move {
                let left = || WRITE_TIMEOUT.min(ends.saturating_duration_since(Instant::now()));
                match timeout(left(), write(client, &update)).await {
                    Ok(Ok(version)) => {
                        // Whatever becomes of the events, the status is written, and must not be counted again.
                        if timeout(left(), publish_all(events, &update)).await.is_err() {
                            tracing::warn!(
                                resource = update.key,
                                "the API server did not accept its events in time"
                            );
                        }
                        return Outcome::Written(update, version);
                    }
                    // The controller or another sweeper has written it meanwhile; its watch event starts another round.
                    Ok(Err(kube::Error::Api(status))) if status.code == 409 => {
                        return Outcome::Outdated(update.key);
                    }
                    Ok(Err(kube::Error::Api(status))) if status.code == 404 => {}
                    // The next round tries again.
                    Ok(Err(error)) => {
                        tracing::warn!(resource = update.key, %error, "cannot write the status")
                    }
                    Err(_) => {
                        tracing::warn!(
                            resource = update.key,
                            "the API server did not accept the status in time"
                        );
                    }
                }
                Outcome::Failed
            })
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
        let problem = resolver.problem_of(&key);
        let mut events = None;
        let (health, progress, rank) = match resolver.target_of(&key)? {
            Ok(target) => {
                let progress = sweeps.progress(&target.key);
                // What is known of events may be known of former settings, with which the target was made.
                let mark = service.spec.events.as_ref().map(EventsSpec::mark);
                if mark.is_some_and(|mark| target.events.contains(&mark)) {
                    events = progress.as_ref().and_then(|progress| progress.events());
                }
                let health = sweeps.health(&target.key).reported(problem, &target.warnings);
                (health, progress, sweeps.rank(&target.key.to_string()))
            }
            Err(problem) => {
                let message = format!("the database is not known: {}", problem.message);
                let problem = DatabaseProblem { message, ..*problem };
                (TargetHealth::Failing(problem), None, sweeps.rank(&key))
            }
        };
        let reported = self.reported.get_mut(&key)?;
        if let Some(expired) = reported.writes.carried_out(service) {
            (reported.expired, reported.at) = (expired, Some(Instant::now()));
        }
        let is_unknown = health == TargetHealth::Unknown;
        if rank > 0 || (is_unknown && !reported.is_about_former) {
            return None;
        }
        let status = service.status.clone().unwrap_or_default();
        let now = Timestamp::now();
        let expired = progress.as_ref().map_or(reported.expired, |progress| progress.expired());
        let overdue = progress.as_ref().map_or(0, |progress| progress.overdue_seconds());
        let (old, generation) = (&status.conditions, service.metadata.generation);
        let is_other = reported.is_about_former;
        let new = conditions(&health, is_other, overdue, old, generation, now);
        let has_events = service.spec.events.is_some();
        let new = with_events(new, events.as_ref(), has_events, is_other, old, generation, now);
        let new = new.filter(|_| reported.writes.may_change(service, Instant::now()));
        let transitions = new.as_ref().map_or(Vec::new(), |new| transitions(&status.conditions, new));
        let due = flush || new.is_some() || reported.at.is_none_or(|at| at.elapsed() >= EXPIRY_INTERVAL);
        let mut written = reported.expired;
        let mut next = status.expiry.clone();
        if progress.is_some() && due && !is_unknown {
            let changed =
                expiry(status.expiry.as_ref(), expired.saturating_sub(reported.expired), overdue, now);
            if changed.is_none() && new.is_none() {
                return None;
            }
            (next, written) = (changed.or(next), expired);
        } else if new.is_none() {
            return None;
        }
        // A server-side apply removes the fields that it leaves out, so it always has all of the sweeper's.
        let kept = || {
            let ours = ConditionType::SWEEPER.iter();
            ours.filter_map(|kind| find_condition(&status.conditions, *kind).cloned()).collect()
        };
        let conditions = new.unwrap_or_else(kept);
        Some(StatusUpdate { key, service, conditions, expiry: next, transitions, expired: written })
    }
}

/// The resource as it is now; none if it is gone. By a list, as no other right to read it is needed for anything else.
async fn read_again(client: &Client, before: &OrdersService) -> Option<Arc<DeserializeGuard<OrdersService>>> {
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

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future::pending, sync::Mutex};

    use hyper::{Method, Request, Response, StatusCode};
    use k8s_openapi::ByteString;
    use kube::client::Body;
    use prometheus_client::registry::Registry;
    use serde_json::{Value, json};
    use tokio::sync::{Notify, watch};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::sweeper::{metrics::Metrics, peers::Peers};

    /// An API server with one Secret and one resource, which others may share, and the statuses that were written to it by
    /// this way.
    #[derive(Clone, Default)]
    struct ApiServer {
        uri: Arc<Mutex<String>>,
        written: Arc<Mutex<Vec<Value>>>,
        stored: Arc<Mutex<Stored>>,
        answers: Arc<Mutex<Answers>>,
    }

    /// The version and the status of the resource.
    #[derive(Clone, Default)]
    struct Stored(u64, Value);

    /// How writes that are carried out are answered.
    #[derive(Clone, Copy, Debug, Default, PartialEq)]
    enum Answers {
        #[default]
        Well,
        /// As a repetition of the request is, which the client makes when the first one's answer is lost.
        AsConflict,
        Not,
    }

    impl ApiServer {
        /// Another way to the same resource.
        fn beside(&self) -> Self {
            Self { stored: self.stored.clone(), ..Self::default() }
        }

        /// The resource as it is now.
        fn service(&self, generation: i64, grace: u32) -> Arc<DeserializeGuard<OrdersService>> {
            self.stored.lock().unwrap().service(generation, grace)
        }

        fn expired_total(&self) -> Value {
            self.stored.lock().unwrap().1["expiry"]["expiredTotal"].clone()
        }

        /// Carries out a write, unless it is based on a former version.
        fn write(&self, patch: &Value) -> Response<Body> {
            let mut stored = self.stored.lock().unwrap();
            let is_current = patch["metadata"]["resourceVersion"] == json!(stored.0.to_string());
            if is_current {
                *stored = Stored(stored.0 + 1, patch["status"].clone());
                self.written.lock().unwrap().push(patch["status"]["conditions"].clone());
            }
            if is_current && *self.answers.lock().unwrap() != Answers::AsConflict {
                let service = json!(*stored.service(1, 0).0.as_ref().unwrap());
                return Response::new(Body::from(service.to_string().into_bytes()));
            }
            let conflict = json!({"status": "Failure", "reason": "Conflict", "code": 409}).to_string();
            Response::builder().status(StatusCode::CONFLICT).body(Body::from(conflict.into_bytes())).unwrap()
        }

        fn client(&self) -> Client {
            let server = self.clone();
            let answer = move |request: Request<Body>| {
                let server = server.clone();
                async move { Ok::<_, Infallible>(server.answer(request).await) }
            };
            Client::new(tower::service_fn(answer), "default")
        }

        async fn answer(&self, request: Request<Body>) -> Response<Body> {
            let is_status = request.method() == Method::PATCH && request.uri().path().ends_with("/status");
            if is_status {
                let body = request.into_body().collect_bytes().await.unwrap();
                let answer = self.write(&serde_json::from_slice(&body).unwrap());
                if *self.answers.lock().unwrap() == Answers::Not {
                    pending::<()>().await;
                }
                return answer;
            }
            let uri = ByteString(self.uri.lock().unwrap().clone().into_bytes());
            let body = json!({"metadata": {"name": "mongo"}, "data": {"MONGO_URI": uri}});
            Response::new(Body::from(body.to_string().into_bytes()))
        }

        /// The reasons that were written since the last call.
        fn written(&self) -> Vec<String> {
            let written = std::mem::take(&mut *self.written.lock().unwrap());
            let conditions =
                written.iter().flat_map(|conditions| conditions.as_array().cloned().unwrap_or_default());
            conditions.map(|condition| condition["reason"].as_str().unwrap().to_owned()).collect()
        }
    }

    impl Stored {
        /// A resource whose database is not to be swept: that is known without any database.
        fn service(&self, generation: i64, grace: u32) -> Arc<DeserializeGuard<OrdersService>> {
            let (version, status) = (self.0.to_string(), &self.1);
            let object = json!({
                "apiVersion": "ticketing.dev/v1alpha1", "kind": "OrdersService",
                "metadata": {
                    "name": "orders", "namespace": "shop", "uid": "u", "generation": generation, "resourceVersion": version,
                },
                "spec": {
                    "auth": {"jwtSecretRef": {"name": "jwt"}}, "database": {"uriSecretRef": {"name": "mongo"}},
                    "expiration": {"suspend": true, "paymentGraceSeconds": grace},
                },
                "status": status,
            });
            Arc::new(serde_json::from_value(object).unwrap())
        }
    }

    struct Sweeper {
        server: ApiServer,
        resolver: Resolver,
        reporter: Reporter,
        sweeps: Sweeps,
        peers: watch::Sender<Arc<Peers>>,
    }

    impl Sweeper {
        fn new() -> Self {
            Self::at(ApiServer::default())
        }

        fn at(server: ApiServer) -> Self {
            let (peers, receiver) = watch::channel(Arc::new(Peers::alone()));
            let metrics = Metrics::register(&mut Registry::default());
            let sweeps = Sweeps::new(metrics, receiver, Arc::new(Notify::new()), CancellationToken::new());
            let (resolver, reporter) = (Resolver::new(server.client()), Reporter::new(server.client()));
            Self { server, resolver, reporter, sweeps, peers }
        }

        /// Makes it the first for both databases, or the second.
        fn set_rank(&self, rank: u32) {
            let mut peers = (0..100).map(|me| Peers::new(format!("me-{me}"), vec!["other".to_owned()]));
            let keys = ["shop/a.shop.svc:27017/orders", "shop/b.shop.svc:27017/orders"];
            let peers = peers.find(|peers| keys.iter().all(|key| peers.rank(key) == rank)).unwrap();
            self.peers.send_replace(Arc::new(peers));
        }

        /// One round; gives the reasons that were written in it.
        async fn round(&mut self, uri: &str, generation: i64, grace: u32) -> Vec<String> {
            let service = self.server.service(generation, grace);
            self.round_of(uri, service).await
        }

        /// One round in which the watch shows this.
        async fn round_of(
            &mut self,
            uri: &str,
            service: Arc<DeserializeGuard<OrdersService>>,
        ) -> Vec<String> {
            uri.clone_into(&mut self.server.uri.lock().unwrap());
            let services = [service];
            let targets = self.resolver.resolve(&services, |_| false).await;
            self.reporter.track(&services, &self.resolver, &self.sweeps);
            self.sweeps.set_targets(targets);
            self.reporter.report(&services, &self.resolver, &self.sweeps).await;
            self.server.written()
        }

        /// Waits until it is known how it is with the database.
        async fn known(&self) {
            let target = || self.resolver.target_of("shop/orders").unwrap().unwrap();
            while self.sweeps.health(&target().key) == TargetHealth::Unknown {
                tokio::task::yield_now().await;
            }
        }

        /// So many more orders have expired in the database.
        fn expire(&self, orders: u64) {
            let target = self.resolver.target_of("shop/orders").unwrap().unwrap();
            self.sweeps.progress(&target.key).unwrap().record_expired(orders);
        }

        /// The end of the process.
        async fn flush(&mut self) {
            let services = [self.server.service(1, 0)];
            self.reporter.flush(&services, &self.resolver, &self.sweeps).await;
        }
    }

    const PENDING: [&str; 2] = ["DatabasePending", "DatabasePending"];

    #[tokio::test]
    async fn whoever_takes_a_database_over_does_not_say_that_it_has_changed_when_that_was_told_long_ago() {
        let mut sweeper = Sweeper::new();
        sweeper.set_rank(1);
        for (uri, generation) in
            [("mongodb://a/orders", 1), ("mongodb://b/orders", 2), ("mongodb://b/orders", 2)]
        {
            assert_eq!(sweeper.round(uri, generation, 0).await, [""; 0], "the other one writes");
            sweeper.known().await;
        }
        sweeper.set_rank(0);
        // Its sweep begins anew, and its health is not known for a moment.
        assert_eq!(sweeper.round("mongodb://b/orders", 3, 5).await, [""; 0]);
        sweeper.known().await;
        assert_eq!(sweeper.round("mongodb://b/orders", 3, 5).await, ["Suspended"]);
    }

    #[tokio::test]
    async fn that_the_connection_string_has_changed_is_told_until_its_database_is_known() {
        let mut sweeper = Sweeper::new();
        sweeper.set_rank(0);
        assert_eq!(sweeper.round("mongodb://a/orders", 1, 0).await, [""; 0]);
        sweeper.known().await;
        assert_eq!(sweeper.round("mongodb://a/orders", 1, 0).await, ["Suspended"]);
        assert_eq!(sweeper.round("mongodb://b/orders", 2, 0).await, PENDING);
        sweeper.known().await;
        assert_eq!(sweeper.round("mongodb://b/orders", 2, 0).await, ["Suspended"]);
    }

    #[tokio::test]
    async fn sweepers_that_share_no_lease_and_disagree_come_to_rest() {
        let mut first = Sweeper::new();
        let mut second = Sweeper::at(first.server.beside());
        let mut written = Vec::new();
        for _ in 0..20 {
            let of_first = first.round("mongodb://a/orders", 1, 0).await;
            first.known().await;
            let of_second = second.round("no connection string", 1, 0).await;
            written.push(of_first.len() + of_second.len());
        }
        assert!(written[1] > 0, "they do not disagree: {written:?}");
        assert!(written[10..].iter().sum::<usize>() == 0, "{written:?}");
        // Both say what comes of another spec.
        assert_eq!(first.round("mongodb://a/orders", 2, 0).await, ["Suspended"]);
        assert_eq!(second.round("no connection string", 2, 0).await, ["InvalidDatabaseUri"; 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn no_order_counts_twice_when_the_answer_to_a_write_is_lost() {
        const URI: &str = "mongodb://a/orders";
        for lost in [Answers::AsConflict, Answers::Not] {
            let mut sweeper = Sweeper::new();
            sweeper.round(URI, 1, 0).await;
            sweeper.known().await;
            sweeper.expire(3);
            let before = sweeper.server.service(1, 0);
            *sweeper.server.answers.lock().unwrap() = lost;
            sweeper.round(URI, 1, 0).await;
            assert_eq!(sweeper.server.expired_total(), json!(3), "it is carried out");
            *sweeper.server.answers.lock().unwrap() = Answers::Well;
            // The watch does not show it yet, and more expire meanwhile.
            sweeper.expire(2);
            sweeper.round_of(URI, before).await;
            sweeper.round(URI, 1, 0).await;
            sweeper.flush().await;
            assert_eq!(sweeper.server.expired_total(), json!(5), "{lost:?}");
            sweeper.flush().await;
            assert_eq!(sweeper.server.expired_total(), json!(5), "{lost:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_write_would_have_counted_that_was_not_carried_out_is_counted_by_the_next_one() {
        const URI: &str = "mongodb://a/orders";
        let mut sweeper = Sweeper::new();
        sweeper.round(URI, 1, 0).await;
        sweeper.known().await;
        sweeper.expire(3);
        let before = sweeper.server.service(1, 0);
        // Somebody else writes first.
        sweeper.server.stored.lock().unwrap().0 += 1;
        sweeper.round_of(URI, before).await;
        assert_eq!(sweeper.server.expired_total(), Value::Null);
        sweeper.round(URI, 1, 0).await;
        assert_eq!(sweeper.server.expired_total(), json!(3));
    }

    #[tokio::test]
    async fn what_expires_while_the_resource_cannot_be_read_is_counted_afterwards() {
        const URI: &str = "mongodb://a/orders";
        let mut sweeper = Sweeper::new();
        sweeper.round(URI, 1, 0).await;
        sweeper.known().await;
        let of_a_later_version = json!({
            "apiVersion": "ticketing.dev/v1alpha1", "kind": "OrdersService",
            "metadata": {"name": "orders", "namespace": "shop", "uid": "u", "generation": 2, "resourceVersion": "9"},
            "spec": {"auth": "by a means that nobody has thought of yet"},
        });
        sweeper.round_of(URI, Arc::new(serde_json::from_value(of_a_later_version).unwrap())).await;
        sweeper.expire(3);
        sweeper.round(URI, 1, 0).await;
        sweeper.flush().await;
        assert_eq!(sweeper.server.expired_total(), json!(3));
    }
}
