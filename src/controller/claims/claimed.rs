//! Which routes an object claims, read from the object alone.
//!
//! An OrdersService claims what its spec requests and what its status says is rendered. So a route that it gives up is
//! free only once it is no longer rendered, and an OrdersService whose spec cannot be rendered (suspended, or not valid)
//! keeps what its Ingress still serves. Of other Ingresses, every path that is a prefix is a claim.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::networking::v1::{HTTPIngressPath, Ingress},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::requested::{RequestedRoutes, requested, requested_at_gateway};
use crate::{
    controller::children::{owner::Owner, partial::Partial},
    crd::OrdersService,
    routing::{
        CanonicalHost, CanonicalPath, Claim, ClaimIndex, Claimant, ClaimantId, ClaimantKind, EntryPoint,
        Site, Verdict,
    },
};

/// Names the class of an Ingress where its spec does not, as was usual before Kubernetes 1.18.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// What others have of the routes that an OrdersService requests, by host.
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

/// What others have of what `me` requests.
pub fn verdicts(index: &ClaimIndex, me: &Claimant, requested: &RequestedRoutes) -> Verdicts {
    let prefixes = || requested.routes.iter().map(|route| &route.path);
    requested.sites().map(|site| (site.clone(), index.judge(me, &site, prefixes()))).collect()
}

/// The claims of an OrdersService: the routes that it requests, and those that it has.
pub fn of_service(service: &OrdersService) -> Claims {
    let mut claims = BTreeSet::new();
    if let Ok(Some(requested)) = requested(service) {
        claims.extend(claims_to(&requested));
    }
    if let Some(ingress) = &service.spec.ingress {
        let entry_point = EntryPoint::Class(ingress.class_name.as_deref().map(Into::into));
        // The routes of a host that only Gateways serve are in the status too, and are none of the Ingress.
        let at_gateway =
            requested_at_gateway(service).ok().flatten().map_or(Vec::new(), |gateway| gateway.hosts);
        for route in service.status.iter().flat_map(|status| &status.routes) {
            let host = CanonicalHost::parse(&route.host).ok().filter(|host| !at_gateway.contains(host));
            if let Some((host, prefix)) = host.zip(CanonicalPath::parse(&route.path).ok()) {
                let site = Site { entry_point: entry_point.clone(), host };
                claims.insert(Claim { site, prefix: Some(prefix) });
            }
        }
    }
    Claims::These(claims)
}

/// The claims on requested routes.
pub fn claims_to(requested: &RequestedRoutes) -> impl Iterator<Item = Claim> {
    requested.sites().flat_map(|site| {
        requested
            .routes
            .iter()
            .map(move |route| Claim { site: site.clone(), prefix: Some(route.path.clone()) })
    })
}

/// The claims of an Ingress. If an OrdersService controls it, that one claims its routes.
pub fn of_ingress(ingress: &Partial<Ingress>) -> Claims {
    let Partial { metadata, spec, .. } = ingress;
    if Owner::of(metadata).is_some() {
        return Claims::OfOwner;
    }
    let annotation = metadata.annotations.as_ref().and_then(|all| all.get(CLASS_ANNOTATION));
    let entry_point =
        EntryPoint::Class(spec.ingress_class_name.as_ref().or(annotation).map(|class| class.as_str().into()));
    let mut claims = BTreeSet::new();
    for rule in spec.rules.iter().flatten() {
        let Some(Ok(host)) = rule.host.as_deref().map(CanonicalHost::parse) else { continue };
        let site = Site { entry_point: entry_point.clone(), host };
        let claim = |prefix| Claim { site: site.clone(), prefix };
        match &rule.http {
            Some(http) => claims.extend(http.paths.iter().map(|path| claim(prefix_of(path)))),
            // A rule without paths sends every request for the host to the default backend.
            None => drop(claims.insert(claim(Some(CanonicalPath::root())))),
        }
    }
    Claims::These(claims)
}

/// The prefix of which a path takes every request; none for an exact path, or a regex that is no prefix.
fn prefix_of(path: &HTTPIngressPath) -> Option<CanonicalPath> {
    let text = path.path.as_deref().unwrap_or("/");
    (path.path_type != "Exact").then(|| CanonicalPath::parse(text).ok()).flatten()
}
