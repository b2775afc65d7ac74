//! An upgrade of the operator: its new image reaches a few resources at a time, and no more once one cannot run it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use orders_operator::crd::{OrdersService, UPGRADE_ANNOTATION};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::MONGO;
use crate::{
    bed::setting,
    cluster::{Process, TestNamespace, eventually, step_by_step},
    console::blocks,
    reader::Reader,
};

pub(super) const OLD: &str = "registry.example/orders-operator:1";
pub(super) const NEW: &str = "registry.example/orders-operator:2";

/// How many resources there are.
const FLEET: usize = 50;

/// From this resource on, pods with the new image do not serve before the upgrade has stopped, however late that is.
const SLOW: usize = 20;

/// What a kubelet does with the pods of a namespace. Those of some resources cannot pull the new image.
pub(super) struct Kubelet {
    cannot: Arc<Mutex<Vec<String>>>,
    /// The most resources that have ever had a pod with the new image that did not serve yet.
    pub(super) most_at_once: Arc<AtomicUsize>,
    /// Whether the slow ones may serve.
    pub(super) may_all_serve: Arc<AtomicBool>,
    stop: CancellationToken,
}

impl Kubelet {
    /// From the resource of the number `slow` on, pods with the new image do not serve before they all may.
    pub(super) fn run(namespace: &TestNamespace, cannot: &[&str], slow: usize) -> Self {
        let cannot = cannot.iter().map(|name| (*name).to_owned()).collect();
        let this = Self {
            cannot: Arc::new(Mutex::new(cannot)),
            most_at_once: Arc::default(),
            may_all_serve: Arc::default(),
            stop: CancellationToken::new(),
        };
        let (pods, cannot) = (namespace.api::<Pod>(), this.cannot.clone());
        let (stop, most, past) = (this.stop.clone(), this.most_at_once.clone(), this.may_all_serve.clone());
        tokio::spawn(async move {
            let mut looks = tokio::time::interval(Duration::from_millis(100));
            while !stop.is_cancelled() {
                looks.tick().await;
                let listed = pods.list(&ListParams::default()).await.unwrap().items;
                let mut starting = BTreeSet::new();
                for pod in &listed {
                    if image(pod) == NEW && !serves(pod) {
                        starting.insert(pod.labels()["app.kubernetes.io/instance"].clone());
                    }
                }
                most.fetch_max(starting.len(), Ordering::SeqCst);
                for pod in
                    listed.iter().filter(|pod| pod.metadata.deletion_timestamp.is_some() || !serves(pod))
                {
                    let (is_new, resource) = (image(pod) == NEW, &pod.labels()["app.kubernetes.io/instance"]);
                    let is_deleted = pod.metadata.deletion_timestamp.is_some();
                    if is_new && !is_deleted && *resource >= name(slow) && !past.load(Ordering::SeqCst) {
                        continue;
                    }
                    let is_stuck = is_new && cannot.lock().unwrap().contains(resource);
                    tend(&pods, pod, is_stuck).await;
                }
            }
        });
        this
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn image(pod: &Pod) -> &str {
    pod.spec.as_ref().unwrap().containers[0].image.as_deref().unwrap()
}

fn serves(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

async fn tend(pods: &Api<Pod>, pod: &Pod, is_stuck: bool) {
    let name = pod.name_any();
    let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    let state = json!({"waiting": {"reason": "ErrImagePull", "message": "no such image"}});
    let container = json!({
        "name": "orders-api", "image": image(pod), "imageID": "", "ready": false, "restartCount": 0, "state": state
    });
    let ready = json!([{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    let status = if is_stuck {
        json!({"phase": "Pending", "containerStatuses": [container]})
    } else {
        json!({"phase": "Running", "conditions": ready})
    };
    let status = Patch::Strategic(json!({"status": status}));
    let done = if pod.metadata.deletion_timestamp.is_some() {
        pods.delete(&name, &at_once).await.map(drop)
    } else {
        pods.patch_status(&name, &PatchParams::default(), &status).await.map(drop)
    };
    match done {
        Ok(()) => {}
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => panic!("{error}"),
    }
}

pub(super) fn name(number: usize) -> String {
    format!("orders-{number:02}")
}

/// The image of each resource, as its status has it.
pub(super) async fn images(namespace: &TestNamespace) -> BTreeMap<String, String> {
    let services = namespace.api::<OrdersService>().list(&ListParams::default()).await.unwrap();
    let image = |service: OrdersService| Some((service.name_any(), service.status?.image?));
    services.into_iter().filter_map(image).collect()
}

/// How many resources have the new image.
pub(super) fn moved(images: &BTreeMap<String, String>) -> usize {
    images.values().filter(|image| *image == NEW).count()
}

/// The generation of each Deployment.
pub(super) async fn generations(namespace: &TestNamespace) -> BTreeMap<String, i64> {
    let deployments = namespace.api::<Deployment>().list(&ListParams::default()).await.unwrap();
    deployments.iter().map(|each| (each.name_any(), each.metadata.generation.unwrap())).collect()
}

pub(super) async fn controller(namespace: &TestNamespace, image: &str) -> Process {
    let flags = ["--default-image", image, "--rollout-max-concurrent", "3", "--rollout-pause", "0"];
    namespace.run_with("controller", &flags).await
}

/// Makes so many resources that name no image and have no Ingress, and waits until they are ready.
pub(super) async fn fleet(namespace: &TestNamespace, size: usize) {
    for number in 0..size {
        let mut service = namespace.service(&name(number), json!({"replicas": 1}));
        let spec = service["spec"].as_object_mut().unwrap();
        spec.remove("image");
        spec.remove("ingress");
        namespace.apply(&service).await.unwrap();
    }
    for number in 0..size {
        namespace.ready(&name(number)).await;
    }
}

/// The number of resources in this state.
pub(super) async fn count(controller: &Process, state: &str) -> usize {
    let name = format!("orders_operator_controller_image_upgrades{{state=\"{state}\"}}");
    controller.metric(&name).await as usize
}

#[tokio::test]
async fn a_new_image_reaches_a_few_resources_at_a_time_and_stops_at_the_first_that_cannot_run_it() {
    let namespace = TestNamespace::create("upgrade").await;
    namespace.secrets(MONGO).await;
    let cannot = [name(10), name(40), name(45)];
    let kubelet = Kubelet::run(&namespace, &[&cannot[0], &cannot[1], &cannot[2]], SLOW);
    let before = controller(&namespace, OLD).await;
    fleet(&namespace, FLEET).await;
    assert!(images(&namespace).await.values().all(|image| image == OLD));
    let untouched = generations(&namespace).await;
    before.kill();

    let after = controller(&namespace, NEW).await;
    let stopped = || async {
        let now = moved(&images(&namespace).await);
        let is_stopped = after.metric("orders_operator_controller_image_upgrade_stopped").await == 1.0;
        is_stopped.then_some(()).ok_or(now)
    };
    step_by_step("it stops", stopped).await;
    kubelet.may_all_serve.store(true, Ordering::SeqCst);
    eventually("nothing is on its way any more", || async {
        (count(&after, "moving").await == 0 && count(&after, "failed").await == 1).then_some(())
    })
    .await;
    // The status of the last one may be written after it is counted.
    let at_the_stop = eventually("as many wait as have the old image", || async {
        let now = images(&namespace).await;
        (count(&after, "waiting").await == FLEET - moved(&now)).then_some(now)
    })
    .await;
    // In their order; that one cannot pull its image is seen some seconds later, before which no more than two of the slow
    // ones were begun.
    assert!((11..=SLOW + 2).contains(&moved(&at_the_stop)), "{at_the_stop:?}");
    let generations_now = generations(&namespace).await;
    for (name, _) in at_the_stop.iter().filter(|(_, image)| *image == OLD) {
        assert_eq!(generations_now[name], untouched[name], "{name} was touched");
    }
    assert!(kubelet.most_at_once.load(Ordering::SeqCst) <= 3);
    let message = namespace
        .condition(&cannot[0], orders_operator::crd::ConditionType::Ready, "False", "ImagePullFailed")
        .await;
    assert!(message.contains(NEW), "{message}");
    let events = namespace.dynamic("Event", "events.k8s.io/v1");
    eventually("an event says that the others wait", || async {
        let events = events.list(&ListParams::default()).await.unwrap();
        events
            .iter()
            .any(|event| {
                event.data["reason"] == "UpgradeStopped" && event.data["regarding"]["name"] == cannot[0]
            })
            .then_some(())
    })
    .await;

    // One that is in a hurry.
    let last = name(FLEET - 1);
    let reader = Reader::of(&namespace, &setting("KUBECONFIG")).await;
    let reader = reader.calls("osvc orders", &format!("osvc {last}"));
    let [commands] = blocks("docs/operations.md", "Upgrades").try_into().unwrap();
    let [look, hurry, in_turn] = commands.lines().collect::<Vec<_>>().try_into().unwrap();
    let is_listed = |told: &str, image: &str| {
        let line = told.lines().find(|line| line.contains(&namespace.name) && line.contains(&last));
        line.is_some_and(|line| line.contains(image))
    };
    let told = reader.does(look).await;
    assert!(is_listed(&told, OLD), "{told}");
    reader.does(hurry).await;
    eventually("it has the new image", || async { (images(&namespace).await[&last] == NEW).then_some(()) })
        .await;
    let told = reader.does(look).await;
    assert!(is_listed(&told, NEW), "{told}");
    namespace.ready(&last).await;
    reader.does(in_turn).await;
    let annotations = namespace.api::<OrdersService>().get(&last).await.unwrap().metadata.annotations;
    assert!(!annotations.unwrap_or_default().contains_key(UPGRADE_ANNOTATION));
    // Another controller finds it as it is.
    after.kill();
    let after = controller(&namespace, NEW).await;
    eventually("it is still stopped", || async {
        (after.metric("orders_operator_controller_image_upgrade_stopped").await == 1.0).then_some(())
    })
    .await;
    assert_eq!(moved(&images(&namespace).await), moved(&at_the_stop) + 1);
    let reconciled = "orders_operator_controller_reconciles_total{result=\"ok\"}";
    eventually("each was reconciled", || async {
        (after.metric(reconciled).await >= FLEET as f64).then_some(())
    })
    .await;
    for kind in ["Service", "NetworkPolicy", "Deployment"] {
        let patched =
            format!("orders_operator_controller_api_requests_total{{kind=\"{kind}\",verb=\"patch\"}}");
        assert_eq!(after.metric(&patched).await, 0.0, "{kind}: it was in place, of those that wait too");
    }
    let looked = "orders_operator_controller_api_requests_total{kind=\"Pod\",verb=\"list\"}";
    eventually("it has looked at the pods of the first", || async {
        (after.metric(looked).await >= 1.0).then_some(())
    })
    .await;
    // It has seen at once what stops it, and not that the rollout of the first were in progress again.
    let log = after.log();
    assert!(!log.contains("status changed") && !log.contains("moved to the operator's image"), "{log}");

    // One goes its own way, the others are mended.
    let own = Patch::Merge(json!({"spec": {"image": OLD}}));
    namespace.api::<OrdersService>().patch(&cannot[0], &PatchParams::default(), &own).await.unwrap();
    step_by_step("the next one stops it", || async {
        let now = images(&namespace).await;
        let is_stopped = now[&cannot[1]] == NEW && count(&after, "failed").await >= 1;
        is_stopped.then_some(()).ok_or(moved(&now))
    })
    .await;
    kubelet.cannot.lock().unwrap().clear();
    step_by_step("all others have the new image", || async {
        let now = moved(&images(&namespace).await);
        (now == FLEET - 1).then_some(()).ok_or(now)
    })
    .await;
    for number in 0..FLEET {
        namespace.ready(&name(number)).await;
    }
    assert!(kubelet.most_at_once.load(Ordering::SeqCst) <= 4, "three, and the one in a hurry");
    eventually("nobody waits", || async {
        (count(&after, "current").await == FLEET - 1 && count(&after, "waiting").await == 0).then_some(())
    })
    .await;
    namespace.remove().await;
}
