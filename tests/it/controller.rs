//! The controller, run as a process under exactly the rights of the chart, against a real API server.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Instant,
};

use futures::StreamExt;
use k8s_openapi::api::{
    apps::v1::Deployment,
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{Pod, Secret, Service},
    networking::v1::Ingress,
    rbac::v1::Role,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    runtime::watcher::watch_object,
};
use orders_operator::crd::{ConditionType::*, OrdersService};
use serde_json::{Value, json};

use crate::cluster::{TestNamespace, eventually};

const MONGO: &str = "mongodb://127.0.0.1:1/orders";

/// Host and path of every rule of the Ingress, in rendered order.
fn rules(ingress: &Ingress) -> Vec<String> {
    let rules = ingress.spec.as_ref().unwrap().rules.iter().flatten();
    rules
        .flat_map(|rule| {
            rule.http.iter().flat_map(|http| &http.paths).map(|path| {
                let service = path.backend.service.as_ref().unwrap();
                format!(
                    "{}{} {}:{} {}",
                    rule.host.as_deref().unwrap(),
                    path.path.as_deref().unwrap(),
                    service.name,
                    service.port.as_ref().unwrap().number.unwrap(),
                    path.path_type
                )
            })
        })
        .collect()
}

/// Every kind of child, as (kind, API version).
const CHILDREN: [(&str, &str); 7] = [
    ("Deployment", "apps/v1"),
    ("Service", "v1"),
    ("Ingress", "networking.k8s.io/v1"),
    ("HorizontalPodAutoscaler", "autoscaling/v2"),
    ("PodDisruptionBudget", "policy/v1"),
    ("ServiceAccount", "v1"),
    ("NetworkPolicy", "networking.k8s.io/v1"),
];

/// A patch of the spec that asks for every kind of child.
fn whole() -> Value {
    json!({"replicas": null, "autoscaling": {"maxReplicas": 5}})
}

fn child_api(namespace: &TestNamespace, (kind, version): (&str, &str)) -> Api<DynamicObject> {
    namespace.dynamic(kind, version)
}

/// The resourceVersion of the resource and of each child.
async fn versions(namespace: &TestNamespace) -> BTreeMap<&'static str, Option<String>> {
    let mut versions = BTreeMap::new();
    let service = namespace.api::<OrdersService>().get("orders").await.unwrap();
    versions.insert("OrdersService", service.resource_version());
    for child in CHILDREN {
        let found = child_api(namespace, child).get_opt("orders").await.unwrap();
        versions.insert(child.0, found.and_then(|child| child.resource_version()));
    }
    versions
}

/// Waits until the cluster's own controllers have nothing more to write to the children.
async fn settled(namespace: &TestNamespace) -> BTreeMap<&'static str, Option<String>> {
    let seen = Mutex::new((BTreeMap::new(), 0));
    eventually("nothing changes any more", || async {
        let now = versions(namespace).await;
        let (last, times) = &mut *seen.lock().unwrap();
        *times = if *last == now { *times + 1 } else { 0 };
        *last = now.clone();
        (*times >= 20).then_some(now)
    })
    .await
}

#[tokio::test]
async fn an_orders_service_becomes_its_children_with_the_client_last_and_the_status_explains_it() {
    let namespace = TestNamespace::create("children").await;
    namespace.secrets(MONGO).await;
    let _controller = namespace.run("controller").await;
    namespace
        .apply(&namespace.service("orders", json!({"port": 4000, "podDisruptionBudget": {}})))
        .await
        .unwrap();
    namespace.ready("orders").await;

    let service: OrdersService = namespace.api().get("orders").await.unwrap();
    let uid = service.uid().unwrap();
    for child in CHILDREN.into_iter().filter(|(kind, _)| *kind != "HorizontalPodAutoscaler") {
        let found = child_api(&namespace, child).get("orders").await.unwrap();
        let owners = found.owner_references();
        assert!(matches!(owners, [owner] if owner.uid == uid && owner.controller == Some(true)), "{child:?}");
    }
    assert_eq!(
        rules(&namespace.api().get("orders").await.unwrap()),
        [
            "ticketing.dev/api/orders orders:4000 Prefix",
            "ticketing.dev/api/users auth-srv:80 Prefix",
            "ticketing.dev/ws ws-srv:3000 Prefix",
            "ticketing.dev/ client-srv:3000 Prefix",
        ]
    );
    let status = service.status.unwrap();
    assert_eq!(status.observed_generation, service.metadata.generation);
    assert_eq!(status.url.as_deref(), Some("http://ticketing.dev/api/orders"));
    assert_eq!(status.routes.iter().filter(|route| route.client).count(), 1);
    assert!(status.routes.last().unwrap().client);
    namespace.remove().await;
}

