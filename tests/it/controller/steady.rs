//! Where nothing has changed, nothing is written, and nothing is even sent.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use k8s_openapi::api::{apps::v1::Deployment, autoscaling::v2::HorizontalPodAutoscaler, core::v1::Service};
use kube::{
    ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use orders_operator::crd::{CONTROLLER_MANAGER, ConditionType::*, OrdersService};
use serde_json::json;

use super::{MONGO, chaos::rendered, settled, settled_of, versions};
use crate::{
    cluster::{TestNamespace, eventually},
    crd::template,
};

#[tokio::test]
async fn a_restarted_controller_sends_nothing_if_everything_is_in_place() {
    let namespace = TestNamespace::create("steady").await;
    namespace.secrets(MONGO).await;
    let controller = namespace.run("controller").await;
    namespace.apply(&namespace.service("orders", json!({"podDisruptionBudget": {}}))).await.unwrap();
    namespace.ready("orders").await;
    let before = settled(&namespace).await;
    controller.kill();

    let controller = namespace.run("controller").await;
    let reconciled = "orders_operator_controller_reconciles_total{result=\"ok\"}";
    eventually("it is reconciled", || async { (controller.metric(reconciled).await > 0.0).then_some(()) })
        .await;
    for kind in ["Service", "Deployment", "Ingress", "NetworkPolicy", "PodDisruptionBudget"] {
        let name = format!("orders_operator_controller_api_requests_total{{kind=\"{kind}\",verb=\"patch\"}}");
        assert_eq!(controller.metric(&name).await, 0.0, "{kind}");
    }
    // A second resource shows that the new controller does repair what has changed.
    namespace.apply(&namespace.service("other", json!({"ingress": {"hosts": ["other.dev"]}}))).await.unwrap();
    namespace.ready("other").await;
    namespace.api::<Service>().delete("other", &DeleteParams::background()).await.unwrap();
    eventually("drift is repaired", || async { namespace.api::<Service>().get_opt("other").await.unwrap() })
        .await;
    assert_eq!(versions(&namespace).await, before);
    namespace.remove().await;
}

#[tokio::test]
async fn volumes_and_containers_of_the_spec_are_applied_as_the_api_server_stores_them() {
    let namespace = TestNamespace::create("template").await;
    namespace.secrets(MONGO).await;
    let controller = namespace.run("controller").await;
    let spec = json!({"mesh": "IstioAmbient", "podTemplate": template()});
    namespace.apply(&namespace.service("orders", spec)).await.unwrap();
    namespace.ready("orders").await;
    let before = settled(&namespace).await;
    controller.kill();
    let controller = namespace.run("controller").await;
    let reconciled = "orders_operator_controller_reconciles_total{result=\"ok\"}";
    eventually("it is reconciled", || async { (controller.metric(reconciled).await > 0.0).then_some(()) })
        .await;
    for kind in ["Deployment", "NetworkPolicy"] {
        let name = format!("orders_operator_controller_api_requests_total{{kind=\"{kind}\",verb=\"patch\"}}");
        assert_eq!(controller.metric(&name).await, 0.0, "{kind}");
    }
    assert_eq!(versions(&namespace).await, before);
    namespace.remove().await;
}

#[tokio::test]
async fn changes_made_while_no_controller_was_running_are_repaired() {
    let namespace = TestNamespace::create("meanwhile").await;
    namespace.secrets(MONGO).await;
    let controller = namespace.run("controller").await;
    let names = ["edited", "taken", "deleted", "respecified"];
    for name in names {
        let spec = json!({"ingress": {"hosts": [format!("{name}.dev")]}});
        namespace.apply(&namespace.service(name, spec)).await.unwrap();
        namespace.ready(name).await;
    }
    settled_of(&names.map(|name| (&namespace, name))).await;
    controller.kill();

    let services = namespace.api::<Service>();
    let mine = json!({"spec": {"selector": {"app.kubernetes.io/name": "mine"}}});
    services.patch("edited", &PatchParams::default(), &Patch::Merge(&mine)).await.unwrap();
    // Even where it is done under the controller's own name, with just its fields.
    let taken = namespace.api::<OrdersService>().get("taken").await.unwrap();
    let mut apply = rendered(&taken).into_iter().find(|child| child["kind"] == "Service").unwrap();
    apply["metadata"]["ownerReferences"] = json!(services.get("taken").await.unwrap().owner_references());
    apply["spec"]["selector"]["app.kubernetes.io/name"] = json!("mine");
    let ours = PatchParams::apply(CONTROLLER_MANAGER).force();
    services.patch("taken", &ours, &Patch::Apply(apply)).await.unwrap();
    services.delete("deleted", &DeleteParams::background()).await.unwrap();
    let spec = json!({"spec": {"replicas": 5}});
    let changed = namespace.api::<OrdersService>();
    changed.patch("respecified", &PatchParams::default(), &Patch::Merge(spec)).await.unwrap();

    let _controller = namespace.run("controller").await;
    for name in ["edited", "taken", "deleted"] {
        eventually("it is repaired", || async {
            let selector = services.get_opt(name).await.unwrap()?.spec?.selector?;
            (selector["app.kubernetes.io/name"] == "orders-service").then_some(())
        })
        .await;
    }
    eventually("the new spec is carried out", || async {
        let deployment = namespace.api::<Deployment>().get("respecified").await.unwrap();
        (deployment.spec.unwrap().replicas == Some(5)).then_some(())
    })
    .await;
    namespace.remove().await;
}

#[tokio::test]
async fn children_that_blocked_the_deletion_of_their_owner_are_changed_once_and_then_left_alone() {
    let mut namespace = TestNamespace::create("blocked").await;
    // That changes an owner, as adoption does.
    namespace.set("ownerReferencesPermissionEnforcement=true");
    namespace.secrets(MONGO).await;
    let controller = namespace.run("controller").await;
    let spec = json!({"podDisruptionBudget": {}});
    namespace.apply(&namespace.service("orders", spec)).await.unwrap();
    namespace.ready("orders").await;
    settled(&namespace).await;
    controller.kill();
    // As an earlier version made them.
    let service = namespace.api::<OrdersService>().get("orders").await.unwrap();
    let services = namespace.api::<Service>();
    let mut earlier = rendered(&service).into_iter().find(|child| child["kind"] == "Service").unwrap();
    let mut owners = json!(services.get("orders").await.unwrap().owner_references());
    assert!(owners[0].get("blockOwnerDeletion").is_none(), "{owners}");
    owners[0]["blockOwnerDeletion"] = json!(true);
    earlier["metadata"]["ownerReferences"] = owners;
    let ours = PatchParams::apply(CONTROLLER_MANAGER).force();
    services.patch("orders", &ours, &Patch::Apply(earlier)).await.unwrap();

    let controller = namespace.run("controller").await;
    eventually("it no longer blocks", || async {
        let service = services.get("orders").await.unwrap();
        service.owner_references()[0].block_owner_deletion.is_none().then_some(())
    })
    .await;
    let before = settled(&namespace).await;
    let reconciles = || controller.metric("orders_operator_controller_reconciles_total");
    for round in 0..10 {
        let done = reconciles().await;
        let touch = json!({"metadata": {"annotations": {"round": round.to_string()}}});
        let services = namespace.api::<OrdersService>();
        services.patch("orders", &PatchParams::default(), &Patch::Merge(touch)).await.unwrap();
        eventually("it is reconciled", || async { (reconciles().await > done).then_some(()) }).await;
    }
    let mut after = settled(&namespace).await;
    after.insert("OrdersService", before["OrdersService"].clone());
    assert_eq!(after, before);
    namespace.remove().await;
}

#[tokio::test]
async fn a_hundred_reconciles_of_a_settled_resource_send_nothing_and_drift_is_still_repaired() {
    let namespace = TestNamespace::create("quiet").await;
    namespace.secrets(MONGO).await;
    // A hundred rounds may take longer than it is usually left until the Secrets are read again.
    let controller = namespace.run_with("controller", &["--secret-refresh", "86400"]).await;
    // Every kind of child but an autoscaler, which the cluster's own controller writes to for ever.
    let spec = json!({"podDisruptionBudget": {}, "ingress": {"className": null}});
    namespace.apply(&namespace.service("orders", spec)).await.unwrap();
    namespace.ready("orders").await;
    let before = settled(&namespace).await;
    let requests = || controller.metric("orders_operator_controller_api_requests_total");
    let reconciles = || controller.metric("orders_operator_controller_reconciles_total");
    let sent = requests().await;
    assert!(sent > 10.0, "{sent}");
    let services = namespace.api::<OrdersService>();
    for round in 0..100 {
        let done = reconciles().await;
        let touch = json!({"metadata": {"annotations": {"round": round.to_string()}}});
        services.patch("orders", &PatchParams::default(), &Patch::Merge(touch)).await.unwrap();
        eventually("it is reconciled", || async { (reconciles().await > done).then_some(()) }).await;
    }
    assert_eq!(requests().await, sent, "requests were sent: {}", controller.admin("/metrics").await);
    let mut after = versions(&namespace).await;
    after.insert("OrdersService", before["OrdersService"].clone());
    assert_eq!(after, before);

    let patched = || {
        controller.metric("orders_operator_controller_api_requests_total{kind=\"Service\",verb=\"patch\"}")
    };
    // It may have been made with two requests: the second was sent before the watch showed the first one's Service.
    let made = patched().await;
    let edit = json!({"spec": {"selector": {"app.kubernetes.io/name": "other"}}});
    let children = namespace.api::<Service>();
    children.patch("orders", &PatchParams::default(), &Patch::Merge(edit)).await.unwrap();
    eventually("drift is repaired", || async {
        let selector = children.get("orders").await.unwrap().spec.unwrap().selector.unwrap();
        (selector["app.kubernetes.io/name"] == "orders-service").then_some(())
    })
    .await;
    assert_eq!(patched().await, made + 1.0, "repaired with one request");
    namespace.remove().await;
}

#[tokio::test]
async fn a_secret_that_many_resources_name_is_read_once_and_its_change_rolls_all_of_them() {
    let namespace = TestNamespace::create("shared").await;
    namespace.secrets(MONGO).await;
    let controller = namespace.run_with("controller", &["--secret-refresh", "2"]).await;
    let names: Vec<_> = (0..6).map(|number| format!("orders-{number}")).collect();
    for name in &names {
        let mut object = namespace.service(name, json!({}));
        object["spec"].as_object_mut().unwrap().remove("ingress");
        namespace.apply(&object).await.unwrap();
        namespace.ready(name).await;
    }
    let reads = || controller.metric("orders_operator_controller_api_requests_total{kind=\"Secret\"");
    let (started, first) = (Instant::now(), reads().await);
    eventually("the Secrets are read again and again", || async {
        (reads().await >= first + 8.0).then_some(())
    })
    .await;
    // Two Secrets, each at most every 1.5 s, whoever names them.
    let now = reads().await;
    let most = 2.0 * (started.elapsed().as_secs_f64() / 1.5 + 1.0);
    assert!(now - first <= most, "{} reads, at most {most} expected", now - first);

    let checksum = |name: String| {
        let deployments = namespace.api::<Deployment>();
        async move {
            let template = deployments.get(&name).await.unwrap().spec.unwrap().template;
            template.metadata.unwrap().annotations.unwrap()["ticketing.dev/secrets-checksum"].clone()
        }
    };
    let before = checksum(names[0].clone()).await;
    namespace.secrets("mongodb://127.0.0.1:2/orders").await;
    for name in &names {
        eventually("its pods are rolled", || async {
            (checksum(name.clone()).await != before).then_some(())
        })
        .await;
    }

    // Whom nobody names any more, nobody reads.
    let objects = || controller.metric("orders_operator_controller_objects");
    assert_eq!(objects().await, 6.0);
    for name in &names {
        namespace.api::<OrdersService>().delete(name, &DeleteParams::background()).await.unwrap();
    }
    eventually("they are gone", || async { (objects().await == 0.0).then_some(()) }).await;
    let seen = Mutex::new((0.0, Instant::now()));
    eventually("the Secrets are not read any more", || async {
        let now = reads().await;
        let (last, since) = &mut *seen.lock().unwrap();
        if *last != now {
            (*last, *since) = (now, Instant::now());
        }
        // Three times as long as between two reads.
        (since.elapsed() > Duration::from_secs(6)).then_some(())
    })
    .await;
    namespace.remove().await;
}

#[tokio::test]
async fn a_change_to_fields_of_a_child_that_are_not_ours_causes_no_apply() {
    let namespace = TestNamespace::create("beside").await;
    namespace.secrets(MONGO).await;
    let controller = namespace.run("controller").await;
    namespace.apply(&namespace.service("orders", super::whole())).await.unwrap();
    namespace.condition("orders", Reconciled, "True", "AsExpected").await;
    let patches = || {
        controller.metric(
            "orders_operator_controller_api_requests_total{kind=\"HorizontalPodAutoscaler\",verb=\"patch\"}",
        )
    };
    let reconciles = || controller.metric("orders_operator_controller_reconciles_total");
    let autoscalers = namespace.api::<HorizontalPodAutoscaler>();
    let touched = async |round: u32| {
        let done = reconciles().await;
        // As the autoscaler's own controller does every 15 s, and as someone does who makes a note.
        let status = Patch::Merge(json!({"status": {"currentReplicas": round, "desiredReplicas": 2}}));
        autoscalers.patch_status("orders", &PatchParams::default(), &status).await.unwrap();
        let note = Patch::Merge(json!({"metadata": {"annotations": {"note": round.to_string()}}}));
        autoscalers.patch("orders", &PatchParams::default(), &note).await.unwrap();
        eventually("it is reconciled", || async { (reconciles().await > done).then_some(()) }).await;
    };
    // Until the watch shows it, each reconcile applies it. The second one here begins after the first has ended, so if
    // neither has, the watch does.
    let made = eventually("the watch shows it", || async {
        let before = patches().await;
        touched(1).await;
        touched(2).await;
        (patches().await == before).then_some(before)
    })
    .await;
    for round in 3..=12 {
        touched(round).await;
    }
    assert_eq!(patches().await, made);
    // One of our fields, by the same hand: that is answered.
    let edit = Patch::Merge(json!({"metadata": {"annotations": {"note": "x"}}, "spec": {"maxReplicas": 7}}));
    autoscalers.patch("orders", &PatchParams::default(), &edit).await.unwrap();
    eventually("drift is repaired", || async {
        (autoscalers.get("orders").await.unwrap().spec.unwrap().max_replicas == 5).then_some(())
    })
    .await;
    namespace.remove().await;
}
