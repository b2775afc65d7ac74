//! The controller, run as a process under exactly the rights of the chart, against a real API server.

use std::{
    collections::BTreeMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ResourceQuota, Secret, Service},
    events::v1::Event,
    networking::v1::Ingress,
    policy::v1::PodDisruptionBudget,
    rbac::v1::{PolicyRule, Role},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, DynamicObject, PostParams},
};
use orders_operator::crd::{ConditionType::*, OrdersService};
use serde_json::{Value, json};

use crate::cluster::{TestNamespace, eventually};

mod chaos;
mod children;
pub(crate) mod conflicts;
pub(crate) mod gateway;
mod hosts;
pub(crate) mod kstatus;
mod outage;
mod ownership;
mod pods;
mod secrets;
mod steady;
mod strip;
mod upgrade;
mod upgrade_evidence;
mod warnings;

const MONGO: &str = "mongodb://127.0.0.1:1/orders";

/// Host and path of every rule of the Ingress, in rendered order.
fn rules(ingress: &Ingress) -> Vec<String> {
    let rules = ingress.spec.as_ref().unwrap().rules.iter().flatten();
    rules
        .flat_map(|rule| {
            rule.http.iter().flat_map(|http| &http.paths).map(|path| {
                let service = path.backend.service.as_ref().unwrap();
                let port = service.port.as_ref().unwrap();
                let port = port.name.clone().or(port.number.map(|number| number.to_string()));
                format!(
                    "{}{} {}:{} {}",
                    rule.host.as_deref().unwrap(),
                    path.path.as_deref().unwrap(),
                    service.name,
                    port.unwrap(),
                    path.path_type
                )
            })
        })
        .collect()
}

/// Every kind of child, as (kind, API version).
pub(crate) const CHILDREN: [(&str, &str); 7] = [
    ("Deployment", "apps/v1"),
    ("Service", "v1"),
    ("Ingress", "networking.k8s.io/v1"),
    ("HorizontalPodAutoscaler", "autoscaling/v2"),
    ("PodDisruptionBudget", "policy/v1"),
    ("ServiceAccount", "v1"),
    ("NetworkPolicy", "networking.k8s.io/v1"),
];

/// A patch of the spec that asks for every kind of child.
pub(crate) fn whole() -> Value {
    json!({"replicas": null, "autoscaling": {"maxReplicas": 5}})
}

fn child_api(namespace: &TestNamespace, (kind, version): (&str, &str)) -> Api<DynamicObject> {
    namespace.dynamic(kind, version)
}

/// The resource and each child, as they are.
async fn objects(namespace: &TestNamespace) -> BTreeMap<&'static str, Option<DynamicObject>> {
    let mut objects = BTreeMap::new();
    let service = ("OrdersService", "ticketing.dev/v1alpha1");
    for kind in std::iter::once(service).chain(CHILDREN) {
        objects.insert(kind.0, child_api(namespace, kind).get_opt("orders").await.unwrap());
    }
    objects
}

/// All of a child but its status and what comes with that: the cluster's own controllers write it when they get to it, which
/// may take half a minute.
fn but_for_status(child: &DynamicObject) -> String {
    let mut child = serde_json::to_value(child).unwrap();
    child.as_object_mut().unwrap().remove("status");
    let metadata = child["metadata"].as_object_mut().unwrap();
    metadata.remove("resourceVersion");
    if let Some(managed) = metadata.get_mut("managedFields").and_then(Value::as_array_mut) {
        managed.retain(|entry| entry["subresource"] != "status");
    }
    let revision = metadata
        .get_mut("annotations")
        .and_then(Value::as_object_mut)
        .and_then(|annotations| annotations.remove("deployment.kubernetes.io/revision"));
    if revision.is_some() && metadata["annotations"] == json!({}) {
        metadata.remove("annotations");
    }
    child.to_string()
}

/// What tells a write of the product: the resourceVersion of the resource, and each child but for its status.
fn versions_of(
    objects: &BTreeMap<&'static str, Option<DynamicObject>>,
) -> BTreeMap<&'static str, Option<String>> {
    let version = |(kind, object): (&&'static str, &Option<DynamicObject>)| {
        let object = object.as_ref();
        let version = match *kind {
            "OrdersService" => object.and_then(ResourceExt::resource_version),
            _ => object.map(but_for_status),
        };
        (*kind, version)
    };
    objects.iter().map(version).collect()
}

/// The same, as it is now.
async fn versions(namespace: &TestNamespace) -> BTreeMap<&'static str, Option<String>> {
    versions_of(&objects(namespace).await)
}