#[tokio::test]
async fn an_edited_or_deleted_child_of_each_kind_is_repaired() {
    let namespace = TestNamespace::create("drift").await;
    namespace.secrets(MONGO).await;
    let _controller = namespace.run("controller").await;
    namespace.apply(&namespace.service("orders", whole())).await.unwrap();
    namespace.condition("orders", Reconciled, "True", "AsExpected").await;

    // As `kubectl edit` does: another manager, and force. Of each kind, what the operator sets is changed.
    let edit = PatchParams::apply("kubectl-edit").force();
    for (child, path, wrong) in [
        (CHILDREN[0], "/spec/template/spec/serviceAccountName", json!("other")),
        (CHILDREN[1], "/spec/selector/app.kubernetes.io~1name", json!("other")),
        (CHILDREN[2], "/spec/rules", json!([{"host": "evil.dev"}])),
        (CHILDREN[3], "/spec/maxReplicas", json!(9)),
        (CHILDREN[4], "/spec/maxUnavailable", json!("100%")),
        (CHILDREN[5], "/automountServiceAccountToken", json!(true)),
        (CHILDREN[6], "/spec/podSelector/matchLabels/app.kubernetes.io~1name", json!("other")),
    ] {
        let api = child_api(&namespace, child);
        let before = serde_json::to_value(api.get("orders").await.unwrap()).unwrap();
        let mut change = json!({"apiVersion": child.1, "kind": child.0});
        let mut at = &mut change;
        for step in path[1..].split('/') {
            at = &mut at[step.replace("~1", "/")];
        }
        *at = wrong.clone();
        let edited = api.patch("orders", &edit, &Patch::Apply(&change)).await.unwrap();
        assert_eq!(serde_json::to_value(&edited).unwrap().pointer(path), Some(&wrong), "{child:?}");
        eventually(&format!("the edited {} is repaired", child.0), || async {
            let now = serde_json::to_value(api.get("orders").await.unwrap()).unwrap();
            (now.pointer(path) == before.pointer(path)).then_some(())
        })
        .await;
    }
    for child in CHILDREN {
        let api = child_api(&namespace, child);
        let old = api.get("orders").await.unwrap().uid();
        api.delete("orders", &DeleteParams::background()).await.unwrap();
        eventually(&format!("the deleted {} is there again", child.0), || async {
            let new = api.get_opt("orders").await.unwrap()?.uid();
            (new != old).then_some(())
        })
        .await;
    }
    namespace.condition("orders", Reconciled, "True", "AsExpected").await;
    namespace.remove().await;
}

#[tokio::test]
async fn a_controller_that_starts_anew_writes_nothing_where_all_is_in_place() {
    let namespace = TestNamespace::create("steady").await;
    namespace.secrets(MONGO).await;
    let controller = namespace.run("controller").await;
    namespace.apply(&namespace.service("orders", json!({}))).await.unwrap();
    namespace.ready("orders").await;
    let before = settled(&namespace).await;
    controller.kill();

    let _controller = namespace.run("controller").await;
    // A second resource shows that the new controller is at work: it reconciles each one at its start.
    namespace.apply(&namespace.service("other", json!({"ingress": {"hosts": ["other.dev"]}}))).await.unwrap();
    namespace.ready("other").await;
    namespace.api::<Service>().delete("other", &DeleteParams::background()).await.unwrap();
    eventually("drift is repaired", || async { namespace.api::<Service>().get_opt("other").await.unwrap() })
        .await;
    assert_eq!(versions(&namespace).await, before);
    namespace.remove().await;
}

