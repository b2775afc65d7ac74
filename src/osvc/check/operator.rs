//! The operator: its Deployments, and the Lease by which one controller leads.

use std::time::{Duration, Instant};

use futures::future::join_all;
use k8s_openapi::api::{
    apps::v1::Deployment,
    coordination::v1::Lease,
    core::v1::{Container, EnvVar},
};
use kube::{Api, ResourceExt, api::ListParams};

use super::{
    report::Group,
    rollout::{self, ready_pods},
};
use crate::osvc::{cluster::Cluster, error::AskError};

/// What the chart labels its Deployments with.
const LABELS: &str = "app.kubernetes.io/name in (orders-operator,orders-operator-sweeper)";

/// How often it is looked whether a Lease has been renewed, which a leader does every 2 seconds.
const LOOK: Duration = Duration::from_millis(500);

/// The longest that a Lease is looked at, whatever it says itself.
const MAX_LOOKS: Duration = Duration::from_secs(30);

/// How to install it.
const INSTALL: &str = "install it (see docs/installing.md); if you may not list all namespaces, set \
     --operator-namespace";

/// Checks every operator that watches `watched`, or all where none is named.
pub(super) async fn check(cluster: &Cluster, own_namespace: &str, watched: Option<&str>) -> Group {
    let mut group = Group::new("Operator");
    let everywhere = Api::<Deployment>::all(cluster.client.clone());
    let params = || ListParams::default().labels(LABELS);
    let mut listed = cluster.list("list Deployments in all namespaces", &everywhere, params()).await;
    if let Err(AskError::Forbidden(_)) = listed {
        let there = Api::<Deployment>::namespaced(cluster.client.clone(), own_namespace);
        let what = format!("list Deployments in namespace {own_namespace}");
        listed = cluster.list(&what, &there, params()).await;
    }
    let mut deployments = match listed {
        Ok(deployments) => deployments,
        Err(error) => {
            group.unasked(&error);
            return group;
        }
    };
    deployments.retain(|deployment| watches(deployment, watched));
    let runs =
        |name: &str| deployments.iter().any(|of| containers(of).any(|container| container.name == name));
    for (name, does) in
        [("controller", "so OrdersServices are not reconciled"), ("sweeper", "so no order expires")]
    {
        if !runs(name) {
            group.failure(format!("no Deployment of the operator has a {name}, {does}"), INSTALL);
        }
    }
    // A Lease may take its time, so they are looked at together.
    let checks = deployments.iter().map(|deployment| check_one(cluster, deployment));
    join_all(checks).await.into_iter().for_each(|lines| group.append(lines));
    group
}

async fn check_one(cluster: &Cluster, deployment: &Deployment) -> Group {
    let mut group = Group::new("");
    rollout::check(&mut group, cluster, deployment).await;
    judge_version(&mut group, deployment);
    let controller = containers(deployment).find(|container| container.name == "controller");
    // Without a ready pod nobody renews the Lease, which then need not be waited for: that there is none is told.
    if let Some(controller) = controller.filter(|_| ready_pods(deployment) > 0) {
        check_lease(&mut group, cluster, deployment, controller).await;
    }
    group
}

fn containers(deployment: &Deployment) -> impl Iterator<Item = &Container> {
    let template = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    template.into_iter().flat_map(|spec| &spec.containers)
}

fn variable<'a>(container: &'a Container, name: &str) -> Option<&'a EnvVar> {
    container.env.iter().flatten().find(|variable| variable.name == name)
}

/// Whether the operator of this Deployment watches the namespace. One that watches some namespaces lists them.
fn watches(deployment: &Deployment, namespace: Option<&str>) -> bool {
    let Some(namespace) = namespace else { return true };
    containers(deployment).all(|container| match variable(container, "WATCH_NAMESPACE") {
        None => true,
        // It is taken from a field: its own.
        Some(EnvVar { value: None, .. }) => deployment.namespace().as_deref() == Some(namespace),
        Some(EnvVar { value: Some(listed), .. }) => {
            listed.is_empty() || listed.split(',').any(|name| name == namespace)
        }
    })
}

