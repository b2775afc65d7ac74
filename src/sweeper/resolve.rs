//! From OrdersServices to targets: fetches the Secrets that they name.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, ResourceExt, core::DeserializeGuard};

use super::targets::{Target, merge};
use crate::{
    crd::OrdersService,
    store::{ConnectOptions, TargetId},
};

/// The longest that one call to the API server may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How old the copy of a Secret may get; spread by a quarter, so that not all are read at once.
const FRESH: Duration = Duration::from_secs(300);

/// How soon a resource is tried again whose Secret is missing or wrong.
const RETRY: Duration = Duration::from_secs(5);

/// Works out targets, and remembers what does not need to be asked again.
pub struct Resolver {
    client: Client,
    known: HashMap<String, Known>,
}

/// What is known of one resource.
struct Known {
    uid_and_generation: (Option<String>, Option<i64>),
    until: Instant,
    result: Result<Target, String>,
}

impl Resolver {
    /// A resolver that knows nothing yet.
    pub fn new(client: Client) -> Self {
        Self { client, known: HashMap::new() }
    }

    /// The targets of `services`. A resource that cannot be resolved keeps its last target, is
    /// logged, and does not concern the others.
    pub async fn resolve(
        &mut self,
        services: &[Arc<DeserializeGuard<OrdersService>>],
    ) -> HashMap<TargetId, Target> {
        let services: Vec<_> = services
            .iter()
            .filter_map(|guarded| guarded.0.as_ref().ok())
            .filter(|service| service.metadata.deletion_timestamp.is_none())
            .map(|service| {
                (format!("{}/{}", service.namespace().unwrap_or_default(), service.name_any()), service)
            })
            .collect();
        self.known.retain(|key, _| services.iter().any(|(service, _)| service == key));
        for (key, service) in &services {
            let now = Instant::now();
            let version = (service.uid(), service.metadata.generation);
            let known = self.known.get(key);
            if known.is_some_and(|known| known.uid_and_generation == version && now < known.until) {
                continue;
            }
            let mut result = target(&self.client, service, key).await;
            let until =
                now + if result.is_ok() { FRESH.mul_f64(0.75 + 0.25 * fastrand::f64()) } else { RETRY };
            if let Err(why) = &result {
                let before = known.map(|known| &known.result);
                if before.and_then(|before| before.as_ref().err()) != Some(why) {
                    tracing::warn!(resource = key, why, "cannot tell this resource's database");
                }
                // The database was there a moment ago, and its orders expire still.
                if let Some(Ok(last)) = before {
                    result = Ok(last.clone());
                }
            }
            self.known.insert(key.clone(), Known { uid_and_generation: version, until, result });
        }
        merge(self.known.values().filter_map(|known| known.result.as_ref().ok().cloned()))
    }
}

async fn target(client: &Client, service: &OrdersService, key: &str) -> Result<Target, String> {
    let namespace = service.namespace().unwrap_or_default();
    let reference = &service.spec.database.uri_secret_ref;
    let secrets = Api::<Secret>::namespaced(client.clone(), &namespace);
    let secret = tokio::time::timeout(CALL_TIMEOUT, secrets.get_opt(&reference.name))
        .await
        .map_err(|_| format!("the API server did not answer within {} s", CALL_TIMEOUT.as_secs()))?
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
        namespace,
        grace: Duration::from_secs(u64::try_from(expiration.payment_grace_seconds).unwrap_or(0)),
        suspended: expiration.suspend,
        resources: vec![key.to_owned()],
    })
}
