//! Which Secrets an OrdersService refers to, and reading them.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::{
    controller::{
        api_server::{ApiServer, RequestError},
        object_key::ObjectKey,
    },
    crd::OrdersService,
    runtime::secret_cache::{Cached, SecretCache},
};

/// What an OrdersService uses a Secret for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretUse {
    /// A value that the pods get.
    Value,
    /// The certificate of the hosts.
    Certificate,
}

/// The names of the Secrets that `service` uses for this.
pub fn secrets_of(service: &OrdersService, usage: SecretUse) -> impl Iterator<Item = &str> {
    let spec = &service.spec;
    let certificate = spec.ingress.as_ref().and_then(|ingress| ingress.tls.as_ref());
    let certificate = certificate.map(|tls| tls.secret_name.as_str());
    let values = spec.secret_refs().map(|of| of.name).filter(move |_| usage == SecretUse::Value);
    values.chain(certificate.filter(|_| usage == SecretUse::Certificate))
}

/// A hash of each value of a Secret, by its key; none for an empty value.
pub type ValueHashes = BTreeMap<String, Option<[u8; 32]>>;

/// Copies of the Secrets that OrdersServices refer to.
pub struct Secrets {
    /// Those that are used for a value; none for one that does not exist.
    pub values: SecretCache<Option<ValueHashes>>,
    /// Those that are used for a certificate: whether they exist.
    pub certificates: SecretCache<bool>,
}

impl Secrets {
    /// An empty cache. A copy is fresh for `max_age`.
    pub fn new(max_age: Duration) -> Self {
        Self { values: SecretCache::new(max_age), certificates: SecretCache::new(max_age) }
    }

    /// The hashes of a Secret's values, read at `since` or later if that is given; none if the Secret does not exist.
    ///
    /// # Errors
    /// When the API server does not answer, or refuses.
    pub async fn value_hashes(
        &self,
        api_server: &ApiServer,
        key: &ObjectKey,
        since: Option<Instant>,
    ) -> Result<Cached<Option<ValueHashes>>, RequestError> {
        let read = async {
            let api = Api::<Secret>::namespaced(api_server.client.clone(), key.namespace());
            let secret = api_server.read("Secret", "get", api.get_opt(key.name())).await?;
            Ok(secret.as_ref().map(hashes))
        };
        self.values.get(key.namespace(), key.name(), since, read).await
    }

    /// Whether a Secret exists, as read at `since` or later if that is given.
    ///
    /// # Errors
    /// When the API server does not answer, or refuses.
    pub async fn exists(
        &self,
        api_server: &ApiServer,
        key: &ObjectKey,
        since: Option<Instant>,
    ) -> Result<Cached<bool>, RequestError> {
        let read = async {
            let api = Api::<Secret>::namespaced(api_server.client.clone(), key.namespace());
            Ok(api_server.read("Secret", "get", api.get_metadata_opt(key.name())).await?.is_some())
        };
        self.certificates.get(key.namespace(), key.name(), since, read).await
    }
}

/// Hashes the values of a Secret, salted with its name. Not with its UID: a Secret that is deleted and made anew with the
/// same values must roll no pod. What ends up in an annotation is one hash over those of all values that the pods get, so
/// whoever may read that, but not the Secrets, would have to guess all of them at once.
pub(crate) fn hashes(secret: &Secret) -> ValueHashes {
    let [namespace, name] = [&secret.metadata.namespace, &secret.metadata.name]
        .map(|text| text.as_deref().unwrap_or_default().as_bytes());
    let hash = |value: &[u8]| {
        let mut hash = Sha256::new();
        for part in [namespace, name, value] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    };
    let values = secret.data.iter().flatten();
    values.map(|(key, value)| (key.clone(), (!value.0.is_empty()).then(|| hash(&value.0)))).collect()
}
