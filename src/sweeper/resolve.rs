//! From OrdersServices to targets: fetches the Secrets that they name.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, ResourceExt, core::DeserializeGuard};

use super::targets::{Target, merge, resource_key};
use crate::{
    crd::OrdersService,
    store::{ConnectOptions, TargetId},
};

/// The longest that one call to the API server may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest that one round of calls may take: an API server that hangs must not stop the loop.
const ROUND: Duration = Duration::from_secs(30);

/// How many Secrets are read at the same time.
const CONCURRENCY: usize = 16;

/// How old the copy of a Secret may get; spread by a quarter, so that not all are read at once.
const FRESH: Duration = Duration::from_secs(300);

/// How old it may get where the database cannot be used: that may be why.
const DOUBTED: Duration = Duration::from_secs(15);

/// How soon a resource is tried again whose Secret is missing or wrong.
const RETRY: Duration = Duration::from_secs(5);

/// Works out targets, and remembers what does not need to be asked again.
pub struct Resolver {
    client: Client,
    known: HashMap<String, Known>,
}

/// UID and generation of a resource: while they are the same, so is its spec.
type Version = (Option<String>, Option<i64>);

fn version(service: &OrdersService) -> Version {
    (service.uid(), service.metadata.generation)
}

/// What is known of one resource.
struct Known {
    version: Version,
    read: Instant,
    until: Instant,
    target: Option<Target>,
    problem: Option<String>,
}

impl Known {
    /// What is known after a look at the Secret, given what was known `before`.
    fn after(before: Option<Self>, version: Version, result: Result<Target, String>, key: &str) -> Self {
        let now = Instant::now();
        match result {
            Ok(target) => {
                let until = now + FRESH.mul_f64(0.75 + 0.25 * fastrand::f64());
                Self { version, read: now, until, target: Some(target), problem: None }
            }
            Err(problem) => {
                let (last, known_problem) =
                    before.map_or((None, None), |before| (before.target, before.problem));
                if known_problem.as_ref() != Some(&problem) {
                    tracing::warn!(resource = key, problem, "cannot tell this resource's database");
                }
                // The database was there a moment ago, and its orders expire still.
                Self { version, read: now, until: now + RETRY, target: last, problem: Some(problem) }
            }
        }
    }
}

impl Resolver {
    /// A resolver that knows nothing yet.
    pub fn new(client: Client) -> Self {
        Self { client, known: HashMap::new() }
    }

    /// The targets of `services`. A resource that cannot be resolved keeps its last target, is
    /// logged, and does not concern the others. Where a database `is_failing`, the Secret is read more often.
    pub async fn resolve(
        &mut self,
        services: &[Arc<DeserializeGuard<OrdersService>>],
        is_failing: impl Fn(&TargetId) -> bool,
    ) -> HashMap<TargetId, Target> {
        let services: HashMap<_, _> = services
            .iter()
            .filter_map(|guarded| guarded.0.as_ref().ok())
            .filter(|service| service.metadata.deletion_timestamp.is_none())
            .map(|service| (resource_key(service), service))
            .collect();
        self.known.retain(|key, _| services.contains_key(key));
        let now = Instant::now();
        let stale = services.iter().filter(|(key, service)| {
            let Some(known) = self.known.get(*key) else { return true };
            let is_doubted = known.target.as_ref().is_some_and(|target| is_failing(&target.id));
            let until = if is_doubted { known.until.min(known.read + DOUBTED) } else { known.until };
            known.version != version(service) || now >= until
        });
        let round = tokio::time::Instant::now() + ROUND;
        let fetched: Vec<_> = stream::iter(stale)
            .map(|(key, service)| {
                let client = &self.client;
                async move { (key, version(service), target(client, service, key, round).await) }
            })
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await;
        for (key, version, result) in fetched {
            let known = Known::after(self.known.remove(key), version, result, key);
            self.known.insert(key.clone(), known);
        }
        merge(self.known.values().filter_map(|known| known.target.clone()))
    }

    /// Where the orders of a resource (namespace/name) are, or why that cannot be told.
    pub fn target_of(&self, resource: &str) -> Option<Result<&TargetId, &str>> {
        let known = self.known.get(resource)?;
        Some(match (&known.target, &known.problem) {
            (Some(target), _) => Ok(&target.id),
            (None, problem) => Err(problem.as_deref().unwrap_or_default()),
        })
    }
}

async fn target(
    client: &Client,
    service: &OrdersService,
    key: &str,
    round: tokio::time::Instant,
) -> Result<Target, String> {
    let namespace = service.namespace().unwrap_or_default();
    let reference = &service.spec.database.uri_secret_ref;
    let secrets = Api::<Secret>::namespaced(client.clone(), &namespace);
    let deadline = round.min(tokio::time::Instant::now() + CALL_TIMEOUT);
    let secret = tokio::time::timeout_at(deadline, secrets.get_opt(&reference.name))
        .await
        .map_err(|_| "the API server did not answer in time".to_owned())?
        .map_err(|error| format!("cannot read Secret {:?}: {error}", reference.name))?
        .ok_or_else(|| format!("Secret {:?} does not exist in namespace {namespace:?}", reference.name))?;
    let value = secret
        .data
        .as_ref()
        .and_then(|data| data.get(&reference.key))
        .ok_or_else(|| format!("Secret {:?} has no key {:?}", reference.name, reference.key))?;
    let uri = std::str::from_utf8(&value.0)
        .map_err(|_| format!("key {:?} of Secret {:?} is not text", reference.key, reference.name))?
        .trim()
        .to_owned();
    let id = ConnectOptions {
        uri: &uri,
        database: service.spec.database.name.as_deref(),
        namespace: Some(&namespace),
    }
    .target()
    .map_err(|error| format!("key {:?} of Secret {:?}: {error}", reference.key, reference.name))?;
    let expiration = &service.spec.expiration;
    Ok(Target {
        id,
        uri,
        namespace: Some(namespace),
        grace: Duration::from_secs(u64::try_from(expiration.payment_grace_seconds).unwrap_or(0)),
        max_per_second: expiration.max_per_second.and_then(|most| u32::try_from(most).ok()),
        suspended: expiration.suspend,
        resources: vec![key.to_owned()],
    })
}
