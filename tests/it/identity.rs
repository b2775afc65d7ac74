//! Who the operator is to the API server: its token, and how it does without cluster-wide rights.

use std::time::Instant;

use k8s_openapi::api::{
    apps::v1::Deployment,
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{ConfigMap, Secret, ServiceAccount},
};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use orders_operator::crd::{
    ConditionType::{IngressReady, Reconciled},
    OrdersService,
};
use serde_json::json;

use crate::cluster::{TestNamespace, eventually};

const MONGO: &str = "mongodb://127.0.0.1:1/orders";

/// A token of the chart's account that is valid for as long as a Secret of this name exists.
async fn token(namespace: &TestNamespace, name: &str) -> String {
    namespace.secret(name, "key", "value").await;
    let uid = namespace.api::<Secret>().get(name).await.unwrap().uid();
    let bound = BoundObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Secret".into()),
        name: Some(name.into()),
        uid,
    };
    let spec = TokenRequestSpec {
        expiration_seconds: Some(3600),
        bound_object_ref: Some(bound),
        ..Default::default()
    };
    let request = TokenRequest { spec, ..Default::default() };
    let account = format!("{}-orders-operator", namespace.name);
    let accounts = namespace.api::<ServiceAccount>();
    let made = accounts.create_token_request(&account, &PostParams::default(), &request).await.unwrap();
    made.status.unwrap().token
}

#[tokio::test]
async fn the_token_is_read_at_the_path_that_the_process_is_told_and_again_when_it_rotates() {
    let namespace = TestNamespace::create("token").await;
    namespace.secrets(MONGO).await;
    namespace.chart_client("controller").await;
    let folder = namespace.folder().join("account");
    std::fs::create_dir(&folder).unwrap();
    let first = token(&namespace, "first").await;
    let ca = namespace.api::<ConfigMap>().get("kube-root-ca.crt").await.unwrap().data.unwrap();
    for (file, text) in [("token", &first), ("ca.crt", &ca["ca.crt"]), ("namespace", &namespace.name)] {
        std::fs::write(folder.join(file), text).unwrap();
    }
    let url = namespace.api_server();
    let port = url.port_u16().unwrap().to_string();
    let environment = [
        // What it must not use.
        ("KUBECONFIG", "/does/not/exist"),
        ("SERVICE_ACCOUNT_PATH", folder.to_str().unwrap()),
        ("KUBERNETES_SERVICE_HOST", url.host().unwrap()),
        ("KUBERNETES_SERVICE_PORT", &port),
    ];
    let _controller = namespace.run_in("controller", &[], &environment).await;
    namespace.apply(&namespace.service("orders", json!({}))).await.unwrap();
    namespace.ready("orders").await;

    // As the kubelet does it: the new token is there before the old one ends.
    let second = token(&namespace, "second").await;
    std::fs::write(folder.join("token"), second).unwrap();
    namespace.api::<Secret>().delete("first", &DeleteParams::default()).await.unwrap();
    let mut config = Config::new(url);
    config.root_cert_file = Some(folder.join("ca.crt"));
    config.auth_info.token = Some(first.into());
    let old = Client::try_from(config).unwrap();
    eventually("the first token has ended", || async {
        let services = Api::<OrdersService>::namespaced(old.clone(), &namespace.name);
        let refused = services.list(&Default::default()).await.err()?;
        matches!(refused, kube::Error::Api(status) if status.code == 401).then_some(())
    })
    .await;
    // One change after the other, as a refused one is not tried again for long.
    let started = Instant::now();
    eventually("a change is carried out with the second token", || async {
        let window = 1000 + started.elapsed().as_secs() / 5;
        let change = Patch::Merge(json!({"spec": {"expiration": {"windowSeconds": window}}}));
        let services = namespace.api::<OrdersService>();
        services.patch("orders", &PatchParams::default(), &change).await.unwrap();
        let deployment = json!(namespace.api::<Deployment>().get("orders").await.unwrap()).to_string();
        (1000..=window).any(|seconds| deployment.contains(&format!("\"{seconds}\""))).then_some(())
    })
    .await;
    namespace.remove().await;
}

#[tokio::test]
async fn without_the_right_to_see_ingress_classes_no_class_is_checked_and_nothing_fails() {
    let mut namespace = TestNamespace::create("classless").await;
    namespace.secrets(MONGO).await;
    namespace.set("ingressClasses.enabled=false");
    let controller = namespace.run_with("controller", &["--ingress-classes", "false"]).await;
    let chart = namespace.install_rights(&namespace.chart_values()).await;
    assert!(chart.iter().all(|object| object["metadata"]["namespace"].is_string()), "{chart:?}");
    let classes = namespace.service("orders", json!({"ingress": {"className": "no-such-class"}}));
    namespace.apply(&classes).await.unwrap();
    namespace.condition("orders", Reconciled, "True", "AsExpected").await;
    namespace.condition("orders", IngressReady, "True", "ServiceNotFound").await;
    assert!(controller.admin("/readyz").await.ends_with("ok\n"));
    assert!(!controller.log().to_lowercase().contains("forbidden"), "{}", controller.log());
    namespace.remove().await;
}
