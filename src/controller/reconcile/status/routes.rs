//! The condition `IngressReady`, and the rendered routes.

use crate::{
    controller::{
        problem::Problem,
        reconcile::{
            apply::{Failures, RoutesAfter},
            validate::validated::{ValidatedGateway, ValidatedOrdersService},
        },
    },
    crd::{OrdersServiceStatus, Reason, RenderedRoute},
    routing::{CanonicalHost, HostRoutes, Route, RouteTable},
};

/// Whether the routes are served. A warning leaves it true, with its own reason.
pub(super) fn readiness(
    valid: &ValidatedOrdersService,
    route_problems: &[Problem],
) -> (bool, Reason, String) {
    let ingress = valid.ingress.as_ref();
    let at_gateway = valid.gateway.iter().flat_map(|gateway| &gateway.problems);
    let problems: Vec<_> = ingress
        .iter()
        .flat_map(|ingress| &ingress.problems)
        .chain(at_gateway)
        .chain(route_problems)
        .collect();
    if let Some(first) = problems.first() {
        return (false, first.reason, Problem::join(problems.iter().copied()));
    }
    let tables = rendered(valid, true);
    let all = summary(&tables);
    let without_client = |gateway: &ValidatedGateway| -> Vec<_> {
        let hosts = gateway.hosts.iter().filter(|of| !gateway.has_client && !of.routes.has_client());
        hosts.map(|of| of.host.to_string()).collect()
    };
    if let (None, Some(gateway)) = (ingress, &valid.gateway)
        && let hosts = without_client(gateway)
        && !hosts.is_empty()
    {
        let hosts = hosts.join(", ");
        let message = format!(
            "{all}; spec.gateway.client is not set: requests for {hosts} that no route takes are not served from here"
        );
        return (true, Reason::MissingClient, message);
    }
    let warnings: Vec<_> = ingress.iter().flat_map(|ingress| &ingress.warnings).collect();
    match warnings.first() {
        None => (true, Reason::AsExpected, all),
        Some(first) => (true, first.reason, format!("{all}; {}", Problem::join(warnings.iter().copied()))),
    }
}

/// How many routes there are: of all hosts together where these are the same, or of each.
fn summary(tables: &[(&CanonicalHost, &RouteTable)]) -> String {
    let of = |table: Option<&RouteTable>| {
        let (routes, client) = table.map_or((0, false), |table| (table.iter().count(), table.has_client()));
        (counted(routes, "route"), if client { ", the client last" } else { "" })
    };
    let first = tables.first().map(|(_, routes)| *routes);
    if tables.iter().all(|(_, routes)| Some(*routes) == first) {
        let (routes, last) = of(first);
        return format!("{routes} on {}{last}", counted(tables.len(), "host"));
    }
    let each: Vec<_> = tables
        .iter()
        .map(|(host, table)| {
            let (routes, last) = of(Some(*table));
            format!("{routes} on {host}{last}")
        })
        .collect();
    each.join("; ")
}

fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// The routes of each host: those of the Ingress, then those of hosts that only Gateways serve, if the cluster has the
/// Gateway API.
fn rendered(valid: &ValidatedOrdersService, has_gateways: bool) -> Vec<(&CanonicalHost, &RouteTable)> {
    let ingress = valid.ingress.iter().flat_map(|ingress| &ingress.hosts);
    let mut tables: Vec<_> = ingress.map(|HostRoutes { host, routes }| (host, routes)).collect();
    let gateway = valid.gateway.iter().filter(|_| has_gateways);
    for HostRoutes { host, routes } in gateway.flat_map(|gateway| &gateway.hosts) {
        if !tables.iter().any(|(known, _)| *known == host) {
            tables.push((host, routes));
        }
    }
    tables
}

/// Sets the rendered routes and the URL of the orders API; `route_problems` is why Gateways do not serve the routes.
pub(super) fn describe(
    status: &mut OrdersServiceStatus,
    valid: &ValidatedOrdersService,
    route_problems: &[Problem],
) {
    let has_gateways = route_problems.iter().all(|problem| problem.reason != Reason::GatewayApiMissing);
    let tables = rendered(valid, has_gateways);
    let own_path = valid.ingress.as_ref().map(|ingress| &ingress.own_path);
    let own_path = own_path.or(valid.gateway.as_ref().map(|gateway| &gateway.own_path));
    let scheme = if is_encrypted(valid) { "https" } else { "http" };
    status.url = own_path.and_then(|own| {
        // On a host where another object holds the path, the URL would not lead here.
        let mut leads = tables.iter().filter(|(_, routes)| {
            routes.iter().any(|route| !route.path.is_exact() && route.path.path() == own)
        });
        let (host, _) = leads.find(|(host, _)| !host.is_wildcard())?;
        Some(format!("{scheme}://{host}{own}"))
    });
    let of_host = |(host, routes): (&CanonicalHost, &RouteTable)| {
        let rendered = |route: &Route| RenderedRoute {
            host: host.to_string(),
            path: route.path.to_string(),
            service: route.backend.to_string(),
            exact: route.path.is_exact(),
            strip_prefix: route.strip_prefix,
            client: route.client,
        };
        routes.iter().map(rendered).collect::<Vec<_>>()
    };
    status.routes = tables.into_iter().flat_map(of_host).collect();
}

/// How many routes are kept at most while specs come and none can be applied; each asks for some hundreds at most.
const MAX_KEPT: usize = 2_000;

/// As [`describe`], if not every child was applied. What may still be served is kept, or another object could be given it.
pub(super) fn describe_after(
    status: &mut OrdersServiceStatus,
    valid: &ValidatedOrdersService,
    failures: &Failures,
) {
    let (routes, url) = (std::mem::take(&mut status.routes), status.url.take());
    if failures.routes != RoutesAfter::Former {
        describe(status, valid, &failures.route_problems);
    }
    if failures.routes == RoutesAfter::Wanted {
        return;
    }
    let key = |route: &RenderedRoute| (route.host.clone(), route.path.clone(), route.exact);
    let wanted = std::mem::replace(&mut status.routes, routes);
    for route in wanted {
        if status.routes.len() < MAX_KEPT && !status.routes.iter().any(|known| key(known) == key(&route)) {
            status.routes.push(route);
        }
    }
    status.url = url.or(status.url.take());
}

/// Whether the URL is HTTPS. Of a Gateway's listener only the name is known.
fn is_encrypted(valid: &ValidatedOrdersService) -> bool {
    match (&valid.ingress, &valid.gateway) {
        (Some(ingress), _) => ingress.tls_secret.is_some(),
        (None, Some(gateway)) => {
            gateway.parents.iter().any(|parent| parent.section_name.as_deref() == Some("https"))
        }
        (None, None) => false,
    }
}
