//! Step 1: reads what the spec refers to. The only step that reads objects of others.

use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::{api::apps::v1::Deployment, apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use kube::Api;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::{
    controller::{
        api_server::RequestError,
        children::{kind::ChildKind, observed::Observation, owner::Owner},
        claims::{claimed::Verdicts, controllers::IngressController, requested::ingress_class},
        context::Context,
        object_key::ObjectKey,
        problem::Problem,
        secrets::{
            references::{SecretUse, ValueHashes},
            refresh::{RETRY_INTERVAL, requeue_users},
        },
    },
    crd::{
        API_CONTAINER, ConditionType, IngressSpec, OrdersService, Reason, SecretField, find_condition,
        is_true,
    },
    routing::EntryPoint,
    runtime::hex,
};

/// What the spec refers to, as it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dereferenced {
    /// Changes when a referenced value does, so that the pods are rolled; none when nothing was read.
    pub secrets_checksum: Option<String>,
    /// Secrets and keys that do not exist, and the API that routes need.
    pub missing: Vec<Problem>,
    /// The IngressClass that the spec names, if it does not exist.
    pub missing_class: Option<String>,
    /// Whether the spec names no class, and the cluster has no default.
    pub no_default_class: bool,
    /// The ingress controller of the Ingress, if that is known.
    pub controller: Option<IngressController>,
    /// The Secret of the certificate, if it does not exist.
    pub missing_certificate: Option<String>,
    /// Services that routes go to and that do not exist.
    pub missing_services: Vec<String>,
    /// Which of the requested routes other objects hold.
    pub verdicts: Verdicts,
    /// Whether this cluster assigns the users of pods, as the operator was told.
    pub user_from_cluster: bool,
    /// Whether Traefik has its option `safeNaming`, as the operator was told.
    pub traefik_safe_naming: bool,
}

/// The image of the Deployment, where nothing else says which one a resource has that names none.
///
/// # Errors
/// When the API server does not answer, or refuses.
pub async fn deployed_image(
    context: &Context,
    service: &OrdersService,
) -> Result<Option<String>, RequestError> {
    let owner = Owner::from_metadata(&service.metadata);
    let is_ours = || {
        let observed = context.observed.get(ChildKind::Deployment, &owner.key);
        matches!(observed, Observation::Present(child) if *child.owner == owner && !child.is_deleting)
    };
    if !context.upgrades.asks_for_the_deployed(service) || !is_ours() {
        return Ok(None);
    }
    let deployments = Api::<Deployment>::namespaced(context.api.client.clone(), owner.key.namespace());
    let kind = ChildKind::Deployment.as_str();
    let deployment = context.api.read(kind, "get", deployments.get_opt(owner.key.name())).await?;
    let pods = deployment.and_then(|deployment| deployment.spec?.template.spec);
    let containers = pods.map(|pods| pods.containers).unwrap_or_default();
    Ok(containers.into_iter().find(|container| container.name == API_CONTAINER).and_then(|of| of.image))
}

/// Finds the Secrets and the IngressClass that `service` refers to, and which of its routes other objects hold.
///
/// # Errors
/// When the API server does not answer, or refuses. Something that is missing is no error.
pub async fn dereference(context: &Context, service: &OrdersService) -> Result<Dereferenced, RequestError> {
    let started = Instant::now();
    let since = max_age(service).and_then(|age| started.checked_sub(age));
    let mut found = Dereferenced {
        user_from_cluster: context.user_from_cluster,
        traefik_safe_naming: context.traefik_safe_naming,
        ..Dereferenced::default()
    };
    find_values(context, service, since, &mut found).await?;
    let key = ObjectKey::of(&service.metadata);
    context.known_services.forget(&key);
    if let Some(name) = &service.spec.service_name {
        // Where another has that name, it can be ours once that is gone.
        context.known_services.tell(&key, name);
    }
    if let Some(ingress) = &service.spec.ingress {
        find_for_ingress(context, service, ingress, &mut found);
        if let Some(certificate) = ingress.tls.as_ref().map(|tls| &tls.secret_name) {
            // One that is missing is always read again: whoever issues it does so at any moment after the Ingress is there.
            let exists = has_certificate(context, service, certificate, since).await?
                || has_certificate(context, service, certificate, Some(started)).await?;
            found.missing_certificate = (!exists).then(|| certificate.clone());
        }
    }
    found.verdicts = context.claims.judge(service);
    Ok(found)
}

