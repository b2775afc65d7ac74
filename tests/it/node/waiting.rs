//! Who waits for a change, by `kubectl wait` or by kstatus, waits until it is live; and hears why it is not. Who does not want
//! to wait until a Secret is read again restarts the pods.

use std::process::Stdio;

use k8s_openapi::api::core::v1::ResourceQuota;
use kube::api::{DeleteParams, PostParams};
use orders_operator::crd::ConditionType::*;
use serde_json::json;

use super::{History, OnNode, has_variable, serves};
use crate::{bed::setting, cluster::eventually, controller::kstatus::said_now, reader::Reader};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-node"]
async fn a_change_that_a_quota_keeps_from_its_pods_is_not_ready_and_kubectl_waits_until_it_is_live() {
    let on = OnNode::new("quota").await;
    let namespace = &on.namespace;
    on.apply(json!({})).await;
    namespace.ready("orders").await;
    let load = on.load().await;
    let quotas = namespace.api::<ResourceQuota>();
    let full = json!({"metadata": {"name": "full"}, "spec": {"hard": {"pods": "1"}}});
    quotas.create(&PostParams::default(), &serde_json::from_value(full).unwrap()).await.unwrap();
    eventually("the quota counts the pod", || async {
        let used = quotas.get("full").await.unwrap().status?.used?;
        (used.get("pods")?.0 == "1").then_some(())
    })
    .await;

    let history = History::of(namespace);
    let changed = on.apply(json!({"drainSeconds": 7})).await;
    let reader = Reader::of(namespace, &setting("NODE_KUBECONFIG")).await;
    let wait = "kubectl wait --for=condition=Ready osvc/orders --timeout=300s";
    let mut waiting = reader.command(wait).stdout(Stdio::null()).spawn().unwrap();
    for condition in [Available, Ready] {
        let message = namespace.condition("orders", condition, "False", "PodCreationFailed").await;
        for expected in ["exceeded quota: full", "0 of 1 pods have the current spec", "1 old pod is ready"] {
            assert!(message.contains(expected), "{expected} is missing in {message}");
        }
    }
    // So it is with the next change, of another kind.
    let changed_again = on.apply(json!({"drainSeconds": 7, "expiration": {"windowSeconds": 60}})).await;
    let message = namespace.condition("orders", Ready, "False", "PodCreationFailed").await;
    assert!(message.contains("exceeded quota: full"), "{message}");
    let waits = said_now(namespace).await;
    assert!(waits.starts_with("InProgress: ") && waits.contains("exceeded quota: full"), "{waits}");
    assert!(!history.was_ready(changed) && !history.was_ready(changed_again));
    assert_eq!(waiting.try_wait().unwrap(), None, "kubectl waits");
    assert!(on.pods().await.iter().all(|pod| !has_variable(pod, "DRAIN_SECONDS", "7")));

    quotas.delete("full", &DeleteParams::default()).await.unwrap();
    assert!(waiting.wait().await.unwrap().success());
    let pods = on.pods().await;
    let is_live = |pod| {
        serves(pod)
            && has_variable(pod, "DRAIN_SECONDS", "7")
            && has_variable(pod, "EXPIRATION_WINDOW_SECONDS", "60")
    };
    assert!(said_now(namespace).await.starts_with("Current: "));
    assert!(pods.len() == 1 && pods.iter().all(is_live), "kubectl waited until it was live: {pods:#?}");
    eventually("the history has it", async || history.was_ready(changed_again).then_some(())).await;
    assert!(!history.was_ready(changed));
    load.end(20).await;
    on.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-node"]
async fn an_image_that_cannot_be_pulled_or_is_another_program_is_never_ready_and_named_while_old_pods_serve()
{
    let on = OnNode::new("image").await;
    let namespace = &on.namespace;
    let good = on.apply(json!({})).await;
    namespace.ready("orders").await;
    let (history, load) = (History::of(namespace), on.load().await);
    let mut bad = Vec::new();
    // `serve` is no command of NATS.
    let (nowhere, nats) = ("registry.invalid/orders-operator:9", setting("NATS_IMAGE"));
    for (image, reason, says) in [
        (nowhere, "ImagePullFailed", "check its name, the registry"),
        // Its last words, which it has only logged.
        (nats.as_str(), "CrashLoopBackOff", "with exit code 1: nats-server: unrecognized command"),
    ] {
        bad.push(on.apply(json!({"image": image})).await);
        for condition in [Available, Ready] {
            let message = namespace.condition("orders", condition, "False", reason).await;
            for expected in [image, says, "1 old pod is ready"] {
                assert!(message.contains(expected), "{expected} is missing in {message}");
            }
        }
    }
    let mended = on.apply(json!({})).await;
    namespace.ready("orders").await;
    eventually("the history has it", async || history.was_ready(mended).then_some(())).await;
    assert!(bad.iter().all(|generation| !history.was_ready(*generation)), "{bad:?}, after {good}");
    load.end(20).await;
    on.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-node"]
async fn pods_that_are_restarted_take_what_is_in_a_secret_now_whatever_the_controller_has_seen_of_it() {
    let on = OnNode::new("restart").await;
    on.apply(json!({})).await;
    on.namespace.ready("orders").await;
    on.entry.up(&on.host, "/api/orders", "orders").await;
    // While all is well the controller reads it again after four minutes or five.
    on.namespace.secret("jwt-secret", "JWT_KEY", "another-key").await;
    let reader = Reader::of(&on.namespace, &setting("NODE_KUBECONFIG")).await;
    reader.does("kubectl rollout restart deployment/orders").await;
    eventually("sessions of the former key are over", || async {
        on.entry.ask(&on.host, "/api/orders").await.err()?.starts_with("401 ").then_some(())
    })
    .await;
    on.namespace.ready("orders").await;
    on.remove().await;
}
