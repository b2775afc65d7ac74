//! What kstatus's own library says of a resource, by which Flux and others wait; and Argo CD, by the Lua of docs/conditions.md.

use std::{
    io::Write,
    path::Path,
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
    cluster::{TestNamespace, eventually, root},
};

/// What the library says.
fn said(service: &OrdersService) -> String {
    answered(Command::new(setting("KSTATUS")), service)
}

fn answered(mut program: Command, service: &OrdersService) -> String {
    let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&serde_json::to_vec(service).unwrap()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What it says of `orders` as it is now.
pub(crate) async fn said_now(namespace: &TestNamespace) -> String {
    said(&namespace.api().get("orders").await.unwrap())
}

/// Writes the Lua that docs/conditions.md has for Argo CD to a file in this folder, and gives what it says of a resource.
fn by_lua(folder: &Path) -> impl Fn(&OrdersService) -> String + use<> {
    let page = std::fs::read_to_string(root().join("docs/conditions.md")).unwrap();
    let (_, rest) = page.split_once("health.ticketing.dev_OrdersService: |\n").unwrap();
    let script = folder.join("health.lua");
    std::fs::write(&script, rest.split("```").next().unwrap()).unwrap();
    move |service| {
        let mut program = Command::new(setting("KSTATUS"));
        program.arg(&script);
        answered(program, service)
    }
}

/// Waits until the library and the Lua say this, with the message of that condition of the same object.
async fn tells(
    namespace: &TestNamespace,
    argo: &impl Fn(&OrdersService) -> String,
    begins: [&str; 2],
    kind: ConditionType,
) {
    eventually(&format!("{begins:?}, and the message"), || async {
        let service: OrdersService = namespace.api().get("orders").await.unwrap();
        let said = [said(&service), argo(&service)];
        let message = &find_condition(&service.status?.conditions, kind)?.message.clone();
        let is_said = |(said, begins): (&String, &str)| said.starts_with(begins) && said.contains(message);
        said.iter().zip(begins).all(is_said).then_some(())
    })
    .await;
}

#[tokio::test]
async fn flux_and_argo_cd_wait_as_kubectl_does_and_give_up_where_nothing_but_a_change_can_help() {
    let namespace = TestNamespace::create("kstatus").await;
    namespace.secrets(MONGO).await;
    let argo = by_lua(namespace.folder());
    let fresh = namespace.apply(&namespace.service("orders", json!({}))).await.unwrap();
    assert_eq!(argo(&fresh).trim(), "Progressing: not reconciled yet");
    assert!(said(&fresh).starts_with("InProgress: "), "no controller has seen it: {}", said(&fresh));

    let _controller = namespace.run("controller").await;
    namespace.ready("orders").await;
    assert!(said_now(&namespace).await.starts_with("Current: "));
    let now = async || namespace.api::<OrdersService>().get("orders").await.unwrap();
    assert!(argo(&now().await).starts_with("Healthy: "));
    let changed = namespace.apply(&namespace.service("orders", json!({"port": 4000}))).await.unwrap();
    assert!(said(&changed).starts_with("InProgress: "), "the change is not live: {}", said(&changed));
    assert!(argo(&changed).starts_with("Progressing: "), "{}", argo(&changed));
    namespace.ready("orders").await;
    assert!(said_now(&namespace).await.starts_with("Current: "));

    // There is no node on which these would run.
    namespace.apply(&namespace.service("orders", json!({"replicas": 1}))).await.unwrap();
    namespace.condition("orders", Available, "False", "MinimumReplicasUnavailable").await;
    tells(&namespace, &argo, ["InProgress: ", "Progressing: "], Available).await;

    let twice = json!([{"path": "/a", "service": "a-srv"}, {"path": "/a/?(.*)", "service": "b-srv"}]);
    namespace.apply(&namespace.service("orders", json!({"ingress": {"routes": twice}}))).await.unwrap();
    namespace.condition("orders", Valid, "False", "DuplicatePath").await;
    tells(&namespace, &argo, ["Failed: ", "Degraded: "], Valid).await;

    namespace.apply(&namespace.service("orders", json!({"suspend": true}))).await.unwrap();
    namespace.condition("orders", Reconciled, "False", "Suspended").await;
    assert!(said_now(&namespace).await.starts_with("Failed: "));
    assert!(argo(&now().await).starts_with("Degraded: "));

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
