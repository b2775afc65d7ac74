//! The objects of a cluster that have to do with routes, as far as whoever asks may see them.

use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::{
    Api,
    api::{DynamicObject, ListParams},
    core::ApiResource,
};
use serde_json::{Value, json};

use super::{cluster::Cluster, error::AskError};
use crate::{
    controller::{HTTPRoute, render::ClusterObjects},
    crd::OrdersService,
};

/// The objects, and what is not known of them.
pub(super) struct Gathered {
    /// The objects.
    pub(super) objects: ClusterObjects,
    /// Which could not be listed, and why.
    pub(super) unknown: Vec<String>,
}

/// Lists the objects of a namespace, or of all.
///
/// # Errors
/// When the OrdersServices cannot be listed. Without the others, the answer is only less complete.
pub(super) async fn gather(cluster: &Cluster, namespace: Option<&str>) -> Result<Gathered, AskError> {
    let mut unknown = Vec::new();
    let services =
        list(cluster, &ApiResource::erase::<OrdersService>(&()), "OrdersServices", namespace).await?;
    let ingress = ApiResource::erase::<Ingress>(&());
    let ingresses = list(cluster, &ingress, "Ingresses", namespace).await;
    let http_route = ApiResource::erase::<HTTPRoute>(&());
    let http_routes = match list(cluster, &http_route, "HTTPRoutes", namespace).await {
        // There is no Gateway API.
        Err(AskError::NotFound(_)) => Ok(Vec::new()),
        listed => listed,
    };
    let classes = Api::<IngressClass>::all(cluster.client.clone());
    let classes = cluster.list("list IngressClasses", &classes, ListParams::default()).await;
    let objects = ClusterObjects {
        services,
        ingresses: known(ingresses, &mut unknown),
        http_routes: known(http_routes, &mut unknown),
        classes: known(classes, &mut unknown),
    };
    Ok(Gathered { objects, unknown })
}

fn known<T>(listed: Result<Vec<T>, AskError>, unknown: &mut Vec<String>) -> Vec<T> {
    listed.unwrap_or_else(|error| {
        unknown.push(error.to_string());
        Vec::new()
    })
}

async fn list(
    cluster: &Cluster,
    resource: &ApiResource,
    named: &str,
    namespace: Option<&str>,
) -> Result<Vec<Value>, AskError> {
    let client = cluster.client.clone();
    let (api, place) = match namespace {
        Some(namespace) => (
            Api::<DynamicObject>::namespaced_with(client, namespace, resource),
            format!("namespace {namespace}"),
        ),
        None => (Api::all_with(client, resource), "all namespaces".to_owned()),
    };
    let listed = cluster.list(&format!("list {named} in {place}"), &api, ListParams::default()).await?;
    Ok(listed.into_iter().map(|object| json!(object)).collect())
}
