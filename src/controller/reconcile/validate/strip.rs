//! The routes of an Ingress of which the ingress controller is to take the prefix off. No field of an Ingress says that, so it
//! is rendered for Traefik, by its Middleware, and refused for all others.

use crate::{
    controller::{
        claims::controllers::IngressController, problem::Problem, reconcile::dereference::Dereferenced,
    },
    crd::{IngressSpec, Reason, RouteSpec},
    routing::CanonicalPath,
};

/// The fewest characters of a prefix that Traefik can take off: between the priorities of a shorter one and of the client there
/// is none for the guard.
const SHORTEST: usize = 3;

/// Why prefixes cannot be taken off.
pub(super) fn problems(ingress: &IngressSpec, found: &Dereferenced) -> Vec<Problem> {
    let stripped = || ingress.routes.iter().enumerate().filter(|(_, route)| route.strip_prefix);
    if found.controller != Some(IngressController::Traefik) {
        return stripped().map(|(at, route)| not_traefik(at, route, ingress.class_name.as_deref())).collect();
    }
    let of_route = |(at, route): (usize, &RouteSpec)| {
        let message = unguarded(route, ingress)?;
        Some(Problem::new(
            Reason::InvalidSpec,
            format!("spec.ingress.routes[{at}].stripPrefix is true{message}"),
        ))
    };
    stripped().filter_map(of_route).collect()
}

fn not_traefik(at: usize, route: &RouteSpec, class: Option<&str>) -> Problem {
    let RouteSpec { path, service, .. } = route;
    let class = class.map_or_else(|| "is not set".to_owned(), |class| format!("is {class:?}"));
    let message = format!(
        "spec.ingress.routes[{at}].stripPrefix is true, which an Ingress says to Traefik only, and spec.ingress.className {class}, \
         which is not known to be of Traefik: set it to a class of Traefik, if that serves these hosts (an IngressClass whose \
         spec.controller is traefik.io/ingress-controller; without a cluster, the name traefik); or have {service:?} serve its paths under {path:?}, and remove stripPrefix; or use \
         spec.gateway in place of spec.ingress, if the cluster has a Gateway (hosts becomes hostnames, and parentRefs is needed); \
         or write an Ingress of your own for it, with what your ingress controller has for that (docs/ingress.md)"
    );
    Problem::new(Reason::InvalidSpec, message)
}

/// Why a route can have no guard, and what to do.
fn unguarded(route: &RouteSpec, ingress: &IngressSpec) -> Option<String> {
    let hosts = if route.hosts.is_empty() { &ingress.hosts } else { &route.hosts };
    let path = CanonicalPath::parse(&route.path).ok()?;
    if path.as_str().len() < SHORTEST {
        return Some(format!(
            ", and for Traefik {path} is too short for that: while it does not know the Middleware, the next shorter rule, \
             that is the client's, would get the requests. Give it a path with two letters at least, or have {:?} serve its paths under {path}, and remove stripPrefix",
            route.service
        ));
    }
    let wildcard = hosts.iter().find(|host| host.0.starts_with('*'))?;
    Some(format!(
        " on the host {:?}, which for Traefik must be no wildcard: the priority of wildcards differs between its versions, and while \
         it does not know the Middleware, another rule would get the requests. Write the hosts that are meant in place of it in \
         spec.ingress.hosts; or add them there beside it, and have the route's own hosts name them; or use spec.gateway in place of spec.ingress",
        wildcard.0
    ))
}
