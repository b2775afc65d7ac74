//! Step 3, pure: the children, one file per kind. All carry the resource's own name.

mod deployment;
mod ingress;
mod service;

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::Service, networking::v1::Ingress},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::validate::ValidatedOrdersService;

/// The children as they should be; `None` for a kind that the user switched off.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    /// Runs the orders API.
    pub deployment: Deployment,
    /// Gives its pods one address.
    pub service: Service,
    /// The ordered routes.
    pub ingress: Option<Ingress>,
}

/// Builds every child.
pub fn build(service: &ValidatedOrdersService) -> Prepared {
    Prepared {
        deployment: deployment::build_deployment(service),
        service: service::build_service(service),
        ingress: service.ingress.as_ref().map(|ingress| ingress::build_ingress(service, ingress)),
    }
}

/// The labels that select the pods; a Deployment's selector can never change, so neither can these.
pub fn selector_labels(name: &str) -> BTreeMap<String, String> {
    labels_of([("app.kubernetes.io/name", "orders-service"), ("app.kubernetes.io/instance", name)])
}

/// The recommended labels of every child.
fn labels(service: &ValidatedOrdersService) -> BTreeMap<String, String> {
    let mut labels = selector_labels(&service.name);
    labels.extend(labels_of([
        ("app.kubernetes.io/component", "orders-api"),
        ("app.kubernetes.io/part-of", "ticketing"),
        ("app.kubernetes.io/managed-by", "orders-operator"),
    ]));
    labels
}

fn labels_of<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// Name, labels and owner of every child.
fn metadata(service: &ValidatedOrdersService) -> ObjectMeta {
    ObjectMeta {
        name: Some(service.name.clone()),
        namespace: Some(service.namespace.clone()),
        labels: Some(labels(service)),
        owner_references: Some(vec![service.owner.clone()]),
        ..ObjectMeta::default()
    }
}