#[tokio::test]
async fn a_hundred_reconciles_of_a_settled_resource_send_nothing_and_drift_is_still_repaired() {
    let namespace = TestNamespace::create("quiet").await;
    namespace.secrets(MONGO).await;
    let controller = namespace.run("controller").await;
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

    let edit = json!({"spec": {"selector": {"app.kubernetes.io/name": "other"}}});
    let children = namespace.api::<Service>();
    children.patch("orders", &PatchParams::default(), &Patch::Merge(edit)).await.unwrap();
    eventually("drift is repaired", || async {
        let selector = children.get("orders").await.unwrap().spec.unwrap().selector.unwrap();
        (selector["app.kubernetes.io/name"] == "orders-service").then_some(())
    })
    .await;
    let patched =
        controller.metric("orders_operator_controller_api_requests_total{kind=\"Service\",verb=\"patch\"}");
    assert_eq!(patched.await, 2.0, "made and repaired, each with one request");
    namespace.remove().await;
}

#[tokio::test]
async fn a_secret_that_many_resources_name_is_read_once_for_all_and_its_change_rolls_all() {
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
    let most = 2.0 * (started.elapsed().as_secs_f64() / 1.5 + 1.0);
    let now = reads().await;
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
    namespace.remove().await;
}

#[tokio::test]
async fn pods_that_cannot_pull_their_image_or_crash_are_named_in_the_resource() {
    let namespace = TestNamespace::create("pods").await;
    namespace.secrets(MONGO).await;
    let _controller = namespace.run("controller").await;
    namespace.apply(&namespace.service("orders", json!({"replicas": 1}))).await.unwrap();
    let pods = namespace.api::<Pod>();
    let made_by_the_deployment = ListParams::default().labels("app.kubernetes.io/instance=orders");
    let pod = eventually("the Deployment makes a pod", || async {
        pods.list(&made_by_the_deployment).await.unwrap().items.pop()
    })
    .await;
    let name = pod.name_any();
    // As the kubelet does; there is none here.
    let say = |state: Value| {
        let mut container = json!({
            "name": "orders-api", "image": "registry.example/orders-operator:1", "imageID": "", "ready": false,
            "restartCount": 0
        });
        json_patch::merge(&mut container, &state);
        let status = Patch::Strategic(json!({"status": {"containerStatuses": [container]}}));
        let (pods, name) = (pods.clone(), name.clone());
        async move { pods.patch_status(&name, &PatchParams::default(), &status).await.unwrap() }
    };
    say(json!({"state": {"waiting": {"reason": "ErrImagePull", "message": "manifest unknown"}}})).await;
    let message = namespace.condition("orders", Available, "False", "ImagePullFailed").await;
    for expected in [name.as_str(), "registry.example/orders-operator:1", "manifest unknown", "0 of 1 pods"] {
        assert!(message.contains(expected), "{expected} is missing in {message}");
    }
    namespace.condition("orders", Ready, "False", "ImagePullFailed").await;
    say(json!({
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}},
        "lastState": {"terminated": {"exitCode": 2, "message": "no such flag"}},
    }))
    .await;
    let message = namespace.condition("orders", Available, "False", "CrashLoopBackOff").await;
    assert!(message.contains("exit code 2: no such flag") && message.contains(&name), "{message}");
    let events = namespace.dynamic("Event", "events.k8s.io/v1");
    eventually("an event tells of it", || async {
        let events = events.list(&ListParams::default()).await.unwrap();
        events.iter().any(|event| event.data["reason"] == "ImagePullFailed").then_some(())
    })
    .await;
    namespace.remove().await;
}

