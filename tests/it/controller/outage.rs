//! An API server that goes away, forgets, or falls silent; and objects that it should not have taken.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures::future::join_all;
use k8s_openapi::{
    api::{apps::v1::Deployment, coordination::v1::Lease, core::v1::Service},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, VersionMatch},
};
use orders_operator::crd::ConditionType::*;
use serde_json::json;
use tokio::time::interval;

use super::MONGO;
use crate::{
    bed::{restart, setting},
    cluster::{Process, SPARE_API, TestNamespace, eventually, install_crd},
    way::Way,
};

/// Errors of the watch on this kind so far.
async fn watch_errors(controller: &Process, kind: &str) -> f64 {
    controller.metric(&format!("orders_operator_controller_watch_errors_total{{kind=\"{kind}\"}}")).await
}

async fn has_port(namespace: &TestNamespace, port: i32) {
    eventually("the change is carried out", || async {
        let service: Service = namespace.api().get_opt("orders").await.ok()??;
        (service.spec?.ports?.first()?.port == port).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_controller_recovers_from_a_killed_api_server_and_from_one_that_has_lost_its_history() {
    let _alone = SPARE_API.lock().await;
    let namespace = TestNamespace::create_at("outage", &setting("SPARE_KUBECONFIG")).await;
    namespace.secrets(MONGO).await;
    let controller = namespace.run("controller").await;
    namespace.apply(&namespace.service("orders", json!({}))).await.unwrap();
    namespace.condition("orders", Reconciled, "True", "AsExpected").await;

    // While it is away, the controller is as alive as ever.
    let away = AtomicBool::new(true);
    let alive = async {
        let mut looks = interval(Duration::from_millis(20));
        while away.load(Ordering::SeqCst) {
            assert!(controller.admin("/livez").await.ends_with("ok\n"));
            looks.tick().await;
        }
    };
    let outage = async {
        restart("SPARE_API_RESTART").await;
        for kind in ["OrdersService", "Deployment", "Service"] {
            eventually("the watch has failed", || async {
                (watch_errors(&controller, kind).await >= 1.0).then_some(())
            })
            .await;
        }
        away.store(false, Ordering::SeqCst);
    };
    tokio::join!(alive, outage);
    namespace.apply(&namespace.service("orders", json!({"port": 3001}))).await.unwrap();
    has_port(&namespace, 3001).await;

    // What happens while it sees nothing is not there any more to be told once it looks again.
    controller.signal("STOP");
    let seen = namespace.api::<Service>().get("orders").await.unwrap().resource_version().unwrap();
    namespace.apply(&namespace.service("orders", json!({"port": 3002}))).await.unwrap();
    namespace.api::<Deployment>().delete("orders", &DeleteParams::background()).await.unwrap();
    let past = ListParams::default().at(&seen).matching(VersionMatch::Exact);
    eventually("the past is forgotten", || async {
        namespace.secret("news", "of", &fastrand::u64(..).to_string()).await;
        let listed = namespace.api::<Service>().list(&past).await;
        matches!(listed, Err(kube::Error::Api(status)) if status.code == 410).then_some(())
    })
    .await;
    restart("SPARE_API_RESTART").await;
    controller.signal("CONT");
    has_port(&namespace, 3002).await;
    eventually("what was deleted meanwhile is there again", || async {
        namespace.api::<Deployment>().get_opt("orders").await.unwrap()
    })
    .await;
    assert!(controller.admin("/livez").await.ends_with("ok\n"));
    namespace.remove().await;
}

#[tokio::test]
async fn a_watch_that_falls_silent_is_noticed_and_restarted() {
    let way = Way::to_cluster(&setting("KUBECONFIG")).await;
    let namespace = TestNamespace::create("silence").await;
    namespace.secrets(MONGO).await;
    let controller = namespace.run_by(&way, "controller", &["--watch-timeout", "5"]).await;
    namespace.apply(&namespace.service("orders", json!({}))).await.unwrap();
    namespace.condition("orders", Reconciled, "True", "AsExpected").await;
    // The connections stay, and nothing comes through any more, neither there nor back; new ones work.
    way.silence();
    namespace.apply(&namespace.service("orders", json!({"port": 3001}))).await.unwrap();
    has_port(&namespace, 3001).await;
    assert!(way.silenced() > 0);
    assert!(controller.admin("/livez").await.ends_with("ok\n"));
    namespace.remove().await;
}

#[tokio::test]
async fn an_object_that_does_not_match_the_schema_is_reported_and_does_not_hold_up_others() {
    let _alone = SPARE_API.lock().await;
    let namespace = TestNamespace::create_at("garbage", &setting("SPARE_KUBECONFIG")).await;
    namespace.secrets(MONGO).await;
    let crds = Api::<CustomResourceDefinition>::all(namespace.client.clone());
    let name = "ordersservices.ticketing.dev";
    let mut open = serde_json::to_value(crds.get(name).await.unwrap()).unwrap();
    let version = &mut open["spec"]["versions"][0];
    version["schema"] =
        json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    let schema = json!({"spec": {"versions": [version]}});
    crds.patch(name, &PatchParams::default(), &Patch::Merge(schema)).await.unwrap();
    let services = namespace.dynamic("OrdersService", "ticketing.dev/v1alpha1");
    let garbage = json!({
        "apiVersion": "ticketing.dev/v1alpha1", "kind": "OrdersService", "metadata": {"name": "garbage"},
        "spec": {"port": "many", "ingress": [1, 2], "database": null}
    });
    eventually("the schema takes anything", || async {
        services.patch("garbage", &PatchParams::apply("test"), &Patch::Apply(&garbage)).await.ok()
    })
    .await;
    install_crd(&namespace.client).await;

    let controller = namespace.run("controller").await;
    namespace.apply(&namespace.service("orders", json!({}))).await.unwrap();
    namespace.condition("orders", Reconciled, "True", "AsExpected").await;
    let events = namespace.dynamic("Event", "events.k8s.io/v1");
    let note = eventually("an event tells of it", || async {
        let found: Vec<DynamicObject> = events.list(&ListParams::default()).await.unwrap().items;
        let about = found.into_iter().find(|event| event.data["regarding"]["name"] == "garbage")?;
        assert_eq!(about.data["reason"], "InvalidSpec");
        Some(about.data["note"].as_str()?.to_owned())
    })
    .await;
    assert!(note.contains("does not match the schema") && note.contains("kubectl edit"), "{note}");
    // It goes on when it is corrected.
    let mut corrected = namespace.service("garbage", json!({"ingress": null}));
    corrected["spec"].as_object_mut().unwrap().remove("ingress");
    corrected["metadata"] = json!(services.get("garbage").await.unwrap().metadata);
    let corrected = serde_json::from_value(corrected).unwrap();
    services.replace("garbage", &PostParams::default(), &corrected).await.unwrap();
    namespace.condition("garbage", Reconciled, "True", "AsExpected").await;
    assert!(controller.admin("/livez").await.ends_with("ok\n"));
    namespace.remove().await;
}

/// The versions of the Leases of a namespace.
async fn leases(namespace: &TestNamespace) -> BTreeMap<String, Option<String>> {
    let leases = namespace.api::<Lease>().list(&ListParams::default()).await.unwrap();
    leases.iter().map(|lease| (lease.name_any(), lease.resource_version())).collect()
}

#[tokio::test]
async fn an_api_server_that_was_restored_from_a_backup_is_noticed_and_what_it_brought_back_is_repaired() {
    let _alone = SPARE_API.lock().await;
    let namespace = TestNamespace::create_at("backup", &setting("SPARE_KUBECONFIG")).await;
    namespace.secrets(MONGO).await;
    let controller = namespace.run_elected().await;
    namespace.apply(&namespace.service("orders", json!({}))).await.unwrap();
    namespace.condition("orders", Reconciled, "True", "AsExpected").await;
    assert_eq!(controller.terminate().await.code(), Some(0));
    restart("SPARE_API_SAVE").await;

    let controller = namespace.run_elected().await;
    let sweeper = namespace.run_sweeper().await;
    let name = format!("{}-orders-operator-sweeper", namespace.name);
    eventually("both have written their Leases", || async {
        let leading = controller.metric("orders_operator_controller_leading").await;
        let lease = namespace.api::<Lease>().get_opt(&name).await.unwrap();
        (leading > 0.0 && lease.is_some()).then_some(())
    })
    .await;
    let standby = namespace.run_elected().await;
    eventually("it stands by", || async { standby.log().contains("standing by").then_some(()) }).await;
    // So much is written that the numbers are not reached again.
    for round in 0..100 {
        join_all((0..20).map(|number| {
            let (namespace, name) = (&namespace, format!("news-{number}"));
            async move { namespace.secret(&name, "of", &round.to_string()).await }
        }))
        .await;
    }
    // And each has seen so high a number: that of a Lease, the standby that of the leader's.
    for _ in 0..2 {
        let before = leases(&namespace).await;
        eventually("the Leases are renewed", || async {
            let now = leases(&namespace).await;
            before.iter().all(|(name, version)| now.get(name) != Some(version)).then_some(())
        })
        .await;
    }
    restart("SPARE_API_RESTORE").await;
    // The leader may also have lost its lease while the API server was away.
    assert_eq!(controller.ended().await.code(), Some(1));
    for process in [standby, sweeper] {
        eventually("it notices", || async {
            process.log().contains("shows an earlier state than before").then_some(())
        })
        .await;
        assert_eq!(process.ended().await.code(), Some(1));
    }
    // As the kubelet does.
    let _controller = namespace.run_elected().await;
    let edited = json!({"spec": {"selector": {"app.kubernetes.io/name": "mine"}}});
    let services = namespace.api::<Service>();
    services.patch("orders", &PatchParams::default(), &Patch::Merge(&edited)).await.unwrap();
    eventually("drift is repaired", || async {
        let selector = services.get("orders").await.unwrap().spec?.selector?;
        (selector["app.kubernetes.io/name"] == "orders-service").then_some(())
    })
    .await;
    namespace.remove().await;
}
