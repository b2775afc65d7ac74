//! The Ingress: plain prefixes in canonical order, the client last, the same for every host.

use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule, IngressServiceBackend,
    IngressSpec, IngressTLS, ServiceBackendPort,
};

use super::{filled, metadata};
use crate::{
    controller::validate::{ValidatedIngress, ValidatedOrdersService},
    routing::Route,
};

pub(super) fn build_ingress(service: &ValidatedOrdersService, ingress: &ValidatedIngress) -> Ingress {
    let hosts = || ingress.hosts.iter().map(ToString::to_string);
    let paths: Vec<_> = ingress.routes.iter().map(path).collect();
    let rules = hosts()
        .map(|host| IngressRule {
            host: Some(host),
            http: Some(HTTPIngressRuleValue { paths: paths.clone() }),
        })
        .collect();
    let tls = ingress
        .tls_secret
        .as_ref()
        .map(|secret| vec![IngressTLS { hosts: Some(hosts().collect()), secret_name: Some(secret.clone()) }]);
    let mut metadata = metadata(service);
    metadata.annotations = filled(ingress.annotations.clone());
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

fn path(route: &Route) -> HTTPIngressPath {
    HTTPIngressPath {
        path: Some(route.path.to_string()),
        path_type: "Prefix".into(),
        backend: IngressBackend {
            service: Some(IngressServiceBackend {
                name: route.backend.service.clone(),
                port: Some(ServiceBackendPort { number: Some(route.backend.port), name: None }),
            }),
            resource: None,
        },
    }
}
