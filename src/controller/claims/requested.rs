//! The routes that a spec asks for, in canonical form and order, whoever else claims them.

use kube::ResourceExt;

use crate::controller::problem::Problem;
use crate::{
    crd::{self, Host, OrdersService, ParentRef, Reason, RouteSpec},
    routing::{Backend, CanonicalHost, CanonicalPath, EntryPoint, RouteError, RouteTable, Site},
};

/// The path of the orders API where none is written.
const DEFAULT_PATH: &str = "/api/orders";

/// The routes that `spec.ingress` requests for each of its hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedRoutes {
    /// The ingress controllers that serve the hosts.
    pub entry_point: EntryPoint,
    /// The hosts in canonical order, so that the same hosts in another order give the same Ingress.
    pub hosts: Vec<CanonicalHost>,
    /// The path of the orders API itself.
    pub own_path: CanonicalPath,
    /// The routes in rendered order.
    pub routes: RouteTable,
}

impl RequestedRoutes {
    /// Each host, with the ingress controllers that serve it.
    pub fn sites(&self) -> impl Iterator<Item = Site> {
        self.hosts.iter().map(|host| Site { entry_point: self.entry_point.clone(), host: host.clone() })
    }
}

/// The routes that `spec.ingress` requests; none if it is not set.
///
/// # Errors
/// Every problem in it.
pub fn requested(service: &OrdersService) -> Result<Option<RequestedRoutes>, Vec<Problem>> {
    let Some(ingress) = &service.spec.ingress else { return Ok(None) };
    let (hosts, mut problems) = hosts("spec.ingress.hosts", &ingress.hosts);
    for (name, value) in &ingress.annotations {
        if makes_regexes(name, value) {
            let message = format!(
                "spec.ingress.annotations has {name:?}, which makes ingress-nginx treat every path of the host as a regex, \
                 in an order of its own: remove it; routes are plain prefixes"
            );
            problems.push(Problem::new(Reason::InvalidSpec, message));
        }
    }
    let list = RouteList {
        field: "spec.ingress",
        path: &ingress.path,
        routes: &ingress.routes,
        client: ingress.client.as_ref(),
    };
    let (own_path, routes) = match list.table(service) {
        Ok(table) if problems.is_empty() => table,
        Ok(_) => return Err(problems),
        Err(found) => {
            problems.extend(found);
            return Err(problems);
        }
    };
    let entry_point = EntryPoint::Class(ingress.class_name.as_deref().map(Into::into));
    Ok(Some(RequestedRoutes { entry_point, hosts, own_path, routes }))
}

/// Whether this annotation makes ingress-nginx read paths as regexes.
fn makes_regexes(name: &str, value: &str) -> bool {
    match name.split_once("ingress.kubernetes.io/") {
        Some((_, "use-regex")) => value == "true",
        Some((_, "rewrite-target")) => true,
        _ => false,
    }
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
    let own_list = gateway.path.is_some() || !gateway.routes.is_empty() || gateway.client.is_some();
    let table = match &service.spec.ingress {
        Some(_) if own_list => {
            let message = "with spec.ingress the Gateways serve its routes: remove path, routes and client from spec.gateway";
            problems.push(Problem::new(Reason::InvalidSpec, message));
            None
        }
        Some(_) => requested(service).ok().flatten().map(|requested| (requested.own_path, requested.routes)),
        None => {
            let path = gateway.path.as_deref().unwrap_or(DEFAULT_PATH);
            let list = RouteList {
                field: "spec.gateway",
                path,
                routes: &gateway.routes,
                client: gateway.client.as_ref(),
            };
            list.table(service).map_err(|found| problems.extend(found)).ok()
        }
    };
    match table {
        Some((own_path, routes)) if problems.is_empty() => {
            Ok(Some(GatewayRoutes { parents: gateway.parent_refs.clone(), hosts, own_path, routes }))
        }
        _ if problems.is_empty() => Ok(None),
        _ => Err(problems),
    }
}

/// The routes that each host has at some Gateways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayRoutes {
    /// The Gateways.
    pub parents: Vec<ParentRef>,
    /// The hosts in canonical order.
    pub hosts: Vec<CanonicalHost>,
    /// The path of the orders API itself.
    pub own_path: CanonicalPath,
    /// The routes in rendered order.
    pub routes: RouteTable,
}

fn hosts(field: &str, listed: &[Host]) -> (Vec<CanonicalHost>, Vec<Problem>) {
    let (mut problems, mut hosts) = (Vec::new(), Vec::<CanonicalHost>::new());
    let mut problem = |message: String| problems.push(Problem::new(Reason::InvalidHost, message));
    for Host(text) in listed {
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
            Err(error) => problem(error.to_string()),
        }
    }
    if listed.is_empty() {
        problem(format!("{field} is empty: write at least one host, such as ticketing.dev"));
    }
    hosts.sort();
    (hosts, problems)
}

/// Routes as they are written in the spec.
struct RouteList<'a> {
    field: &'static str,
    path: &'a str,
    routes: &'a [RouteSpec],
    client: Option<&'a crd::Backend>,
}

impl RouteList<'_> {
    /// The path of the orders API, and all routes in rendered order.
    fn table(&self, service: &OrdersService) -> Result<(CanonicalPath, RouteTable), Vec<Problem>> {
        let mut problems = Vec::new();
        let backends = self.routes.iter().map(|route| (&route.service, route.port));
        for (service, port) in backends.chain(self.client.iter().map(|client| (&client.service, client.port)))
        {
            if !is_service_name(service) || !is_port(port) {
                problems.push(Problem::new(
                    Reason::InvalidSpec,
                    format!("backend \"{service}:{port}\" is not a Service and a port from 1 to 65535"),
                ));
            }
        }
        let backend = |service: &str, port| Backend { service: service.to_owned(), port };
        let own = (self.path, backend(&service.name_any(), service.spec.port));
        let others =
            self.routes.iter().map(|route| (route.path.as_str(), backend(&route.service, route.port)));
        let client = self.client.map(|client| backend(&client.service, client.port));
        // The own path is one of the routes, so if these are valid, it is.
        match (RouteTable::new(std::iter::once(own).chain(others), client), CanonicalPath::parse(self.path)) {
            (Ok(routes), Ok(own_path)) if problems.is_empty() => Ok((own_path, routes)),
            (Ok(_), _) => Err(problems),
            (Err(errors), _) => {
                problems.extend(
                    errors
                        .iter()
                        .map(|error| Problem::new(route_reason(error), format!("{}: {error}", self.field))),
                );
                Err(problems)
            }
        }
    }
}

fn route_reason(error: &RouteError) -> Reason {
    match error {
        RouteError::InvalidPath(_) | RouteError::RouteAtRoot { .. } => Reason::InvalidPath,
        RouteError::MultipleClients { .. } => Reason::MultipleClients,
        RouteError::DuplicatePath { .. } => Reason::DuplicatePath,
    }
}

/// Whether it is the number of a port.
pub fn is_port(port: i32) -> bool {
    (1..=65535).contains(&port)
}

/// RFC 1035 label, which a Service's name must be.
pub fn is_service_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && !name.ends_with('-')
}