#[tokio::test]
async fn one_controller_serves_several_namespaces_with_a_role_in_each_and_no_other() {
    let mut namespace = TestNamespace::create("several").await;
    let (second, other) = (TestNamespace::create("second").await, TestNamespace::create("other").await);
    namespace.watch_also(&second);
    let controller = namespace.run("controller").await;
    for of in [&namespace, &second, &other] {
        of.secrets(MONGO).await;
        of.apply(&of.service("orders", json!({}))).await.unwrap();
    }
    namespace.ready("orders").await;
    second.ready("orders").await;
    // Drift is seen in the second one too.
    second.api::<Service>().delete("orders", &DeleteParams::background()).await.unwrap();
    eventually("drift is repaired", || async { second.api::<Service>().get_opt("orders").await.unwrap() })
        .await;
    assert!(other.api::<Deployment>().get_opt("orders").await.unwrap().is_none());
    assert!(controller.admin("/readyz").await.ends_with("ok\n"));
    assert!(controller.admin("/livez").await.contains("[+]reconciles ok"));
    assert_eq!(controller.metric("orders_operator_controller_watch_errors_total").await, 0.0);
    for of in [namespace, second, other] {
        of.remove().await;
    }
}

#[tokio::test]
async fn someone_else_s_deployment_of_the_same_name_is_left_alone_and_the_resource_says_so() {
    let namespace = TestNamespace::create("notowned").await;
    namespace.secrets(MONGO).await;
    let labels = json!({"app": "theirs"});
    let theirs: Deployment = serde_json::from_value(json!({
        "metadata": {"name": "orders"},
        "spec": {
            "replicas": 0, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "theirs:1"}]}}
        }
    }))
    .unwrap();
    let deployments = namespace.api::<Deployment>();
    let created = deployments.create(&PostParams::default(), &theirs).await.unwrap();
    let _controller = namespace.run("controller").await;
    namespace.apply(&namespace.service("orders", json!({}))).await.unwrap();
    let message = namespace.condition("orders", Reconciled, "False", "NotOwned").await;
    assert!(message.contains("Deployment \"orders\"") && message.contains("left alone"), "{message}");
    namespace.condition("orders", Ready, "False", "NotOwned").await;
    assert_eq!(deployments.get("orders").await.unwrap().spec, created.spec);
    // The other children are not held up by it, and it is taken over by no one but its owner's deletion.
    assert!(namespace.api::<Service>().get_opt("orders").await.unwrap().is_some());
    deployments.delete("orders", &DeleteParams::background()).await.unwrap();
    namespace.ready("orders").await;
    namespace.remove().await;
}

#[tokio::test]
async fn no_kind_of_child_is_adopted_from_someone_else() {
    let namespace = TestNamespace::create("foreign").await;
    namespace.secrets(MONGO).await;
    let labels = json!({"app": "theirs"});
    let backend = json!({"service": {"name": "x", "port": {"number": 80}}});
    let specs = [
        json!({"spec": {
            "replicas": 0, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "theirs:1"}]}}
        }}),
        json!({"spec": {"ports": [{"port": 80}], "selector": labels}}),
        json!({"spec": {"defaultBackend": backend}}),
        json!({"spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"}, "maxReplicas": 2}}),
        json!({"spec": {"maxUnavailable": 3, "selector": {"matchLabels": labels}}}),
        json!({"automountServiceAccountToken": true}),
        json!({"spec": {"podSelector": {"matchLabels": labels}, "policyTypes": ["Ingress"]}}),
    ];
    let mut theirs = Vec::new();
    for (child, mut object) in CHILDREN.into_iter().zip(specs) {
        object["metadata"] = json!({"name": "orders"});
        (object["kind"], object["apiVersion"]) = (json!(child.0), json!(child.1));
        let object = serde_json::from_value(object).unwrap();
        theirs.push(child_api(&namespace, child).create(&PostParams::default(), &object).await.unwrap());
    }
    let _controller = namespace.run("controller").await;
    namespace.apply(&namespace.service("orders", whole())).await.unwrap();
    let message = namespace.condition("orders", Reconciled, "False", "NotOwned").await;
    for (child, theirs) in CHILDREN.into_iter().zip(&theirs) {
        assert!(
            message.contains(&format!("{} \"orders\" is there already", child.0)),
            "{child:?}: {message}"
        );
        let now = child_api(&namespace, child).get("orders").await.unwrap();
        assert_eq!((now.data.get("spec"), now.metadata.labels), (theirs.data.get("spec"), None), "{child:?}");
    }
    // Nor is any deleted as if it were ours and switched off.
    namespace.apply(&namespace.service("orders", json!({"networkPolicy": false}))).await.unwrap();
    namespace.condition("orders", Reconciled, "False", "NotOwned").await;
    for (child, theirs) in CHILDREN.into_iter().zip(&theirs) {
        let now = child_api(&namespace, child).get("orders").await.unwrap();
        assert_eq!(now.uid(), theirs.uid(), "{child:?}");
        child_api(&namespace, child).delete("orders", &DeleteParams::background()).await.unwrap();
    }
    namespace.condition("orders", Reconciled, "True", "AsExpected").await;
    namespace.remove().await;
}

