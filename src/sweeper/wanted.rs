//! What the sweeper wants of the Secrets that an OrdersService names, and the target that follows from it: pure.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::ByteString;
use kube::ResourceExt;

use super::{
    health::DatabaseProblem,
    targets::{Target, TargetKey},
};
use crate::{
    crd::{DatabaseTls, EventsSpec, OrdersService, Reason},
    runtime::secret_cache::NamespacedName,
    store::{ClientTls, StoreError},
};

/// A Secret's values under the keys that resources name, none if there is no such Secret; or why it cannot be read.
pub type ReadSecret = Result<Option<Arc<BTreeMap<String, ByteString>>>, String>;

/// Secrets by namespace and name.
pub type ReadSecrets = HashMap<NamespacedName, ReadSecret>;

/// Why the target of a resource cannot be determined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unresolved {
    /// For the resource's status.
    pub problem: DatabaseProblem,
    /// For the log.
    pub detail: Option<String>,
}

/// The Secrets that a resource names, and the keys of each whose values are wanted.
pub fn secrets_of(service: &OrdersService) -> impl Iterator<Item = (NamespacedName, Vec<&str>)> {
    let namespace = service.namespace().unwrap_or_default();
    let refs = service.spec.database.secret_refs();
    refs.map(move |of| ((namespace.clone(), of.name.to_owned()), of.keys().collect()))
}

/// The target of a resource alone.
pub fn target(service: &OrdersService, resource: &str, secrets: &ReadSecrets) -> Result<Target, Unresolved> {
    let namespace = service.namespace().unwrap_or_default();
    let value = |name: &str, key: &str| value(secrets, &namespace, name, key);
    let (uri_ref, tls_ref) = (&service.spec.database.uri_secret_ref, service.spec.database.tls.as_ref());
    let uri = value(&uri_ref.name, &uri_ref.key)?;
    let uri = std::str::from_utf8(uri).map_err(|_| {
        unreadable(format!("key {:?} of Secret {:?} is not text", uri_ref.key, uri_ref.name), None)
    })?;
    let tls = tls_ref.map(|tls| {
        let ca = tls.ca_secret_ref.as_ref().map(|ca| value(&ca.name, &ca.key)).transpose()?;
        let certificate = tls.client_certificate_secret_ref.as_ref().map(|secret| {
            let part = |key| value(&secret.name, key);
            Ok::<_, Unresolved>((part(DatabaseTls::CERTIFICATE_KEY)?, part(DatabaseTls::PRIVATE_KEY_KEY)?))
        });
        ClientTls::from_pem(ca, certificate.transpose()?)
            .map_err(|error| refused("a Secret of spec.database.tls", &error))
    });
    let expiration = &service.spec.expiration;
    let mut target = Target {
        key: TargetKey { namespace: Some(namespace.clone()), id: Default::default() },
        uri: uri.trim().to_owned(),
        database: service.spec.database.name.clone(),
        tls: tls.transpose()?,
        grace: Duration::from_secs(u64::try_from(expiration.payment_grace_seconds).unwrap_or(0)),
        max_per_second: expiration.max_per_second.and_then(|most| u32::try_from(most).ok()),
        suspended: expiration.suspend,
        events: service.spec.events.iter().map(EventsSpec::mark).collect(),
        warnings: Vec::new(),
        resources: vec![resource.to_owned()],
    };
    let options = target.connect_options();
    let found = options.target().and_then(|id| Ok((id, options.warnings()?)));
    let (id, warnings) = found
        .map_err(|error| refused(&format!("key {:?} of Secret {:?}", uri_ref.key, uri_ref.name), &error))?;
    target.key.id = id;
    target.warnings = warnings;
    Ok(target)
}

/// The value of a key of a Secret.
fn value<'a>(
    secrets: &'a ReadSecrets,
    namespace: &str,
    name: &str,
    key: &str,
) -> Result<&'a [u8], Unresolved> {
    match secrets.get(&(namespace.to_owned(), name.to_owned())) {
        Some(Ok(Some(values))) => values
            .get(key)
            .map(|value| value.0.as_slice())
            .ok_or_else(|| unreadable(format!("Secret {name:?} has no key {key:?}"), None)),
        Some(Ok(None)) => {
            Err(unreadable(format!("Secret {name:?} does not exist in namespace {namespace:?}"), None))
        }
        other => {
            let detail = other.and_then(|read| read.as_ref().err()).cloned();
            Err(unreadable(format!("Secret {name:?} cannot be read from the API server"), detail))
        }
    }
}

fn unreadable(message: String, detail: Option<String>) -> Unresolved {
    Unresolved { problem: DatabaseProblem { reason: Reason::DatabaseUnreachable, message }, detail }
}

fn refused(what: &str, error: &StoreError) -> Unresolved {
    let problem = DatabaseProblem::from(error);
    let message = format!("{what}: {}", problem.message);
    Unresolved { problem: DatabaseProblem { message, ..problem }, detail: None }
}