/// Finds the values that the pods get, as copies of the Secrets have them that were read at `since` or later.
async fn find_values(
    context: &Context,
    service: &OrdersService,
    since: Option<Instant>,
    found: &mut Dereferenced,
) -> Result<(), RequestError> {
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let (api, secrets) = (&context.api, &context.secrets);
    let values = values_of(service);
    let copies = join_all(values.iter().map(|(_, name, _)| {
        let secret = ObjectKey::new(namespace, name);
        async move { secrets.value_hashes(api, &secret, since).await }
    }))
    .await;
    for (copy, (_, name, _)) in copies.iter().zip(&values) {
        if copy.as_ref().is_ok_and(|copy| copy.changed) {
            requeue_others(context, service, SecretUse::Value, name);
        }
    }
    let mut checksum = Sha256::new();
    for (copy, (field, name, key)) in copies.into_iter().zip(values) {
        match look_up(copy?.value.as_ref(), namespace, field, name, key) {
            Ok(hash) => checksum.update(hash),
            Err(problem) => found.missing.push(problem),
        }
    }
    found.secrets_checksum = Some(hex(checksum.finalize().iter().take(16)));
    Ok(())
}

/// Finds the class of the Ingress, what its controller needs, and the Services of its routes.
fn find_for_ingress(
    context: &Context,
    service: &OrdersService,
    ingress: &IngressSpec,
    found: &mut Dereferenced,
) {
    let class = ingress.class_name.clone();
    found.missing_class = class.filter(|class| context.claims.has_class(class) == Some(false));
    if let EntryPoint::Class(class) = ingress_class(ingress) {
        found.controller = context.claims.controller_of(class.as_deref());
    }
    let strips = ingress.routes.iter().any(|route| route.strip_prefix);
    if strips && found.controller == Some(IngressController::Traefik) && !context.middlewares.is_served() {
        found.missing.push(no_middlewares());
    }
    // A class in the annotation need not exist as an object.
    found.no_default_class = ingress_class(ingress) == EntryPoint::Class(None)
        && context.claims.has_default_class() == Some(false);
    let backends = ingress.routes.iter().map(|route| &route.service);
    let backends = backends.chain(ingress.client.iter().map(|client| &client.service));
    // Its own Service is made together with the routes to it.
    let own = service.metadata.name.as_ref();
    let others = backends.filter(|name| Some(*name) != own).map(String::as_str);
    found.missing_services = context.known_services.missing(&ObjectKey::of(&service.metadata), others);
}

/// Whether there is a Secret with the certificate of the hosts, as read at `since` or later.
async fn has_certificate(
    context: &Context,
    service: &OrdersService,
    name: &str,
    since: Option<Instant>,
) -> Result<bool, RequestError> {
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let copy = context.secrets.exists(&context.api, &ObjectKey::new(namespace, name), since).await?;
    if copy.changed {
        requeue_others(context, service, SecretUse::Certificate, name);
    }
    Ok(copy.value)
}

/// Others that refer to the same Secret need not find out by themselves that it has changed. They are requeued at once, since
/// what follows may fail, and then the change is not seen a second time.
fn requeue_others(context: &Context, service: &OrdersService, usage: SecretUse, secret: &str) {
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let itself = service.metadata.uid.as_deref();
    requeue_users(&context.services, &context.trigger, usage, &ObjectKey::new(namespace, secret), itself);
}

/// There is nothing by which Traefik could take prefixes off.
fn no_middlewares() -> Problem {
    Problem::new(
        Reason::TraefikApiMissing,
        "spec.ingress has routes with stripPrefix: true, which Traefik takes off by a Middleware, and this cluster has none \
         (Middleware of traefik.io/v1alpha1): install the CRDs of Traefik, switch its provider kubernetesCRD on, and give Traefik \
         the rights for it, all of which its Helm chart does (this operator need not be restarted); or have the Services serve \
         their paths under the prefix, and remove stripPrefix. Nothing is created, changed or deleted until then",
    )
}

/// The values that the pods get: by which field, the name of the Secret, and the key.
fn values_of(service: &OrdersService) -> Vec<(SecretField, &str, &str)> {
    let refs = service.spec.secret_refs();
    refs.flat_map(|of| of.keys().map(move |key| (of.field, of.name, key))).collect()
}

/// How old the copies of the Secrets may be, where that is less than usual.
fn max_age(service: &OrdersService) -> Option<Duration> {
    let status = service.status.as_ref();
    let reconciled = status.and_then(|status| find_condition(&status.conditions, ConditionType::Reconciled));
    let is_current = status.and_then(|status| status.observed_generation) == service.metadata.generation;
    if !is_current || !reconciled.is_some_and(is_true) {
        // Whoever changed the spec may have changed the Secret a moment before; or a Secret was missing.
        return Some(Duration::ZERO);
    }
    status.and_then(|status| may_need_another_value_since(&status.conditions)).map(|_| RETRY_INTERVAL / 2)
}