#[tokio::test]
async fn what_is_switched_off_is_deleted() {
    let namespace = TestNamespace::create("switch").await;
    namespace.secrets(MONGO).await;
    let _controller = namespace.run("controller").await;
    namespace.apply(&namespace.service("orders", whole())).await.unwrap();
    namespace.condition("orders", Reconciled, "True", "AsExpected").await;
    let off = json!({"networkPolicy": false, "podTemplate": {"serviceAccountName": "default"}});
    let mut object = namespace.service("orders", off);
    object["spec"].as_object_mut().unwrap().remove("ingress");
    namespace.apply(&object).await.unwrap();
    for child in CHILDREN.into_iter().skip(2) {
        eventually(&format!("the {} is deleted", child.0), || async {
            child_api(&namespace, child).get_opt("orders").await.unwrap().is_none().then_some(())
        })
        .await;
    }
    namespace.ready("orders").await;
    let deployment: Deployment = namespace.api().get("orders").await.unwrap();
    let pod = deployment.spec.unwrap().template.spec.unwrap();
    assert_eq!(pod.service_account_name.as_deref(), Some("default"));
    namespace.remove().await;
}

#[tokio::test]
async fn switching_autoscaling_on_and_off_keeps_the_number_of_pods() {
    let namespace = TestNamespace::create("autoscale").await;
    namespace.secrets(MONGO).await;
    let _controller = namespace.run("controller").await;
    let deployments = namespace.api::<Deployment>();
    let replicas = |wanted: i32| {
        let deployments = deployments.clone();
        async move {
            eventually(&format!("{wanted} replicas"), || async {
                let deployment = deployments.get_opt("orders").await.unwrap()?;
                (deployment.spec.unwrap().replicas == Some(wanted)).then_some(())
            })
            .await;
        }
    };
    namespace.apply(&namespace.service("orders", json!({"replicas": 3}))).await.unwrap();
    replicas(3).await;
    // Every number that there ever is from now on.
    let seen = Arc::new(Mutex::new(Vec::new()));
    let watching = tokio::spawn({
        let (deployments, seen) = (deployments.clone(), seen.clone());
        async move {
            let mut changes = std::pin::pin!(watch_object(deployments, "orders"));
            while let Some(change) = changes.next().await {
                if let Ok(Some(deployment)) = change {
                    seen.lock().unwrap().push(deployment.spec.unwrap().replicas.unwrap());
                }
            }
        }
    });
    let auto = json!({"replicas": null, "autoscaling": {"maxReplicas": 9}});
    namespace.apply(&namespace.service("orders", auto)).await.unwrap();
    let autoscalers = namespace.api::<HorizontalPodAutoscaler>();
    eventually("the autoscaler is there", || async { autoscalers.get_opt("orders").await.unwrap() }).await;
    namespace.condition("orders", Reconciled, "True", "AsExpected").await;
    replicas(3).await;
    // As the autoscaler does when load comes.
    let scale = json!({"spec": {"replicas": 5}});
    deployments.patch_scale("orders", &PatchParams::default(), &Patch::Merge(scale)).await.unwrap();
    replicas(5).await;
    namespace.apply(&namespace.service("orders", json!({"replicas": null}))).await.unwrap();
    eventually("the autoscaler is gone", || async {
        autoscalers.get_opt("orders").await.unwrap().is_none().then_some(())
    })
    .await;
    // A change that rolls the pods does not change their number either.
    let other = json!({"replicas": null, "port": 4000});
    namespace.apply(&namespace.service("orders", other)).await.unwrap();
    namespace.condition("orders", Reconciled, "True", "AsExpected").await;
    replicas(5).await;
    watching.abort();
    let mut seen = seen.lock().unwrap().clone();
    seen.dedup();
    assert!(seen == [3, 5] || seen == [5], "{seen:?}");
    namespace.apply(&namespace.service("orders", json!({"replicas": 1}))).await.unwrap();
    replicas(1).await;
    namespace.remove().await;
}

