//! Secrets that change, that are made anew, and whose value is what was amiss.

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Secret};
use kube::api::DeleteParams;
use orders_operator::crd::ConditionType::*;
use serde_json::json;

use super::{MONGO, settled, settled_of};
use crate::cluster::{TestNamespace, eventually};

/// The annotation of the pods that changes with a value.
async fn checksum(namespace: &TestNamespace) -> String {
    let deployment = namespace.api::<Deployment>().get("orders").await.unwrap();
    let template = deployment.spec.unwrap().template.metadata.unwrap();
    template.annotations.unwrap()["ticketing.dev/secrets-checksum"].clone()
}

#[tokio::test]
async fn a_value_that_is_mended_is_noticed_soon_while_pods_do_not_serve() {
    let namespace = TestNamespace::create("mended").await;
    namespace.secrets(MONGO).await;
    let _controller = namespace.run("controller").await;
    // There is no node, so these never serve, as they would with a wrong value.
    namespace.apply(&namespace.service("orders", json!({"replicas": 1}))).await.unwrap();
    namespace.condition("orders", Available, "False", "MinimumReplicasUnavailable").await;
    let before = checksum(&namespace).await;
    namespace.secrets("mongodb://127.0.0.1:2/orders").await;
    // While all is well they are read every five minutes, less a quarter at most: this does not wait so long.
    eventually("the pods are rolled", || async { (checksum(&namespace).await != before).then_some(()) })
        .await;
    namespace.remove().await;
}

#[tokio::test]
async fn a_new_spec_has_each_secret_read_once_in_however_many_reconciles_it_is_carried_out() {
    let namespace = TestNamespace::create("once").await;
    namespace.secrets(MONGO).await;
    let controller = namespace.run_with("controller", &["--secret-refresh", "86400"]).await;
    namespace.apply(&namespace.service("orders", json!({}))).await.unwrap();
    namespace.ready("orders").await;
    settled(&namespace).await;
    let reads =
        || controller.metric("orders_operator_controller_api_requests_total{kind=\"Secret\",verb=\"get\"}");
    let before = reads().await;
    // At least two: the cluster's own controller has to observe the new Deployment before the status can be written.
    namespace.apply(&namespace.service("orders", json!({"drainSeconds": 7}))).await.unwrap();
    namespace.ready("orders").await;
    let read = reads().await - before;
    assert!(read <= 2.0, "two Secrets were read {read} times");
    namespace.remove().await;
}

#[tokio::test]
async fn a_value_that_changes_with_the_spec_is_noticed_soon_though_another_resource_has_just_read_it() {
    let namespace = TestNamespace::create("shared").await;
    namespace.secrets(MONGO).await;
    let _controller = namespace.run_with("controller", &["--secret-refresh", "86400"]).await;
    for name in ["other", "orders"] {
        let spec = json!({"ingress": {"hosts": [format!("{name}.dev")]}});
        namespace.apply(&namespace.service(name, spec)).await.unwrap();
        namespace.ready(name).await;
    }
    settled_of(&["other", "orders"].map(|name| (&namespace, name))).await;
    let before = checksum(&namespace).await;
    let change = async |name: &str, seconds| {
        let spec = json!({"ingress": {"hosts": [format!("{name}.dev")]}, "drainSeconds": seconds});
        namespace.apply(&namespace.service(name, spec)).await.unwrap();
    };
    change("other", 7).await;
    namespace.ready("other").await;
    namespace.secrets("mongodb://127.0.0.1:2/orders").await;
    change("orders", 7).await;
    eventually("the pods are rolled", || async { (checksum(&namespace).await != before).then_some(()) })
        .await;
    namespace.remove().await;
}

#[tokio::test]
async fn each_secret_of_the_broker_rolls_the_pods_when_its_value_changes() {
    let namespace = TestNamespace::create("broker").await;
    namespace.secrets(MONGO).await;
    let secrets = [("nats", "NATS_URL"), ("nats-ca", "ca.crt"), ("nats-user", "nats.creds")];
    for (name, key) in secrets {
        namespace.secret(name, key, "one").await;
    }
    let _controller = namespace.run("controller").await;
    let [url, ca, creds] = secrets.map(|(name, _)| json!({"name": name}));
    let nats = json!({"urlSecretRef": url, "caSecretRef": ca, "credsSecretRef": creds});
    let service = namespace.service("orders", json!({"replicas": 1, "events": {"nats": nats}}));
    namespace.apply(&service).await.unwrap();
    namespace.condition("orders", Available, "False", "MinimumReplicasUnavailable").await;
    for (name, key) in secrets {
        let before = checksum(&namespace).await;
        namespace.secret(name, key, "two").await;
        eventually("the pods are rolled", || async { (checksum(&namespace).await != before).then_some(()) })
            .await;
    }
    namespace.remove().await;
}

#[tokio::test]
async fn a_secret_that_is_made_anew_with_the_same_values_rolls_no_pod() {
    let namespace = TestNamespace::create("anew").await;
    namespace.secrets(MONGO).await;
    let _controller = namespace.run("controller").await;
    namespace.apply(&namespace.service("orders", json!({}))).await.unwrap();
    namespace.ready("orders").await;
    let before = checksum(&namespace).await;
    namespace.api::<Secret>().delete("orders-mongo", &DeleteParams::default()).await.unwrap();
    // A change of the spec has the Secrets read at once; this one changes no pod.
    let annotated = json!({"ingress": {"annotations": {"a": "b"}}});
    namespace.apply(&namespace.service("orders", annotated.clone())).await.unwrap();
    namespace.condition("orders", Reconciled, "False", "SecretNotFound").await;
    namespace.secrets(MONGO).await;
    namespace.ready("orders").await;
    assert_eq!(checksum(&namespace).await, before);
    namespace.remove().await;
}
