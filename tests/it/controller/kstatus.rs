//! What kstatus's own library says of a resource, by which Flux and others wait.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use kube::api::{DeleteParams, Patch, PatchParams};
use orders_operator::crd::{
    ConditionType::{self, *},
    OrdersService, find_condition,
};
use serde_json::json;

use super::MONGO;
use crate::{
    bed::setting,
    cluster::{TestNamespace, eventually},
};

/// What the library says.
fn said(service: &OrdersService) -> String {
    let mut child =
        Command::new(setting("KSTATUS")).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&serde_json::to_vec(service).unwrap()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What it says of `orders` as it is now.
pub(crate) async fn said_now(namespace: &TestNamespace) -> String {
    said(&namespace.api().get("orders").await.unwrap())
}

/// Waits until the library says this, with the message of that condition of the same object.
async fn tells(namespace: &TestNamespace, begins: &str, kind: ConditionType) {
    eventually(&format!("{begins}, and the message"), || async {
        let service: OrdersService = namespace.api().get("orders").await.unwrap();
        let said = said(&service);
        let message = &find_condition(&service.status?.conditions, kind)?.message.clone();
        (said.starts_with(begins) && said.contains(message)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn flux_waits_as_kubectl_does_and_gives_up_where_nothing_but_a_change_can_help() {
    let namespace = TestNamespace::create("kstatus").await;
    namespace.secrets(MONGO).await;
    let fresh = namespace.apply(&namespace.service("orders", json!({}))).await.unwrap();
    assert!(said(&fresh).starts_with("InProgress: "), "no controller has seen it: {}", said(&fresh));

    let _controller = namespace.run("controller").await;
    namespace.ready("orders").await;
    assert!(said_now(&namespace).await.starts_with("Current: "));
    let changed = namespace.apply(&namespace.service("orders", json!({"port": 4000}))).await.unwrap();
    assert!(said(&changed).starts_with("InProgress: "), "the change is not live: {}", said(&changed));
    namespace.ready("orders").await;
    assert!(said_now(&namespace).await.starts_with("Current: "));

    // There is no node on which these would run.
    namespace.apply(&namespace.service("orders", json!({"replicas": 1}))).await.unwrap();
    namespace.condition("orders", Available, "False", "MinimumReplicasUnavailable").await;
    tells(&namespace, "InProgress: ", Available).await;

    let twice = json!([{"path": "/a", "service": "a-srv"}, {"path": "/a/?(.*)", "service": "b-srv"}]);
    namespace.apply(&namespace.service("orders", json!({"ingress": {"routes": twice}}))).await.unwrap();
    namespace.condition("orders", Valid, "False", "DuplicatePath").await;
    tells(&namespace, "Failed: ", Valid).await;

    namespace.apply(&namespace.service("orders", json!({"suspend": true}))).await.unwrap();
    namespace.condition("orders", Reconciled, "False", "Suspended").await;
    assert!(said_now(&namespace).await.starts_with("Failed: "));

    namespace.apply(&namespace.service("orders", json!({}))).await.unwrap();
    namespace.ready("orders").await;
    assert!(said_now(&namespace).await.starts_with("Current: "));
    let services = namespace.api::<OrdersService>();
    let held = Patch::Merge(json!({"metadata": {"finalizers": ["example.com/held"]}}));
    services.patch("orders", &PatchParams::default(), &held).await.unwrap();
    services.delete("orders", &DeleteParams::background()).await.unwrap();
    assert!(said_now(&namespace).await.starts_with("Terminating: "));
    let freed = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    services.patch("orders", &PatchParams::default(), &freed).await.unwrap();
    eventually("it is gone", || async { services.get_opt("orders").await.unwrap().is_none().then_some(()) })
        .await;
    namespace.remove().await;
}
