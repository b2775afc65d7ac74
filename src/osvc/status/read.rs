//! Reads an OrdersService and what is around it.

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::{Api, Resource, ResourceExt, api::ListParams};

use super::{
    events::latest,
    report::{PodView, Report},
};
use crate::{
    controller::{pod_selector, render::ClusterRoutes},
    crd::OrdersService,
    osvc::{
        cluster::Cluster,
        error::{AskError, OsvcError},
        routes::gather,
    },
};

/// The OrdersService of this name.
///
/// # Errors
/// When it is not there, or cannot be read.
pub(super) async fn service(cluster: &Cluster, name: &str) -> Result<OrdersService, OsvcError> {
    let namespace = &cluster.namespace;
    let api = Api::<OrdersService>::namespaced(cluster.client.clone(), namespace);
    match cluster.ask(&format!("read OrdersService {namespace}/{name}"), api.get(name)).await {
        Err(AskError::NotFound(_)) => {
            let version = OrdersService::api_version(&());
            let known = cluster.client.list_api_group_resources(&version);
            Err(match cluster.ask("list the kinds of ticketing.dev", known).await {
                Err(AskError::NotFound(_)) => OsvcError::NoSuchKind,
                _ => OsvcError::NoSuchService { namespace: namespace.clone(), name: name.to_owned() },
            })
        }
        answer => Ok(answer?),
    }
}

/// What is told of it. What whoever asks may not read is named, and nothing else lacks for it.
pub(super) async fn report(cluster: &Cluster, service: &OrdersService) -> Report {
    let mut report = Report::of(service);
    let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
    let mut gathered = gather(cluster, None).await;
    if let Err(error @ AskError::Forbidden(_)) = &gathered {
        report.unknown.push(format!("routes of other namespaces: {error}"));
        gathered = gather(cluster, Some(&namespace)).await;
    }
    match gathered {
        Ok(gathered) => {
            let routes = ClusterRoutes::new(&gathered.objects);
            (report.not_rendered, report.kept_from_others) = routes.missing(&namespace, &name);
            report.unknown.extend(gathered.unknown);
        }
        Err(error) => report.unknown.push(error.to_string()),
    }
    let pods = Api::<Pod>::namespaced(cluster.client.clone(), &namespace);
    let params = ListParams::default().labels(&pod_selector(&name));
    match cluster.list(&format!("list pods in namespace {namespace}"), &pods, params).await {
        Ok(pods) => report.pods = Some(pods.iter().map(PodView::from).collect()),
        Err(error) => report.unknown.push(error.to_string()),
    }
    let events = Api::<Event>::namespaced(cluster.client.clone(), &namespace);
    let of = format!("involvedObject.kind=OrdersService,involvedObject.name={name}");
    let params = ListParams::default().fields(&of);
    match cluster.list(&format!("list Events in namespace {namespace}"), &events, params).await {
        Ok(events) => report.events = Some(latest(&events)),
        Err(error) => report.unknown.push(error.to_string()),
    }
    report
}
