//! What others have of the routes: what is left to be rendered, and what is to be told.

use super::HostRoutes;
use crate::{
    controller::{dereference::Dereferenced, problem::Problem, routes::Wanted},
    crd::Reason,
    routing::{CanonicalHost, Route, Verdict},
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
                "spec.ingress.className names IngressClass {class:?}, which does not exist: create it, or name one \
                 of `kubectl get ingressclass`"
            ),
        ));
    }
    for (host, verdict) in verdicts(wanted, found) {
        if let Some(owner) = &verdict.refused {
            problems.push(Problem::new(
                Reason::HostOwnedByOtherNamespace,
                format!(
                    "host {:?} belongs to namespace {:?}, where {owner} was first to claim it \
                     (--host-policy=namespace): no route is rendered for it; write another host, or have it given up \
                     there, and it comes here by itself",
                    host.to_string(),
                    owner.id.namespace
                ),
            ));
            continue;
        }
        for route in wanted.routes.iter() {
            if let Some(winner) = verdict.lost.get(&route.path) {
                problems.push(Problem::new(Reason::HostPathConflict, lost(&host, route, winner)));
            }
        }
    }
    problems
}

fn lost(host: &CanonicalHost, route: &Route, winner: &impl std::fmt::Display) -> String {
    let Route { path, backend, client } = route;
    if *client {
        return format!(
            "host {:?} has its client from {winner}, which is older, so the client {backend} is not rendered: \
             remove spec.ingress.client, or the one there, and this one takes over by itself",
            host.to_string()
        );
    }
    format!(
        "route {host}{path} to {backend} is not rendered, because {winner} has the same host and path and is older: \
         write another path or host, or remove it there, and this one takes over by itself"
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
                "spec.ingress.tls.secretName names Secret {secret:?}, which is not there: create it (type \
                 kubernetes.io/tls), or wait for what issues the certificate; until then the ingress controller serves \
                 one of its own, or refuses"
            ),
        );
    }
    for (host, verdict) in verdicts(wanted, found) {
        if let Some((other_host, other)) = &verdict.overlap {
            let (exact, wildcard) =
                if host.is_wildcard() { (other_host, &host) } else { (&host, other_host) };
            warn(
                Reason::WildcardOverlap,
                format!(
                    "{other} has host {:?}: requests for {exact} never fall through to the routes of {wildcard}; \
                     whatever {exact} is to serve must be among its own routes",
                    other_host.to_string()
                ),
            );
        }
    }
    if !wanted.routes.has_client() {
        let mut nowhere = Vec::new();
        for (host, verdict) in verdicts(wanted, found) {
            match verdict.client {
                Some(client) => warn(
                    Reason::MissingClient,
                    format!(
                        "spec.ingress.client is not set: on host {:?} {client} has the client, and what no route \
                         takes goes there",
                        host.to_string()
                    ),
                ),
                None => nowhere.push(host.to_string()),
            }
        }
        if !nowhere.is_empty() {
            warn(
                Reason::MissingClient,
                format!(
                    "spec.ingress.client is not set, and nobody else has the client of {}: what no route takes is \
                     not served",
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
