//! The Ingress: plain prefixes in canonical order, the client last.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule, IngressServiceBackend,
    IngressSpec, IngressTLS, ServiceBackendPort,
};

use super::metadata::{filled, metadata};
use crate::{
    controller::reconcile::validate::validated::{API_PORT, ValidatedIngress, ValidatedOrdersService},
    routing::{CanonicalHost, Port, Route},
};

/// Hosts, each with routes in rendered order.
pub(super) type RulesOf<'a> = Vec<(&'a CanonicalHost, Vec<&'a Route>)>;

/// The Ingress of the routes of which no prefix is taken off, unless other objects hold all of them.
pub(super) fn build_ingress(service: &ValidatedOrdersService, ingress: &ValidatedIngress) -> Option<Ingress> {
    let of_host = ingress.hosts.iter().map(|of| {
        let plain: Vec<_> = of.routes.iter().filter(|route| !route.strip_prefix).collect();
        (&of.host, plain)
    });
    let rules: RulesOf<'_> = of_host.filter(|(_, routes)| !routes.is_empty()).collect();
    (!rules.is_empty()).then(|| ingress_of(service, ingress, ingress.annotations.clone(), &rules))
}

/// An Ingress of these rules.
pub(super) fn ingress_of(
    service: &ValidatedOrdersService,
    ingress: &ValidatedIngress,
    annotations: BTreeMap<String, String>,
    rules: &RulesOf<'_>,
) -> Ingress {
    let name = |host: &CanonicalHost| (!host.is_any()).then(|| host.to_string());
    let hosts: Vec<_> = rules.iter().filter_map(|(host, _)| name(host)).collect();
    let rules = rules
        .iter()
        .map(|(host, routes)| IngressRule {
            host: name(host),
            http: Some(HTTPIngressRuleValue {
                paths: routes.iter().map(|route| path(service, route)).collect(),
            }),
        })
        .collect();
    let named = Some(hosts).filter(|hosts| !hosts.is_empty());
    let tls = ingress
        .tls_secret
        .as_ref()
        .map(|secret| vec![IngressTLS { hosts: named, secret_name: Some(secret.clone()) }]);
    let mut metadata = metadata(service);
    metadata.annotations = filled(annotations);
    Ingress {
        metadata,
        spec: Some(IngressSpec {
            ingress_class_name: ingress.class_name.clone(),
            rules: Some(rules),
            tls,
            default_backend: None,
        }),
        status: None,
    }
}

fn path(service: &ValidatedOrdersService, route: &Route) -> HTTPIngressPath {
    // Its own Service's by name: a change of its number must not depend on which of the two is changed first.
    let is_own = route.backend.service == service.name && route.backend.port == service.port.into();
    let port = match &route.backend.port {
        _ if is_own => ServiceBackendPort { number: None, name: Some(API_PORT.into()) },
        Port::Number(number) => ServiceBackendPort { number: Some(*number), name: None },
        Port::Name(name) => ServiceBackendPort { number: None, name: Some(name.clone()) },
    };
    HTTPIngressPath {
        path: Some(route.path.to_string()),
        path_type: if route.path.is_exact() { "Exact" } else { "Prefix" }.into(),
        backend: IngressBackend {
            service: Some(IngressServiceBackend { name: route.backend.service.clone(), port: Some(port) }),
            resource: None,
        },
    }
}
