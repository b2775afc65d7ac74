//! The API server and the context that the unit tests of the writes begin with.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use hyper::{Request, Response};
use kube::{Client, client::Body};
use prometheus_client::registry::Registry;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    controller::{
        api_server::ApiServer,
        children::{creating::Creating, observed::ObservedChildren, served::Served},
        claims::registry::ClaimRegistry,
        context::Context,
        known_services::KnownServices,
        metrics::Metrics,
        resource_state::ResourceStates,
        secrets::references::Secrets,
        services::OrdersServices,
        trigger::Trigger,
        upgrades::{Limits, Upgrades},
    },
    routing::HostPolicy,
    runtime::{cache_sync::CacheSyncBuilder, events::Events, lease::Leadership},
};

/// The requests that were sent, in order.
pub(super) type Requests = Arc<Mutex<Vec<(String, Value)>>>;

/// An API server that gives these answers, one after the other, and keeps the requests: method, query and body. A
/// real one cannot be made to create an object between two requests of ours.
pub(super) fn api_server(answers: Vec<(u16, Value)>) -> (Client, Requests) {
    let requests = Requests::default();
    let (log, answers) = (requests.clone(), Mutex::new(answers.into_iter()));
    let service = tower::service_fn(move |request: Request<Body>| {
        let what = format!("{} {}", request.method(), request.uri().query().unwrap_or_default());
        let (code, answer) = answers.lock().unwrap().next().unwrap();
        let log = log.clone();
        async move {
            let body = request.into_body().collect_bytes().await.unwrap();
            log.lock().unwrap().push((what, serde_json::from_slice(&body).unwrap_or_default()));
            let response = Response::builder().status(code).body(Body::from(answer.to_string().into_bytes()));
            Ok::<_, Infallible>(response.unwrap())
        }
    });
    (Client::new(service, "shop"), requests)
}

/// What a reconcile works with, with this client.
pub(super) fn context(client: Client) -> Context {
    let metrics = Metrics::register(&mut Registry::default());
    Context {
        api: Arc::new(ApiServer::new(client.clone(), Leadership::alone(), metrics.clone(), 1)),
        services: OrdersServices::new(Vec::new()),
        observed: ObservedChildren::default(),
        creating: Creating::default(),
        states: ResourceStates::default(),
        claims: ClaimRegistry::new(HostPolicy::Shared),
        known_services: KnownServices::default(),
        secrets: Secrets::new(Duration::from_secs(300)),
        gateway_api: Served::default(),
        middlewares: Served::default(),
        initial_lists: CacheSyncBuilder::default().seal(),
        trigger: Trigger::new(&[None], metrics.clone()).0,
        events: Events::new(client, "test"),
        metrics,
        slots: Semaphore::new(1),
        shutdown: CancellationToken::new(),
        identity: "shop/lease".into(),
        awaits_sweeper: false,
        upgrades: Upgrades::new(None, Limits { concurrent: 1, pause: Duration::ZERO, failures: 1 }),
        user_from_cluster: false,
        traefik_safe_naming: false,
    }
}
