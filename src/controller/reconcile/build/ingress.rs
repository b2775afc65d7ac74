//! The Ingress: plain prefixes in canonical order, the client last.

use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule, IngressServiceBackend,
    IngressSpec, IngressTLS, ServiceBackendPort,
};

use super::metadata::{filled, metadata};
use crate::{
    controller::reconcile::validate::validated::{API_PORT, ValidatedIngress, ValidatedOrdersService},
    routing::Route,
};

/// None if other objects hold all of its routes.
pub(super) fn build_ingress(service: &ValidatedOrdersService, ingress: &ValidatedIngress) -> Option<Ingress> {
    if ingress.hosts.is_empty() {
        return None;
    }
    let hosts = || ingress.hosts.iter().map(|host| host.host.to_string());
    let rules = ingress
        .hosts
        .iter()
        .map(|host| IngressRule {
            host: Some(host.host.to_string()),
            http: Some(HTTPIngressRuleValue {
                paths: host.routes.iter().map(|route| path(service, route)).collect(),
            }),
        })
        .collect();
    let tls = ingress
        .tls_secret
        .as_ref()
        .map(|secret| vec![IngressTLS { hosts: Some(hosts().collect()), secret_name: Some(secret.clone()) }]);
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
    let is_own = (&route.backend.service, route.backend.port) == (&service.name, service.port);
    let port = if is_own {
        ServiceBackendPort { number: None, name: Some(API_PORT.into()) }
    } else {
        ServiceBackendPort { number: Some(route.backend.port), name: None }
    };
    HTTPIngressPath {
        path: Some(route.path.to_string()),
        path_type: "Prefix".into(),
        backend: IngressBackend {
            service: Some(IngressServiceBackend { name: route.backend.service.clone(), port: Some(port) }),
            resource: None,
        },
    }
}
