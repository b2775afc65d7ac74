//! What `render` would say of a part of an OrdersService: so nothing is written that it refuses, and what it says of a
//! part is what is told.

use kube::Resource;
use serde_json::{Value, json};

use crate::{controller::render, crd::OrdersService};

/// The name of an OrdersService whose name makes no difference.
const ANY_NAME: &str = "orders";

/// What is wrong with this `spec.ingress`, in which no Service is named.
pub(super) fn of_ingress(ingress: Value) -> Vec<String> {
    of_routes(ANY_NAME, ingress)
}

/// What is wrong with this `spec.ingress` of an OrdersService of this name: none of its routes may lead to the Service that
/// it makes, which has its name.
pub(super) fn of_routes(name: &str, ingress: Value) -> Vec<String> {
    of_named(
        name,
        json!({
            "auth": {"jwtSecretRef": {"name": "jwt-secret"}},
            "database": {"uriSecretRef": {"name": "orders-mongo"}},
            "ingress": ingress,
        }),
    )
}

/// What is wrong with this `spec.port`.
pub(super) fn of_port(port: i32) -> Vec<String> {
    of(json!({
        "auth": {"jwtSecretRef": {"name": "jwt-secret"}},
        "database": {"uriSecretRef": {"name": "orders-mongo"}},
        "port": port,
    }))
}

/// What is wrong with this `spec.podTemplate`.
pub(super) fn of_pod_template(template: Value) -> Vec<String> {
    of_whole(&json!({
        "apiVersion": OrdersService::api_version(&()), "kind": OrdersService::kind(&()),
        "metadata": {"name": ANY_NAME},
        "spec": {
            "auth": {"jwtSecretRef": {"name": "jwt-secret"}},
            "database": {"uriSecretRef": {"name": "orders-mongo"}},
            "podTemplate": template,
        },
    }))
}

/// What is wrong with this name of an OrdersService.
pub(super) fn of_name(name: &str) -> Vec<String> {
    of_object(json!({
        "apiVersion": OrdersService::api_version(&()), "kind": OrdersService::kind(&()),
        "metadata": {"name": name},
        "spec": {
            "auth": {"jwtSecretRef": {"name": "jwt-secret"}},
            "database": {"uriSecretRef": {"name": "orders-mongo"}},
        },
    }))
}

/// What is wrong with this spec.
pub(super) fn of(spec: Value) -> Vec<String> {
    of_named(ANY_NAME, spec)
}

fn of_named(name: &str, spec: Value) -> Vec<String> {
    of_object(json!({
        "apiVersion": OrdersService::api_version(&()), "kind": OrdersService::kind(&()),
        "metadata": {"name": name}, "spec": spec,
    }))
}

/// What is wrong with this whole OrdersService, by the schema of the CRD too.
pub(super) fn of_whole(object: &Value) -> Vec<String> {
    let problems = of_object(object.clone());
    if problems.is_empty() { render::refused(object) } else { problems }
}

fn of_object(object: Value) -> Vec<String> {
    match serde_json::from_value::<OrdersService>(object) {
        Ok(service) => render::problems(&service),
        Err(error) => vec![error.to_string()],
    }
}
