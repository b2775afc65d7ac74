//! What leaves a resource ready and should be looked at all the same, and what does not take away what works.

use std::{collections::BTreeSet, process::Command};

use k8s_openapi::api::{
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::Service,
    networking::v1::{Ingress, IngressClass},
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use orders_operator::crd::{ConditionType::*, OrdersService};
use serde_json::{Value, json};

use super::{MONGO, pods::serve, rules, whole};
use crate::cluster::{TestNamespace, eventually};

/// The reasons of the warnings among the events.
async fn warned(namespace: &TestNamespace, reason: &str) {
    let events = namespace.dynamic("Event", "events.k8s.io/v1");
    eventually(&format!("an event warns of {reason}"), || async {
        let events = events.list(&ListParams::default()).await.unwrap();
        let is_it = |event: &Value| event["reason"] == reason && event["type"] == "Warning";
        events.iter().any(|event| is_it(&event.data)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn warnings_leave_a_resource_ready_and_show_in_the_wide_table_and_as_events() {
    let namespace = TestNamespace::create("warnings").await;
    namespace.secrets(MONGO).await;
    let _controller = namespace.run("controller").await;
    // Of a class that need not exist as an object.
    let class = json!({"kubernetes.io/ingress.class": "traefik"});
    let of_class = json!({"ingress": {"annotations": class}});
    namespace.apply(&namespace.service("orders", of_class)).await.unwrap();
    let message = namespace.condition("orders", Ready, "True", "ServiceNotFound").await;
    assert!(message.contains("(\"auth-srv\", \"client-srv\", \"ws-srv\")"), "{message}");
    namespace.condition("orders", IngressReady, "True", "ServiceNotFound").await;
    warned(&namespace, "ServiceNotFound").await;
    let wide = Command::new("kubectl")
        .args(["--namespace", &namespace.name, "get", "osvc", "orders", "-o", "wide"])
        .output()
        .unwrap();
    let wide = String::from_utf8(wide.stdout).unwrap();
    assert!(wide.contains("ServiceNotFound") && wide.contains("auth-srv"), "{wide}");

    let services = namespace.api::<Service>();
    for name in ["auth-srv", "client-srv", "ws-srv"] {
        let service = json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 3000}]}});
        let service = serde_json::from_value(service).unwrap();
        services.create(&PostParams::default(), &service).await.unwrap();
    }
    namespace.condition("orders", Ready, "True", "AsExpected").await;
    services.delete("ws-srv", &DeleteParams::background()).await.unwrap();
    let message = namespace.condition("orders", Ready, "True", "ServiceNotFound").await;
    assert!(message.contains("(\"ws-srv\")"), "{message}");

    let without_client =
        json!({"ingress": {"annotations": class, "client": null, "tls": {"secretName": "tls"}}});
    namespace.apply(&namespace.service("orders", without_client)).await.unwrap();
    let message = namespace.condition("orders", Ready, "True", "TLSSecretMissing").await;
    assert!(message.contains("client is not set"), "{message}");
    warned(&namespace, "TLSSecretMissing").await;
    namespace.remove().await;
}

#[tokio::test]
async fn a_class_that_does_not_exist_leaves_an_ingress_that_works_as_it_is() {
    let namespace = TestNamespace::create("class").await;
    namespace.secrets(MONGO).await;
    let classes = Api::<IngressClass>::all(namespace.client.clone());
    let class = |name: &str| {
        let name = format!("{}-{name}", namespace.name);
        let spec = json!({"metadata": {"name": name}, "spec": {"controller": "example.com/none"}});
        (name, serde_json::from_value::<IngressClass>(spec).unwrap())
    };
    let ((there, first), (typo, second)) = (class("there"), class("typo"));
    classes.create(&PostParams::default(), &first).await.unwrap();
    let _controller = namespace.run("controller").await;
    let with = |class: &str, path: &str| {
        let route = json!([{"path": path, "service": "a-srv"}]);
        namespace.service("orders", json!({"ingress": {"className": class, "routes": route}}))
    };
    namespace.apply(&with(&there, "/a")).await.unwrap();
    namespace.ready("orders").await;
    let ingress = async || {
        let ingress = namespace.api::<Ingress>().get("orders").await.unwrap();
        (rules(&ingress), ingress.spec.unwrap().ingress_class_name.unwrap())
    };
    let routes = async || {
        let service = namespace.api::<OrdersService>().get("orders").await.unwrap();
        service.status.unwrap().routes.into_iter().map(|route| route.path).collect::<BTreeSet<_>>()
    };
    let before = (ingress().await, routes().await);
    namespace.apply(&with(&typo, "/b")).await.unwrap();
    let message = namespace.condition("orders", IngressReady, "False", "IngressClassNotFound").await;
    assert!(message.contains("left as it is"), "{message}");
    assert_eq!((ingress().await, routes().await), before);
    // It was none.
    classes.create(&PostParams::default(), &second).await.unwrap();
    namespace.ready("orders").await;
    assert_eq!(ingress().await.1, typo);
    assert!(routes().await.contains("/b"));
    for name in [there, typo] {
        classes.delete(&name, &DeleteParams::default()).await.unwrap();
    }
    namespace.remove().await;
}

#[tokio::test]
async fn an_autoscaler_without_metrics_is_a_warning() {
    let namespace = TestNamespace::create("unmeasured").await;
    namespace.secrets(MONGO).await;
    let _controller = namespace.run("controller").await;
    namespace.apply(&namespace.service("orders", whole())).await.unwrap();
    let autoscalers = namespace.api::<HorizontalPodAutoscaler>();
    eventually("the autoscaler is there", || async { autoscalers.get_opt("orders").await.unwrap() }).await;
    // As the cluster's autoscaler says it, which then leaves the time as it is.
    let condition = json!({
        "type": "ScalingActive", "status": "False", "reason": "FailedGetResourceMetric", "message": "none",
        "lastTransitionTime": "2026-01-01T00:00:00Z"
    });
    let status = Patch::Merge(json!({"status": {"conditions": [condition], "desiredReplicas": 2}}));
    autoscalers.patch_status("orders", &PatchParams::default(), &status).await.unwrap();
    eventually("its pods serve", || async {
        serve(&namespace).await;
        let service = namespace.api::<OrdersService>().get("orders").await.unwrap();
        let conditions = service.status.unwrap_or_default().conditions;
        conditions.iter().any(|each| each.type_ == "Available" && each.status == "True").then_some(())
    })
    .await;
    let message = namespace.condition("orders", Available, "True", "AutoscalerWithoutMetrics").await;
    assert!(message.contains("2 of 2 pods are ready") && message.contains("metrics server"), "{message}");
    namespace.condition("orders", Ready, "True", "AutoscalerWithoutMetrics").await;
    namespace.remove().await;
}
