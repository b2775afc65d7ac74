//! Whose the children are: taken over by consent only, and left alone when another operator writes to them too.

use std::time::Instant;

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service};
use kube::api::{DeleteParams, PostParams, PropagationPolicy};
use orders_operator::crd::{ConditionType::*, OrdersService};
use serde_json::json;

use super::{MONGO, settled};
use crate::{
    bed::setting,
    cluster::{TestNamespace, eventually},
    console::blocks,
    reader::Reader,
};

#[tokio::test]
async fn two_operators_with_other_settings_leave_the_resource_alone_and_say_who_the_other_is() {
    two_operators("two-operators", false).await;
}

#[tokio::test]
async fn two_operators_leave_the_status_of_a_suspended_resource_alone_too() {
    two_operators("two-suspended", true).await;
}

async fn two_operators(test: &str, suspend: bool) {
    let namespace = TestNamespace::create(test).await;
    namespace.secrets(MONGO).await;
    // Without a Lease, an operator is known by its host name.
    let run = async |name: &str, image: &str| {
        namespace.run_in("controller", &["--default-image", image], &[("HOSTNAME", name)]).await
    };
    let begun = Instant::now();
    let one = run("operator-one", "registry.example/one:1").await;
    let two = run("operator-two", "registry.example/two:2").await;
    let mut spec = namespace.service("orders", json!({"suspend": suspend}));
    spec["spec"].as_object_mut().unwrap().remove("image");
    namespace.apply(&spec).await.unwrap();
    let message = namespace.condition("orders", Reconciled, "False", "AnotherOperator").await;
    assert!(message.contains("operator-one") && message.contains("operator-two"), "{message}");
    let noticed = "orders_operator_controller_reconciles_total{result=\"AnotherOperator\"}";
    for process in [&one, &two] {
        eventually("it notices", || async { (process.metric(noticed).await >= 1.0).then_some(()) }).await;
    }
    // Each comes to rest, whoever was the last to write.
    settled(&namespace).await;
    let mut contended = 0.0;
    for process in [&one, &two] {
        contended += process.metric(noticed).await;
    }
    for kind in ["Deployment", "OrdersService"] {
        let applied =
            format!("orders_operator_controller_api_requests_total{{kind=\"{kind}\",verb=\"patch\"}}");
        let applies = one.metric(&applied).await + two.metric(&applied).await;
        assert!(applies < 20.0 * contended, "{applies} applies of one {kind}, noticed {contended} times");
    }
    // Each leaves it alone for a minute at least, and then tries again.
    let most = 2.0 * (1.0 + begun.elapsed().as_secs_f64() / 60.0);
    assert!(contended <= most, "noticed {contended} times, at most {most} expected");
    namespace.remove().await;
}

