//! Step 1: fetch what the spec refers to. The only step that reads other people's objects.
//!
//! Each Secret is read once for all resources that name it, and again when the copy is old. Of its values
//! only hashes are kept. What others have of the routes, and which IngressClasses there are, the watches know.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use sha2::{Digest, Sha256};

use super::{
    cache::{Cache, Found},
    claims::{Claims, Verdicts},
    problem::{CallError, Cluster, Problem},
};
use crate::crd::{OrdersService, Reason};

/// What the spec refers to, as it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dereferenced {
    /// Changes when a referenced value does, so that the pods are rolled; none when nothing was read.
    pub secrets_checksum: Option<String>,
    /// Secrets and keys that are not there.
    pub missing: Vec<Problem>,
    /// The IngressClass that was asked for, when it does not exist.
    pub missing_class: Option<String>,
    /// The Secret of the certificate, when it does not exist.
    pub missing_certificate: Option<String>,
    /// What others have of the routes that were asked for.
    pub verdicts: Verdicts,
}

/// A value that the spec has in a Secret.
#[derive(Clone, Copy)]
struct Referred {
    field: &'static str,
    what: &'static str,
}

const JWT: Referred = Referred {
    field: "spec.auth.jwtSecretRef",
    what: "the value that your auth service signs sessions with",
};

const URI: Referred =
    Referred { field: "spec.database.uriSecretRef", what: "the connection string of the database" };

/// A hash of each of a Secret's values by its key; none for an empty one.
pub type Hashes = BTreeMap<String, Option<[u8; 32]>>;

/// What resources refer to, by namespace and name; none for what is not there.
pub struct References {
    /// Those of which the values count.
    pub secrets: Cache<Option<Hashes>>,
    /// Those that need only be there.
    pub certificates: Cache<bool>,
}

/// What a Secret is named for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference {
    /// For a value that the pods get.
    Value,
    /// For the certificate of the hosts.
    Certificate,
}

/// The Secrets that `service` names for this.
pub fn named(service: &OrdersService, reference: Reference) -> impl Iterator<Item = &str> {
    let spec = &service.spec;
    let names = match reference {
        Reference::Value => [Some(&spec.auth.jwt_secret_ref.name), Some(&spec.database.uri_secret_ref.name)],
        Reference::Certificate => {
            let tls = spec.ingress.as_ref().and_then(|ingress| ingress.tls.as_ref());
            [tls.map(|tls| &tls.secret_name), None]
        }
    };
    names.into_iter().flatten().map(String::as_str)
}

impl References {
    /// Nothing is known yet; a copy counts for `fresh`.
    pub fn new(fresh: Duration) -> Self {
        Self { secrets: Cache::new(fresh), certificates: Cache::new(fresh) }
    }

    /// The hashes of a Secret's values, read at `since` or later; none when it is not there.
    ///
    /// # Errors
    /// When the API server does not answer, or refuses.
    pub async fn secret(
        &self,
        cluster: &Cluster,
        namespace: &str,
        name: &str,
        since: Option<Instant>,
    ) -> Result<Found<Option<Hashes>>, CallError> {
        let read = async {
            let api = Api::<Secret>::namespaced(cluster.client.clone(), namespace);
            let secret = cluster.read("Secret", "get", api.get_opt(name)).await?;
            Ok(secret.as_ref().map(hashes))
        };
        self.secrets.get(namespace, name, since, read).await
    }

    /// Whether a Secret was there at `since` or later.
    ///
    /// # Errors
    /// When the API server does not answer, or refuses.
    pub async fn certificate(
        &self,
        cluster: &Cluster,
        namespace: &str,
        name: &str,
        since: Option<Instant>,
    ) -> Result<Found<bool>, CallError> {
        let read = async {
            let api = Api::<Secret>::namespaced(cluster.client.clone(), namespace);
            Ok(cluster.read("Secret", "get", api.get_metadata_opt(name)).await?.is_some())
        };
        self.certificates.get(namespace, name, since, read).await
    }
}