fn judge_version(group: &mut Group, deployment: &Deployment) {
    let own = env!("CARGO_PKG_VERSION");
    match deployment.labels().get("app.kubernetes.io/version") {
        Some(version) if version == own => {
            group.ok(format!("it is of version {own}, the same as this program"))
        }
        Some(version) => group.warning(
            format!("it is of version {version}, but this program is of version {own}"),
            "their reports may differ: use the program of the same release",
        ),
        None => {}
    }
}

async fn check_lease(group: &mut Group, cluster: &Cluster, deployment: &Deployment, controller: &Container) {
    let Some(name) = variable(controller, "LEASE_NAME").and_then(|variable| variable.value.clone()) else {
        return;
    };
    let of = variable(controller, "LEASE_NAMESPACE").and_then(|variable| variable.value.clone());
    let namespace = of.or(deployment.namespace()).unwrap_or_default();
    let api = Api::<Lease>::namespaced(cluster.client.clone(), &namespace);
    let what = format!("read Lease {namespace}/{name}");
    let lease = match cluster.ask(&what, api.get_opt(&name)).await {
        Ok(Some(lease)) => lease,
        Ok(None) => {
            let told = format!("there is no Lease {namespace}/{name}, so no controller has ever led");
            return group.failure(told, "see the log of the container controller");
        }
        Err(error) => return group.unasked(&error),
    };
    let spec = lease.spec.unwrap_or_default();
    let Some(holder) = spec.holder_identity.filter(|holder| !holder.is_empty()) else {
        let told = format!("nobody holds Lease {namespace}/{name}, so no controller leads");
        return group
            .failure(told, "see whether the operator's pods run, and the log of the container controller");
    };
    // The clock of this machine may be wrong, so it is looked whether the record changes.
    let expires = Duration::from_secs(spec.lease_duration_seconds.unwrap_or(15).max(1).unsigned_abs().into());
    let (since, renewed) = (Instant::now(), spec.renew_time);
    while since.elapsed() < expires.min(MAX_LOOKS) {
        tokio::time::sleep(LOOK).await;
        match cluster.ask(&what, api.get(&name)).await {
            Ok(now) if now.spec.as_ref().and_then(|spec| spec.renew_time.clone()) != renewed => {
                return group.ok(format!("{holder} holds Lease {namespace}/{name}, and renews it"));
            }
            Ok(_) => {}
            Err(error) => return group.unasked(&error),
        }
    }
    group.failure(
        format!(
            "{holder} holds Lease {namespace}/{name}, and has not renewed it for {} s",
            since.elapsed().as_secs()
        ),
        "that controller hangs or is gone: see the operator's pods, and their logs",
    );
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn deployment(env: Value) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"name": "operator", "namespace": "ops", "labels": {"app.kubernetes.io/version": "0.0.1"}},
            "spec": {"replicas": 2, "selector": {}, "template": {"spec": {"containers": [{"name": "controller", "env": env}]}}}
        }))
        .unwrap()
    }

    #[test]
    fn an_operator_watches_all_namespaces_or_those_that_it_lists_or_its_own() {
        let listed = deployment(json!([{"name": "WATCH_NAMESPACE", "value": "shop,live"}]));
        let own = deployment(
            json!([{"name": "WATCH_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}]),
        );
        let all = deployment(json!([]));
        for (deployment, namespace, expected) in [
            (&listed, Some("live"), true),
            (&listed, Some("li"), false),
            (&listed, None, true),
            (&own, Some("ops"), true),
            (&own, Some("shop"), false),
            (&all, Some("shop"), true),
        ] {
            assert_eq!(watches(deployment, namespace), expected, "{namespace:?}");
        }
    }

    #[test]
    fn another_version_is_a_warning() {
        let mut group = Group::new("");
        judge_version(&mut group, &deployment(json!([])));
        let told = serde_json::to_string(&group).unwrap();
        assert!(!group.fails() && told.contains("\"warning\"") && told.contains("0.0.1"), "{told}");
    }
}
