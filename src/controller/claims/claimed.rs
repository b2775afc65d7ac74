//! Which routes an object claims, read from the object alone.
//!
//! An OrdersService claims what its spec requests and what its status says is rendered. So a route that it gives up is
//! free only once it is no longer rendered, and an OrdersService whose spec cannot be rendered (suspended, or not valid)
//! keeps what its Ingress and its HTTPRoutes still serve. Of other Ingresses and HTTPRoutes, every path that is a prefix or
//! exact is a claim.

use std::{
    collections::{BTreeMap, BTreeSet},
    iter,
};

use k8s_openapi::{
    api::networking::v1::{HTTPIngressPath, Ingress, IngressRule},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::Resource;

use super::{
    annotations,
    path_annotations::{PathEffect, path_effect},
    requested::{
        RequestedRoutes, gateway, gateways, ingress_class, requested, requested_at_gateway, valid_hosts,
    },
};
use crate::{
    controller::children::{
        httproute::{HTTPRoute, HTTPRouteMatch, HTTPRouteRule, ParentReference},
        owner::Owner,
        partial::Partial,
    },
    crd::OrdersService,
    routing::{
        CanonicalHost, CanonicalPath, Claim, ClaimIndex, Claimant, ClaimantId, ClaimantKind, EntryPoint,
        HostRoutes, PathMatch, Site, Verdict,
    },
};

/// How many claims are read of one Ingress or HTTPRoute that no OrdersService made. Tens of thousands of rules fit into an
/// object, and each claim costs memory, and time in which nothing else happens.
pub const MAX_CLAIMS: usize = 5_000;

/// Which of the routes that an OrdersService requests other objects hold, by host and by what serves it.
pub type Verdicts = BTreeMap<Site, Verdict>;

/// What an object claims.
pub enum Claims {
    /// These routes.
    These(BTreeSet<Claim>),
    /// Nothing: it is a child, and its owner makes the claims.
    OfOwner,
    /// It cannot be parsed, and so keeps the claims that it had.
    Unknown,
}

/// The object as one that makes claims.
pub fn claimant(object: &ObjectMeta, kind: ClaimantKind) -> Claimant {
    let text = |text: &Option<String>| text.as_deref().unwrap_or_default().into();
    let id = ClaimantId { namespace: text(&object.namespace), name: text(&object.name), kind };
    Claimant { created: created(object), id }
}

/// When an object was created, in seconds since 1970. One that is not in the cluster yet is younger than all that are.
pub fn created(object: &ObjectMeta) -> i64 {
    object.creation_timestamp.as_ref().map_or(i64::MAX, |time| time.0.as_second())
}

/// Which of the routes that `me` requests other objects hold.
pub fn verdicts(index: &ClaimIndex, me: &Claimant, requested: &RequestedRoutes) -> Verdicts {
    let of_host = |of: &HostRoutes| -> Vec<_> {
        let paths = || of.routes.iter().map(|route| &route.path);
        requested.sites_of(&of.host).map(|site| (site.clone(), index.judge(me, &site, paths()))).collect()
    };
    requested.hosts.iter().flat_map(of_host).collect()
}

/// What others have of what `me` requests, of its ingress controller and of its Gateways.
pub fn verdicts_on(index: &ClaimIndex, me: &Claimant, requested: &[RequestedRoutes]) -> Verdicts {
    requested.iter().flat_map(|requested| verdicts(index, me, requested)).collect()
}

/// The claims of an OrdersService: the routes that it requests, and those that it has.
pub fn of_service(service: &OrdersService) -> Claims {
    let mut claims = served(service);
    for mut claim in requested_of(service).iter().flat_map(claims_to) {
        claim.is_served = true;
        if !claims.contains(&claim) {
            claims.insert(Claim { is_served: false, ..claim });
        }
    }
    Claims::These(claims)
}

/// The claims on the routes of which the status says that they are rendered, whatever the spec says by now.
fn served(service: &OrdersService) -> BTreeSet<Claim> {
    let (ingress, spec) = (&service.spec.ingress, &service.spec.gateway);
    let at_ingress = ingress.as_ref().map_or(Vec::new(), |ingress| valid_hosts(&ingress.hosts));
    let at_gateway = spec.as_ref().map_or(Vec::new(), |gateway| valid_hosts(&gateway.hostnames));
    // The status does not say what serves a host. One that the spec lacks by now is taken for the Ingress's.
    let class = ingress.as_ref().map_or(EntryPoint::Class(None), ingress_class);
    let gateways = gateways(service);
    let mut claims = BTreeSet::new();
    for route in service.status.iter().flat_map(|status| &status.routes) {
        let host = CanonicalHost::parse_shown(&route.host).ok();
        let taken = if route.exact { PathMatch::exact } else { PathMatch::prefix };
        let path = CanonicalPath::parse(&route.path).ok().map(taken);
        let Some((host, path)) = host.zip(path) else { continue };
        let is_at_gateway = at_gateway.contains(&host);
        let is_at_ingress = !is_at_gateway || at_ingress.contains(&host);
        let entry_points =
            gateways.iter().filter(|_| is_at_gateway).chain(Some(&class).filter(|_| is_at_ingress));
        claims.extend(entry_points.map(|entry_point| Claim {
            site: Site { entry_point: entry_point.clone(), host: host.clone() },
            path: Some(path.clone()),
            is_served: true,
            switches_to_regexes: false,
        }));
    }
    claims
}

/// The routes that an OrdersService requests, of its ingress controller and of its Gateways; without those that are not
/// valid.
pub fn requested_of(service: &OrdersService) -> Vec<RequestedRoutes> {
    let at_gateway = requested_at_gateway(service).ok().flatten().map(|gateway| gateway.requested);
    requested(service).ok().flatten().into_iter().chain(at_gateway).collect()
}

/// The claims on requested routes.
pub fn claims_to(requested: &RequestedRoutes) -> impl Iterator<Item = Claim> {
    requested.hosts.iter().flat_map(|of| {
        requested.sites_of(&of.host).flat_map(|site| {
            let claim = move |path: &PathMatch| Claim {
                site: site.clone(),
                path: Some(path.clone()),
                is_served: false,
                switches_to_regexes: false,
            };
            of.routes.iter().map(move |route| claim(&route.path))
        })
    })
}

/// The claims of an Ingress. If an OrdersService controls it, that one claims its routes.
pub fn of_ingress(ingress: &Partial<Ingress>) -> Claims {
    let Partial { metadata, spec, .. } = ingress;
    if Owner::of(metadata).is_some() {
        return Claims::OfOwner;
    }
    let is_solver = is_solver(metadata);
    let annotations = metadata.annotations.iter().flatten();
    let makes_regexes = |(name, value): (&String, &String)| {
        matches!(path_effect(name, value), Some(PathEffect::Regexes | PathEffect::RegexesRewritten))
    };
    let switches_to_regexes = annotations.into_iter().any(makes_regexes);
    let any = CanonicalHost::any();
    // The annotation is meant to have precedence, but not every ingress controller has it so.
    let annotation = metadata.annotations.as_ref().and_then(|all| all.get(annotations::CLASS));
    let mut classes: BTreeSet<_> =
        spec.ingress_class_name.iter().chain(annotation).map(|class| Some(class.as_str().into())).collect();
    if classes.is_empty() {
        classes.insert(None);
    }
    let rules: Vec<_> = spec.rules.iter().flatten().filter_map(|rule| Some((host_of(rule)?, rule))).collect();
    // It takes what no rule takes, of every host.
    let default = spec.default_backend.iter().map(|_| (&any, Some(PathMatch::root())));
    let first = rules.iter().map(|(host, rule)| (host, rule, 0));
    let others = rules.iter().flat_map(|(host, rule)| {
        (1..rule.http.as_ref().map_or(1, |http| http.paths.len())).map(move |at| (host, rule, at))
    });
    let claims = first.chain(others).filter_map(|(host, rule, at)| Some((host, path_at(rule, at)?)));
    let is_challenge =
        |path: &Option<PathMatch>| path.as_ref().is_some_and(|path| path.as_str().starts_with(CHALLENGES));
    let claims = default.chain(claims).filter(|(_, path)| !(is_solver && is_challenge(path)));
    let claims = claims.flat_map(|(host, path)| {
        classes.iter().map(move |class| {
            let site = Site { entry_point: EntryPoint::Class(class.clone()), host: host.clone() };
            Claim { site, path: path.clone(), is_served: true, switches_to_regexes }
        })
    });
    bounded(metadata, ClaimantKind::Ingress, claims)
}

/// Where a certificate authority asks whoever wants a certificate for a host.
const CHALLENGES: &str = "/.well-known/acme-challenge/";

/// Whether cert-manager made the Ingress to answer one challenge. It is gone in a moment, and so what it has there is no claim;
/// anybody can make an Ingress look like one, so whatever else it has is.
fn is_solver(metadata: &ObjectMeta) -> bool {
    let mut owners = metadata.owner_references.iter().flatten();
    owners.any(|owner| owner.kind == "Challenge" && owner.api_version.starts_with("acme.cert-manager.io/"))
}

/// The host of a rule; every host if it names none, and none if that is no host.
fn host_of(rule: &IngressRule) -> Option<CanonicalHost> {
    match rule.host.as_deref() {
        None | Some("") => Some(CanonicalHost::any()),
        Some(named) => CanonicalHost::parse(named).ok(),
    }
}

/// What a rule claims by one of its paths, if it has so many.
fn path_at(rule: &IngressRule, at: usize) -> Option<Option<PathMatch>> {
    match &rule.http {
        Some(http) => http.paths.get(at).map(path_of),
        // A rule without paths sends every request for the host to the default backend.
        None => Some(Some(PathMatch::root())),
    }
}

/// The first of the claims of an object that no OrdersService made. They must begin with one for each host: the hosts
/// count before the paths. What comes later is no claim, so whoever writes too many gives up protection of his own, and
/// takes nothing from others.
fn bounded(metadata: &ObjectMeta, kind: ClaimantKind, claims: impl Iterator<Item = Claim>) -> Claims {
    let mut read = BTreeSet::new();
    for claim in claims {
        if read.len() == MAX_CLAIMS && !read.contains(&claim) {
            tracing::warn!(
                object = %claimant(metadata, kind),
                "it has rules for more than {MAX_CLAIMS} hosts and paths: the last of them do not count as claims; divide \
                 it into several objects"
            );
            break;
        }
        read.insert(claim);
    }
    Claims::These(read)
}

/// What a path takes: one path, or every request at a prefix; none for a regex that is no prefix.
fn path_of(path: &HTTPIngressPath) -> Option<PathMatch> {
    parsed(path.path.as_deref().unwrap_or("/"), path.path_type == "Exact")
}

fn parsed(text: &str, is_exact: bool) -> Option<PathMatch> {
    if is_exact {
        CanonicalPath::parse_exact(text).ok().map(PathMatch::exact)
    } else {
        CanonicalPath::parse(text).ok().map(PathMatch::prefix)
    }
}

/// The claims of an HTTPRoute, at each of its Gateways. If an OrdersService controls it, that one claims its routes.
pub fn of_http_route(route: &Partial<HTTPRoute>) -> Claims {
    let Partial { metadata, spec, .. } = route;
    if Owner::of(metadata).is_some() {
        return Claims::OfOwner;
    }
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let parents = spec.parent_refs.iter().filter(|parent| is_gateway(parent));
    let gateways: BTreeSet<_> =
        parents.filter_map(|parent| Some(gateway(parent.gateway.as_ref()?, namespace))).collect();
    let hosts: Vec<_> = match spec.hostnames.as_slice() {
        // What only redirects, as from HTTP to HTTPS, has no host of its own.
        [] if spec.rules.iter().all(|rule| rule.backend_refs.is_empty()) => Vec::new(),
        [] => vec![CanonicalHost::any()],
        named => named.iter().filter_map(|text| CanonicalHost::parse(text).ok()).collect(),
    };
    let sites = hosts.iter().flat_map(|host| {
        gateways.iter().map(|entry_point| Site { entry_point: entry_point.clone(), host: host.clone() })
    });
    let sites: Vec<_> = sites.take(MAX_CLAIMS + 1).collect();
    let paths = spec.rules.iter().flat_map(paths_of).map(Some);
    // Each host by itself, and then with each path.
    let claims = iter::once(None).chain(paths).flat_map(|path| {
        sites.iter().map(move |site| Claim {
            site: site.clone(),
            path: path.clone(),
            is_served: true,
            switches_to_regexes: false,
        })
    });
    bounded(metadata, ClaimantKind::HTTPRoute, claims)
}

/// Whether a route is attached to a Gateway, and not to a Service, as in a mesh.
fn is_gateway(parent: &ParentReference) -> bool {
    (parent.group.is_empty() || parent.group == HTTPRoute::group(&()))
        && (parent.kind.is_empty() || parent.kind == "Gateway")
}

/// What a rule takes whatever else a request has: nothing if it has no backends, as one that redirects.
fn paths_of(rule: &HTTPRouteRule) -> Vec<PathMatch> {
    if rule.backend_refs.is_empty() {
        return Vec::new();
    }
    if rule.matches.is_empty() {
        return vec![PathMatch::root()];
    }
    rule.matches.iter().filter_map(path_of_match).collect()
}

/// None for a regex, and for what depends on more than the path.
fn path_of_match(of: &HTTPRouteMatch) -> Option<PathMatch> {
    let HTTPRouteMatch { path, headers, query_params, method } = of;
    let is_path = matches!(path.type_.as_str(), "" | "PathPrefix" | "Exact");
    if !is_path || !headers.is_empty() || !query_params.is_empty() || method.is_some() {
        return None;
    }
    let value = if path.value.is_empty() { "/" } else { &path.value };
    parsed(value, path.type_ == "Exact")
}
