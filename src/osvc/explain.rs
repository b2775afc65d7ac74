//! `explain`: which OrdersService, rule, Service and pods take a request, and why.

use std::{collections::BTreeSet, fmt::Write};

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{Api, api::ListParams};

use super::{
    args::ExplainArgs,
    cluster::Cluster,
    error::{AskError, OsvcError},
    paint::plain,
    printed::Printed,
    routes::gather,
};
use crate::{
    controller::render::{ClusterRoutes, Taker},
    routing::RequestTarget,
};

/// The label of an EndpointSlice with the name of its Service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// Answers for every host that the request may be for.
///
/// # Errors
/// When the argument is no request, or the OrdersServices cannot be listed.
pub(super) async fn run(args: &ExplainArgs) -> Result<Printed, OsvcError> {
    let request = RequestTarget::parse(&args.url)?;
    let cluster = Cluster::of(&args.cluster).await?;
    let namespace = args.cluster.namespace.as_deref();
    let gathered = gather(&cluster, namespace).await.map_err(|error| match error {
        AskError::NotFound(_) => OsvcError::NoSuchKind,
        AskError::Forbidden(what) if namespace.is_none() => {
            AskError::Forbidden(format!("{what}; -n names one in which you have it")).into()
        }
        error => error.into(),
    })?;
    let explained = ClusterRoutes::new(&gathered.objects).explain(&request)?;
    let mut text = String::new();
    for line in explained.text.lines() {
        writeln!(text, "{}", plain(line))?;
    }
    for Taker { owner, namespace, service } in &explained.takers {
        match service {
            Some(service) => {
                let found =
                    pods(&cluster, namespace, service).await.unwrap_or_else(|error| error.to_string());
                writeln!(text, "{}", plain(&format!("Service {namespace}/{service}: {found}")))?;
            }
            // Whoever asks has listed it, and so may read it.
            None => {
                let told = format!("{owner} says which Service takes it: {}", read_by(owner));
                writeln!(text, "{}", plain(&told))?;
            }
        }
    }
    for unknown in &gathered.unknown {
        writeln!(text, "{}", plain(&format!("note: not everything is known: {unknown}")))?;
    }
    Ok(Printed { text, code: u8::from(explained.takers.is_empty()) })
}

/// The command that shows an object, such as `Ingress shop/old`.
fn read_by(owner: &str) -> String {
    let (kind, name) = owner.split_once(' ').unwrap_or_default();
    let (namespace, name) = name.split_once('/').unwrap_or_default();
    format!("`kubectl -n {namespace} describe {} {name}`", kind.to_lowercase())
}

/// The pods behind a Service, or why there are none.
async fn pods(cluster: &Cluster, namespace: &str, name: &str) -> Result<String, AskError> {
    let services = Api::<Service>::namespaced(cluster.client.clone(), namespace);
    let what = format!("read Service {namespace}/{name}");
    let Some(service) = cluster.ask(&what, services.get_opt(name)).await? else {
        return Ok(
            "it does not exist, so requests fail or, with Traefik, fall through to a shorter rule: create it, or \
             correct the route"
                .into(),
        );
    };
    if let Some(elsewhere) = service.spec.and_then(|spec| spec.external_name) {
        return Ok(format!("it is another name for {elsewhere}"));
    }
    let slices = Api::<EndpointSlice>::namespaced(cluster.client.clone(), namespace);
    let params = ListParams::default().labels(&format!("{SERVICE_LABEL}={name}"));
    let slices =
        cluster.list(&format!("list EndpointSlices in namespace {namespace}"), &slices, params).await?;
    let (mut ready, mut others) = (BTreeSet::new(), BTreeSet::new());
    for endpoint in slices.into_iter().flat_map(|slice| slice.endpoints) {
        let pod = endpoint.target_ref.and_then(|of| of.name);
        let named = pod.map(|pod| format!("pod {pod}")).or(endpoint.addresses.into_iter().next());
        // Without a word it counts as ready.
        let is_ready = endpoint.conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
        let into = if is_ready { &mut ready } else { &mut others };
        into.extend(named);
    }
    let listed = |names: BTreeSet<String>| names.into_iter().collect::<Vec<_>>().join(", ");
    Ok(match (ready.is_empty(), others.is_empty()) {
        (false, true) => format!("taken by {}", listed(ready)),
        (false, false) => format!("taken by {}; not ready: {}", listed(ready), listed(others)),
        (true, false) => format!("no pod is ready: {}", listed(others)),
        (true, true) => "it has no pods, so requests fail".into(),
    })
}
