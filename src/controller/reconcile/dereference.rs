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
        resource_state::ResourceState,
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
    runtime::{hex, secret_cache::Cached},
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
    let shown = |state: &mut ResourceState| state.shown_since(service.metadata.generation);
    let shown = context.states.with(&Owner::from_metadata(&service.metadata), shown).flatten();
    let wanted = secrets_since(service, shown.map(Instant::from_std), started);
    let mut found = Dereferenced {
        user_from_cluster: context.user_from_cluster,
        traefik_safe_naming: context.traefik_safe_naming,
        ..Dereferenced::default()
    };
    find_values(context, service, wanted, started, &mut found).await?;
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
            let since = wanted.map(|wanted| wanted.at_the_latest);
            let exists = has_certificate(context, service, certificate, since).await?
                || has_certificate(context, service, certificate, Some(started)).await?;
            found.missing_certificate = (!exists).then(|| certificate.clone());
        }
    }
    found.verdicts = context.claims.judge(service);
    Ok(found)
}

/// Finds the values that the pods get, as copies of the Secrets have them that are as new as `wanted`.
async fn find_values(
    context: &Context,
    service: &OrdersService,
    wanted: Option<ReadSince>,
    started: Instant,
    found: &mut Dereferenced,
) -> Result<(), RequestError> {
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let values = values_of(service);
    let copies = values.iter().map(|(_, name, key)| copy_of(context, namespace, name, key, wanted));
    let copies = join_all(copies).await;
    for (copy, (_, name, _)) in copies.iter().zip(&values) {
        let Ok(copy) = copy else { continue };
        if copy.changed {
            requeue_others(context, service, SecretUse::Value, name);
        }
        if wanted.is_some_and(|wanted| copy.read < wanted.at_best) {
            context.secrets.values.expedite(namespace, name, started + RETRY_INTERVAL * 3 / 4);
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

/// A copy of a Secret that is as new as `wanted`, for the value under `key`.
async fn copy_of(
    context: &Context,
    namespace: &str,
    name: &str,
    key: &str,
    wanted: Option<ReadSince>,
) -> Result<Cached<Option<ValueHashes>>, RequestError> {
    let (api, secret) = (&context.api, ObjectKey::new(namespace, name));
    let read = |since| context.secrets.value_hashes(api, &secret, since);
    let copy = read(wanted.map(|wanted| wanted.at_the_latest)).await?;
    let has_value = copy.value.as_ref().is_some_and(|secret| value_hash(secret, key).is_some());
    match wanted {
        // What was missing may be there by now, and nobody should be told otherwise.
        Some(wanted) if !has_value && copy.read < wanted.at_best => read(Some(wanted.at_best)).await,
        _ => Ok(copy),
    }
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
        "spec.ingress has routes with stripPrefix: true, for which Traefik needs a Middleware, but this cluster \
         does not serve that kind (traefik.io/v1alpha1): install the CRDs of Traefik, enable its kubernetesCRD \
         provider and grant it the RBAC rules, all of which its Helm chart does (this operator need not be \
         restarted); or have the Services serve their paths with the prefix, and remove stripPrefix. Until then \
         nothing is created, changed or deleted",
    )
}

/// The values that the pods get: by which field, the name of the Secret, and the key.
fn values_of(service: &OrdersService) -> Vec<(SecretField, &str, &str)> {
    let refs = service.spec.secret_refs();
    refs.flat_map(|of| of.keys().map(move |key| (of.field, of.name, key))).collect()
}

/// How much older than the change of a spec the copies of the Secrets may be that are used for it. Where many resources share
/// a Secret and change one after the other, it is read this often, and not for each of them.
const SHARED_FOR: Duration = Duration::from_secs(2);

/// When Secrets must have been read for their copies to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ReadSince {
    /// A copy of before is not used.
    at_the_latest: Instant,
    /// A copy of before is used, and the Secret is read again soon: it may have changed in the meantime.
    at_best: Instant,
}

/// When Secrets must have been read, where their copies may not be as old as usual. `shown` is when the watch first showed this
/// generation of the spec.
fn secrets_since(service: &OrdersService, shown: Option<Instant>, now: Instant) -> Option<ReadSince> {
    // Now, at the worst.
    let before = |instant: Instant, age: Duration| instant.checked_sub(age).unwrap_or(instant);
    let since = |instant: Instant| ReadSince { at_the_latest: instant, at_best: instant };
    let recently = before(now, RETRY_INTERVAL / 2);
    let status = service.status.as_ref();
    if status.and_then(|status| status.observed_generation) != service.metadata.generation {
        // Whoever changed the spec may have changed a Secret a moment before. What was read since the change was seen has that,
        // for whichever resource it was read, and in whichever of the reconciles that a change takes.
        let shown = shown.unwrap_or(now).max(recently);
        return Some(ReadSince { at_the_latest: before(shown, SHARED_FOR), at_best: shown });
    }
    let conditions = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
    if !find_condition(conditions, ConditionType::Reconciled).is_some_and(is_true) {
        // A Secret may have been missing.
        return Some(since(now));
    }
    may_need_another_value_since(conditions).map(|_| since(recently))
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

/// The hash of the value under `key`, if it has one.
fn value_hash<'a>(secret: &'a ValueHashes, key: &str) -> Option<&'a [u8; 32]> {
    secret.get(key).and_then(Option::as_ref)
}

/// The same, and a problem that says what is missing.
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
    value_hash(secret, key).ok_or_else(|| {
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
    fn secrets_are_read_once_for_a_new_spec_and_anew_while_something_is_amiss() {
        let mut service = crate::controller::fixture::service(serde_json::json!({}));
        let now = Instant::now() + Duration::from_secs(60);
        let ago = |seconds: f64| now - Duration::from_secs_f64(seconds);
        let condition = |kind: &str, is_true: bool| {
            let status = if is_true { "True" } else { "False" };
            serde_json::json!({"type": kind, "status": status, "reason": "R", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z"})
        };
        let usual = None;
        for (observed, reconciled, available, shown, expected) in [
            // A new resource; a new spec; one of which the watch has shown nothing.
            (None, None, true, Some(1.0), Some((3.0, 1.0))),
            (Some(0), Some(true), true, Some(1.0), Some((3.0, 1.0))),
            (Some(0), Some(true), true, None, Some((2.0, 0.0))),
            // The reconcile does not come to an end.
            (Some(0), Some(true), true, Some(30.0), Some((9.5, 7.5))),
            (Some(1), Some(true), true, Some(1.0), usual),
            (Some(1), Some(true), false, Some(1.0), Some((7.5, 7.5))),
            (Some(1), Some(false), true, Some(1.0), Some((0.0, 0.0))),
            (Some(1), None, true, Some(1.0), Some((0.0, 0.0))),
        ] {
            let mut conditions = vec![condition("Available", available)];
            conditions.extend(reconciled.map(|reconciled| condition("Reconciled", reconciled)));
            let status = serde_json::json!({"observedGeneration": observed, "conditions": conditions});
            service.status = observed.map(|_| serde_json::from_value(status.clone()).unwrap());
            let since = secrets_since(&service, shown.map(ago), now);
            let expected = expected.map(|(at_the_latest, at_best): (f64, f64)| ReadSince {
                at_the_latest: ago(at_the_latest),
                at_best: ago(at_best),
            });
            assert_eq!(since, expected, "{status}, shown {shown:?} s ago");
        }
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
