//! The reporter against an API server that keeps one resource.

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
    async fn round_of(&mut self, uri: &str, service: Arc<DeserializeGuard<OrdersService>>) -> Vec<String> {
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
    for (uri, generation) in [("mongodb://a/orders", 1), ("mongodb://b/orders", 2), ("mongodb://b/orders", 2)]
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
