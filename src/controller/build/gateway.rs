//! The HTTPRoutes: the same rules as an Ingress would have, at most 16 in each.

use super::metadata;
use crate::{
    controller::{
        gateway::{
            BackendRef, HTTPRoute, HTTPRouteSpec, MOST_RULES, PathMatch, RouteMatch, RouteParent, RouteRule,
        },
        kind::part_name,
        routes::AtGateway,
        validate::ValidatedOrdersService,
    },
    crd::ParentRef,
    routing::Route,
};

pub(super) fn build_routes(service: &ValidatedOrdersService, gateway: &AtGateway) -> Vec<HTTPRoute> {
    let rules: Vec<_> = gateway.routes.iter().map(rule).collect();
    let of_part = |(part, rules): (usize, &[RouteRule])| {
        let spec = HTTPRouteSpec {
            parent_refs: gateway.parents.iter().map(|parent| reference(parent, service)).collect(),
            hostnames: gateway.hosts.iter().map(ToString::to_string).collect(),
            rules: rules.to_vec(),
        };
        let mut route = HTTPRoute::new(&part_name(&service.name, part), spec);
        let name = route.metadata.name.take();
        route.metadata = metadata(service);
        route.metadata.name = name;
        route
    };
    rules.chunks(MOST_RULES).enumerate().map(of_part).collect()
}

fn reference(parent: &ParentRef, service: &ValidatedOrdersService) -> RouteParent {
    let namespace = Some(parent.namespace.clone().unwrap_or_else(|| service.namespace.clone()));
    RouteParent {
        group: "gateway.networking.k8s.io".into(),
        kind: "Gateway".into(),
        gateway: Some(ParentRef { namespace, ..parent.clone() }),
    }
}

fn rule(route: &Route) -> RouteRule {
    let path = PathMatch { type_: "PathPrefix".into(), value: route.path.to_string() };
    let backend = BackendRef {
        group: String::new(),
        kind: "Service".into(),
        name: route.backend.service.clone(),
        port: route.backend.port,
        weight: 1,
    };
    RouteRule { matches: vec![RouteMatch { path }], backend_refs: vec![backend] }
}