#[tokio::test]
async fn children_that_have_lost_their_owner_are_adopted_by_consent_and_those_of_others_never() {
    let mut namespace = TestNamespace::create("adopt").await;
    // The tests' API server runs that admission plugin.
    namespace.set("ownerReferencesPermissionEnforcement=true");
    namespace.secrets(MONGO).await;
    let _controller = namespace.run("controller").await;
    let object = namespace.service("orders", json!({}));
    namespace.apply(&object).await.unwrap();
    namespace.condition("orders", Reconciled, "True", "AsExpected").await;

    let services = namespace.api::<OrdersService>();
    let orphan =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() };
    services.delete("orders", &orphan).await.unwrap();
    eventually("the resource is gone", || async {
        services.get_opt("orders").await.unwrap().is_none().then_some(())
    })
    .await;
    // One of the children is replaced by someone else's.
    let (deployments, service_api) = (namespace.api::<Deployment>(), namespace.api::<Service>());
    let before = deployments.get("orders").await.unwrap().metadata.uid;
    assert!(before.is_some(), "it was orphaned, not deleted");
    service_api.delete("orders", &DeleteParams::default()).await.unwrap();
    let theirs: Service = serde_json::from_value(json!({
        "metadata": {"name": "orders", "labels": {"app.kubernetes.io/managed-by": "orders-operator"}},
        "spec": {"ports": [{"port": 80}]}
    }))
    .unwrap();
    service_api.create(&PostParams::default(), &theirs).await.unwrap();

    namespace.apply(&object).await.unwrap();
    let message = namespace.condition("orders", Reconciled, "False", "NotOwned").await;
    assert!(
        message.contains("Deployment \"orders\"") && message.contains("ticketing.dev/adopt=true"),
        "{message}"
    );
    let [consent] = blocks("docs/children.md", "Adopting children").try_into().unwrap();
    let reader = Reader::of(&namespace, &setting("KUBECONFIG")).await;
    reader.calls("-n ticketing", &format!("-n {}", namespace.name)).does(&consent).await;
    let uid = services.get("orders").await.unwrap().metadata.uid;
    let owner = |metadata: &kube::api::ObjectMeta| {
        metadata.owner_references.iter().flatten().next().map(|owner| owner.uid.clone())
    };
    eventually("the Deployment is adopted", || async {
        let deployment = deployments.get("orders").await.unwrap();
        (owner(&deployment.metadata) == uid && deployment.metadata.uid == before).then_some(())
    })
    .await;
    // The condition before had the same reason.
    eventually("the message is about the Service only", || async {
        let message = namespace.condition("orders", Reconciled, "False", "NotOwned").await;
        (message.contains("Service \"orders\"") && !message.contains("Deployment")).then_some(())
    })
    .await;
    assert_eq!(owner(&service_api.get("orders").await.unwrap().metadata), None, "it was left alone");

    // What the message says to do.
    service_api.delete("orders", &DeleteParams::default()).await.unwrap();
    namespace.condition("orders", Reconciled, "True", "AsExpected").await;
    namespace.remove().await;
}

#[tokio::test]
async fn what_the_api_server_rejects_is_a_fault_of_the_spec_and_not_tried_again() {
    let namespace = TestNamespace::create("rejected").await;
    namespace.secrets(MONGO).await;
    let controller = namespace.run("controller").await;
    let labelled =
        |value: &str| namespace.service("orders", json!({"podTemplate": {"labels": {"team": value}}}));
    namespace.apply(&labelled("no label has a space")).await.unwrap();
    let message = namespace.condition("orders", Valid, "False", "InvalidSpec").await;
    assert!(
        message.contains("Deployment \"orders\"") && message.contains("no label has a space"),
        "{message}"
    );
    settled(&namespace).await;
    assert_eq!(
        controller.metric("orders_operator_controller_reconciles_total{result=\"InvalidSpec\"}").await,
        0.0
    );
    namespace.apply(&labelled("tickets")).await.unwrap();
    namespace.condition("orders", Valid, "True", "AsExpected").await;
    namespace.condition("orders", Reconciled, "True", "AsExpected").await;
    namespace.remove().await;
}

#[tokio::test]
async fn names_that_no_object_can_have_are_refused_at_admission() {
    let namespace = TestNamespace::create("names").await;
    for (patch, expected) in [
        (json!({"auth": {"jwtSecretRef": {"name": "Not A Secret?x=1"}}}), "spec.auth.jwtSecretRef.name"),
        (
            json!({"database": {"uriSecretRef": {"name": "m", "key": "a b"}}}),
            "spec.database.uriSecretRef.key",
        ),
        (json!({"imagePullSecrets": [{"name": "a/b"}]}), "spec.imagePullSecrets[0].name"),
        (json!({"podTemplate": {"serviceAccountName": "A"}}), "spec.podTemplate.serviceAccountName"),
    ] {
        let error = crate::cluster::refusal(namespace.apply(&namespace.service("orders", patch)).await);
        assert!(error.contains(expected), "{error}");
    }
    for name in ["9lives", "orders.v2"] {
        let error = crate::cluster::refusal(namespace.apply(&namespace.service(name, json!({}))).await);
        assert!(error.contains("metadata.name is also the name of a Service"), "{error}");
    }
    namespace.remove().await;
}
