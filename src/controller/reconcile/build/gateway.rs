//! The HTTPRoutes: the rules that an Ingress would have, at most 16 in each. Hosts with the same rules share them.
//!
//! The API server takes one object at a time, so if rules moved from one HTTPRoute to another, nobody would serve them in
//! between. So an HTTPRoute is called by what it is for (see `children/numbered.rs`): where one has all rules, by the name of
//! the OrdersService; else by its hosts, if it has all of their rules; else by its hosts and their paths. What changes in an
//! HTTPRoute is then what no other one has, and those that are wanted are all made before others are deleted.

use kube::Resource;

use super::metadata::metadata;
use crate::{
    controller::{
        children::{
            httproute::{
                HTTPBackendRef, HTTPPathMatch, HTTPRoute, HTTPRouteMatch, HTTPRouteRule, HTTPRouteSpec,
                MAX_RULES, ParentReference, StripPrefix,
            },
            numbered::Purpose,
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
    let groups = tables.into_iter().map(|(routes, hosts)| {
        // Every host is no name.
        let named = hosts.into_iter().filter(|host| !host.is_any());
        let hostnames: Vec<_> = named.map(ToString::to_string).collect();
        let rules: Vec<_> = routes.iter().filter_map(rule).collect();
        (hostnames, rules)
    });
    let groups: Vec<_> = groups.filter(|(_, rules)| !rules.is_empty()).collect();
    let is_one_group = groups.len() == 1;
    let mut built = Vec::new();
    for (hostnames, rules) in groups {
        let is_whole = rules.len() <= MAX_RULES;
        for rules in rules.chunks(MAX_RULES) {
            let purpose = match (is_whole, is_one_group) {
                (true, true) => Purpose::Plain,
                (true, false) => Purpose::rules(&hostnames, None),
                (false, _) => Purpose::rules(&hostnames, Some(&matches(rules))),
            };
            let parent_refs = gateway.parents.iter().map(|parent| reference(parent, service)).collect();
            let spec = HTTPRouteSpec { parent_refs, hostnames: hostnames.clone(), rules: rules.to_vec() };
            let name = purpose.name(&service.name);
            let mut route = HTTPRoute::new(&name, spec);
            route.metadata = metadata(service);
            route.metadata.name = Some(name);
            built.push(route);
        }
    }
    built
}

/// What is matched by each rule.
fn matches(rules: &[HTTPRouteRule]) -> Vec<String> {
    let paths = rules.iter().flat_map(|rule| &rule.matches).map(|matched| &matched.path);
    paths.map(|path| format!("{} {}", path.type_, path.value)).collect()
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
