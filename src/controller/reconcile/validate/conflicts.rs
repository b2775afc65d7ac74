//! The routes that other objects hold: which are left to be rendered, and what to say about the others.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    controller::{
        claims::requested::RequestedRoutes, problem::Problem, reconcile::dereference::Dereferenced,
    },
    crd::Reason,
    routing::{CanonicalHost, Claimant, HostRoutes, PathMatch, Refusal, Route, Site, Verdict},
};

/// The hosts, and for each the routes that no other object has; without hosts that are left with none.
pub(super) fn hosts(requested: &RequestedRoutes, found: &Dereferenced) -> Vec<HostRoutes> {
    let of_host = |HostRoutes { host, routes }: &HostRoutes| {
        let verdicts: Vec<_> = verdicts_on(requested, found, host).map(|(_, verdict)| verdict).collect();
        let is_ours = |verdict: &Verdict, path: &PathMatch| {
            verdict.refused.is_none() && !verdict.lost.contains_key(path)
        };
        let routes = routes.only(|route| verdicts.iter().all(|verdict| is_ours(verdict, &route.path)));
        HostRoutes { host: host.clone(), routes }
    };
    requested.hosts.iter().map(of_host).filter(|host| !host.routes.is_empty()).collect()
}

/// The class that the spec names does not exist.
pub(super) fn missing_class(class: &str) -> Problem {
    Problem::new(
        Reason::IngressClassNotFound,
        format!(
            "spec.ingress.className names IngressClass {class:?}, which does not exist: name one that `kubectl get \
             ingressclass` lists, or create it; until then, an existing Ingress is left as it is"
        ),
    )
}

/// Why routes are not rendered.
pub(super) fn problems(requested: &RequestedRoutes, found: &Dereferenced) -> Vec<Problem> {
    let (mut problems, mut refused) = (Vec::new(), BTreeSet::new());
    let mut lost = BTreeMap::<Arc<Claimant>, Vec<(CanonicalHost, &Route)>>::new();
    for (routes, site, verdict) in verdicts(requested, found) {
        if let Some(refusal) = &verdict.refused {
            // A host is refused once, wherever it is served.
            if refused.insert(site.host.clone()) {
                problems.push(refused_for(&site.host, refusal));
            }
            continue;
        }
        for route in routes.routes.iter() {
            if let Some(winner) = verdict.lost.get(&route.path) {
                let routes = lost.entry(winner.clone()).or_default();
                if !routes.contains(&(site.host.clone(), route)) {
                    routes.push((site.host.clone(), route));
                }
            }
        }
    }
    for (winner, routes) in lost {
        problems.push(Problem::new(Reason::HostPathConflict, lost_to(requested, &winner, &routes)));
    }
    problems
}

/// Why a host is refused.
fn refused_for(host: &CanonicalHost, refusal: &Refusal) -> Problem {
    let is_any = host.is_any();
    let host = host.to_string();
    match refusal {
        Refusal::NotAllowed if is_any => Problem::new(
            Reason::HostNotAllowed,
            "no host is set, so the rules would be for every host, including those of other namespaces, which is \
             not allowed for this namespace; none of them are rendered: list the hosts, or have the operator's \
             administrator allow \"*\" (chart value controller.hosts; if it is not set yet, it must then list the \
             hosts of every namespace); they are then rendered automatically",
        ),
        Refusal::NotAllowed => Problem::new(
            Reason::HostNotAllowed,
            format!(
                "host {host:?} is not allowed for this namespace, so none of its routes are rendered: use an \
                 allowed host, or have the operator's administrator allow it (chart value controller.hosts); its \
                 routes are then rendered automatically"
            ),
        ),
        Refusal::OwnedBy(owner) => Problem::new(
            Reason::HostOwnedByOtherNamespace,
            format!(
                "host {host:?} belongs to namespace {:?}, where {owner} was first to claim it or an overlapping \
                 host (the operator runs with --host-policy=namespace), so none of its routes are rendered here: \
                 use another host. Its routes are rendered here automatically once other namespaces have no \
                 earlier claim",
                owner.id.namespace
            ),
        ),
    }
}

/// The message about routes that `winner` has.
fn lost_to(requested: &RequestedRoutes, winner: &Claimant, routes: &[(CanonicalHost, &Route)]) -> String {
    let field = requested.field;
    // On one of several hosts, the others keep it.
    let hosts = if requested.hosts.len() > 1 { ", or leave this host out of its hosts" } else { "" };
    let advice = |route: &Route| match route {
        Route { client: true, .. } if requested.hosts.len() > 1 => {
            format!(
                "leave this host out of {field}.client.hosts, or of the hosts of the route at / in {field}.routes"
            )
        }
        Route { client: true, .. } => format!("remove {field}.client"),
        Route { path, .. } if !path.is_exact() && *path.path() == requested.own_path => {
            let hosts = if hosts.is_empty() {
                String::new()
            } else {
                format!(", or leave this host out of {field}.pathHosts")
            };
            format!("set {field}.path to another path{hosts}")
        }
        _ => format!("remove it from {field}.routes, or give it another path{hosts}"),
    };
    let described =
        |(host, route): &(CanonicalHost, &Route)| format!("{host}{} ({})", route.path, advice(route));
    let all: Vec<_> = routes.iter().map(described).collect();
    let all = all.join(", ");
    if winner.is_ingress() {
        // Whoever puts an OrdersService in the place of an Ingress has nothing to change here.
        return format!(
            "{winner} is older and has the same host and path. To replace it, follow docs/migration.md and change \
             nothing here: each path that it gives up is rendered here automatically. Otherwise, for each route \
             that is not rendered: {all}; or use another host. All other routes are rendered"
        );
    }
    format!(
        "{winner} is older and has the same host and path, so these routes are not rendered: {all}; or use another \
         host. A path that {winner} gives up is rendered here automatically. All other routes are rendered"
    )
}

