//! How some controllers turn an Ingress, or HTTPRoutes, into rules, and which of them their load balancer takes: models, each
//! written from what its sources do, of data planes that cannot be run here. They say nothing of how a request's path is
//! normalised, where those sources do not.
//!
//! ```text
//! alb            AWS Load Balancer Controller
//! gce            the controller of Google Cloud
//! kong           Kong, by both kinds of its router
//! f5             NGINX Ingress Controller of F5: its locations, which nginx itself serves here
//! envoy_gateway  Envoy Gateway, by HTTPRoutes
//! ```

mod alb;
mod envoy_gateway;
mod f5;
mod gce;
mod kong;

use super::{
    questions::{System, Written, shared, systems},
    rendered::{HostRules, Rule, ingresses},
};

/// Asks a model every question that `asks` lets pass, each system of its own Ingress; gives what was answered otherwise than
/// the oracle says, and how much was asked. A request's path is compared as `compared` makes it.
fn differing<M>(
    compared: impl Fn(&str) -> Option<String>,
    takes: impl Fn(&Written, &str) -> bool,
    model: impl Fn(&[HostRules]) -> M,
    answer: impl Fn(&M, &str, &str) -> Option<String>,
) -> (Vec<Difference>, usize) {
    let systems = systems();
    let (mut found, mut asked) = (Vec::new(), 0);
    for (system, ingress) in systems.iter().zip(ingresses(&systems)) {
        let (differing, number) = differing_of(system, &model(&ingress), &compared, &takes, &answer);
        found.extend(differing);
        asked += number;
    }
    (found, asked)
}

/// The same of the host that two OrdersServices have, whose Ingresses come in this order.
fn differing_of_shared<M>(
    is_client_first: bool,
    compared: impl Fn(&str) -> Option<String>,
    takes: impl Fn(&Written, &str) -> bool,
    model: impl Fn(&[HostRules]) -> M,
    answer: impl Fn(&M, &str, &str) -> Option<String>,
) -> (Vec<Difference>, usize) {
    let (owners, whole) = shared();
    let mut rules = ingresses(&owners);
    if !is_client_first {
        rules.reverse();
    }
    differing_of(&whole, &model(&rules.concat()), compared, takes, answer)
}

fn differing_of<M>(
    system: &System,
    model: &M,
    compared: impl Fn(&str) -> Option<String>,
    takes: impl Fn(&Written, &str) -> bool,
    answer: impl Fn(&M, &str, &str) -> Option<String>,
) -> (Vec<Difference>, usize) {
    let (mut found, mut asked) = (Vec::new(), 0);
    for (host, request) in &system.requests {
        let path = request.split('?').next().unwrap_or_default();
        let Some(path) = compared(path) else { continue };
        asked += 1;
        let oracle = system.oracle(host, |route| takes(route, &path));
        let answer = answer(model, host, &path);
        if answer.as_deref() != Some(&oracle.service) {
            let asked = format!("{host}{path}: {answer:?}, and not {}", oracle.service);
            found.push(Difference { system: system.clone(), oracle: oracle.clone(), answer, asked });
        }
    }
    (found, asked)
}

/// A question that was answered otherwise than the oracle says.
struct Difference {
    system: System,
    oracle: Written,
    answer: Option<String>,
    /// All of it as text.
    asked: String,
}

impl Difference {
    /// The prefix that has the same path as the exact one which the oracle names, if both are so.
    fn same_prefix(&self) -> Option<&Written> {
        let is_same = |route: &&Written| !route.exact && route.path == self.oracle.path;
        self.system.all().find(is_same).filter(|_| self.oracle.exact)
    }
}

/// A path that all servers take for the same: without dot segments, empty ones and escapes.
fn plain(path: &str) -> Option<String> {
    let mut inner = path[1..].split('/').rev();
    let last = inner.next();
    let is_odd = |segment: &str| matches!(segment, "." | "..") || segment.contains('%');
    (!last.is_some_and(is_odd) && !inner.any(|segment| segment.is_empty() || is_odd(segment)))
        .then(|| path.to_owned())
}

/// Whether a wildcard or a name is for this host, where a wildcard is for any number of labels.
fn is_for(of: &str, host: &str) -> bool {
    of.strip_prefix('*').map_or(of == host, |domain| host.ends_with(domain))
}
