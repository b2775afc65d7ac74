//! The routes that a spec asks for, in canonical form and order; pure. What others have of them is not
//! looked at here.

use super::problem::Problem;
use crate::{
    crd::{IngressSpec, OrdersService, Reason},
    routing::{Backend, CanonicalHost, CanonicalPath, Entrance, RouteError, RouteTable, Site},
};

use kube::ResourceExt;

/// Hosts, and the routes that each of them is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Where requests for the hosts come in.
    pub entrance: Entrance,
    /// The hosts in canonical order: the same hosts in another order are the same Ingress.
    pub hosts: Vec<CanonicalHost>,
    /// The path of the orders API itself.
    pub own_path: CanonicalPath,
    /// The routes in rendered order.
    pub routes: RouteTable,
}

impl Wanted {
    /// The hosts, where requests for them come in.
    pub fn sites(&self) -> impl Iterator<Item = Site> {
        self.hosts.iter().map(|host| Site { entrance: self.entrance.clone(), host: host.clone() })
    }
}

/// What `spec.ingress` asks for, if it is there.
///
/// # Errors
/// Every problem of it.
pub fn wanted(service: &OrdersService) -> Result<Option<Wanted>, Vec<Problem>> {
    let spec = &service.spec;
    let of_ingress = |ingress| by_ingress(ingress, &service.name_any(), spec.port);
    spec.ingress.as_ref().map(of_ingress).transpose()
}

fn by_ingress(ingress: &IngressSpec, own_service: &str, own_port: i32) -> Result<Wanted, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut hosts = Vec::<CanonicalHost>::new();
    for host in &ingress.hosts {
        match CanonicalHost::parse(&host.0) {
            Ok(host) if hosts.contains(&host) => {
                problems.push(Problem::new(
                    Reason::InvalidHost,
                    format!("host {:?} is listed twice: remove one", host.to_string()),
                ));
            }
            Ok(host) => hosts.push(host),
            Err(error) => problems.push(Problem::new(Reason::InvalidHost, error.to_string())),
        }
    }
    if ingress.hosts.is_empty() {
        problems.push(Problem::new(
            Reason::InvalidHost,
            "spec.ingress.hosts is empty: write at least one host, such as ticketing.dev",
        ));
    }
    let backends = ingress.routes.iter().map(|route| (&route.service, route.port));
    for (service, port) in backends.chain(ingress.client.iter().map(|client| (&client.service, client.port)))
    {
        if !is_service_name(service) || !is_port(port) {
            problems.push(Problem::new(
                Reason::InvalidSpec,
                format!("backend \"{service}:{port}\" is not a Service and a port from 1 to 65535"),
            ));
        }
    }
    let own = (ingress.path.as_str(), Backend { service: own_service.to_owned(), port: own_port });
    let others = ingress
        .routes
        .iter()
        .map(|route| (route.path.as_str(), Backend { service: route.service.clone(), port: route.port }));
    let client =
        ingress.client.as_ref().map(|client| Backend { service: client.service.clone(), port: client.port });
    // The own path is in the table as well, so where the table stands, it does.
    match (RouteTable::new(std::iter::once(own).chain(others), client), CanonicalPath::parse(&ingress.path)) {
        (Ok(routes), Ok(own_path)) if problems.is_empty() => {
            hosts.sort();
            let entrance = Entrance::Class(ingress.class_name.clone());
            Ok(Wanted { entrance, hosts, own_path, routes })
        }
        (Ok(_), _) => Err(problems),
        (Err(errors), _) => {
            problems.extend(errors.iter().map(|error| Problem::new(route_reason(error), error.to_string())));
            Err(problems)
        }
    }
}

fn route_reason(error: &RouteError) -> Reason {
    match error {
        RouteError::InvalidPath(_) | RouteError::RouteAtRoot { .. } => Reason::InvalidPath,
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
