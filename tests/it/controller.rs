//! The controller, run as a process under exactly the rights of the chart, against a real API server.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, Secret, Service},
    networking::v1::Ingress,
    rbac::v1::Role,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
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

/// The resourceVersion of the resource and of each child.
async fn versions(namespace: &TestNamespace) -> BTreeMap<&'static str, String> {
    let version = |object: Option<String>| object.unwrap();
    [
        (
            "OrdersService",
            version(namespace.api::<OrdersService>().get("orders").await.unwrap().resource_version()),
        ),
        (
            "Deployment",
            version(namespace.api::<Deployment>().get("orders").await.unwrap().resource_version()),
        ),
        ("Service", version(namespace.api::<Service>().get("orders").await.unwrap().resource_version())),
        ("Ingress", version(namespace.api::<Ingress>().get("orders").await.unwrap().resource_version())),
    ]
    .into()
}

#[tokio::test]
async fn an_orders_service_becomes_its_children_with_the_client_last_and_the_status_explains_it() {
    let namespace = TestNamespace::create("children").await;
    namespace.secrets(MONGO).await;
    let _controller = namespace.run("controller").await;
    namespace.apply(&namespace.service("orders", json!({"port": 4000}))).await.unwrap();
    namespace.ready("orders").await;

    let service: OrdersService = namespace.api().get("orders").await.unwrap();
    let deployment: Deployment = namespace.api().get("orders").await.unwrap();
    let uid = service.uid().unwrap();
    for owners in [
        deployment.owner_references(),
        namespace.api::<Service>().get("orders").await.unwrap().owner_references(),
        namespace.api::<Ingress>().get("orders").await.unwrap().owner_references(),
    ] {
        assert!(matches!(owners, [owner] if owner.uid == uid && owner.controller == Some(true)));
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
    namespace.apply(&namespace.service("orders", json!({}))).await.unwrap();
    namespace.ready("orders").await;

    // As `kubectl edit` does: another manager, and force.
    let edit = PatchParams::apply("kubectl-edit").force();
    let edits = json!({
        "deployment": {"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 7}},
        "service": {"apiVersion": "v1", "kind": "Service", "spec": {"selector": {"app.kubernetes.io/name": "other"}}},
        "ingress": {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "spec": {"ingressClassName": "x", "rules": [{"host": "evil.dev"}]}},
    });
    let deployments = namespace.api::<Deployment>();
    let services = namespace.api::<Service>();
    let ingresses = namespace.api::<Ingress>();
    deployments.patch("orders", &edit, &Patch::Apply(&edits["deployment"])).await.unwrap();
    services.patch("orders", &edit, &Patch::Apply(&edits["service"])).await.unwrap();
    ingresses.patch("orders", &edit, &Patch::Apply(&edits["ingress"])).await.unwrap();
    eventually("the edited Deployment is repaired", || async {
        (deployments.get("orders").await.unwrap().spec.unwrap().replicas == Some(0)).then_some(())
    })
    .await;
    eventually("the edited Service is repaired", || async {
        let selector = services.get("orders").await.unwrap().spec.unwrap().selector.unwrap();
        (selector["app.kubernetes.io/name"] == "orders-service").then_some(())
    })
    .await;
    eventually("the edited Ingress is repaired", || async {
        (rules(&ingresses.get("orders").await.unwrap()).len() == 4).then_some(())
    })
    .await;

    let old = [
        deployments.get("orders").await.unwrap().uid(),
        services.get("orders").await.unwrap().uid(),
        ingresses.get("orders").await.unwrap().uid(),
    ];
    let now = DeleteParams::background();
    deployments.delete("orders", &now).await.unwrap();
    services.delete("orders", &now).await.unwrap();
    ingresses.delete("orders", &now).await.unwrap();
    eventually("the deleted children are there again", || async {
        let new = [
            deployments.get_opt("orders").await.unwrap()?.uid(),
            services.get_opt("orders").await.unwrap()?.uid(),
            ingresses.get_opt("orders").await.unwrap()?.uid(),
        ];
        new.iter().zip(&old).all(|(new, old)| new != old).then_some(())
    })
    .await;
    namespace.ready("orders").await;
    namespace.remove().await;
}

#[tokio::test]
async fn a_controller_that_starts_anew_writes_nothing_where_all_is_in_place() {
    let namespace = TestNamespace::create("steady").await;
    namespace.secrets(MONGO).await;
    let controller = namespace.run("controller").await;
    namespace.apply(&namespace.service("orders", json!({}))).await.unwrap();
    namespace.ready("orders").await;
    // The Deployment's own controller goes on writing for a moment.
    eventually("the Deployment is seen by its controller", || async {
        let deployment = namespace.api::<Deployment>().get("orders").await.unwrap();
        (deployment.status.unwrap().observed_generation == deployment.metadata.generation).then_some(())
    })
    .await;
    controller.kill();
    let before = versions(&namespace).await;

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
    namespace.apply(&namespace.service("orders", json!({}))).await.unwrap();
    namespace.ready("orders").await;
    namespace.api::<OrdersService>().delete("orders", &DeleteParams::background()).await.unwrap();
    eventually("nothing is left", || async {
        let left = [
            namespace.api::<Deployment>().get_opt("orders").await.unwrap().is_some(),
            namespace.api::<Service>().get_opt("orders").await.unwrap().is_some(),
            namespace.api::<Ingress>().get_opt("orders").await.unwrap().is_some(),
        ];
        (!left.contains(&true)).then_some(())
    })
    .await;
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