/// How long nothing may change before it counts as settled.
const SETTLED: Duration = Duration::from_secs(1);

/// Waits until nothing changes any more in these resources and their Ingresses; gives their versions.
async fn settled_of(resources: &[(&TestNamespace, &str)]) -> Vec<Option<String>> {
    let seen = Mutex::new((Vec::new(), Instant::now()));
    eventually("nothing changes any more", || async {
        let mut now = Vec::new();
        for (namespace, name) in resources {
            let service = namespace.api::<OrdersService>().get(name).await.unwrap();
            let ingress = namespace.api::<Ingress>().get_opt(name).await.unwrap();
            now.extend([service.resource_version(), ingress.and_then(|ingress| ingress.resource_version())]);
        }
        let (last, since) = &mut *seen.lock().unwrap();
        if *last != now {
            (*last, *since) = (now.clone(), Instant::now());
        }
        (since.elapsed() >= SETTLED).then_some(now)
    })
    .await
}

/// Waits until the cluster's own controllers seem to have nothing more to write to the children; gives the versions.
async fn settled(namespace: &TestNamespace) -> BTreeMap<&'static str, Option<String>> {
    let seen = Mutex::new((Vec::new(), Instant::now()));
    eventually("nothing changes any more", || async {
        let objects = objects(namespace).await;
        let now: Vec<_> =
            objects.values().map(|object| object.as_ref().and_then(ResourceExt::resource_version)).collect();
        let is_rolled_out = objects["Deployment"].as_ref().is_none_or(|deployment| {
            deployment.data["status"]["observedGeneration"].as_i64() == deployment.metadata.generation
        });
        let (last, since) = &mut *seen.lock().unwrap();
        if *last != now || !is_rolled_out {
            (*last, *since) = (now, Instant::now());
        }
        (since.elapsed() >= SETTLED).then(|| versions_of(&objects))
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
            "ticketing.dev/api/orders orders:http Prefix",
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
async fn one_controller_serves_several_namespaces_with_a_role_in_each_and_no_other() {
    let mut namespace = TestNamespace::create("several").await;
    let (second, other) = (TestNamespace::create("second").await, TestNamespace::create("other").await);
    namespace.watch_also(&second);
    let controller = namespace.run("controller").await;
    for of in [&namespace, &second, &other] {
        of.secrets(MONGO).await;
        let own_host = json!({"ingress": {"hosts": [format!("{}.dev", of.name)]}});
        of.apply(&of.service("orders", own_host)).await.unwrap();
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
    assert!(!controller.log().to_lowercase().contains("forbidden"), "{}", controller.log());
    for of in [namespace, second, other] {
        of.remove().await;
    }
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
    assert!(message.contains("\"JWT_KEY\"") && message.contains("kubectl describe secret"), "{message}");
    assert!(
        !message.contains("OTHER"),
        "whoever may read the status need not be allowed to read Secrets: {message}"
    );
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
        (vec!["/a", "/a/?(.*)"], "DuplicatePath", "remove one of the two routes"),
        (vec!["/(a|b)"], "InvalidPath", "routes are plain prefixes"),
        (vec!["/?(.*)"], "MultipleClients", "set spec.ingress.client.service to it"),
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

/// Takes the rules from the chart's Role that do not pass, and waits until that shows; gives the whole Role.
async fn without_rules(namespace: &TestNamespace, keep: impl Fn(&PolicyRule) -> bool) -> Role {
    // Makes the Role.
    namespace.chart_client("controller").await;
    let roles = namespace.api::<Role>();
    let whole = roles.get(&format!("{}-orders-operator", namespace.name)).await.unwrap();
    let mut less = whole.clone();
    less.rules.as_mut().unwrap().retain(keep);
    assert_ne!(less.rules, whole.rules);
    roles.replace(&whole.name_any(), &PostParams::default(), &less).await.unwrap();
    whole
}

#[tokio::test]
async fn a_watch_that_fails_is_counted_by_kind_and_does_not_hold_up_others() {
    let namespace = TestNamespace::create("watch").await;
    namespace.secrets(MONGO).await;
    let others = |rule: &PolicyRule| {
        let resources = rule.resources.iter().flatten();
        !resources.into_iter().any(|resource| resource == "poddisruptionbudgets")
    };
    without_rules(&namespace, others).await;
    let limited = namespace.chart_client("controller").await;
    eventually("the right is gone", || async {
        let budgets = Api::<PodDisruptionBudget>::namespaced(limited.clone(), &namespace.name);
        budgets.list(&Default::default()).await.err()
    })
    .await;
    let controller = namespace.run("controller").await;
    let errors = async |kind: &str| {
        let name = format!("orders_operator_controller_watch_errors_total{{kind=\"{kind}\"}}");
        controller.metric(&name).await
    };
    eventually("the watch fails", || async { (errors("PodDisruptionBudget").await >= 1.0).then_some(()) })
        .await;
    // What it can do it does, and it says what it cannot.
    namespace.apply(&namespace.service("orders", json!({}))).await.unwrap();
    let message = namespace.condition("orders", Reconciled, "False", "Forbidden").await;
    assert!(message.contains("PodDisruptionBudget"), "{message}");
    namespace.api::<Service>().delete("orders", &DeleteParams::background()).await.unwrap();
    eventually("drift is repaired", || async { namespace.api::<Service>().get_opt("orders").await.unwrap() })
        .await;
    // It has every other right.
    let log = controller.log();
    let mut refused = log.lines().filter(|line| line.contains(" is forbidden"));
    assert!(refused.all(|line| line.contains("poddisruptionbudgets")), "{log}");
    assert!(controller.admin("/readyz").await.contains("[-]caches"));
    assert!(controller.admin("/livez").await.ends_with("ok\n"));
    namespace.remove().await;
}

#[tokio::test]
async fn a_quota_that_has_no_room_is_told_and_the_api_server_s_words_are_in_the_log_only() {
    let namespace = TestNamespace::create("quota").await;
    namespace.secrets(MONGO).await;
    let quota = serde_json::from_value(
        json!({"metadata": {"name": "no-services"}, "spec": {"hard": {"count/services": "0"}}}),
    )
    .unwrap();
    namespace.api::<ResourceQuota>().create(&PostParams::default(), &quota).await.unwrap();
    eventually("the quota is in force", || async {
        // Nothing is made of it.
        let dry_run = PostParams { dry_run: true, ..PostParams::default() };
        let service = json!({"metadata": {"name": "x"}, "spec": {"ports": [{"port": 80}]}});
        let service = serde_json::from_value(service).unwrap();
        namespace.api::<Service>().create(&dry_run, &service).await.err()
    })
    .await;
    let controller = namespace.run("controller").await;
    namespace.apply(&namespace.service("orders", json!({}))).await.unwrap();
    let message = namespace.condition("orders", Reconciled, "False", "ApplyFailed").await;
    assert!(
        message.contains("cannot apply Service \"orders\": it would exceed a ResourceQuota"),
        "{message}"
    );
    assert!(!message.contains("exceeded quota"), "{message}");
    let ready = namespace.condition("orders", Ready, "False", "ApplyFailed").await;
    assert_eq!(ready, message);
    eventually("the log has them", || async {
        controller.log().contains("exceeded quota: no-services").then_some(())
    })
    .await;
    let note = eventually("the event is there", || async {
        let events = namespace.api::<Event>().list(&Default::default()).await.unwrap();
        let about = |event: &&Event| event.reason.as_deref() == Some("ApplyFailed");
        events.iter().find(about).and_then(|event| event.note.clone())
    })
    .await;
    assert_eq!(note, message);
    namespace.remove().await;
}

#[tokio::test]
async fn a_missing_right_is_named_in_the_resource() {
    let namespace = TestNamespace::create("rights").await;
    namespace.secrets(MONGO).await;
    let limited = namespace.chart_client("controller").await;
    let whole = without_rules(&namespace, |rule| rule.resources != Some(vec!["secrets".into()])).await;
    eventually("the right is gone", || async {
        let secrets = Api::<Secret>::namespaced(limited.clone(), &namespace.name);
        matches!(secrets.get("jwt-secret").await, Err(kube::Error::Api(status)) if status.code == 403)
            .then_some(())
    })
    .await;

    let controller = namespace.run("controller").await;
    namespace.apply(&namespace.service("orders", json!({}))).await.unwrap();
    let message = namespace.condition("orders", Reconciled, "False", "Forbidden").await;
    assert!(message.contains("RBAC"), "{message}");
    // The words of the API server are the administrator's.
    assert!(!message.contains("system:serviceaccount"), "{message}");
    eventually("the log has them", || async {
        let log = controller.log();
        (log.contains("system:serviceaccount") && log.contains("secrets")).then_some(())
    })
    .await;
    let roles = namespace.api::<Role>();
    let less = roles.get(&whole.name_any()).await.unwrap();
    let restored = Role { rules: whole.rules.clone(), ..less };
    roles.replace(&whole.name_any(), &PostParams::default(), &restored).await.unwrap();
    namespace.ready("orders").await;
    namespace.remove().await;
}