/// Finds the Secrets and the IngressClass that `service` refers to, and what others have of its routes;
/// `look_closely` where an old copy will not do. Tells at once, since what follows may fail, of each Secret that is
/// `changed` since another resource, or this one, last looked.
///
/// # Errors
/// When the API server does not answer, or refuses; something that is missing is no error.
pub async fn dereference(
    cluster: &Cluster,
    references: &References,
    claims: &Claims,
    service: &OrdersService,
    namespace: &str,
    look_closely: bool,
    changed: impl Fn(Reference, &str) + Send,
) -> Result<Dereferenced, CallError> {
    // Whoever changed the spec may have changed the Secret a moment before.
    let begun = Instant::now();
    let since = look_closely.then_some(begun);
    let (jwt, uri) = (&service.spec.auth.jwt_secret_ref, &service.spec.database.uri_secret_ref);
    let mut found = Dereferenced::default();
    let mut checksum = Sha256::new();
    let secrets = futures::join!(
        references.secret(cluster, namespace, &jwt.name, since),
        references.secret(cluster, namespace, &uri.name, since),
    );
    for (secret, name) in [(&secrets.0, &jwt.name), (&secrets.1, &uri.name)] {
        if secret.as_ref().is_ok_and(|secret| secret.changed) {
            changed(Reference::Value, name);
        }
    }
    for (secret, referred, name, key) in
        [(secrets.0, JWT, &jwt.name, &jwt.key), (secrets.1, URI, &uri.name, &uri.key)]
    {
        let secret = secret?;
        match look_up(secret.value.as_ref(), namespace, referred, name, key) {
            Ok(hash) => checksum.update(hash),
            Err(problem) => found.missing.push(problem),
        }
    }
    found.secrets_checksum =
        Some(checksum.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect());

    if let Some(ingress) = &service.spec.ingress {
        let class = ingress.class_name.clone();
        found.missing_class = class.filter(|class| claims.has_class(class) == Some(false));
        if let Some(certificate) = ingress.tls.as_ref().map(|tls| &tls.secret_name) {
            let look = async |since| {
                let exists = references.certificate(cluster, namespace, certificate, since).await?;
                if exists.changed {
                    changed(Reference::Certificate, certificate);
                }
                Ok::<_, CallError>(exists.value)
            };
            // Where it is not, it is made at any moment, by those who saw the Ingress.
            let exists = look(since).await? || look(Some(begun)).await?;
            found.missing_certificate = (!exists).then(|| certificate.clone());
        }
    }
    found.verdicts = claims.judge(service);
    Ok(found)
}

/// The Secret's UID salts the hashes: an annotation that is made from them, and that more people may
/// read than the Secret, must not let them guess a weak value.
fn hashes(secret: &Secret) -> Hashes {
    let uid = secret.metadata.uid.as_deref().unwrap_or_default();
    let hash = |value: &[u8]| {
        let mut hash = Sha256::new();
        for part in [uid.as_bytes(), value] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    };
    let values = secret.data.iter().flatten();
    values.map(|(key, value)| (key.clone(), (!value.0.is_empty()).then(|| hash(&value.0)))).collect()
}

/// The hash of the value under `key`.
fn look_up<'a>(
    secret: Option<&'a Hashes>,
    namespace: &str,
    Referred { field, what }: Referred,
    name: &str,
    key: &str,
) -> Result<&'a [u8; 32], Problem> {
    let secret = secret.ok_or_else(|| {
        Problem::new(
            Reason::SecretNotFound,
            format!(
                "{field} names Secret {name:?}, which is not in namespace {namespace:?}: correct the name, or create it with \
                 {what} under the key {key:?}"
            ),
        )
    })?;
    secret.get(key).and_then(Option::as_ref).ok_or_else(|| {
        let keys: Vec<_> = secret.keys().map(String::as_str).collect();
        Problem::new(
            Reason::SecretKeyMissing,
            format!(
                "Secret {name:?} in namespace {namespace:?} has no value under the key {key:?}, which {field} names: name a \
                 key that it has, of [{}], or add {what} under {key:?}",
                keys.join(", ")
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    fn secret(uid: &str) -> Hashes {
        let data =
            [("OTHER".to_owned(), ByteString(b"x".to_vec())), ("EMPTY".to_owned(), ByteString(vec![]))];
        let mut secret = Secret { data: Some(data.into()), ..Secret::default() };
        secret.metadata.uid = Some(uid.into());
        hashes(&secret)
    }

    #[test]
    fn a_missing_secret_and_a_missing_key_are_told_apart() {
        let absent = look_up(None, "shop", JWT, "jwt", "JWT_KEY").unwrap_err();
        assert_eq!(absent.reason, Reason::SecretNotFound);
        let secret = secret("u");
        let other = look_up(Some(&secret), "shop", JWT, "jwt", "JWT_KEY").unwrap_err();
        assert_eq!(other.reason, Reason::SecretKeyMissing);
        assert!(other.message.contains("[EMPTY, OTHER]"), "{}", other.message);
        assert!(look_up(Some(&secret), "shop", JWT, "jwt", "EMPTY").is_err());
        assert!(look_up(Some(&secret), "shop", JWT, "jwt", "OTHER").is_ok());
    }

    #[test]
    fn the_same_value_in_another_secret_has_another_hash() {
        assert_eq!(secret("u"), secret("u"));
        assert_ne!(secret("u")["OTHER"], secret("v")["OTHER"]);
    }
}
