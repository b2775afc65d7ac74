//! The pods: how many, who decides that, and what keeps them from running.

use std::{
    process::Command,
    sync::{Arc, Mutex},
};

use futures::StreamExt;
use k8s_openapi::api::{apps::v1::Deployment, autoscaling::v2::HorizontalPodAutoscaler, core::v1::Pod};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
    discovery::ApiResource,
    runtime::watcher::watch_object,
};
use orders_operator::crd::{ConditionType::*, OrdersService};
use serde_json::{Value, json};

use super::MONGO;
use crate::{
    cluster::{TestNamespace, eventually},
    crd::template,
};

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
async fn a_former_pod_that_crashes_during_a_rollout_is_not_what_is_said_of_the_new_one() {
    let namespace = TestNamespace::create("former").await;
    namespace.secrets(MONGO).await;
    let _controller = namespace.run("controller").await;
    namespace.apply(&namespace.service("orders", json!({"replicas": 1}))).await.unwrap();
    let pods = namespace.api::<Pod>();
    eventually("its pod serves", || async {
        serve(&namespace).await;
        let service = namespace.api::<OrdersService>().get("orders").await.unwrap();
        let conditions = service.status.unwrap_or_default().conditions;
        conditions.iter().any(|each| each.type_ == "Available" && each.status == "True").then_some(())
    })
    .await;
    let former = pods.list(&ListParams::default()).await.unwrap().items.pop().unwrap().name_any();
    namespace.apply(&namespace.service("orders", json!({"replicas": 1, "port": 4000}))).await.unwrap();
    let new = eventually("there is a new pod", || async {
        let all = pods.list(&ListParams::default()).await.unwrap();
        all.iter().map(ResourceExt::name_any).find(|name| *name != former)
    })
    .await;
    let waiting = |reason: &str| {
        json!({
            "name": "orders-api", "image": "registry.example/orders-operator:1", "imageID": "", "ready": false,
            "restartCount": 0, "state": {"waiting": {"reason": reason, "message": "m"}}
        })
    };
    for (name, reason) in [(&former, "CrashLoopBackOff"), (&new, "CreateContainerConfigError")] {
        let unready =
            json!([{"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
        let status = json!({"status": {"conditions": unready, "containerStatuses": [waiting(reason)]}});
        pods.patch_status(name, &PatchParams::default(), &Patch::Strategic(status)).await.unwrap();
    }
    eventually("the resource says what the new pod waits for", || async {
        let service = namespace.api::<OrdersService>().get("orders").await.unwrap();
        let conditions = service.status.unwrap_or_default().conditions;
        let available = conditions.into_iter().find(|each| each.type_ == "Available")?;
        (available.reason == "MinimumReplicasUnavailable"
            && available.message.contains(&new)
            && available.message.contains("CreateContainerConfigError"))
        .then_some(())
    })
    .await;
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
async fn an_autoscaler_that_the_user_made_can_scale_the_resource() {
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
async fn the_number_in_the_scale_subresource_reaches_the_deployment() {
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
async fn kubectl_scale_works_where_the_number_was_never_set_and_is_refused_beside_an_autoscaler() {
    let namespace = TestNamespace::create("kubectl").await;
    namespace.secrets(MONGO).await;
    let _controller = namespace.run("controller").await;
    namespace.apply(&namespace.service("orders", json!({"replicas": null}))).await.unwrap();
    namespace.condition("orders", Reconciled, "True", "AsExpected").await;
    let kubectl = |replicas: &str| {
        Command::new("kubectl")
            .args(["--namespace", &namespace.name, "scale", "osvc/orders", "--replicas", replicas])
            .output()
            .unwrap()
    };
    let output = kubectl("3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    eventually("the Deployment follows", || async {
        let deployment: Deployment = namespace.api().get("orders").await.unwrap();
        (deployment.spec.unwrap().replicas == Some(3)).then_some(())
    })
    .await;
    let auto = json!({"spec": {"replicas": null, "autoscaling": {"maxReplicas": 5}}});
    let services = namespace.api::<OrdersService>();
    services.patch("orders", &PatchParams::default(), &Patch::Merge(auto)).await.unwrap();
    let said = String::from_utf8(kubectl("4").stderr).unwrap();
    assert!(said.contains("the autoscaler decides the number"), "{said}");
    namespace.remove().await;
}

#[tokio::test]
async fn the_pods_pass_a_namespace_that_enforces_the_restricted_standard() {
    let namespace = TestNamespace::create("restricted").await;
    namespace.secrets(MONGO).await;
    let _controller = namespace.run("controller").await;
    namespace.apply(&namespace.service("orders", json!({}))).await.unwrap();
    namespace.ready("orders").await;
    let mut pod = pod_of(&namespace).await;
    try_out(&namespace, &pod).await.unwrap();
    // The namespace does enforce it.
    pod.spec.as_mut().unwrap().containers[0].security_context = None;
    let refused = try_out(&namespace, &pod).await.unwrap_err().to_string();
    assert!(refused.contains("violates PodSecurity"), "{refused}");

    // So do those with volumes and containers of the spec, and those whose user the cluster assigns.
    let mut whole = template();
    whole["userFromCluster"] = json!(true);
    namespace.apply(&namespace.service("orders", json!({"podTemplate": whole}))).await.unwrap();
    eventually("its Deployment has them", || async {
        let pod = pod_of(&namespace).await.spec.unwrap();
        (pod.init_containers.is_some_and(|containers| containers.len() == 2)).then_some(())
    })
    .await;
    let mut pod = pod_of(&namespace).await;
    assert_eq!(pod.spec.as_ref().unwrap().security_context.as_ref().unwrap().run_as_user, None);
    try_out(&namespace, &pod).await.unwrap();
    // As OpenShift's restricted-v2 does.
    let context = pod.spec.as_mut().unwrap().security_context.as_mut().unwrap();
    (context.run_as_user, context.fs_group) = (Some(1_000_650_000), Some(1_000_650_000));
    try_out(&namespace, &pod).await.unwrap();
    namespace.remove().await;
}

/// A pod as the Deployment makes them.
async fn pod_of(namespace: &TestNamespace) -> Pod {
    let template = namespace.api::<Deployment>().get("orders").await.unwrap().spec.unwrap().template;
    let mut pod = Pod { metadata: template.metadata.unwrap(), spec: template.spec, status: None };
    pod.metadata.name = Some("probe".into());
    pod
}

/// Has the API server admit a pod, without making it.
async fn try_out(namespace: &TestNamespace, pod: &Pod) -> Result<Pod, kube::Error> {
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    namespace.api::<Pod>().create(&dry, pod).await
}

#[tokio::test]
async fn a_container_that_keeps_the_api_from_starting_is_named_in_the_resource() {
    let namespace = TestNamespace::create("init").await;
    namespace.secrets(MONGO).await;
    let _controller = namespace.run("controller").await;
    let spec = json!({"replicas": 1, "podTemplate": template()});
    namespace.apply(&namespace.service("orders", spec)).await.unwrap();
    let pods = namespace.api::<Pod>();
    let of_orders = ListParams::default().labels("app.kubernetes.io/instance=orders");
    let pod = eventually("the Deployment makes a pod", || async {
        pods.list(&of_orders).await.unwrap().items.pop()
    })
    .await;
    // As the kubelet does; there is none here.
    let status = |name: &str, state: Value| {
        let image = format!("{name}:1");
        json!({"name": name, "image": image, "imageID": "", "ready": false, "restartCount": 0, "state": state})
    };
    let waits = status("orders-api", json!({"waiting": {"reason": "PodInitializing"}}));
    let fails = json!({"waiting": {"reason": "ErrImagePull", "message": "manifest unknown"}});
    let whole = json!({"status": {
        "initContainerStatuses": [status("migrate", fails)], "containerStatuses": [waits],
    }});
    pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(whole)).await.unwrap();
    let message = namespace.condition("orders", Available, "False", "ImagePullFailed").await;
    assert!(message.contains("migrate:1") && message.contains("manifest unknown"), "{message}");
    namespace.remove().await;
}

/// Marks every pod of `orders` as a kubelet does whose probes succeed.
pub(super) async fn serve(namespace: &TestNamespace) {
    let pods = namespace.api::<Pod>();
    let of_orders = ListParams::default().labels("app.kubernetes.io/instance=orders");
    for pod in pods.list(&of_orders).await.unwrap() {
        let name = pod.name_any();
        if pod.metadata.deletion_timestamp.is_some() {
            // There is no kubelet to end it.
            let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
            let _gone = pods.delete(&name, &at_once).await;
            continue;
        }
        let status = json!({"status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        }});
        match pods.patch_status(&name, &PatchParams::default(), &Patch::Strategic(status)).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_change_that_a_quota_keeps_from_being_rolled_out_is_not_ready_until_its_own_pods_serve() {
    let namespace = TestNamespace::create("quota").await;
    namespace.secrets(MONGO).await;
    let _controller = namespace.run("controller").await;
    namespace.apply(&namespace.service("orders", json!({"replicas": 1}))).await.unwrap();
    eventually("its pod serves", || async {
        serve(&namespace).await;
        let service = namespace.api::<OrdersService>().get("orders").await.unwrap();
        let conditions = service.status.unwrap_or_default().conditions;
        conditions.iter().any(|each| each.type_ == "Available" && each.status == "True").then_some(())
    })
    .await;
    let quota = namespace.dynamic("ResourceQuota", "v1");
    let full = json!({"metadata": {"name": "full"}, "spec": {"hard": {"pods": "1"}}});
    quota.create(&PostParams::default(), &serde_json::from_value(full).unwrap()).await.unwrap();
    eventually("the quota counts the pod", || async {
        let quota = quota.get("full").await.unwrap();
        (quota.data["status"]["used"]["pods"] == "1").then_some(())
    })
    .await;
    namespace.apply(&namespace.service("orders", json!({"replicas": 1, "port": 4000}))).await.unwrap();
    let message = namespace.condition("orders", Available, "False", "PodCreationFailed").await;
    for expected in ["exceeded quota: full", "0 of 1 pods have the current spec", "1 old pod is ready"] {
        assert!(message.contains(expected), "{expected} is missing in {message}");
    }
    namespace.condition("orders", Ready, "False", "PodCreationFailed").await;
    namespace.condition("orders", Reconciling, "True", "PodCreationFailed").await;
    quota.delete("full", &DeleteParams::default()).await.unwrap();
    eventually("the new pod serves in the old one's place", || async {
        serve(&namespace).await;
        let service = namespace.api::<OrdersService>().get("orders").await.unwrap();
        let conditions = service.status.unwrap_or_default().conditions;
        conditions.iter().any(|each| each.type_ == "Available" && each.status == "True").then_some(())
    })
    .await;
    let pods = namespace.api::<Pod>().list(&ListParams::default()).await.unwrap();
    let mut ports = pods.iter().flat_map(|pod| &pod.spec.as_ref().unwrap().containers[0].ports).flatten();
    assert!(ports.any(|port| port.container_port == 4000), "{pods:?}");
    namespace.remove().await;
}

/// Has the API server refuse pods of a resource, by a policy of this namespace.
async fn deny_pods_of(namespace: &TestNamespace, name: &str) {
    let apply = async |kind: &str, spec: Value| {
        let group = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
        let api = Api::<DynamicObject>::all_with(namespace.client.clone(), &ApiResource::from_gvk(&group));
        let object = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": namespace.name}, "spec": spec
        });
        api.patch(&namespace.name, &PatchParams::apply("test").force(), &Patch::Apply(object)).await.unwrap();
    };
    let pods =
        json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]});
    let expression = format!("object.metadata.labels['app.kubernetes.io/instance'] != '{name}'");
    let policy = json!({
        "failurePolicy": "Fail", "matchConstraints": {"resourceRules": [pods]},
        "validations": [{"expression": expression, "message": "no pods of this one on a Friday"}]
    });
    apply("ValidatingAdmissionPolicy", policy).await;
    let here = json!({"matchLabels": {"kubernetes.io/metadata.name": namespace.name}});
    let binding = json!({
        "policyName": namespace.name, "validationActions": ["Deny"], "matchResources": {"namespaceSelector": here}
    });
    apply("ValidatingAdmissionPolicyBinding", binding).await;
}

#[tokio::test]
async fn whatever_keeps_pods_from_being_made_is_told_in_the_words_of_the_cluster() {
    let namespace = TestNamespace::create("unmade").await;
    namespace.secrets(MONGO).await;
    let limits = namespace.dynamic("LimitRange", "v1");
    let small = json!({"metadata": {"name": "small"}, "spec": {"limits": [{"type": "Container", "max": {"memory": "100Mi"}}]}});
    limits.create(&PostParams::default(), &serde_json::from_value(small).unwrap()).await.unwrap();
    deny_pods_of(&namespace, "denied").await;
    let small = json!({"requests": {"memory": "32Mi"}, "limits": {"memory": "64Mi"}});
    let nobody = json!({"serviceAccountName": "nobody"});
    // Made first, as it takes a moment until a policy is in force; the next pod of it is refused then.
    for (name, spec) in [
        ("denied", json!({"replicas": 1, "ingress": null, "resources": small})),
        ("limited", json!({"replicas": 1, "ingress": null})),
        ("unknown", json!({"replicas": 1, "ingress": null, "resources": small, "podTemplate": nobody})),
    ] {
        namespace.apply(&namespace.service(name, spec)).await.unwrap();
    }
    let _controller = namespace.run("controller").await;
    let pods = namespace.api::<Pod>();
    let trial = PostParams { dry_run: true, ..PostParams::default() };
    let pod = json!({
        "metadata": {"name": "trial", "labels": {"app.kubernetes.io/instance": "denied"}},
        "spec": {
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "a", "image": "a:1", "resources": {"limits": {"memory": "1Mi"}},
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}
            }]
        }
    });
    let pod: Pod = serde_json::from_value(pod).unwrap();
    eventually("the policy is in force", || async {
        let refused = pods.create(&trial, &pod).await.err()?;
        refused.to_string().contains("on a Friday").then_some(())
    })
    .await;
    let of_denied = ListParams::default().labels("app.kubernetes.io/instance=denied");
    let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    pods.delete_collection(&at_once, &of_denied).await.unwrap();
    for (name, words) in [
        ("limited", "maximum memory usage per Container is 100Mi"),
        ("unknown", "serviceaccount \"nobody\" not found"),
        ("denied", "no pods of this one on a Friday"),
    ] {
        for condition in [Available, Ready] {
            let message = namespace.condition(name, condition, "False", "PodCreationFailed").await;
            assert!(message.contains(words), "{words} is missing in {message}");
        }
    }
    for kind in ["ValidatingAdmissionPolicyBinding", "ValidatingAdmissionPolicy"] {
        let group = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
        let api = Api::<DynamicObject>::all_with(namespace.client.clone(), &ApiResource::from_gvk(&group));
        api.delete(&namespace.name, &DeleteParams::default()).await.unwrap();
    }
    namespace.remove().await;
}

#[tokio::test]
async fn a_resource_that_no_controller_has_seen_says_so() {
    let namespace = TestNamespace::create("unseen").await;
    let service = namespace.apply(&namespace.service("orders", json!({}))).await.unwrap();
    assert_eq!(service.status.unwrap().observed_generation, Some(-1));
    namespace.remove().await;
}
