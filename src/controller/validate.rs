//! Step 2, pure: the spec as a user wrote it becomes one that can be built, or every problem is named.
//!
//! The API server has checked most of this at admission, but the object may have been stored under
//! an older schema, so nothing is taken on trust.

mod conflicts;
mod pods;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::{apis::meta::v1::OwnerReference, util::intstr::IntOrString};
use kube::{Resource, ResourceExt};

pub use self::pods::{Replicas, ValidatedPods};
use super::{
    dereference::Dereferenced,
    problem::Problem,
    routes::{AtGateway, Wanted, at_gateway, is_port, is_service_name, wanted},
};
use crate::{
    crd::{ImagePullPolicy, IngressSpec, OrdersService, Reason},
    routing::{CanonicalHost, CanonicalPath, RouteTable},
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
    /// The same routes at Gateways, if any.
    pub gateway: Option<AtGateway>,
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
    /// The hosts and the routes of each that are ours to render. Where others have some, hosts differ.
    pub hosts: Vec<HostRoutes>,
    /// Name of the IngressClass; none for the cluster's default.
    pub class_name: Option<String>,
    /// Annotations for the ingress controller.
    pub annotations: BTreeMap<String, String>,
    /// Secret of the certificate.
    pub tls_secret: Option<String>,
    /// The path of the orders API itself.
    pub own_path: CanonicalPath,
    /// What is wrong with the routes. The rest of them is rendered all the same.
    pub problems: Vec<Problem>,
    /// What may surprise.
    pub warnings: Vec<Problem>,
}

/// One host and its routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRoutes {
    /// The host.
    pub host: CanonicalHost,
    /// Its routes in rendered order; at least one.
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

    let ingress = match wanted(service) {
        Ok(wanted) => wanted.zip(spec.ingress.as_ref()).map(|(wanted, ingress)| ours(wanted, ingress, found)),
        Err(found) => {
            problems.extend(found);
            None
        }
    };
    let gateway = at_gateway(service).unwrap_or_else(|found| {
        problems.extend(found);
        None
    });
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
        gateway,
        name,
    })
}

/// Of what is wanted what others do not have.
fn ours(wanted: Wanted, ingress: &IngressSpec, found: &Dereferenced) -> ValidatedIngress {
    ValidatedIngress {
        problems: conflicts::problems(&wanted, found),
        warnings: conflicts::warnings(&wanted, found),
        hosts: conflicts::ours(&wanted, found),
        class_name: ingress.class_name.clone(),
        annotations: ingress.annotations.clone(),
        tls_secret: ingress.tls.as_ref().map(|tls| tls.secret_name.clone()),
        own_path: wanted.own_path,
    }
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
        let hosts: Vec<_> = ingress.hosts.iter().map(|host| host.host.to_string()).collect();
        assert_eq!(hosts, ["a.dev", "b.dev"]);
        let routes = ingress.hosts[0].routes.iter();
        let rules: Vec<_> = routes.map(|route| format!("{} {}", route.path, route.backend)).collect();
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
            [InvalidSpec, InvalidSpec, InvalidSpec, InvalidHost, InvalidSpec, DuplicatePath, MultipleClients],
            "{found:#?}"
        );
    }

    #[test]
    fn annotations_that_make_prefixes_regexes_are_refused() {
        let with = |name: &str, value: &str| {
            let ingress = serde_json::json!({"ingress": {"annotations": {name: value}}});
            validate(&service(ingress), &Dereferenced::default(), Some("i"))
        };
        for (name, value) in [
            ("nginx.ingress.kubernetes.io/use-regex", "true"),
            ("nginx.ingress.kubernetes.io/rewrite-target", "/$1"),
        ] {
            let found = with(name, value).unwrap_err();
            assert!(found.len() == 1 && found[0].message.contains(name), "{found:?}");
        }
        assert!(with("nginx.ingress.kubernetes.io/use-regex", "false").is_ok());
        assert!(with("nginx.ingress.kubernetes.io/proxy-body-size", "1m").is_ok());
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
