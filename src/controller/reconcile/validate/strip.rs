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
    let class = match class {
        Some(class) => format!("is {class:?}, which is not known to be a class of Traefik"),
        None => "is not set".to_owned(),
    };
    let message = format!(
        "spec.ingress.routes[{at}].stripPrefix is true, which works only with Traefik, but spec.ingress.className \
         {class}: set it to a class of Traefik, if that serves these hosts (an IngressClass whose spec.controller \
         is traefik.io/ingress-controller; without a cluster, the name traefik); or have {service:?} serve its \
         paths under {path:?}, and remove stripPrefix; or use spec.gateway in place of spec.ingress, if the \
         cluster has a Gateway (hosts becomes hostnames, and parentRefs is required); or write your own Ingress \
         for it with the rewrite annotations of your ingress controller (docs/ingress.md)"
    );
    Problem::new(Reason::InvalidSpec, message)
}

/// Why a route can have no guard, and what to do.
fn unguarded(route: &RouteSpec, ingress: &IngressSpec) -> Option<String> {
    let hosts = if route.hosts.is_empty() { &ingress.hosts } else { &route.hosts };
    let path = CanonicalPath::parse(&route.path).ok()?;
    if path.as_str().len() < SHORTEST {
        return Some(format!(
            ", but with Traefik {path} is too short for that: until Traefik loads the Middleware, the next shorter \
             rule, the client's, would get the requests. Use a path of at least two letters, or have {:?} serve \
             its paths under {path}, and remove stripPrefix",
            route.service
        ));
    }
    let wildcard = hosts.iter().find(|host| host.0.starts_with('*'))?;
    Some(format!(
        " on the wildcard host {:?}, which does not work with Traefik: the priority of wildcards differs between \
         its versions, and until it loads the Middleware, another rule would get the requests. In \
         spec.ingress.hosts, replace the wildcard with the actual hosts, or add them beside it and list them in \
         the route's hosts; or use spec.gateway in place of spec.ingress",
        wildcard.0
    ))
}
