//! What others have of the routes: what is left to be rendered, and what is to be told.

use std::{collections::BTreeMap, sync::Arc};

use super::HostRoutes;
use crate::{
    controller::{dereference::Dereferenced, problem::Problem, routes::Wanted},
    crd::Reason,
    routing::{CanonicalHost, Claimant, Route, Verdict},
};

/// The hosts with the routes that nobody else has; without those that are left with none.
pub(super) fn ours(wanted: &Wanted, found: &Dereferenced) -> Vec<HostRoutes> {
    let of_host = |(host, verdict): (CanonicalHost, Verdict)| {
        let is_ours = |route: &Route| verdict.refused.is_none() && !verdict.lost.contains_key(&route.path);
        HostRoutes { host, routes: wanted.routes.only(is_ours) }
    };
    verdicts(wanted, found).map(of_host).filter(|host| !host.routes.is_empty()).collect()
}

/// What keeps routes from being served as they are written.
pub(super) fn problems(wanted: &Wanted, found: &Dereferenced) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Some(class) = &found.missing_class {
        problems.push(Problem::new(
            Reason::IngressClassNotFound,
            format!(
                "spec.ingress.className names IngressClass {class:?}, which does not exist: name one that `kubectl get \
                 ingressclass` lists, or create it"
            ),
        ));
    }
    let mut lost = BTreeMap::<Arc<Claimant>, Vec<(CanonicalHost, &Route)>>::new();
    for (host, verdict) in verdicts(wanted, found) {
        if let Some(owner) = verdict.refused {
            problems.push(Problem::new(
                Reason::HostOwnedByOtherNamespace,
                format!(
                    "host {:?} belongs to namespace {:?}, where {owner} was first to claim it (the operator runs with \
                     --host-policy=namespace), so none of its routes is rendered here: write another host in \
                     its place; or, once no older object of another namespace has the host, it comes here by \
                     itself",
                    host.to_string(),
                    owner.id.namespace
                ),
            ));
            continue;
        }
        for route in wanted.routes.iter() {
            if let Some(winner) = verdict.lost.get(&route.path) {
                lost.entry(winner.clone()).or_default().push((host.clone(), route));
            }
        }
    }
    for (winner, routes) in lost {
        problems.push(Problem::new(Reason::HostPathConflict, told(wanted, &winner, &routes)));
    }
    problems
}

/// What is told of routes that `winner` has.
fn told(wanted: &Wanted, winner: &Claimant, routes: &[(CanonicalHost, &Route)]) -> String {
    let advice = |route: &Route| match route {
        Route { client: true, .. } => "remove spec.ingress.client",
        Route { path, .. } if *path == wanted.own_path => "set spec.ingress.path to another path",
        _ => "remove it from spec.ingress.routes, or give it another path",
    };
    let described =
        |(host, route): &(CanonicalHost, &Route)| format!("{host}{} ({})", route.path, advice(route));
    let all: Vec<_> = routes.iter().map(described).collect();
    format!(
        "{winner} has the same host and path and is older, so this is not rendered: {}. Or use another host; or, once \
         {winner} gives a path up, that is rendered here by itself. All else is rendered",
        all.join(", ")
    )
}

/// What may surprise, but keeps no route from being served.
pub(super) fn warnings(wanted: &Wanted, found: &Dereferenced) -> Vec<Problem> {
    let mut warnings = Vec::new();
    let mut warn = |reason, message| warnings.push(Problem::new(reason, message));
    if let Some(secret) = &found.missing_certificate {
        warn(
            Reason::TLSSecretMissing,
            format!(
                "spec.ingress.tls.secretName names Secret {secret:?}, which is not in the namespace of this resource: \
                 create it (type kubernetes.io/tls), or wait where something issues it, such as cert-manager; until then \
                 HTTPS has the ingress controller's own certificate, or fails"
            ),
        );
    }
    for (host, verdict) in verdicts(wanted, found) {
        let Some((other_host, other)) = &verdict.overlap else { continue };
        let message = if host.is_wildcard() {
            format!(
                "{other} has host {:?}: requests for {other_host} never fall through to the routes and the client of \
                 {host} here. If it is to have them too, they must be added there; where that is meant, nothing need be \
                 done",
                other_host.to_string()
            )
        } else {
            format!(
                "{other} has host {:?}: requests for {host} never fall through to the routes and the client there. If it \
                 is to have them too, add them here (their Services must be in this namespace); where that is meant, \
                 nothing need be done",
                other_host.to_string()
            )
        };
        warn(Reason::WildcardOverlap, message);
    }
    if !wanted.routes.has_client() {
        let mut nowhere = Vec::new();
        for (host, verdict) in verdicts(wanted, found) {
            match verdict.client {
                Some(client) => warn(
                    Reason::MissingClient,
                    format!(
                        "spec.ingress.client is not set: requests for {host} that no route takes go to the client of \
                         {client}"
                    ),
                ),
                None => nowhere.push(host.to_string()),
            }
        }
        if !nowhere.is_empty() {
            warn(
                Reason::MissingClient,
                format!(
                    "spec.ingress.client is not set, and no other object sets a client (path /) for {}: requests that no \
                     route takes are not served, which is fine for a host that has APIs only",
                    nowhere.join(", ")
                ),
            );
        }
    }
    warnings
}

/// The hosts, and what others have there; nothing, where nobody has looked.
fn verdicts<'a>(
    wanted: &'a Wanted,
    found: &'a Dereferenced,
) -> impl Iterator<Item = (CanonicalHost, Verdict)> + 'a {
    wanted.sites().map(|site| {
        let verdict = found.verdicts.get(&site).cloned().unwrap_or_default();
        (site.host, verdict)
    })
}
