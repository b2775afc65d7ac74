//! Step 2, pure: the spec as a user wrote it becomes one that can be built, or every problem is named.
//!
//! The API server has checked most of this at admission, but the object may have been stored under
//! an older schema, so nothing is taken on trust.

mod pods;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::{apis::meta::v1::OwnerReference, util::intstr::IntOrString};
use kube::{Resource, ResourceExt};

pub use self::pods::{Replicas, ValidatedPods};
use super::{dereference::Dereferenced, problem::Problem};
use crate::{
    crd::{ImagePullPolicy, IngressSpec, OrdersService, Reason},
    routing::{Backend, CanonicalHost, CanonicalPath, RouteError, RouteTable},
};

/// The port of the pods' probes and metrics.
pub const ADMIN_PORT: i32 = 8081;

/// A spec that passed validation: everything that the children are built from.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedOrdersService {
    /// Name of the resource and of all its children.
    pub name: String,
    /// Namespace of the resource and of all its children.
    pub namespace: String,
    /// Reference that makes the resource the owner of a child; none while it is in no cluster.
    pub owner: Option<OwnerReference>,
    /// Container image.
    pub image: String,
    /// When the image is pulled.
    pub image_pull_policy: ImagePullPolicy,
    /// Names of the Secrets to pull it with.
    pub image_pull_secrets: Vec<String>,
    /// Number of pods.
    pub replicas: Replicas,
    /// How many of them may be away at the same time; none where there is no budget.
    pub max_unavailable: Option<IntOrString>,
    /// What the pods get, and where they run.
    pub pods: ValidatedPods,
    /// Whether a NetworkPolicy guards them.
    pub network_policy: bool,
    /// Port of the container and of the Service.
    pub port: i32,
    /// Secret and key of the session signing key.
    pub jwt_secret: SecretKey,
    /// Secret and key of the connection string.
    pub uri_secret: SecretKey,
    /// Database, when it is not the connection string's.
    pub database: Option<String>,
    /// Seconds that a reservation lasts.
    pub window_seconds: i32,
    /// Extra seconds of an order whose payment has begun.
    pub payment_grace_seconds: i32,
    /// Changes when a referenced Secret's value does; none where no Secret was read.
    pub secrets_checksum: Option<String>,
    /// The routes from outside, if any.
    pub ingress: Option<ValidatedIngress>,
}

/// One key of a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretKey {
    /// Name of the Secret.
    pub name: String,
    /// Key within it.
    pub key: String,
}

/// Hosts and routes that passed validation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatedIngress {
    /// The hosts; every one gets the same routes.
    pub hosts: Vec<CanonicalHost>,
    /// Name of the IngressClass; none for the cluster's default.
    pub class_name: Option<String>,
    /// Annotations for the ingress controller.
    pub annotations: BTreeMap<String, String>,
    /// Secret of the certificate.
    pub tls_secret: Option<String>,
    /// The path of the orders API itself.
    pub own_path: CanonicalPath,
    /// The routes in rendered order.
    pub routes: RouteTable,
}

