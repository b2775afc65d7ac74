//! What other pages than docs/installing.md have people do with the chart, from an installation to its removal, on an API server
//! that has nothing of ours. The operator's pods are played.

use k8s_openapi::api::{apps::v1::Deployment, core::v1::ConfigMap};
use kube::{Api, api::ListParams};
use serde_json::{Value, json};

use super::{alone, done, namespace};
use crate::{
    cluster::{TestNamespace, apply_any, eventually},
    console::blocks,
    played_pods::PlayedPods,
};

/// Kinds of the Prometheus operator, by their names in the API.
const WATCHERS: [(&str, &str); 2] = [("PodMonitor", "podmonitors"), ("PrometheusRule", "prometheusrules")];

/// Has the API server take objects of the Prometheus operator, whatever they say.
async fn prometheus_operator(namespace: &TestNamespace) {
    for (kind, plural) in WATCHERS {
        let schema =
            json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
        let crd = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.monitoring.coreos.com")},
            "spec": {
                "group": "monitoring.coreos.com", "scope": "Namespaced",
                "names": {"kind": kind, "listKind": format!("{kind}List"), "plural": plural, "singular": kind.to_lowercase()},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}],
            },
        });
        apply_any(&namespace.client, crd).await;
    }
    let names = WATCHERS.map(|(_, plural)| format!("crd/{plural}.monitoring.coreos.com")).join(" ");
    done(&format!("kubectl wait --for=condition=Established {names}")).await;
    let list = WATCHERS.map(|(_, plural)| format!("{plural}.monitoring.coreos.com")).join(",");
    eventually("they are served", || async {
        done(&format!("kubectl get {list} -A >/dev/null 2>&1 && echo yes || echo no"))
            .await
            .contains("yes")
            .then_some(())
    })
    .await;
}

/// The pod of the operator as its Deployment makes it.
async fn pod(namespace: &TestNamespace) -> Value {
    let deployments = Api::<Deployment>::namespaced(namespace.client.clone(), "orders-operator");
    let deployment = deployments.get("orders-operator").await.unwrap();
    serde_json::to_value(deployment.spec.unwrap().template.spec).unwrap()
}

#[tokio::test]
#[ignore = "make test-installs"]
async fn the_operator_is_installed_watched_upgraded_and_removed_by_the_commands_of_the_pages() {
    let _alone = alone().await;
    let namespace = namespace("chart-pages").await;
    let pods = PlayedPods::start_in(&namespace.client, "orders-operator").await;

    let [install] = blocks("docs/quickstart.md", "1. Install the operator").try_into().unwrap();
    done(&install).await;
    prometheus_operator(&namespace).await;
    let [watch] = blocks("docs/monitoring.md", "Watching the product").try_into().unwrap();
    done(&watch).await;
    let made = done("kubectl -n orders-operator get podmonitors,prometheusrules -o name").await;
    assert_eq!(made.lines().count(), 3, "{made}");
    let maps = Api::<ConfigMap>::namespaced(namespace.client.clone(), "orders-operator");
    let maps = maps.list(&ListParams::default().labels("grafana_dashboard")).await.unwrap().items;
    assert_eq!(maps.len(), 5);

    let [crd, upgrade] = blocks("docs/tasks.md", "Upgrade").try_into().unwrap();
    done(&crd).await;
    let told = done(&upgrade).await;
    assert!(told.contains("successfully rolled out"), "{told}");
    drop(pods);
    let [remove] = blocks("docs/tasks.md", "Remove the operator").try_into().unwrap();
    done(&remove).await;
    let left = done("kubectl get crd,clusterroles,clusterrolebindings -o name").await;
    assert!(!left.contains("ordersservices.ticketing.dev") && !left.contains("orders-operator:"), "{left}");

    let [install] = blocks("charts/orders-operator/README.md", "orders-operator").try_into().unwrap();
    done(&install).await;
    assert_eq!(pod(&namespace).await["securityContext"]["runAsUser"], 65532);
    let [remove] = blocks("docs/quickstart.md", "And the operator").try_into().unwrap();
    done(&remove).await;
    let [install] =
        blocks("docs/clusters.md", "OpenShift, or whoever else assigns users").try_into().unwrap();
    done(&install).await;
    assert_eq!(pod(&namespace).await["securityContext"]["runAsUser"], Value::Null);
    namespace.remove().await;
}
