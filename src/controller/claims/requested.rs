//! The routes that a spec asks for, in canonical form and order, whoever else claims them.

use std::collections::BTreeSet;

use kube::ResourceExt;

use crate::controller::problem::Problem;
use crate::{
    crd::{self, Host, IngressSpec, OrdersService, ParentRef, Reason, RouteSpec},
    routing::{Backend, CanonicalHost, CanonicalPath, EntryPoint, RouteError, RouteTable, Site},
};

/// The path of the orders API if the spec has none.
const DEFAULT_PATH: &str = "/api/orders";

/// Names the class of an Ingress where its spec does not, as was usual before Kubernetes 1.18.
pub const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// The routes that `spec.ingress` or `spec.gateway` requests for each of its hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedRoutes {
    /// The field that lists the routes.
    pub field: &'static str,
    /// What serves the hosts: the ingress controllers of a class, or some Gateways.
    pub entry_points: Vec<EntryPoint>,
    /// The hosts in canonical order, so that the same hosts in another order give the same Ingress.
    pub hosts: Vec<CanonicalHost>,
    /// The path of the orders API itself.
    pub own_path: CanonicalPath,
    /// The routes in rendered order.
    pub routes: RouteTable,
}

impl RequestedRoutes {
    /// Each host at everything that serves it.
    pub fn sites(&self) -> impl Iterator<Item = Site> {
        self.hosts.iter().flat_map(|host| self.sites_of(host))
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
    for (name, value) in &ingress.annotations {
        if changes_order(name, value) {
            let message = format!(
                "spec.ingress.annotations has {name:?}: {value:?}, by which an ingress controller treats paths as regexes, or \
                 tries them in an order of its own: remove it; routes are plain prefixes, the client last"
            );
            problems.push(Problem::new(Reason::InvalidSpec, message));
        }
        if adds_hosts(name) {
            let message = format!(
                "spec.ingress.annotations has {name:?}, by which an ingress controller serves hosts that are not in \
                 spec.ingress.hosts: remove it, and list every host there"
            );
            problems.push(Problem::new(Reason::InvalidSpec, message));
        }
        let is_listed =
            |text: &str| CanonicalHost::parse(text.trim()).is_ok_and(|host| hosts.contains(&host));
        if names_hosts(name) && !value.split(',').all(is_listed) {
            let message = format!(
                "spec.ingress.annotations has {name:?}, by which hosts get DNS records or certificates, and not all of \
                 these are in spec.ingress.hosts: remove it, or list every host there"
            );
            problems.push(Problem::new(Reason::InvalidSpec, message));
        }
    }
    if ingress.class_name.is_some() && ingress.annotations.contains_key(CLASS_ANNOTATION) {
        let message = format!(
            "spec.ingress.className and the annotation {CLASS_ANNOTATION} in spec.ingress.annotations are both set, which \
             the API server refuses in an Ingress: remove the annotation"
        );
        problems.push(Problem::new(Reason::InvalidSpec, message));
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
    let entry_points = vec![ingress_class(ingress)];
    Ok(Some(RequestedRoutes { field: list.field, entry_points, hosts, own_path, routes }))
}

/// The class of the Ingress: by its field, or by the annotation that was there before the field.
pub fn ingress_class(ingress: &IngressSpec) -> EntryPoint {
    let class = ingress.class_name.as_ref().or_else(|| ingress.annotations.get(CLASS_ANNOTATION));
    EntryPoint::Class(class.map(|class| class.as_str().into()))
}

/// The Gateway that a route of that namespace refers to.
pub fn gateway(parent: &ParentRef, namespace: &str) -> EntryPoint {
    let namespace = parent.namespace.as_deref().unwrap_or(namespace);
    EntryPoint::Gateway(format!("{namespace}/{}", parent.name).into())
}

/// Whether this annotation has an ingress controller serve further hosts: of ingress-nginx and HAProxy, which also
/// redirects from others, of Kong, and the conditions of the AWS load balancer.
fn adds_hosts(name: &str) -> bool {
    match name.split_once('/') {
        Some((_, "server-alias" | "server-alias-regex" | "host-aliases")) => true,
        Some((_, "redirect-from" | "redirect-from-regex")) => true,
        Some(("alb.ingress.kubernetes.io", rest)) => rest.starts_with("conditions."),
        _ => false,
    }
}

/// Whether this annotation lists hosts: of ExternalDNS, which gives them DNS records, whatever prefix its annotations
/// have, or of cert-manager, which gives them a certificate.
fn names_hosts(name: &str) -> bool {
    match name.split_once('/') {
        Some((prefix, "hostname" | "internal-hostname")) => prefix.contains("external-dns"),
        Some(("cert-manager.io", "common-name" | "alt-names")) => true,
        _ => false,
    }
}

/// Whether this annotation makes an ingress controller read paths as regexes, or gives all of them one priority.
fn changes_order(name: &str, value: &str) -> bool {
    match name.split_once('/') {
        // Of ingress-nginx, which takes every spelling that Go takes for true.
        Some((prefix, "use-regex")) if is_common(prefix) => !GO_FALSE.contains(&value),
        Some((prefix, "rewrite-target")) if is_common(prefix) => true,
        // Of HAProxy Ingress.
        Some((prefix, "path-type")) if is_common(prefix) || prefix == "haproxy-ingress.github.io" => {
            value.trim().eq_ignore_ascii_case("regex")
        }
        // Of F5 NGINX; each of its values means a regex or an exact path.
        Some(("nginx.org", "path-regex")) => true,
        Some(("traefik.ingress.kubernetes.io", "router.priority")) => true,
        _ => false,
    }
}

/// What Go's `strconv.ParseBool` takes for false.
const GO_FALSE: [&str; 6] = ["0", "f", "F", "false", "FALSE", "False"];

/// Whether annotations with this prefix may be of ingress-nginx or HAProxy Ingress, whose prefix is an option.
fn is_common(prefix: &str) -> bool {
    prefix.ends_with("ingress.kubernetes.io")
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
    let field = if service.spec.ingress.is_some() { "spec.ingress" } else { "spec.gateway" };
    let table = match &service.spec.ingress {
        Some(_) if own_list => {
            let message = "with spec.ingress the Gateways serve its routes: remove path, routes and client from spec.gateway";
            problems.push(Problem::new(Reason::InvalidSpec, message));
            None
        }
        Some(_) => requested(service).ok().flatten().map(|requested| (requested.own_path, requested.routes)),
        None => {
            let path = gateway.path.as_deref().unwrap_or(DEFAULT_PATH);
            let list = RouteList { field, path, routes: &gateway.routes, client: gateway.client.as_ref() };
            list.table(service).map_err(|found| problems.extend(found)).ok()
        }
    };
    match table {
        Some((own_path, routes)) if problems.is_empty() => {
            let entry_points = gateways(service);
            let requested = RequestedRoutes { field, entry_points, hosts, own_path, routes };
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
