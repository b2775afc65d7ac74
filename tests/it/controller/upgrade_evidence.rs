//! An upgrade of the operator: what speaks against its new image, and what does not.

use std::sync::atomic::Ordering;

use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api,
    api::{DeleteParams, DynamicObject, Patch, PatchParams},
    core::GroupVersionKind,
    discovery::ApiResource,
};
use orders_operator::crd::{CONTROLLER_MANAGER, ConditionType, OrdersService, SWEEPER_MANAGER};
use serde_json::{Value, json};

use super::{
    MONGO,
    upgrade::{Kubelet, NEW, OLD, controller, count, fleet, generations, images, moved, name},
};
use crate::cluster::{Process, TestNamespace, eventually};

const STOPPED: &str = "orders_operator_controller_image_upgrade_stopped";

async fn all_moved(namespace: &TestNamespace, controller: &Process, size: usize) {
    eventually("all have the new image", || async {
        (moved(&images(namespace).await) == size && count(controller, "current").await == size).then_some(())
    })
    .await;
}

/// A policy of the cluster by which no Deployment in the namespace gets the new image.
struct Policy<'a>(&'a TestNamespace);

impl Policy<'_> {
    fn api(&self, kind: &str) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
        Api::all_with(self.0.client.clone(), &ApiResource::from_gvk(&kind))
    }

    async fn apply(&self, kind: &str, spec: Value) {
        let object = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": self.0.name}, "spec": spec
        });
        let params = PatchParams::apply("test").force();
        self.api(kind).patch(&self.0.name, &params, &Patch::Apply(object)).await.unwrap();
    }

    /// Waits until it is in force.
    async fn enforce(&self) {
        let rule = json!({
            "apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["deployments"]
        });
        let signed = format!("object.spec.template.spec.containers.all(each, each.image != '{NEW}')");
        let policy = json!({
            "failurePolicy": "Fail", "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"expression": signed, "message": "this image is not signed"}]
        });
        self.apply("ValidatingAdmissionPolicy", policy).await;
        let here = json!({"matchLabels": {"kubernetes.io/metadata.name": self.0.name}});
        let binding = json!({
            "policyName": self.0.name, "validationActions": ["Deny"], "matchResources": {"namespaceSelector": here}
        });
        self.apply("ValidatingAdmissionPolicyBinding", binding).await;
        let new =
            json!({"spec": {"template": {"spec": {"containers": [{"name": "orders-api", "image": NEW}]}}}});
        let trial = PatchParams { dry_run: true, ..PatchParams::default() };
        eventually("the policy is in force", || async {
            let deployments = self.0.api::<Deployment>();
            deployments.patch(&name(0), &trial, &Patch::Strategic(&new)).await.err().map(drop)
        })
        .await;
    }

    async fn remove(&self) {
        for kind in ["ValidatingAdmissionPolicyBinding", "ValidatingAdmissionPolicy"] {
            self.api(kind).delete(&self.0.name, &DeleteParams::default()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn an_image_that_the_cluster_s_admission_denies_stops_at_the_first_and_goes_on_when_it_is_allowed() {
    const FLEET: usize = 8;
    let namespace = TestNamespace::create("denied").await;
    namespace.secrets(MONGO).await;
    let _kubelet = Kubelet::run(&namespace, &[], FLEET);
    let before = controller(&namespace, OLD).await;
    fleet(&namespace, FLEET).await;
    let untouched = generations(&namespace).await;
    before.kill();

    let policy = Policy(&namespace);
    policy.enforce().await;
    let after = controller(&namespace, NEW).await;
    eventually("it stops", || async { (after.metric(STOPPED).await == 1.0).then_some(()) }).await;
    // Another controller finds it as it is.
    after.kill();
    let after = controller(&namespace, NEW).await;
    eventually("it is still stopped", || async {
        let is_stopped = after.metric(STOPPED).await == 1.0;
        (is_stopped && count(&after, "failed").await > 0 && count(&after, "moving").await == 0).then_some(())
    })
    .await;
    let services = namespace.api::<OrdersService>().list(&Default::default()).await.unwrap();
    let was_tried = |service: &&OrdersService| {
        let status = service.status.as_ref().unwrap();
        status.conditions.iter().any(|each| each.type_ == "Reconciled" && each.status == "False")
    };
    let tried = services.iter().filter(was_tried).count();
    assert!((1..=3).contains(&tried), "{tried} were tried");
    assert_eq!(count(&after, "waiting").await, FLEET - tried, "the others wait");
    assert_eq!(generations(&namespace).await, untouched);
    policy.remove().await;
    all_moved(&namespace, &after, FLEET).await;
    namespace.remove().await;
}

#[tokio::test]
async fn resources_of_a_version_that_noted_no_image_keep_theirs_until_it_is_their_turn() {
    const FLEET: usize = 8;
    let namespace = TestNamespace::create("first").await;
    namespace.secrets(MONGO).await;
    let kubelet = Kubelet::run(&namespace, &[], 0);
    let before = controller(&namespace, OLD).await;
    fleet(&namespace, FLEET).await;
    let untouched = generations(&namespace).await;
    before.kill();
    for number in 0..FLEET {
        let of_0_1_0 = Patch::Merge(json!({"status": {"image": null, "deployment": null, "applied": null}}));
        let api = namespace.api::<OrdersService>();
        api.patch_status(&name(number), &PatchParams::default(), &of_0_1_0).await.unwrap();
    }

    let after = controller(&namespace, NEW).await;
    eventually("three are on their way, and the others wait", || async {
        (count(&after, "moving").await == 3 && count(&after, "waiting").await == FLEET - 3).then_some(())
    })
    .await;
    eventually("each has noted its image", || async {
        let images = images(&namespace).await;
        (images.len() == FLEET && moved(&images) == 3).then_some(())
    })
    .await;
    let now = generations(&namespace).await;
    let touched = now.iter().filter(|(name, generation)| untouched[*name] != **generation);
    assert_eq!(touched.count(), 3, "{now:?}");
    kubelet.may_all_serve.store(true, Ordering::SeqCst);
    all_moved(&namespace, &after, FLEET).await;
    assert!(kubelet.most_at_once.load(Ordering::SeqCst) <= 3);
    namespace.remove().await;
}

/// An annotation that another version of the operator would have given the pods.
const TRACE: &str = "example.com/of-another-version";

#[tokio::test]
async fn a_new_version_rolls_no_pod_of_one_that_names_its_image_until_its_spec_changes() {
    const NAME: &str = "orders";
    let namespace = TestNamespace::create("pinned").await;
    namespace.secrets(MONGO).await;
    let before = controller(&namespace, OLD).await;
    namespace.apply(&namespace.service(NAME, json!({}))).await.unwrap();
    namespace.ready(NAME).await;
    before.kill();
    let deployments = namespace.api::<Deployment>();
    let mut made = serde_json::to_value(deployments.get(NAME).await.unwrap()).unwrap();
    made["spec"]["template"]["metadata"]["annotations"][TRACE] = json!("yes");
    let metadata = &made["metadata"];
    let made = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "spec": made["spec"],
        "metadata": {"name": NAME, "labels": metadata["labels"], "ownerReferences": metadata["ownerReferences"]},
    });
    let params = PatchParams::apply(CONTROLLER_MANAGER).force();
    let generation = deployments.patch(NAME, &params, &Patch::Apply(made)).await.unwrap().metadata.generation;
    let of_0_1_0 = Patch::Merge(json!({"status": {"image": null, "deployment": null, "applied": null}}));
    let services = namespace.api::<OrdersService>();
    services.patch_status(NAME, &PatchParams::default(), &of_0_1_0).await.unwrap();

    // The first one finds a Deployment of which nothing is noted, the second one what the first has noted.
    let status = async || services.get_status(NAME).await.unwrap().status.unwrap();
    for _ in 0..2 {
        let after = controller(&namespace, NEW).await;
        let reconciled = "orders_operator_controller_reconciles_total{result=\"ok\"}";
        eventually("it is reconciled, and noted", || async {
            let is_noted = status().await.deployment.is_some() && status().await.applied.is_some();
            (is_noted && after.metric(reconciled).await > 0.0).then_some(())
        })
        .await;
        let patched = "orders_operator_controller_api_requests_total{kind=\"Deployment\",verb=\"patch\"}";
        assert_eq!(after.metric(patched).await, 0.0);
        assert_eq!(deployments.get(NAME).await.unwrap().metadata.generation, generation);
        after.kill();
    }
    let after = controller(&namespace, NEW).await;
    namespace.apply(&namespace.service(NAME, json!({"drainSeconds": 7}))).await.unwrap();
    namespace.ready(NAME).await;
    let pods = async || deployments.get(NAME).await.unwrap().spec.unwrap().template.metadata.unwrap();
    eventually("it is made as this version makes it", || async {
        (!pods().await.annotations.unwrap_or_default().contains_key(TRACE)).then_some(())
    })
    .await;
    // From now on it is kept so: whoever takes a field over does not keep it.
    let theirs = Patch::Apply(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "spec": {"template": {"spec": {"terminationGracePeriodSeconds": 1}}}
    }));
    deployments.patch(NAME, &PatchParams::apply("them").force(), &theirs).await.unwrap();
    eventually("it is repaired", || async {
        let deployment = deployments.get(NAME).await.unwrap();
        (deployment.spec?.template.spec?.termination_grace_period_seconds? != 1).then_some(())
    })
    .await;
    drop(after);
    namespace.remove().await;
}

