//! The HTTPRoutes: the rules that an Ingress would have, at most 16 in each. Hosts with the same rules share them.

use super::metadata::metadata;
use crate::{
    controller::{
        children::{
            httproute::{
                GATEWAY_API_GROUP, HTTPBackendRef, HTTPPathMatch, HTTPRoute, HTTPRouteMatch, HTTPRouteRule,
                HTTPRouteSpec, MAX_RULES, ParentReference,
            },
            kind::ChildId,
        },
        reconcile::validate::validated::{HostRoutes, ValidatedGateway, ValidatedOrdersService},
    },
    crd::ParentRef,
    routing::{CanonicalHost, Route, RouteTable},
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
        let hostnames: Vec<_> = hosts.into_iter().map(ToString::to_string).collect();
        let rules: Vec<_> = routes.iter().map(rule).collect();
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
        group: GATEWAY_API_GROUP.into(),
        kind: "Gateway".into(),
        gateway: Some(ParentRef { namespace, ..parent.clone() }),
    }
}

fn rule(route: &Route) -> HTTPRouteRule {
    let path = HTTPPathMatch { type_: "PathPrefix".into(), value: route.path.to_string() };
    let backend = HTTPBackendRef {
        group: String::new(),
        kind: "Service".into(),
        name: route.backend.service.clone(),
        port: route.backend.port,
        weight: 1,
    };
    HTTPRouteRule {
        matches: vec![HTTPRouteMatch { path, ..HTTPRouteMatch::default() }],
        backend_refs: vec![backend],
    }
}