#[tokio::test]
async fn an_autoscaler_of_the_user_s_own_can_scale_the_resource() {
    let namespace = TestNamespace::create("ownhpa").await;
    namespace.secrets(MONGO).await;
    let _controller = namespace.run("controller").await;
    namespace.apply(&namespace.service("orders", json!({"replicas": 1}))).await.unwrap();
    namespace.condition("orders", Reconciled, "True", "AsExpected").await;
    let own = json!({
        "metadata": {"name": "own"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "ticketing.dev/v1alpha1", "kind": "OrdersService", "name": "orders"},
            "minReplicas": 3, "maxReplicas": 5,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}]
        }
    });
    let autoscalers = namespace.api::<HorizontalPodAutoscaler>();
    autoscalers.create(&PostParams::default(), &serde_json::from_value(own).unwrap()).await.unwrap();
    // The cluster's own autoscaler brings it to its minimum, without any metrics, and it comes through.
    eventually("the Deployment follows", || async {
        let deployment: Deployment = namespace.api().get("orders").await.unwrap();
        (deployment.spec.unwrap().replicas == Some(3)).then_some(())
    })
    .await;
    namespace.remove().await;
}

#[tokio::test]
async fn a_missing_secret_is_named_and_its_arrival_is_noticed() {
    let namespace = TestNamespace::create("secret").await;
    let _controller = namespace.run("controller").await;
    namespace.apply(&namespace.service("orders", json!({}))).await.unwrap();
    for (name, key) in [("jwt-secret", "OTHER"), ("orders-mongo", "MONGO_URI")] {
        namespace.secret(name, key, MONGO).await;
    }
    let message = namespace.condition("orders", Reconciled, "False", "SecretKeyMissing").await;
    assert!(message.contains("\"JWT_KEY\"") && message.contains("[OTHER]"), "{message}");
    namespace.secrets(MONGO).await;
    namespace.ready("orders").await;
    namespace.remove().await;
}

#[tokio::test]
async fn routes_that_only_the_controller_can_judge_are_refused_with_their_reason() {
    let namespace = TestNamespace::create("routes").await;
    namespace.secrets(MONGO).await;
    let _controller = namespace.run("controller").await;
    let routes = |paths: &[&str]| {
        let routes: Vec<Value> = paths.iter().map(|path| json!({"path": path, "service": "a-srv"})).collect();
        json!({"ingress": {"routes": routes}})
    };
    for (paths, reason, says) in [
        (vec!["/a", "/a/?(.*)"], "DuplicatePath", "remove one of them"),
        (vec!["/(a|b)"], "InvalidPath", "routes are plain prefixes"),
        (vec!["/?(.*)"], "InvalidPath", "set it as the client"),
    ] {
        namespace.apply(&namespace.service("orders", routes(&paths))).await.unwrap();
        let message = namespace.condition("orders", Valid, "False", reason).await;
        assert!(message.contains(says), "{paths:?}: {message}");
        namespace.condition("orders", Ready, "False", reason).await;
    }
    namespace.apply(&namespace.service("orders", routes(&["/a"]))).await.unwrap();
    namespace.ready("orders").await;

    namespace
        .apply(&namespace.service("orders", json!({"ingress": {"className": "no-such-class"}})))
        .await
        .unwrap();
    let message = namespace.condition("orders", IngressReady, "False", "IngressClassNotFound").await;
    assert!(message.contains("\"no-such-class\""), "{message}");
    namespace.remove().await;
}

