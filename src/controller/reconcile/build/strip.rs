//! What Traefik needs for prefixes that are taken off: a Middleware and an Ingress for each, and guards.
//!
//! An Ingress names its Middleware in an annotation, which is for the whole Ingress; so each prefix has one of its own. Traefik
//! leaves a route out whose Middleware it does not know: for a moment after it starts or the route is made, since it reads
//! the two apart from each other, and for as long as its provider for Middlewares is off. A shorter rule would take the
//! requests then, which is the client's. So each such route has a guard, that is the same route without the Middleware in
//! another Ingress, and one place behind it: the Service gets the whole path then, and the client nothing.
//!
//! Traefik's order is that of priorities, which are the lengths of rules where an Ingress does not say another. The guard's is
//! one less than the length of its rule: so it is behind the route, and before whatever is shorter by two characters, as
//! all prefixes of the path and the client's `/` are. With Traefik's `strictPrefixMatching`, by which the rules of
//! prefixes are more than twice as long, but not the client's, it is still behind the one and before the other.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::Ingress;

use super::{
    ingress::{RulesOf, ingress_of},
    metadata::metadata,
};
use crate::{
    controller::{
        children::{
            middleware::{Middleware, MiddlewareSpec, StripPrefix},
            numbered::Purpose,
        },
        reconcile::validate::validated::{ValidatedIngress, ValidatedOrdersService},
    },
    routing::{CanonicalHost, Route},
};

/// Names the Middlewares of all routes of an Ingress.
const MIDDLEWARES: &str = "traefik.ingress.kubernetes.io/router.middlewares";

/// Says the priority of all routes of an Ingress.
const PRIORITY: &str = "traefik.ingress.kubernetes.io/router.priority";

/// The Ingresses of the routes of which the prefix is taken off, and of their guards.
pub(super) fn build_ingresses(service: &ValidatedOrdersService, ingress: &ValidatedIngress) -> Vec<Ingress> {
    let mut guards = BTreeMap::<u16, RulesOf<'_>>::new();
    for (host, route) in stripped(ingress) {
        add(guards.entry(guard_priority(host, route)).or_default(), host, route);
    }
    let guards = guards.into_iter().map(|(priority, rules)| {
        let annotation = (PRIORITY, priority.to_string());
        further(service, ingress, Purpose::Guard(priority), annotation, &rules)
    });
    let strips = by_path(ingress).into_iter().map(|(path, rules)| {
        let purpose = Purpose::strip(path);
        let name = purpose.name(&service.name);
        let ours = qualified(&service.namespace, &name, ingress.traefik_safe_naming);
        // Those of the spec come first: they may let a request through or not, and know it by its whole path.
        let named = match ingress.annotations.get(MIDDLEWARES).map(|named| named.trim().trim_end_matches(','))
        {
            Some(named) if !named.is_empty() => format!("{named},{ours}"),
            _ => ours,
        };
        further(service, ingress, purpose, (MIDDLEWARES, named), &rules)
    });
    guards.chain(strips).collect()
}

/// The Middlewares of these routes.
pub(super) fn build_middlewares(
    service: &ValidatedOrdersService,
    ingress: &ValidatedIngress,
) -> Vec<Middleware> {
    let of_path = |path: &str| {
        let strip_prefix = StripPrefix { prefixes: vec![path.to_owned()] };
        let name = Purpose::strip(path).name(&service.name);
        let mut middleware = Middleware::new(&name, MiddlewareSpec { strip_prefix });
        middleware.metadata = metadata(service);
        middleware.metadata.name = Some(name);
        middleware
    };
    by_path(ingress).into_keys().map(of_path).collect()
}

/// The routes of which the prefix is taken off, each with its host.
fn stripped(ingress: &ValidatedIngress) -> impl Iterator<Item = (&CanonicalHost, &Route)> {
    let of_host = ingress.hosts.iter().flat_map(|of| of.routes.iter().map(move |route| (&of.host, route)));
    of_host.filter(|(_, route)| route.strip_prefix)
}

fn by_path(ingress: &ValidatedIngress) -> BTreeMap<&str, RulesOf<'_>> {
    let mut by_path = BTreeMap::<_, RulesOf<'_>>::new();
    for (host, route) in stripped(ingress) {
        add(by_path.entry(route.path.as_str()).or_default(), host, route);
    }
    by_path
}

fn add<'a>(rules: &mut RulesOf<'a>, host: &'a CanonicalHost, route: &'a Route) {
    match rules.iter_mut().find(|(known, _)| *known == host) {
        Some((_, routes)) => routes.push(route),
        None => rules.push((host, vec![route])),
    }
}

/// One less than the length of the rule that Traefik makes of a route.
fn guard_priority(host: &CanonicalHost, route: &Route) -> u16 {
    let path = format!("PathPrefix({:?})", route.path.as_str());
    let rule = if host.is_any() { path } else { format!("Host({:?}) && {path}", host.to_string()) };
    u16::try_from(rule.len()).unwrap_or(u16::MAX).saturating_sub(1)
}

/// How Traefik calls a Middleware in an annotation: unless it has its option `safeNaming`, every other character than letters
/// and digits is a hyphen. Two that have the same name by that are for the same path, which is in the name.
fn qualified(namespace: &str, name: &str, safe_naming: bool) -> String {
    if safe_naming {
        return format!("{namespace}_{name}@kubernetescrd");
    }
    format!("{namespace}-{}@kubernetescrd", name.replace('.', "-"))
}

/// An Ingress beside the first, with one more annotation. Whoever makes a certificate for an Ingress makes it for the first.
fn further(
    service: &ValidatedOrdersService,
    ingress: &ValidatedIngress,
    purpose: Purpose,
    (name, value): (&str, String),
    rules: &RulesOf<'_>,
) -> Ingress {
    let mut annotations = ingress.annotations.clone();
    annotations.retain(|name, _| !orders_certificate(name));
    annotations.insert(name.to_owned(), value);
    let mut further = ingress_of(service, ingress, annotations, rules);
    further.metadata.name = Some(purpose.name(&service.name));
    further
}

/// Whether by this annotation a certificate is made for the Ingress.
fn orders_certificate(name: &str) -> bool {
    let prefix = name.split_once('/').map_or("", |(prefix, _)| prefix);
    prefix == "cert-manager.io" || prefix.ends_with(".cert-manager.io") || name == "kubernetes.io/tls-acme"
}