/// What is probably unintended but does not keep any route from being rendered, for a resource of this namespace.
pub(super) fn warnings(requested: &RequestedRoutes, found: &Dereferenced, namespace: &str) -> Vec<Problem> {
    let mut warnings = Vec::new();
    warnings.extend(found.missing_certificate.as_deref().map(missing_certificate));
    for (_, site, verdict) in verdicts(requested, found) {
        if let Some((other_host, other)) = &verdict.overlap {
            // What another namespace has written is nothing to be read here, but for the name of its object.
            let other_host = (*other.id.namespace == *namespace).then(|| other_host.to_string());
            let message = overlap(&site.host, other, other_host.as_deref());
            warnings.push(Problem::new(Reason::WildcardOverlap, message));
        }
    }
    // A client that is there for some hosts is meant for no others.
    if !requested.has_client {
        warnings.extend(without_client(requested, found));
    }
    if found.no_default_class {
        warnings.push(Problem::new(
            Reason::IngressClassNotFound,
            "spec.ingress.className is not set and the cluster has no default IngressClass, so only an ingress controller \
             that takes every Ingress serves these routes: set spec.ingress.className to one that `kubectl get \
             ingressclass` lists, or mark one as the default",
        ));
    }
    if !found.missing_services.is_empty() {
        let names: Vec<_> = found.missing_services.iter().map(|name| format!("{name:?}")).collect();
        let message = format!(
            "routes go to Services that do not exist in this namespace ({}): create them, or correct the names; \
             until then their requests fail or, with Traefik, fall through to a shorter rule, such as the client's",
            names.join(", ")
        );
        warnings.push(Problem::new(Reason::ServiceNotFound, message));
    }
    warnings
}

/// The certificate that the spec names is not there.
fn missing_certificate(secret: &str) -> Problem {
    Problem::new(
        Reason::TLSSecretMissing,
        format!(
            "spec.ingress.tls.secretName names Secret {secret:?}, which is not in the namespace of this resource: \
             create it (type kubernetes.io/tls), or wait where something issues it, such as cert-manager; until then \
             HTTPS has the ingress controller's own certificate, or fails"
        ),
    )
}

/// The message that `host` overlaps with a host of `other`, which is named unless it is withheld.
fn overlap(host: &CanonicalHost, other: &Claimant, other_host: Option<&str>) -> String {
    let requests = other_host.unwrap_or("that host");
    let has = |withheld: String| match other_host {
        Some(other_host) => format!("has host {other_host:?}"),
        None => withheld,
    };
    if host.is_any() {
        let has = has("has a host".into());
        format!(
            "no host is set, so these rules are for every host without rules of its own; {other} {has}: requests \
             for {requests} do not fall through to the routes and the client here (except that Traefik tries a \
             longer path here before a shorter one there). List the hosts, if you know them; if this is intended, \
             no action is needed"
        )
    } else if host.is_wildcard() {
        let has = has(format!("has a host that {host} covers"));
        format!(
            "{other} {has}: requests for {requests} never fall through to the routes and the client of {host} here \
             (except that Traefik tries a longer path here before a shorter one there). To serve them there too, \
             add them there; if this is intended, no action is needed"
        )
    } else {
        let has = has(format!("has a wildcard that covers {host}"));
        format!(
            "{other} {has}: requests for {host} never fall through to the routes and the client there (except that \
             Traefik tries a longer path there before a shorter one here). To serve them here too, add them here \
             (their Services must be in this namespace); if this is intended, no action is needed"
        )
    }
}

/// Where the requests go that no route takes, on each host that has no client here.
fn without_client(requested: &RequestedRoutes, found: &Dereferenced) -> Vec<Problem> {
    let (mut warnings, mut nowhere) = (Vec::new(), Vec::new());
    let warning = |message| Problem::new(Reason::MissingClient, message);
    for (routes, Site { host, .. }, verdict) in verdicts(requested, found) {
        if routes.routes.has_client() {
            continue;
        }
        let Some(client) = &verdict.client else {
            nowhere.push(named(&host));
            continue;
        };
        warnings.push(warning(format!(
            "spec.ingress.client is not set: requests for {} that no route takes go to the client of {client}",
            named(&host)
        )));
    }
    if !nowhere.is_empty() {
        warnings.push(warning(format!(
            "spec.ingress.client is not set, and no other object sets a client (path /) for {}: requests that no \
             route takes are not served, which is fine for a host that has APIs only",
            nowhere.join(", ")
        )));
    }
    warnings
}

/// A host in a sentence.
fn named(host: &CanonicalHost) -> String {
    if host.is_any() { "hosts without rules of their own".into() } else { host.to_string() }
}

/// The hosts with their routes, at everything that serves them, and what others have there. Without a cluster, as in
/// `render`, there is nobody else.
fn verdicts<'a>(
    requested: &'a RequestedRoutes,
    found: &'a Dereferenced,
) -> impl Iterator<Item = (&'a HostRoutes, Site, Verdict)> {
    requested.hosts.iter().flat_map(move |of| {
        verdicts_on(requested, found, &of.host).map(move |(site, verdict)| (of, site, verdict))
    })
}

fn verdicts_on<'a>(
    requested: &'a RequestedRoutes,
    found: &'a Dereferenced,
    host: &'a CanonicalHost,
) -> impl Iterator<Item = (Site, Verdict)> + 'a {
    requested.sites_of(host).map(|site| {
        let verdict = found.verdicts.get(&site).cloned().unwrap_or_default();
        (site, verdict)
    })
}