#[tokio::test]
async fn an_ingress_that_is_switched_off_is_deleted_if_it_is_ours_only() {
    let namespace = TestNamespace::create("off").await;
    namespace.secrets(MONGO).await;
    let ingresses = namespace.api::<Ingress>();
    let theirs = json!({
        "metadata": {"name": "theirs"},
        "spec": {"defaultBackend": {"service": {"name": "x", "port": {"number": 80}}}}
    });
    ingresses.create(&PostParams::default(), &serde_json::from_value(theirs).unwrap()).await.unwrap();
    let _controller = namespace.run("controller").await;
    for name in ["orders", "theirs"] {
        let mut object = namespace.service(name, json!({}));
        if name == "theirs" {
            object["spec"].as_object_mut().unwrap().remove("ingress");
        }
        namespace.apply(&object).await.unwrap();
        namespace.ready(name).await;
    }
    let mut without = namespace.service("orders", json!({}));
    without["spec"].as_object_mut().unwrap().remove("ingress");
    namespace.apply(&without).await.unwrap();
    eventually("our Ingress is deleted", || async {
        ingresses.get_opt("orders").await.unwrap().is_none().then_some(())
    })
    .await;
    namespace.ready("orders").await;
    assert!(ingresses.get_opt("theirs").await.unwrap().is_some());
    let status = namespace.api::<OrdersService>().get("orders").await.unwrap().status.unwrap();
    assert!(status.routes.is_empty() && status.url.is_none());
    assert!(!status.conditions.iter().any(|condition| condition.type_ == "IngressReady"));
    namespace.remove().await;
}

#[tokio::test]
async fn a_changed_secret_rolls_the_pods_and_does_not_show_in_them() {
    let namespace = TestNamespace::create("roll").await;
    namespace.secrets(MONGO).await;
    let _controller = namespace.run("controller").await;
    namespace.apply(&namespace.service("orders", json!({}))).await.unwrap();
    namespace.ready("orders").await;
    let annotations = || async {
        let deployment: Deployment = namespace.api().get("orders").await.unwrap();
        deployment.spec.unwrap().template.metadata.unwrap().annotations.unwrap()
    };
    let before = annotations().await;
    namespace.secrets("mongodb://127.0.0.1:2/orders").await;
    // Any change of the resource has its Secrets read again; else it takes some minutes.
    namespace
        .apply(&namespace.service("orders", json!({"expiration": {"windowSeconds": 901}})))
        .await
        .unwrap();
    eventually("the pod template changes", || async { (annotations().await != before).then_some(()) }).await;
    let text = serde_json::to_string(&namespace.api::<Deployment>().get("orders").await.unwrap()).unwrap();
    assert!(!text.contains("127.0.0.1:"), "{text}");
    namespace.remove().await;
}

#[tokio::test]
async fn a_suspended_resource_keeps_its_children_as_they_are() {
    let namespace = TestNamespace::create("suspend").await;
    namespace.secrets(MONGO).await;
    let _controller = namespace.run("controller").await;
    namespace.apply(&namespace.service("orders", json!({}))).await.unwrap();
    namespace.ready("orders").await;
    namespace.apply(&namespace.service("orders", json!({"suspend": true, "replicas": 3}))).await.unwrap();
    namespace.condition("orders", Ready, "False", "Suspended").await;
    assert_eq!(namespace.api::<Deployment>().get("orders").await.unwrap().spec.unwrap().replicas, Some(0));
    namespace.apply(&namespace.service("orders", json!({}))).await.unwrap();
    namespace.ready("orders").await;
    namespace.remove().await;
}

