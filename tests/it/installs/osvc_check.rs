//! `kubectl osvc check`, before the CRD is there and after an installation, with each thing that can be amiss: each is told
//! once.

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use orders_operator::crd::ConditionType::*;
use serde_json::{Value, json};

use super::{alone, kubeconfig, namespace};
use crate::{
    cluster::{TestNamespace, apply_any, chart, eventually, install_crd, root},
    mongo::{TestDatabase, uri},
    osvc::{Told, osvc},
    osvc_check::{is_one_each, lines},
    sweeper::service,
};

/// The label of the operator's Deployment and pods.
const OPERATOR: &str = "app.kubernetes.io/name=orders-operator";

async fn check(arguments: &[&str]) -> Told {
    osvc(&kubeconfig(), &[&["check"], arguments].concat()).await
}

/// The failures, after checking that the exit code agrees.
async fn failures(arguments: &[&str]) -> Vec<String> {
    let told = check(&[arguments, &["-o", "json"]].concat()).await;
    let report = told.json();
    let failures = lines(&report, "failure");
    assert_eq!(told.code, Some(i32::from(!failures.is_empty())), "{report:#}");
    assert_eq!(report["failures"], failures.len(), "{report:#}");
    failures
}

/// Waits until there is one failure for each of these texts, and no other: on a loaded machine something else may fail too,
/// such as the renewal of a Lease.
async fn fails_by_each(arguments: &[&str], expected: &[&str]) -> Vec<String> {
    eventually(&format!("one failure each: {expected:?}"), || async {
        let found = failures(arguments).await;
        if is_one_each(&found, expected) {
            return Some(found);
        }
        eprintln!("{found:#?}");
        None
    })
    .await
}

/// The operator's Deployment with a pod that is ready, as a kubelet would have it; there is none.
async fn operator(namespace: &TestNamespace) {
    // For one namespace: its roles are not applied.
    let values =
        format!("rbac.aggregateClusterRoles=false,replicas=1,watchNamespaces={{{}}}", namespace.name);
    let objects = chart(&["--namespace", &namespace.name, "--set", &values], &namespace.name);
    let kinds = ["Deployment", "ServiceAccount"];
    for object in objects.into_iter().filter(|object| kinds.contains(&object["kind"].as_str().unwrap())) {
        apply_any(&namespace.client, object).await;
    }
    let pods = namespace.api::<Pod>();
    let pod = eventually("a pod of the operator", || async {
        let params = ListParams::default().labels(OPERATOR);
        pods.list(&params).await.unwrap().items.pop()
    })
    .await;
    let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(ready)).await.unwrap();
    eventually("the Deployment counts it", || async {
        let mut deployments = namespace.api::<Deployment>().list(&ListParams::default()).await.unwrap();
        deployments.items.pop()?.status?.ready_replicas.filter(|ready| *ready == 1)
    })
    .await;
}

/// Gives the operator another image. Gives the one that it had, and the name of its Deployment.
async fn set_image(namespace: &TestNamespace, image: &str) -> (String, String) {
    let deployments = namespace.api::<Deployment>();
    let old = deployments.list(&ListParams::default().labels(OPERATOR)).await.unwrap().items.pop().unwrap();
    let containers = &old.spec.as_ref().unwrap().template.spec.as_ref().unwrap().containers;
    let new: Vec<_> = containers.iter().map(|of| json!({"name": of.name, "image": image})).collect();
    let upgrade = Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": new}}}}));
    deployments.patch(&old.name_any(), &PatchParams::default(), &upgrade).await.unwrap();
    (containers[0].image.clone().unwrap(), old.name_any())
}

/// Gives the operator an image that its new pod cannot pull, as a kubelet would have it. Gives the one that it had.
async fn stuck_upgrade(namespace: &TestNamespace) -> String {
    let (before, deployment) = set_image(namespace, "registry.example/none:1").await;
    let pods = namespace.api::<Pod>();
    let new = eventually("a pod of the upgrade", || async {
        let all = pods.list(&ListParams::default().labels(OPERATOR)).await.unwrap();
        all.items.into_iter().find(|pod| {
            pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("registry.example/none:1")
        })
    })
    .await;
    let waiting = json!({"reason": "ErrImagePull", "message": "registry.example/none:1: not found"});
    let status = json!({"status": {"containerStatuses": [{
        "name": "controller", "image": "registry.example/none:1", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"waiting": waiting}
    }]}});
    pods.patch_status(&new.name_any(), &PatchParams::default(), &Patch::Strategic(status)).await.unwrap();
    eventually("the Deployment counts it", || async {
        let status = namespace.api::<Deployment>().get(&deployment).await.unwrap().status?;
        (status.updated_replicas == Some(1) && status.replicas == Some(2)).then_some(())
    })
    .await;
    before
}

