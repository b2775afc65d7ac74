//! The children: repaired, never adopted, deleted when they are switched off.

use std::collections::BTreeSet;

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Service, ServiceAccount},
    networking::v1::Ingress,
    rbac::v1::Role,
};
use kube::{
    ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use orders_operator::crd::{ConditionType::*, OrdersService};
use serde_json::{Value, json};

use super::{CHILDREN, MONGO, child_api, rules, settled, settled_of, whole};
use crate::cluster::{TestNamespace, eventually};

#[tokio::test]
async fn an_edited_or_deleted_child_of_each_kind_is_repaired() {
    let namespace = TestNamespace::create("drift").await;
    namespace.secrets(MONGO).await;
    let _controller = namespace.run("controller").await;
    namespace.apply(&namespace.service("orders", whole())).await.unwrap();
    namespace.condition("orders", Reconciled, "True", "AsExpected").await;
    // Without pods nothing else causes a reconcile: each repair is the answer to what was done.
    let none = Patch::Merge(json!({"spec": {"replicas": 0}}));
    namespace.api::<Deployment>().patch_scale("orders", &PatchParams::default(), &none).await.unwrap();
    namespace.ready("orders").await;

    // As `kubectl edit` does: another manager, and force. Of each kind, what the operator sets is changed.
    let edit = PatchParams::apply("kubectl-edit").force();
    let edits: [(&str, Value); CHILDREN.len()] = [
        ("/spec/template/spec/serviceAccountName", json!("other")),
        ("/spec/selector/app.kubernetes.io~1name", json!("other")),
        ("/spec/rules", json!([{"host": "evil.dev"}])),
        ("/spec/maxReplicas", json!(9)),
        ("/spec/maxUnavailable", json!("100%")),
        ("/automountServiceAccountToken", json!(true)),
        ("/spec/podSelector/matchLabels/app.kubernetes.io~1name", json!("other")),
    ];
    for (child, (path, wrong)) in CHILDREN.into_iter().zip(edits) {
        let api = child_api(&namespace, child);
        let before = serde_json::to_value(api.get("orders").await.unwrap()).unwrap();
        let mut change = json!({"apiVersion": child.1, "kind": child.0});
        let mut at = &mut change;
        for step in path[1..].split('/') {
            at = &mut at[step.replace("~1", "/")];
        }
        *at = wrong.clone();
        settled(&namespace).await;
        let edited = api.patch("orders", &edit, &Patch::Apply(&change)).await.unwrap();
        assert_eq!(serde_json::to_value(&edited).unwrap().pointer(path), Some(&wrong), "{child:?}");
        eventually(&format!("the edited {} is repaired", child.0), || async {
            let now = serde_json::to_value(api.get("orders").await.unwrap()).unwrap();
            (now.pointer(path) == before.pointer(path)).then_some(())
        })
        .await;
    }
    // The Deployment last: it comes back with pods.
    for child in CHILDREN.into_iter().rev() {
        let api = child_api(&namespace, child);
        settled(&namespace).await;
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
    assert!(message.contains("Deployment \"orders\"") && message.contains("left unchanged"), "{message}");
    namespace.condition("orders", Ready, "False", "NotOwned").await;
    assert_eq!(deployments.get("orders").await.unwrap().spec, created.spec);
    // The other children are not held up by it, and it is taken over by no one but its owner's deletion.
    assert!(namespace.api::<Service>().get_opt("orders").await.unwrap().is_some());
    deployments.delete("orders", &DeleteParams::background()).await.unwrap();
    namespace.ready("orders").await;
    namespace.remove().await;
}

#[tokio::test]
async fn a_second_service_keeps_a_name_once_nobody_else_has_it_and_goes_when_the_spec_says_another() {
    let namespace = TestNamespace::create("second").await;
    namespace.secrets(MONGO).await;
    let services = namespace.api::<Service>();
    let theirs = json!({"metadata": {"name": "orders-srv"}, "spec": {"selector": {"app": "orders"}, "ports": [{"port": 3000}]}});
    let theirs =
        services.create(&PostParams::default(), &serde_json::from_value(theirs).unwrap()).await.unwrap();
    let controller = namespace.run("controller").await;
    let named = |name: Value| namespace.service("orders", json!({"serviceName": name}));
    namespace.apply(&named(json!("orders-srv"))).await.unwrap();
    let message = namespace.condition("orders", Reconciled, "False", "NotOwned").await;
    assert!(message.contains("Service \"orders-srv\" already exists"), "{message}");
    assert!(message.contains("delete it so that the operator can create its own"), "{message}");
    assert_eq!(services.get("orders-srv").await.unwrap().spec, theirs.spec);
    // What is said is done.
    services.delete("orders-srv", &DeleteParams::background()).await.unwrap();
    namespace.ready("orders").await;
    let (first, second) = (services.get("orders").await.unwrap(), services.get("orders-srv").await.unwrap());
    let of = |service: Service| service.spec.map(|spec| (spec.selector, spec.ports));
    assert_eq!(of(second), of(first));
    assert_eq!(
        rules(&namespace.api().get("orders").await.unwrap())[0],
        "ticketing.dev/api/orders orders:http Prefix",
        "routes lead to the first"
    );
    // It is a child as any other.
    services.delete("orders-srv", &DeleteParams::background()).await.unwrap();
    eventually("it is there again", || async { services.get_opt("orders-srv").await.unwrap() }).await;
    for (name, others) in [(json!("orders-api"), ["orders-srv"]), (Value::Null, ["orders-api"])] {
        namespace.apply(&named(name.clone())).await.unwrap();
        for other in others {
            eventually(&format!("{other} is gone"), || async {
                services.get_opt(other).await.unwrap().is_none().then_some(())
            })
            .await;
        }
        let new = name.as_str().unwrap_or("orders");
        assert!(services.get_opt(new).await.unwrap().is_some(), "{new}");
        namespace.ready("orders").await;
    }
    // A name of which nothing was ever told goes too: that controller ends before it writes a status.
    namespace.apply(&named(json!("brief"))).await.unwrap();
    eventually("it is made", || async { services.get_opt("brief").await.unwrap() }).await;
    controller.kill();
    namespace.apply(&named(json!("orders-srv"))).await.unwrap();
    let _controller = namespace.run("controller").await;
    eventually("the former one is gone, and the new one is there", || async {
        let former = services.get_opt("brief").await.unwrap();
        services.get_opt("orders-srv").await.unwrap().filter(|_| former.is_none())
    })
    .await;
    namespace.remove().await;
}

#[tokio::test]
async fn of_two_that_want_a_service_of_one_name_the_later_one_is_told_who_has_it_and_gets_it_when_it_is_free()
{
    let namespace = TestNamespace::create("taken").await;
    namespace.secrets(MONGO).await;
    let _controller = namespace.run("controller").await;
    let first = |name: Value| {
        let mut service = namespace.service("orders", json!({"serviceName": name}));
        service["spec"].as_object_mut().unwrap().remove("ingress");
        service
    };
    namespace.apply(&first(json!("second"))).await.unwrap();
    namespace.ready("orders").await;
    let services = namespace.api::<Service>();
    let before = services.get("second").await.unwrap();

    // One that has the name as its own.
    namespace.apply(&namespace.service("second", json!({}))).await.unwrap();
    let message = namespace.condition("second", Reconciled, "False", "NotOwned").await;
    let expected = [
        "Service \"second\" already exists and belongs to OrdersService \"orders\"",
        "remove spec.serviceName from OrdersService \"orders\", or give this OrdersService another name",
    ];
    assert!(expected.iter().all(|part| message.contains(part)), "{message}");
    let now = services.get("second").await.unwrap();
    assert_eq!((now.uid(), &now.spec), (before.uid(), &before.spec));
    namespace.ready("orders").await;
    // What is said is done.
    namespace.apply(&first(Value::Null)).await.unwrap();
    namespace.ready("second").await;
    assert_ne!(services.get("second").await.unwrap().uid(), before.uid());

    // And the other way round.
    namespace.apply(&first(json!("second"))).await.unwrap();
    let message = namespace.condition("orders", Reconciled, "False", "NotOwned").await;
    let expected = [
        "Service \"second\" already exists and belongs to OrdersService \"second\"",
        "set spec.serviceName to another name, or remove it",
    ];
    assert!(expected.iter().all(|part| message.contains(part)), "{message}");
    namespace.api::<OrdersService>().delete("second", &DeleteParams::background()).await.unwrap();
    namespace.ready("orders").await;
    namespace.remove().await;
}

#[tokio::test]
async fn a_second_service_that_cannot_be_made_is_called_by_its_own_name() {
    let namespace = TestNamespace::create("refused").await;
    namespace.secrets(MONGO).await;
    let quota = namespace.dynamic("ResourceQuota", "v1");
    let one = json!({"metadata": {"name": "one"}, "spec": {"hard": {"services": "1"}}});
    quota.create(&PostParams::default(), &serde_json::from_value(one).unwrap()).await.unwrap();
    eventually("the quota is in force", || async {
        let quota = quota.get("one").await.unwrap();
        (quota.data["status"]["used"]["services"] == "0").then_some(())
    })
    .await;
    let _controller = namespace.run("controller").await;
    namespace.apply(&namespace.service("orders", json!({"serviceName": "orders-srv"}))).await.unwrap();
    let message = namespace.condition("orders", Reconciled, "False", "ApplyFailed").await;
    assert!(
        message.contains("cannot apply Service \"orders-srv\": it would exceed a ResourceQuota"),
        "{message}"
    );
    namespace.remove().await;
}

#[tokio::test]
async fn no_kind_of_child_is_adopted_from_someone_else() {
    let namespace = TestNamespace::create("foreign").await;
    namespace.secrets(MONGO).await;
    let labels = json!({"app": "theirs"});
    let backend = json!({"service": {"name": "x", "port": {"number": 80}}});
    let specs: [Value; CHILDREN.len()] = [
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
        assert!(message.contains(&format!("{} \"orders\" already exists", child.0)), "{child:?}: {message}");
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
async fn an_account_is_kept_when_the_spec_names_it_and_one_that_others_made_is_used_as_it_is() {
    let namespace = TestNamespace::create("account").await;
    namespace.secrets(MONGO).await;
    let accounts = namespace.api::<ServiceAccount>();
    let theirs = json!({"metadata": {"name": "theirs"}, "automountServiceAccountToken": true});
    let theirs =
        accounts.create(&PostParams::default(), &serde_json::from_value(theirs).unwrap()).await.unwrap();
    let _controller = namespace.run("controller").await;
    let named = |name: &str| namespace.service(name, json!({"podTemplate": {"serviceAccountName": name}}));
    namespace.apply(&namespace.service("ours", json!({}))).await.unwrap();
    namespace.condition("ours", Reconciled, "True", "AsExpected").await;
    let ours = accounts.get("ours").await.unwrap();
    for name in ["ours", "theirs"] {
        namespace.apply(&named(name)).await.unwrap();
        namespace.condition(name, Reconciled, "True", "AsExpected").await;
        settled_of(&[(&namespace, name)]).await;
    }
    assert_eq!(accounts.get("ours").await.unwrap().uid(), ours.uid());
    assert_eq!(accounts.get("theirs").await.unwrap().resource_version(), theirs.resource_version());
    namespace.remove().await;
}

#[tokio::test]
async fn what_is_switched_off_is_deleted_and_no_right_over_children_is_superfluous() {
    let namespace = TestNamespace::create("switch").await;
    namespace.secrets(MONGO).await;
    let controller = namespace.run("controller").await;
    let mut on = namespace.service("orders", whole());
    on["spec"]["serviceName"] = json!("orders-srv");
    namespace.apply(&on).await.unwrap();
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
    eventually("the second Service is deleted", || async {
        namespace.api::<Service>().get_opt("orders-srv").await.unwrap().is_none().then_some(())
    })
    .await;
    namespace.ready("orders").await;
    let deployment: Deployment = namespace.api().get("orders").await.unwrap();
    let pod = deployment.spec.unwrap().template.spec.unwrap();
    assert_eq!(pod.service_account_name.as_deref(), Some("default"));

    // By now it has done everything that it ever does to a child. Of the rights over children that the chart
    // gives, each was used: none is superfluous.
    let page = controller.admin("/metrics").await;
    let role: Role = namespace.api().get(&format!("{}-orders-operator", namespace.name)).await.unwrap();
    for (kind, _) in CHILDREN {
        let plural = match kind.to_lowercase() {
            name if name.ends_with('y') => format!("{}ies", name.trim_end_matches('y')),
            name if name.ends_with('s') => format!("{name}es"),
            name => format!("{name}s"),
        };
        let rules = role.rules.iter().flatten();
        let granted: BTreeSet<_> = rules
            .filter(|rule| rule.resources.iter().flatten().any(|resource| *resource == plural))
            .flat_map(|rule| rule.verbs.iter().map(String::as_str))
            .collect();
        // The watches, and an apply of what is not there yet.
        let mut used = BTreeSet::from(["list", "watch", "create"]);
        for verb in ["get", "patch", "delete"] {
            let counted = format!("api_requests_total{{kind=\"{kind}\",verb=\"{verb}\"}}");
            used.extend(page.contains(&counted).then_some(verb));
        }
        assert_eq!(granted, used, "{kind}");
    }
    namespace.remove().await;
}

#[tokio::test]
async fn an_ingress_that_is_switched_off_is_deleted_only_if_it_is_ours() {
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
async fn the_children_of_a_deleted_resource_are_collected() {
    let namespace = TestNamespace::create("gone").await;
    namespace.secrets(MONGO).await;
    let _controller = namespace.run("controller").await;
    for how in [DeleteParams::background(), DeleteParams::foreground()] {
        namespace.apply(&namespace.service("orders", whole())).await.unwrap();
        namespace.condition("orders", Reconciled, "True", "AsExpected").await;
        let services = namespace.api::<OrdersService>();
        services.delete("orders", &how).await.unwrap();
        eventually("the resource is gone", || async {
            services.get_opt("orders").await.unwrap().is_none().then_some(())
        })
        .await;
        for child in CHILDREN {
            eventually(&format!("no {} is left", child.0), || async {
                child_api(&namespace, child).get_opt("orders").await.unwrap().is_none().then_some(())
            })
            .await;
        }
    }
    namespace.remove().await;
}
