//! The HTTPRoutes: the rules that an Ingress would have, at most 16 in each. Hosts with the same rules share them.

use kube::Resource;

use super::metadata::metadata;
use crate::{
    controller::{
        children::{
            httproute::{
                HTTPBackendRef, HTTPPathMatch, HTTPRoute, HTTPRouteMatch, HTTPRouteRule, HTTPRouteSpec,
                MAX_RULES, ParentReference, StripPrefix,
            },
            kind::ChildId,
        },
        reconcile::validate::validated::{ValidatedGateway, ValidatedOrdersService},
    },
    crd::ParentRef,
    routing::{CanonicalHost, HostRoutes, Port, Route, RouteTable},
};

pub(super) fn build_routes(service: &ValidatedOrdersService, gateway: &ValidatedGateway) -> Vec<HTTPRoute> {
    let mut tables = Vec::<(&RouteTable, Vec<&CanonicalHost>)>::new();
    for HostRoutes { host, routes } in &gateway.hosts {
        match tables.iter_mut().find(|(known, _)| *known == routes) {
            Some((_, hosts)) => hosts.push(host),
            None => tables.push((routes, vec![host])),
        }
    }
    let parts = tables.into_iter().flat_map(|(routes, hosts)| {
        // Every host is no name.
        let named = hosts.into_iter().filter(|host| !host.is_any());
        let hostnames: Vec<_> = named.map(ToString::to_string).collect();
        let rules: Vec<_> = routes.iter().filter_map(rule).collect();
        let parts = rules.chunks(MAX_RULES).map(|rules| (hostnames.clone(), rules.to_vec()));
        parts.collect::<Vec<_>>()
    });
    let build_route = |(index, (hostnames, rules)): (usize, (Vec<String>, Vec<HTTPRouteRule>))| {
        let parent_refs = gateway.parents.iter().map(|parent| reference(parent, service)).collect();
        let spec = HTTPRouteSpec { parent_refs, hostnames, rules };
        let mut route = HTTPRoute::new(&ChildId::of::<HTTPRoute>(index).name(&service.name), spec);
        let name = route.metadata.name.take();
        route.metadata = metadata(service);
        route.metadata.name = name;
        route
    };
    parts.enumerate().map(build_route).collect()
}

fn reference(parent: &ParentRef, service: &ValidatedOrdersService) -> ParentReference {
    let namespace = Some(parent.namespace.clone().unwrap_or_else(|| service.namespace.clone()));
    ParentReference {
        group: HTTPRoute::group(&()).into_owned(),
        kind: "Gateway".into(),
        gateway: Some(ParentRef { namespace, ..parent.clone() }),
    }
}

/// None if the port is a name, which an HTTPRoute cannot have: validation has refused that.
fn rule(route: &Route) -> Option<HTTPRouteRule> {
    let Port::Number(port) = route.backend.port else { return None };
    let type_ = if route.path.is_exact() { "Exact" } else { "PathPrefix" };
    let path = HTTPPathMatch { type_: type_.into(), value: route.path.to_string() };
    let backend = HTTPBackendRef {
        group: String::new(),
        kind: "Service".into(),
        name: route.backend.service.clone(),
        port,
        weight: 1,
    };
    Some(HTTPRouteRule {
        matches: vec![HTTPRouteMatch { path, ..HTTPRouteMatch::default() }],
        filters: route.strip_prefix.then_some(StripPrefix).into_iter().collect(),
        backend_refs: vec![backend],
    })
}
