//! The routes that a spec asks for, in canonical form and order, whoever else claims them.

use std::collections::BTreeSet;

use kube::ResourceExt;

use super::{annotations, route_list::RouteList};
use crate::controller::problem::Problem;
use crate::{
    crd::{Host, IngressSpec, OrdersService, ParentRef, Reason},
    routing::{CanonicalHost, CanonicalPath, EntryPoint, HostRoutes, Site},
};

/// The routes that `spec.ingress` or `spec.gateway` requests for each of its hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedRoutes {
    /// The field that lists the routes.
    pub field: &'static str,
    /// What serves the hosts: the ingress controllers of a class, or some Gateways.
    pub entry_points: Vec<EntryPoint>,
    /// The hosts in canonical order, so that the same hosts in another order give the same Ingress; each with its routes.
    pub hosts: Vec<HostRoutes>,
    /// The path of the orders API itself.
    pub own_path: CanonicalPath,
    /// Whether the spec has a client, if only of some hosts.
    pub has_client: bool,
}

impl RequestedRoutes {
    /// Each host at everything that serves it.
    pub fn sites(&self) -> impl Iterator<Item = Site> {
        self.hosts.iter().flat_map(|of| self.sites_of(&of.host))
    }

    /// One host at everything that serves it.
    pub fn sites_of(&self, host: &CanonicalHost) -> impl Iterator<Item = Site> {
        self.entry_points
            .iter()
            .map(|entry_point| Site { entry_point: entry_point.clone(), host: host.clone() })
    }
}

/// The routes that `spec.ingress` requests; none if it is not set.
///
/// # Errors
/// Every problem in it.
pub fn requested(service: &OrdersService) -> Result<Option<RequestedRoutes>, Vec<Problem>> {
    let Some(ingress) = &service.spec.ingress else { return Ok(None) };
    let (hosts, mut problems) = hosts("spec.ingress.hosts", &ingress.hosts);
    problems.extend(annotations::problems(ingress, &hosts));
    match RouteList::of_ingress(service, ingress).on(&hosts) {
        Ok((own_path, hosts)) if problems.is_empty() => {
            let entry_points = vec![ingress_class(ingress)];
            let has_client = ingress.client.is_some();
            Ok(Some(RequestedRoutes { field: "spec.ingress", entry_points, hosts, own_path, has_client }))
        }
        Ok(_) => Err(problems),
        Err(found) => {
            problems.extend(found);
            Err(problems)
        }
    }
}

/// The class of the Ingress: by its field, or by the annotation that was there before the field.
pub fn ingress_class(ingress: &IngressSpec) -> EntryPoint {
    let class = ingress.class_name.as_ref().or_else(|| ingress.annotations.get(annotations::CLASS));
    EntryPoint::Class(class.map(|class| class.as_str().into()))
}

/// The Gateway that a route of that namespace refers to.
pub fn gateway(parent: &ParentRef, namespace: &str) -> EntryPoint {
    let namespace = parent.namespace.as_deref().unwrap_or(namespace);
    EntryPoint::Gateway(format!("{namespace}/{}", parent.name).into())
}

/// The routes that `spec.gateway` requests: those of `spec.ingress` if that is set, else its own. None if it is not set.
///
/// # Errors
/// Every problem in it, without those of `spec.ingress`, which [`requested`] gives.
pub fn requested_at_gateway(service: &OrdersService) -> Result<Option<GatewayRoutes>, Vec<Problem>> {
    let Some(gateway) = &service.spec.gateway else { return Ok(None) };
    let (hosts, mut problems) = hosts("spec.gateway.hostnames", &gateway.hostnames);
    if gateway.parent_refs.is_empty() {
        problems.push(Problem::new(
            Reason::InvalidSpec,
            "spec.gateway.parentRefs is empty: name at least one Gateway",
        ));
    }
    for (at, parent) in gateway.parent_refs.iter().enumerate() {
        if gateway.parent_refs.iter().take(at).any(|other| other == parent) {
            let message =
                format!("Gateway {:?} is twice in spec.gateway.parentRefs: remove one", parent.name);
            problems.push(Problem::new(Reason::InvalidSpec, message));
        }
    }
    let has_own_list = gateway.path.is_some()
        || !gateway.path_hosts.is_empty()
        || !gateway.routes.is_empty()
        || gateway.client.is_some();
    let (list, on_hosts) = match &service.spec.ingress {
        Some(ingress) => {
            if has_own_list {
                let message = "with spec.ingress the Gateways serve its routes: remove path, pathHosts, routes and client \
                               from spec.gateway";
                problems.push(Problem::new(Reason::InvalidSpec, message));
            }
            let list = RouteList::of_ingress(service, ingress);
            let on_hosts = list.on(&hosts).map_err(|found| {
                // What is wrong with them on the hosts of the Ingress was said of that.
                if requested(service).is_ok() {
                    problems.extend(found);
                }
            });
            (list, on_hosts.ok())
        }
        None => {
            let list = RouteList::of_gateway(service, gateway);
            let on_hosts = list.on(&hosts).map_err(|found| problems.extend(found)).ok();
            (list, on_hosts)
        }
    };
    problems.extend(list.names_of_ports());
    match on_hosts {
        Some((own_path, hosts)) if problems.is_empty() => {
            let (field, has_client) = (list.field, list.client.is_some());
            let requested =
                RequestedRoutes { field, entry_points: gateways(service), hosts, own_path, has_client };
            Ok(Some(GatewayRoutes { parents: gateway.parent_refs.clone(), requested }))
        }
        _ if problems.is_empty() => Ok(None),
        _ => Err(problems),
    }
}

/// The Gateways that `spec.gateway` names, each once, whichever of its listeners.
pub fn gateways(service: &OrdersService) -> Vec<EntryPoint> {
    let namespace = service.namespace().unwrap_or_default();
    let parents = service.spec.gateway.iter().flat_map(|gateway| &gateway.parent_refs);
    let named: BTreeSet<_> = parents.map(|parent| gateway(parent, &namespace)).collect();
    named.into_iter().collect()
}

/// The routes that each host has at some Gateways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayRoutes {
    /// The Gateways, or listeners of them.
    pub parents: Vec<ParentRef>,
    /// The routes.
    pub requested: RequestedRoutes,
}

fn hosts(field: &str, listed: &[Host]) -> (Vec<CanonicalHost>, Vec<Problem>) {
    let (mut problems, mut hosts) = (Vec::new(), Vec::<CanonicalHost>::new());
    let mut problem = |message: String| problems.push(Problem::new(Reason::InvalidHost, message));
    for (at, Host(text)) in listed.iter().enumerate() {
        match CanonicalHost::parse(text) {
            Ok(host) => match hosts.iter().position(|known| *known == host).and_then(|at| listed.get(at)) {
                Some(Host(known)) if known == text => {
                    problem(format!("{field}: host {text:?} is listed twice: remove one"));
                }
                Some(Host(known)) => problem(format!(
                    "{field}: {known:?} and {text:?} are the same host (case and a final dot do not count): remove one"
                )),
                None => hosts.push(host),
            },
            Err(error) => problem(format!("{field}[{at}]: {error}")),
        }
    }
    if listed.is_empty() {
        hosts.push(CanonicalHost::any());
    }
    hosts.sort();
    (hosts, problems)
}

/// The hosts as they are written that are hosts; every host if none is written.
pub fn valid_hosts(listed: &[Host]) -> Vec<CanonicalHost> {
    if listed.is_empty() {
        return vec![CanonicalHost::any()];
    }
    listed.iter().filter_map(|Host(text)| CanonicalHost::parse(text).ok()).collect()
}