/// Checks everything and names every problem.
///
/// `default_image` is the image of the controller itself, where it was told.
///
/// # Errors
/// All problems of the spec, and the Secrets that it refers to and that are not there.
pub fn validate(
    service: &OrdersService,
    found: &Dereferenced,
    default_image: Option<&str>,
) -> Result<ValidatedOrdersService, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut invalid = |message: String| problems.push(Problem::new(Reason::InvalidSpec, message));
    let spec = &service.spec;
    let name = service.name_any();

    if name.len() > 52 {
        invalid(format!(
            "metadata.name {name:?} has {} characters: at most 52, for the names of the children",
            name.len()
        ));
    }
    if !is_service_name(&name) {
        invalid(format!(
            "metadata.name {name:?} cannot name a Service: it must begin with a letter and have only a-z, 0-9 and -"
        ));
    }
    let image = spec.image.as_deref().or(default_image).map(str::trim).unwrap_or_default();
    if image.is_empty() {
        invalid("spec.image is not set, and the controller was not told its own image (--default-image): set spec.image".into());
    }
    let replicas = pods::replicas(spec, &mut invalid);
    let max_unavailable = pods::max_unavailable(spec, replicas, &mut invalid);
    let validated_pods = pods::validate(spec, &mut invalid);
    if !is_port(spec.port) || spec.port == ADMIN_PORT {
        invalid(format!(
            "spec.port is {}: write a port from 1 to 65535, but not {ADMIN_PORT}, the admin port",
            spec.port
        ));
    }
    let (window, grace) = (spec.expiration.window_seconds, spec.expiration.payment_grace_seconds);
    if !(1..=604_800).contains(&window) {
        invalid(format!(
            "spec.expiration.windowSeconds is {window}: write seconds from 1 to 604800 (one week)"
        ));
    }
    if !(0..=604_800).contains(&grace) {
        invalid(format!(
            "spec.expiration.paymentGraceSeconds is {grace}: write seconds from 0 to 604800 (one week)"
        ));
    }
    if let Some(most) = spec.expiration.max_per_second.filter(|most| !(1..=1_000_000).contains(most)) {
        invalid(format!("spec.expiration.maxPerSecond is {most}: write orders per second from 1 to 1000000"));
    }
    if spec.database.name.as_deref().is_some_and(|name| !is_database_name(name)) {
        invalid(format!(
            "spec.database.name {:?} is not a MongoDB database name",
            spec.database.name.as_deref().unwrap_or_default()
        ));
    }

    let ingress =
        match spec.ingress.as_ref().map(|ingress| validate_ingress(ingress, &name, spec.port)).transpose() {
            Ok(ingress) => ingress,
            Err(found) => {
                problems.extend(found);
                None
            }
        };
    // Missing Secrets come last: a spec that can never work is the more urgent message.
    problems.extend(found.missing.iter().cloned());
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(ValidatedOrdersService {
        namespace: service.namespace().unwrap_or_default(),
        owner: service.controller_owner_ref(&()),
        image: image.to_owned(),
        image_pull_policy: spec.image_pull_policy,
        image_pull_secrets: spec.image_pull_secrets.iter().map(|secret| secret.name.clone()).collect(),
        replicas,
        max_unavailable,
        pods: validated_pods,
        network_policy: spec.network_policy,
        port: spec.port,
        jwt_secret: SecretKey {
            name: spec.auth.jwt_secret_ref.name.clone(),
            key: spec.auth.jwt_secret_ref.key.clone(),
        },
        uri_secret: SecretKey {
            name: spec.database.uri_secret_ref.name.clone(),
            key: spec.database.uri_secret_ref.key.clone(),
        },
        database: spec.database.name.clone(),
        window_seconds: spec.expiration.window_seconds,
        payment_grace_seconds: spec.expiration.payment_grace_seconds,
        secrets_checksum: found.secrets_checksum.clone(),
        ingress,
        name,
    })
}

fn validate_ingress(
    ingress: &IngressSpec,
    own_service: &str,
    own_port: i32,
) -> Result<ValidatedIngress, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut hosts = Vec::<CanonicalHost>::new();
    for host in &ingress.hosts {
        match CanonicalHost::parse(&host.0) {
            Ok(host) if hosts.contains(&host) => {
                problems.push(Problem::new(
                    Reason::InvalidHost,
                    format!("host {:?} is listed twice: remove one", host.to_string()),
                ));
            }
            Ok(host) => hosts.push(host),
            Err(error) => problems.push(Problem::new(Reason::InvalidHost, error.to_string())),
        }
    }
    if ingress.hosts.is_empty() {
        problems.push(Problem::new(
            Reason::InvalidHost,
            "spec.ingress.hosts is empty: write at least one host, such as ticketing.dev",
        ));
    }
    let backends = ingress.routes.iter().map(|route| (&route.service, route.port));
    for (service, port) in backends.chain(ingress.client.iter().map(|client| (&client.service, client.port)))
    {
        if !is_service_name(service) || !is_port(port) {
            problems.push(Problem::new(
                Reason::InvalidSpec,
                format!("backend \"{service}:{port}\" is not a Service and a port from 1 to 65535"),
            ));
        }
    }
    let own = (ingress.path.as_str(), Backend { service: own_service.to_owned(), port: own_port });
    let others = ingress
        .routes
        .iter()
        .map(|route| (route.path.as_str(), Backend { service: route.service.clone(), port: route.port }));
    let client =
        ingress.client.as_ref().map(|client| Backend { service: client.service.clone(), port: client.port });
    // The own path is in the table as well, so where the table stands, it does.
    match (RouteTable::new(std::iter::once(own).chain(others), client), CanonicalPath::parse(&ingress.path)) {
        (Ok(routes), Ok(own_path)) if problems.is_empty() => {
            // Canonical order: the same hosts in another order are the same Ingress.
            hosts.sort();
            Ok(ValidatedIngress {
                hosts,
                class_name: ingress.class_name.clone(),
                annotations: ingress.annotations.clone(),
                tls_secret: ingress.tls.as_ref().map(|tls| tls.secret_name.clone()),
                own_path,
                routes,
            })
        }
        (Ok(_), _) => Err(problems),
        (Err(errors), _) => {
            problems.extend(errors.iter().map(|error| Problem::new(route_reason(error), error.to_string())));
            Err(problems)
        }
    }
}