#[tokio::test]
#[ignore = "make test-installs"]
async fn before_the_crd_is_there_an_installation_may_begin_and_nothing_else_may() {
    let _alone = alone().await;
    let namespace = namespace("osvc-pre").await;
    let pre = check(&["--pre"]).await;
    assert_eq!(pre.code, Some(0), "{}", pre.out);
    for expected in
        ["\nCustomResourceDefinition\n", "is not there yet", "you may get, create, patch clusterroles"]
    {
        assert!(pre.out.contains(expected), "{expected}: {}", pre.out);
    }
    let missing = ["the CRD ordersservices.ticketing.dev is not there", "has a controller", "has a sweeper"];
    fails_by_each(&["-n", &namespace.name], &missing).await;
    let status = osvc(&kubeconfig(), &["status", "orders"]).await;
    assert!(status.code == Some(1) && status.err.contains("kubectl osvc check"), "{}", status.err);

    let account = format!("system:serviceaccount:{}:default", namespace.name);
    let resources =
        ["customresourcedefinitions", "serviceaccounts", " roles.", " rolebindings.", "deployments"];
    let may_not = fails_by_each(&["--pre", "--as", &account], &resources).await;
    assert!(may_not.iter().all(|line| line.contains("administrator")), "{may_not:?}");

    // One that was applied by hand, and one of another version.
    install_crd(&namespace.client).await;
    let report = check(&["--pre", "-o", "json"]).await.json();
    assert!(
        lines(&report, "ok").iter().any(|line| line.contains("its schema is that of version")),
        "{report:#}"
    );
    assert!(lines(&report, "warning").iter().any(|line| line.contains("--take-ownership")), "{report:#}");
    let text = std::fs::read_to_string(root().join("crds/ordersservices.yaml")).unwrap();
    let mut crd: Value = serde_saphyr::from_str(&text).unwrap();
    let schema = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    schema["properties"]["spec"]["properties"]["replicas"]["maximum"] = json!(999);
    apply_any(&namespace.client, crd).await;
    let report = check(&["--pre", "-o", "json"]).await.json();
    assert!(
        lines(&report, "warning").iter().any(|line| line.contains("its schema differs from that")),
        "{report:#}"
    );
    namespace.remove().await;
}

#[tokio::test]
#[ignore = "make test-installs"]
async fn after_an_installation_each_thing_that_is_amiss_is_told_once_with_what_to_do() {
    let _alone = alone().await;
    let namespace = namespace("osvc-check").await;
    install_crd(&namespace.client).await;
    operator(&namespace).await;
    let (controller, sweeper) = (namespace.run_elected().await, namespace.run_sweeper().await);
    let database = TestDatabase::new().await;
    // A Secret without its key, a class that is not there, and a Gateway without its API.
    namespace.secret("jwt-secret", "JWT_KEY", "a-key").await;
    namespace.secret("orders-mongo", "OTHER", "x").await;
    let ingress = json!({"className": "no-such-class", "hosts": ["check.example"], "client": {"service": "client-srv"}});
    let gateway = json!({"parentRefs": [{"name": "public"}], "hostnames": ["check.example"]});
    let amiss = json!({"ingress": ingress, "gateway": gateway});
    namespace.apply(&service(&namespace, "orders", &database, amiss)).await.unwrap();
    namespace.condition("orders", Reconciled, "False", "SecretKeyMissing").await;
    let expected = [
        "Secret orders-mongo has no value under MONGO_URI",
        "IngressClass no-such-class does not exist",
        "the Gateway API is not there",
    ];
    let found = fails_by_each(&[], &expected).await;
    assert!(found[0].contains("add MONGO_URI, the connection string of the database"), "{found:?}");

    // The Secret is mended; the database is not reached.
    namespace.secret("orders-mongo", "MONGO_URI", "mongodb://127.0.0.1:1/").await;
    let classed = json!({"ingress": {"hosts": ["check.example"], "client": {"service": "client-srv"}}});
    namespace.apply(&service(&namespace, "orders", &database, classed)).await.unwrap();
    fails_by_each(&[], &["DatabaseReady: DatabaseUnreachable"]).await;

    // Everything is well.
    let class = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {
            "name": namespace.name, "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}
        },
        "spec": {"controller": "example.com/none"}
    });
    apply_any(&namespace.client, class).await;
    namespace.secret("orders-mongo", "MONGO_URI", &uri()).await;
    namespace.ready("orders").await;
    let report = eventually("nothing fails", || async {
        let well = check(&["-o", "json"]).await;
        let report = well.json();
        if well.code == Some(0) && lines(&report, "failure").is_empty() {
            return Some(report);
        }
        eprintln!("{report:#}");
        None
    })
    .await;
    let ok = lines(&report, "ok");
    for expected in [
        "the API server is of version v1.",
        "its schema is that of version",
        "you may get, list ordersservices.ticketing.dev in all namespaces",
        "1 of 1 pods are ready",
        "and renews it",
        "Secret orders-mongo has MONGO_URI",
        "its Ingress is of the default class",
        "its database is reachable",
        "its indexes are in place",
        "no ticket is held by two active orders",
        "its orders expire",
    ] {
        assert_eq!(ok.iter().filter(|line| line.contains(expected)).count(), 1, "{expected}: {report:#}");
    }
    // Whoever may do nothing is told so once.
    let account = format!("system:serviceaccount:{}:default", namespace.name);
    let denied = ["you may not get, list ordersservices.ticketing.dev in namespace"];
    let may_not = fails_by_each(&["-n", &namespace.name, "--as", &account], &denied).await;
    assert!(may_not[0].contains("the role `view`"), "{may_not:?}");

    // The pods of an upgrade cannot pull their image; those from before it go on.
    let before = stuck_upgrade(&namespace).await;
    let stuck = ["its last change is not rolled out: 1 of 1 pods have it"];
    let told = fails_by_each(&["-n", &namespace.name], &stuck).await.remove(0);
    for expected in [
        &*namespace.name,
        "orders-operator",
        "registry.example/none:1: not found",
        "imagePullSecrets",
        "rollout undo",
    ] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    set_image(&namespace, &before).await;

    // Nobody leads any more.
    assert_eq!(controller.terminate().await.code(), Some(0));
    fails_by_each(&["-n", &namespace.name], &["nobody holds Lease"]).await;
    drop(sweeper);
    namespace.remove().await;
}