#[tokio::test]
async fn what_the_scale_subresource_says_reaches_the_deployment() {
    let namespace = TestNamespace::create("scale").await;
    namespace.secrets(MONGO).await;
    let _controller = namespace.run("controller").await;
    namespace.apply(&namespace.service("orders", json!({}))).await.unwrap();
    namespace.ready("orders").await;
    let scale = json!({"spec": {"replicas": 3}});
    let services = namespace.api::<OrdersService>();
    services.patch_scale("orders", &PatchParams::default(), &Patch::Merge(scale)).await.unwrap();
    eventually("the Deployment is scaled", || async {
        (namespace.api::<Deployment>().get("orders").await.unwrap().spec.unwrap().replicas == Some(3))
            .then_some(())
    })
    .await;
    let selector = services.get_scale("orders").await.unwrap().status.unwrap().selector.unwrap();
    assert!(selector.contains("app.kubernetes.io/instance=orders"), "{selector}");
    namespace.condition("orders", Available, "False", "MinimumReplicasUnavailable").await;
    namespace.remove().await;
}

#[tokio::test]
async fn the_pods_pass_a_namespace_that_enforces_the_restricted_standard() {
    let namespace = TestNamespace::create("restricted").await;
    namespace.secrets(MONGO).await;
    let _controller = namespace.run("controller").await;
    namespace.apply(&namespace.service("orders", json!({}))).await.unwrap();
    namespace.ready("orders").await;
    let template = namespace.api::<Deployment>().get("orders").await.unwrap().spec.unwrap().template;
    let mut pod = Pod { metadata: template.metadata.unwrap(), spec: template.spec, status: None };
    pod.metadata.name = Some("probe".into());
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    namespace.api::<Pod>().create(&dry, &pod).await.unwrap();
    // The namespace does enforce it.
    pod.spec.as_mut().unwrap().containers[0].security_context = None;
    let refused = namespace.api::<Pod>().create(&dry, &pod).await.unwrap_err().to_string();
    assert!(refused.contains("violates PodSecurity"), "{refused}");
    namespace.remove().await;
}

#[tokio::test]
async fn the_children_of_a_deleted_resource_are_collected() {
    let namespace = TestNamespace::create("gone").await;
    namespace.secrets(MONGO).await;
    let _controller = namespace.run("controller").await;
    namespace.apply(&namespace.service("orders", whole())).await.unwrap();
    namespace.condition("orders", Reconciled, "True", "AsExpected").await;
    namespace.api::<OrdersService>().delete("orders", &DeleteParams::background()).await.unwrap();
    for child in CHILDREN {
        eventually(&format!("no {} is left", child.0), || async {
            child_api(&namespace, child).get_opt("orders").await.unwrap().is_none().then_some(())
        })
        .await;
    }
    namespace.remove().await;
}

#[tokio::test]
async fn a_right_that_is_missing_is_named_in_the_resource() {
    let namespace = TestNamespace::create("rights").await;
    namespace.secrets(MONGO).await;
    let limited = namespace.chart_client().await;
    let roles = namespace.api::<Role>();
    let role_name = format!("{}-orders-operator", namespace.name);
    let whole = roles.get(&role_name).await.unwrap();
    let mut less = whole.clone();
    less.rules.as_mut().unwrap().retain(|rule| rule.resources != Some(vec!["secrets".into()]));
    assert_ne!(less.rules, whole.rules);
    let less = roles.replace(&role_name, &PostParams::default(), &less).await.unwrap();
    eventually("the right is gone", || async {
        let secrets = Api::<Secret>::namespaced(limited.clone(), &namespace.name);
        matches!(secrets.get("jwt-secret").await, Err(kube::Error::Api(status)) if status.code == 403)
            .then_some(())
    })
    .await;

    let _controller = namespace.run("controller").await;
    namespace.apply(&namespace.service("orders", json!({}))).await.unwrap();
    let message = namespace.condition("orders", Reconciled, "False", "Forbidden").await;
    assert!(message.contains("secrets") && message.contains("RBAC"), "{message}");
    let restored = Role { rules: whole.rules, ..less };
    roles.replace(&role_name, &PostParams::default(), &restored).await.unwrap();
    namespace.ready("orders").await;
    namespace.remove().await;
}
