//! What the resource says of its routes.

use super::join;
use crate::{
    controller::{
        problem::Problem,
        validate::{HostRoutes, ValidatedOrdersService},
    },
    crd::{OrdersServiceStatus, Reason, RenderedRoute},
    routing::{CanonicalHost, Route, RouteTable},
};

/// Whether the routes are served. A warning leaves it true, with a reason that names it.
pub(super) fn readiness(valid: &ValidatedOrdersService, gateway: &[Problem]) -> (bool, Reason, String) {
    let ingress = valid.ingress.as_ref();
    let problems: Vec<_> = ingress.iter().flat_map(|ingress| &ingress.problems).chain(gateway).collect();
    if let Some(first) = problems.first() {
        return (false, first.reason, join(&problems));
    }
    let tables = rendered(valid, true);
    let (routes, client) =
        tables.first().map_or((0, false), |(_, routes)| (routes.iter().count(), routes.has_client()));
    let last = if client { ", the client last" } else { "" };
    let all = format!("{} on {}{last}", counted(routes, "route"), counted(tables.len(), "host"));
    if let (None, false, Some(gateway)) = (ingress, client, &valid.gateway) {
        let hosts: Vec<_> = gateway.hosts.iter().map(ToString::to_string).collect();
        let hosts = hosts.join(", ");
        let message = format!(
            "{all}; spec.gateway.client is not set: requests for {hosts} that no route takes are not served from here"
        );
        return (true, Reason::MissingClient, message);
    }
    let warnings: Vec<_> = ingress.iter().flat_map(|ingress| &ingress.warnings).collect();
    match warnings.first() {
        None => (true, Reason::AsExpected, all),
        Some(first) => (true, first.reason, format!("{all}; {}", join(&warnings))),
    }
}

fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// The routes of each host: those of the Ingress, then those of hosts that only Gateways have, where there can be
/// any.
fn rendered(valid: &ValidatedOrdersService, gateways: bool) -> Vec<(&CanonicalHost, &RouteTable)> {
    let ingress = valid.ingress.iter().flat_map(|ingress| &ingress.hosts);
    let mut tables: Vec<_> = ingress.map(|HostRoutes { host, routes }| (host, routes)).collect();
    let gateway = valid.gateway.iter().filter(|_| gateways);
    let at_gateway = gateway.flat_map(|gateway| gateway.hosts.iter().map(|host| (host, &gateway.routes)));
    for (host, routes) in at_gateway {
        if !tables.iter().any(|(known, _)| *known == host) {
            tables.push((host, routes));
        }
    }
    tables
}

/// Writes down which routes are rendered, and where the orders API is reached; `gateway` is what keeps Gateways from
/// serving the routes.
pub(super) fn describe(
    status: &mut OrdersServiceStatus,
    valid: &ValidatedOrdersService,
    gateway: &[Problem],
) {
    let gateways = gateway.iter().all(|problem| problem.reason != Reason::GatewayApiMissing);
    let tables = rendered(valid, gateways);
    let own_path = valid.ingress.as_ref().map(|ingress| &ingress.own_path);
    let own_path = own_path.or(valid.gateway.as_ref().map(|gateway| &gateway.own_path));
    let scheme = if is_encrypted(valid) { "https" } else { "http" };
    status.url = own_path.and_then(|own| {
        // Where the path is another's, it does not lead here.
        let mut leads = tables.iter().filter(|(_, routes)| routes.iter().any(|route| route.path == *own));
        let (host, _) = leads.find(|(host, _)| !host.is_wildcard())?;
        Some(format!("{scheme}://{host}{own}"))
    });
    let of_host = |(host, routes): (&CanonicalHost, &RouteTable)| {
        let rendered = |route: &Route| RenderedRoute {
            host: host.to_string(),
            path: route.path.to_string(),
            service: route.backend.to_string(),
            client: route.client,
        };
        routes.iter().map(rendered).collect::<Vec<_>>()
    };
    status.routes = tables.into_iter().flat_map(of_host).collect();
}

/// Of a Gateway's listener only the name is known.
fn is_encrypted(valid: &ValidatedOrdersService) -> bool {
    match (&valid.ingress, &valid.gateway) {
        (Some(ingress), _) => ingress.tls_secret.is_some(),
        (None, Some(gateway)) => {
            gateway.parents.iter().any(|parent| parent.section_name.as_deref() == Some("https"))
        }
        (None, None) => false,
    }
}