#[tokio::test]
async fn resources_that_are_not_ready_for_other_reasons_get_the_new_image_too_and_stop_nobody() {
    const FLEET: usize = 6;
    let namespace = TestNamespace::create("others").await;
    namespace.secrets(MONGO).await;
    let _kubelet = Kubelet::run(&namespace, &[], FLEET);
    let before = controller(&namespace, OLD).await;
    fleet(&namespace, FLEET).await;
    // Of two that have the same paths the second one is not ready.
    for number in [0, 1] {
        let mut service = namespace.service(&name(number), json!({"replicas": 1}));
        service["spec"].as_object_mut().unwrap().remove("image");
        namespace.apply(&service).await.unwrap();
        if number == 0 {
            namespace.ready(&name(0)).await;
        }
    }
    namespace.condition(&name(1), ConditionType::IngressReady, "False", "HostPathConflict").await;
    // As the sweeper says it.
    let service = namespace.api::<OrdersService>().get(&name(2)).await.unwrap();
    let suspended = json!({
        "apiVersion": "ticketing.dev/v1alpha1", "kind": "OrdersService",
        "status": {"conditions": [{
            "type": "Sweeping", "status": "False", "reason": "Suspended", "message": "m",
            "observedGeneration": service.metadata.generation, "lastTransitionTime": "2026-01-01T00:00:00Z"
        }]}
    });
    let sweeper = PatchParams::apply(SWEEPER_MANAGER).force();
    namespace
        .api::<OrdersService>()
        .patch_status(&name(2), &sweeper, &Patch::Apply(suspended))
        .await
        .unwrap();
    namespace.condition(&name(2), ConditionType::Ready, "False", "Suspended").await;
    before.kill();

    let after = controller(&namespace, NEW).await;
    all_moved(&namespace, &after, FLEET).await;
    eventually("nobody is on the way", || async { (count(&after, "moving").await == 0).then_some(()) }).await;
    assert_eq!(after.metric(STOPPED).await, 0.0);
    assert_eq!(count(&after, "failed").await, 0);
    namespace.remove().await;
}
