//! The HTTPRoutes: the rules that an Ingress would have, at most 16 in each.

use super::metadata::metadata;
use crate::{
    controller::{
        children::{
            httproute::{
                HTTPBackendRef, HTTPPathMatch, HTTPRoute, HTTPRouteMatch, HTTPRouteRule, HTTPRouteSpec,
                MAX_RULES, ParentReference,
            },
            kind::ChildId,
        },
        claims::requested::GatewayRoutes,
        reconcile::validate::validated::ValidatedOrdersService,
    },
    crd::ParentRef,
    routing::Route,
};

pub(super) fn build_routes(service: &ValidatedOrdersService, gateway: &GatewayRoutes) -> Vec<HTTPRoute> {
    let rules: Vec<_> = gateway.routes.iter().map(rule).collect();
    let build_route = |(index, rules): (usize, &[HTTPRouteRule])| {
        let spec = HTTPRouteSpec {
            parent_refs: gateway.parents.iter().map(|parent| reference(parent, service)).collect(),
            hostnames: gateway.hosts.iter().map(ToString::to_string).collect(),
            rules: rules.to_vec(),
        };
        let mut route = HTTPRoute::new(&ChildId::of::<HTTPRoute>(index).name(&service.name), spec);
        let name = route.metadata.name.take();
        route.metadata = metadata(service);
        route.metadata.name = name;
        route
    };
    rules.chunks(MAX_RULES).enumerate().map(build_route).collect()
}

fn reference(parent: &ParentRef, service: &ValidatedOrdersService) -> ParentReference {
    let namespace = Some(parent.namespace.clone().unwrap_or_else(|| service.namespace.clone()));
    ParentReference {
        group: "gateway.networking.k8s.io".into(),
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
    HTTPRouteRule { matches: vec![HTTPRouteMatch { path }], backend_refs: vec![backend] }
}
