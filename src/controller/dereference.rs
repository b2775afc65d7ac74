//! Step 1: fetch what the spec refers to. The only step that reads other people's objects.

use k8s_openapi::{
    ByteString,
    api::{core::v1::Secret, networking::v1::IngressClass},
};
use kube::{Api, Client};
use sha2::{Digest, Sha256};

use super::problem::{CallError, Problem, call};
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
}

/// Fetches the Secrets and the IngressClass that `service` refers to.
///
/// # Errors
/// When the API server does not answer, or refuses; something that is missing is no error.
pub async fn dereference(
    client: &Client,
    service: &OrdersService,
    namespace: &str,
) -> Result<Dereferenced, CallError> {
    let secrets = Api::<Secret>::namespaced(client.clone(), namespace);
    let (jwt, uri) = (&service.spec.auth.jwt_secret_ref, &service.spec.database.uri_secret_ref);
    let mut found = Dereferenced::default();
    let mut checksum = Sha256::new();
    for (field, name, key) in
        [("spec.auth.jwtSecretRef", &jwt.name, &jwt.key), ("spec.database.uriSecretRef", &uri.name, &uri.key)]
    {
        let secret = call(secrets.get_opt(name)).await?;
        match look_up(secret.as_ref(), namespace, field, name, key) {
            Ok((uid, value)) => {
                // The Secret's UID salts the checksum: an annotation that more people may read than
                // the Secret must not let them guess a weak value.
                for part in [uid.as_bytes(), &value.0] {
                    checksum.update((part.len() as u64).to_le_bytes());
                    checksum.update(part);
                }
            }
            Err(problem) => found.missing.push(problem),
        }
    }
    found.secrets_checksum =
        Some(checksum.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect());

    if let Some(class) = service.spec.ingress.as_ref().and_then(|ingress| ingress.class_name.as_ref()) {
        let classes = Api::<IngressClass>::all(client.clone());
        match call(classes.get_metadata_opt(class)).await {
            Ok(None) => found.missing_class = Some(class.clone()),
            // The only right that reaches beyond the namespaces; without it, the class is taken on trust.
            Ok(Some(_)) | Err(CallError::Forbidden(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The UID of the Secret and the value under `key`.
fn look_up<'a>(
    secret: Option<&'a Secret>,
    namespace: &str,
    field: &str,
    name: &str,
    key: &str,
) -> Result<(&'a str, &'a ByteString), Problem> {
    let secret = secret.ok_or_else(|| {
        Problem::new(
            Reason::SecretNotFound,
            format!(
                "{field} names Secret {name:?}, which is not in namespace {namespace:?}: create it with a key {key:?}"
            ),
        )
    })?;
    let data = secret.data.as_ref();
    let value = data.and_then(|data| data.get(key)).filter(|value| !value.0.is_empty()).ok_or_else(|| {
        let keys: Vec<_> = data.map(|data| data.keys().map(String::as_str).collect()).unwrap_or_default();
        Problem::new(
            Reason::SecretKeyMissing,
            format!(
                "{field} names key {key:?} of Secret {name:?}, which is missing or empty there: add it, or name \
                 one of the keys that it has: [{}]",
                keys.join(", ")
            ),
        )
    })?;
    Ok((secret.metadata.uid.as_deref().unwrap_or_default(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_secret_and_a_missing_key_are_told_apart() {
        let absent = look_up(None, "shop", "spec.auth.jwtSecretRef", "jwt", "JWT_KEY").unwrap_err();
        assert_eq!(absent.reason, Reason::SecretNotFound);
        let secret = Secret {
            data: Some(
                [("OTHER".to_owned(), ByteString(b"x".to_vec())), ("EMPTY".to_owned(), ByteString(vec![]))]
                    .into(),
            ),
            ..Secret::default()
        };
        let other = look_up(Some(&secret), "shop", "spec.auth.jwtSecretRef", "jwt", "JWT_KEY").unwrap_err();
        assert_eq!(other.reason, Reason::SecretKeyMissing);
        assert!(other.message.contains("[EMPTY, OTHER]"), "{}", other.message);
        assert!(look_up(Some(&secret), "shop", "f", "jwt", "EMPTY").is_err());
        assert_eq!(look_up(Some(&secret), "shop", "f", "jwt", "OTHER").unwrap().1.0, b"x");
    }
}
