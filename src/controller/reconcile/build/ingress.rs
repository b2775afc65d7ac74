//! The Ingress: plain prefixes in canonical order, the client last.

use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule, IngressServiceBackend,
    IngressSpec, IngressTLS, ServiceBackendPort,
};

use super::metadata::{filled, metadata};
use crate::{
    controller::reconcile::validate::validated::{API_PORT, ValidatedIngress, ValidatedOrdersService},
    routing::{HostRoutes, Port, Route},
};

/// None if other objects hold all of its routes.
pub(super) fn build_ingress(service: &ValidatedOrdersService, ingress: &ValidatedIngress) -> Option<Ingress> {
    if ingress.hosts.is_empty() {
        return None;
    }
    let name = |host: &HostRoutes| (!host.host.is_any()).then(|| host.host.to_string());
    let hosts: Vec<_> = ingress.hosts.iter().filter_map(name).collect();
    let rules = ingress
        .hosts
        .iter()
        .map(|host| IngressRule {
            host: name(host),
            http: Some(HTTPIngressRuleValue {
                paths: host.routes.iter().map(|route| path(service, route)).collect(),
            }),
        })
        .collect();
    let named = Some(hosts).filter(|hosts| !hosts.is_empty());
    let tls = ingress
        .tls_secret
        .as_ref()
        .map(|secret| vec![IngressTLS { hosts: named, secret_name: Some(secret.clone()) }]);
    let mut metadata = metadata(service);
    metadata.annotations = filled(ingress.annotations.clone());
    Some(Ingress {
        metadata,
        spec: Some(IngressSpec {
            ingress_class_name: ingress.class_name.clone(),
            rules: Some(rules),
            tls,
            default_backend: None,
        }),
        status: None,
    })
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
