//! Changes that replace pods while requests come by the ingress, and evictions of pods: no request is lost.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt,
    api::{EvictParams, LogParams, PostParams},
};
use serde_json::{Value, json};

use super::{OnNode, serves};
use crate::{bed::setting, cluster::eventually};

/// More than enough to meet every moment of a change: some hundred come in a second.
const MANY: u64 = 300;

/// Waits until the change is live, and until the last pod of the former spec, which drains, is gone. `is_new` says which are not.
async fn is_rolled_out(on: &OnNode, is_new: impl Fn(&Pod) -> bool) {
    on.namespace.ready("orders").await;
    let pods = on.namespace.api::<Pod>();
    eventually("the old pods are gone", || async {
        let all = pods.list(&Default::default()).await.unwrap().items;
        all.iter().all(|pod| serves(pod) && is_new(pod)).then_some(())
    })
    .await;
}

/// A process of the node that does nothing until this is dropped, or the tests end in any other way.
struct Frozen(Child);

impl Frozen {
    fn new(process: &str) -> Self {
        let file = Path::new(&setting("NODE_KUBECONFIG")).with_file_name(format!("{process}.pid"));
        let pid = fs::read_to_string(file).unwrap().split_whitespace().next().unwrap().to_owned();
        // It continues once nobody has the other end of the pipe any more.
        let script = "trap '' INT TERM; kill -STOP $1 && echo frozen && cat; kill -CONT $1";
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh", &pid]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = command.spawn().unwrap();
        let mut told = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut told).unwrap();
        assert_eq!(told, "frozen\n", "{process}");
        Self(holder)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Has two pods serve, changes them so while requests come, and checks that none is lost.
async fn loses_no_request(test: &str, change: Value, is_new: impl Fn(&Pod) -> bool) {
    let on = OnNode::new(test).await;
    on.apply(json!({"replicas": 2})).await;
    on.namespace.ready("orders").await;
    assert!(!on.pods().await.iter().any(&is_new));
    let load = on.load().await;
    load.goes_on(MANY).await;
    let mut changed = json!({"replicas": 2});
    json_patch::merge(&mut changed, &change);
    on.apply(changed).await;
    is_rolled_out(&on, is_new).await;
    load.goes_on(MANY).await;
    load.end(2 * MANY).await;
    on.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-node"]
async fn a_change_of_the_port_loses_no_request() {
    loses_no_request("port", json!({"port": 4000}), |pod| {
        let ports = pod.spec.as_ref().unwrap().containers[0].ports.as_ref().unwrap();
        ports.iter().any(|port| port.container_port == 4000)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-node"]
async fn an_upgrade_of_the_image_loses_no_request() {
    let next = setting("NEXT_OPERATOR_IMAGE");
    loses_no_request("upgrade", json!({"image": next}), |pod| {
        pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some(&next)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-node"]
async fn an_eviction_of_each_pod_as_soon_as_the_budget_allows_it_loses_no_request() {
    let on = OnNode::new("drain").await;
    on.apply(json!({"replicas": 2, "podDisruptionBudget": {}})).await;
    on.namespace.ready("orders").await;
    let load = on.load().await;
    load.goes_on(MANY).await;
    let (pods, old) = (on.namespace.api::<Pod>(), on.pods().await);
    let [first, second] = &old[..] else { panic!("{old:?}") };
    eventually("the budget is known, and the first may go", || async {
        pods.evict(&first.name_any(), &EvictParams::default()).await.ok()
    })
    .await;
    eventually("the second may go once there is another", || async {
        pods.evict(&second.name_any(), &EvictParams::default()).await.ok()
    })
    .await;
    let is_old = |pod: &Pod| old.iter().any(|each| each.uid() == pod.uid());
    is_rolled_out(&on, |pod| !is_old(pod)).await;
    load.goes_on(MANY).await;
    load.end(2 * MANY).await;
    on.remove().await;
}

/// The controller manager, which writes the EndpointSlices, is frozen until the drain is over.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-node"]
async fn an_ingress_controller_that_is_told_late_that_a_pod_ends_loses_no_request() {
    let on = OnNode::new("late").await;
    on.apply(json!({"replicas": 2, "drainSeconds": 1})).await;
    on.namespace.ready("orders").await;
    let load = on.load().await;
    load.goes_on(MANY).await;
    let (pods, all) = (on.namespace.api::<Pod>(), on.pods().await);
    let ending = all[0].name_any();
    let asked = EvictParams {
        post_options: PostParams { dry_run: true, ..Default::default() },
        ..Default::default()
    };
    eventually("the budget allows it", || async { pods.evict(&ending, &asked).await.ok() }).await;
    let teller = Frozen::new("kube-controller-manager");
    pods.evict(&ending, &EvictParams::default()).await.unwrap();
    eventually("the drain is over, and it goes on", || async {
        let log = pods.logs(&ending, &LogParams::default()).await.ok()?;
        log.contains("requests still arrive after the drain").then_some(())
    })
    .await;
    drop(teller);
    is_rolled_out(&on, |pod| pod.name_any() != ending).await;
    load.goes_on(MANY).await;
    load.end(2 * MANY).await;
    on.remove().await;
}