/// Since when something has been amiss that another value in a Secret may mend: pods that do not serve, or a database or a
/// broker that is not reached. Of several, the one that came last.
pub fn may_need_another_value_since(conditions: &[Condition]) -> Option<Timestamp> {
    [ConditionType::Available, ConditionType::DatabaseReady, ConditionType::EventsFlowing]
        .into_iter()
        .filter_map(|kind| find_condition(conditions, kind))
        .filter(|condition| !is_true(condition))
        .map(|condition| condition.last_transition_time.0)
        .max()
}

/// The hash of the value under `key`.
fn look_up<'a>(
    secret: Option<&'a ValueHashes>,
    namespace: &str,
    field: SecretField,
    name: &str,
    key: &str,
) -> Result<&'a [u8; 32], Problem> {
    let (field, what) = (field.path(), field.what());
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
        // Whoever may read a status need not be allowed to read Secrets, so it does not tell which keys there are.
        Problem::new(
            Reason::SecretKeyMissing,
            format!(
                "Secret {name:?} in namespace {namespace:?} has no value under the key {key:?}, which {field} names: name a \
                 key that it has (kubectl describe secret {name} lists them), or add {what} under {key:?}"
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{ByteString, api::core::v1::Secret};

    use super::*;
    use crate::controller::secrets::references::hashes;

    fn secret(name: &str, uid: &str) -> ValueHashes {
        let data =
            [("OTHER".to_owned(), ByteString(b"x".to_vec())), ("EMPTY".to_owned(), ByteString(vec![]))];
        let mut secret = Secret { data: Some(data.into()), ..Secret::default() };
        (secret.metadata.name, secret.metadata.uid) = (Some(name.into()), Some(uid.into()));
        hashes(&secret)
    }

    #[test]
    fn a_missing_secret_and_a_missing_key_have_different_reasons() {
        let absent = look_up(None, "shop", SecretField::JwtKey, "jwt", "JWT_KEY").unwrap_err();
        assert_eq!(absent.reason, Reason::SecretNotFound);
        let secret = secret("jwt", "u");
        let other = look_up(Some(&secret), "shop", SecretField::JwtKey, "jwt", "JWT_KEY").unwrap_err();
        assert_eq!(other.reason, Reason::SecretKeyMissing);
        assert!(other.message.contains("kubectl describe secret jwt"), "{}", other.message);
        assert!(!other.message.contains("OTHER") && !other.message.contains("EMPTY"), "{}", other.message);
        assert!(look_up(Some(&secret), "shop", SecretField::JwtKey, "jwt", "EMPTY").is_err());
        assert!(look_up(Some(&secret), "shop", SecretField::JwtKey, "jwt", "OTHER").is_ok());
    }

    #[test]
    fn what_another_value_may_mend_is_amiss_since_the_last_of_it_came() {
        let condition = |kind: ConditionType, status: &str, since: &str| -> Condition {
            let condition = serde_json::json!({
                "type": kind.as_str(), "status": status, "reason": "x", "message": "", "lastTransitionTime": since
            });
            serde_json::from_value(condition).unwrap()
        };
        use ConditionType::{Available, DatabaseReady, Reconciled};
        let [first, second, third] = ["2026-01-01T00:00:01Z", "2026-01-01T00:00:02Z", "2026-01-01T00:00:03Z"];
        let since = |conditions: &[Condition]| {
            may_need_another_value_since(conditions).map(|since| since.to_string())
        };
        let (down, unreached) =
            (condition(Available, "False", first), condition(DatabaseReady, "False", second));
        assert_eq!(since(&[]), None);
        assert_eq!(
            since(&[condition(Available, "True", third), condition(Reconciled, "False", third)]),
            None
        );
        assert_eq!(since(&[down.clone(), condition(DatabaseReady, "True", third)]).as_deref(), Some(first));
        assert_eq!(since(&[down, unreached]).as_deref(), Some(second));
    }

    #[test]
    fn the_same_value_in_another_secret_has_another_hash_and_in_the_same_one_made_anew_the_same() {
        assert_eq!(secret("jwt", "u"), secret("jwt", "v"));
        assert_ne!(secret("jwt", "u")["OTHER"], secret("mongo", "u")["OTHER"]);
    }
}