fn route_reason(error: &RouteError) -> Reason {
    match error {
        RouteError::InvalidPath(_) | RouteError::RouteAtRoot { .. } => Reason::InvalidPath,
        RouteError::DuplicatePath { .. } => Reason::DuplicatePath,
    }
}

fn is_port(port: i32) -> bool {
    (1..=65535).contains(&port)
}

/// RFC 1035 label, which a Service's name must be.
fn is_service_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && !name.ends_with('-')
}

fn is_database_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && !name.contains(['/', '\\', '.', ' ', '"', '$', '*', '<', '>', ':', '|', '?'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::fixture::service;

    fn problems(patch: serde_json::Value) -> Vec<Problem> {
        validate(&service(patch), &Dereferenced::default(), Some("image:1")).unwrap_err()
    }

    #[test]
    fn defaults_are_filled_in_and_routes_are_ordered() {
        let valid =
            validate(&service(serde_json::json!({})), &Dereferenced::default(), Some("image:1")).unwrap();
        assert_eq!(
            (valid.image.as_str(), valid.replicas, valid.port, valid.window_seconds),
            ("image:1", Replicas::Unset, 3000, 900)
        );
        assert_eq!(valid.jwt_secret, SecretKey { name: "jwt-secret".into(), key: "JWT_KEY".into() });
        let ingress = valid.ingress.unwrap();
        assert_eq!(ingress.hosts.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a.dev", "b.dev"]);
        let rules: Vec<_> =
            ingress.routes.iter().map(|route| format!("{} {}", route.path, route.backend)).collect();
        assert_eq!(
            rules,
            ["/api/orders orders:3000", "/api/users auth-srv:80", "/api api-srv:3000", "/ client-srv:3000"]
        );
    }

    #[test]
    fn every_problem_is_named_at_once() {
        let found = problems(serde_json::json!({
            "replicas": -1, "port": 8081, "expiration": {"windowSeconds": 0},
            "ingress": {"hosts": ["http://x"], "routes": [{"path": "/api/orders/", "service": "Other"}, {"path": "/", "service": "c"}]}
        }));
        let reasons: Vec<_> = found.iter().map(|problem| problem.reason).collect();
        use Reason::*;
        assert_eq!(
            reasons,
            [InvalidSpec, InvalidSpec, InvalidSpec, InvalidHost, InvalidSpec, DuplicatePath, InvalidPath],
            "{found:#?}"
        );
    }

    #[test]
    fn without_any_image_the_message_says_what_to_set() {
        let found = validate(&service(serde_json::json!({})), &Dereferenced::default(), None).unwrap_err();
        assert!(found[0].message.contains("set spec.image"), "{found:?}");
    }

    #[test]
    fn missing_secrets_are_problems() {
        let missing = Problem::new(Reason::SecretNotFound, "no such secret");
        let found = Dereferenced { missing: vec![missing.clone()], ..Dereferenced::default() };
        assert_eq!(validate(&service(serde_json::json!({})), &found, Some("i")).unwrap_err(), [missing]);
    }
}
