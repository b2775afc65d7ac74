//! Which pod publishes: one hands over when it ends, and what a former one has sent, or wakes with, is published by nobody twice.

use std::{process::Command, time::Duration};

use futures::StreamExt;
use mongodb::bson::Document;
use reqwest::StatusCode;
use tokio::time::timeout;

use crate::{
    api_process::Process,
    cluster::eventually,
    events::{Kind, System, cancel, check_history, leader, on_both, reserve},
    late_line::LateLine,
    nats::Nats,
};

/// Whether the lease was released since it was like `before`, and another pod has taken it since.
pub(crate) fn was_handed_over(before: &Document, after: &Document) -> bool {
    let released = |lease: &Document| lease.get_datetime("released").ok().copied();
    let taken = after.get_datetime("taken").ok().copied();
    released(after) > released(before) && taken >= released(after)
}

/// Ends the pod that publishes, and waits until another does. Whether it has handed over. One that is delayed for seconds
/// does not: it has lost the lease before it ends, or has no time left to release it.
async fn ends_and_hands_over(system: &System, pods: &mut Vec<Process>) -> bool {
    let mut ending = pods.remove(leader(&pods.iter().collect::<Vec<_>>()).await);
    let before = system.lease().await;
    ending.terminate();
    assert!(ending.ended().await.success());
    leader(&pods.iter().collect::<Vec<_>>()).await;
    was_handed_over(&before, &system.lease().await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_ends_hands_over_at_once_and_one_that_is_killed_after_its_lease() {
    on_both(pods_hand_over).await;
}

async fn pods_hand_over(kind: Kind) {
    let system = System::on(kind).await;
    let mut pods = vec![system.pod(), system.pod(), system.pod()];
    for pod in &pods {
        pod.wait_until_ready(true).await;
    }
    for pod in &pods {
        eventually("each knows that one publishes", || async {
            (pod.metric("orders_events_has_leader").await == 1).then_some(())
        })
        .await;
    }
    let mut rounds = 1;
    while !ends_and_hands_over(&system, &mut pods).await {
        assert!(rounds < 5, "none of {rounds} pods has handed over when it ended");
        rounds += 1;
        let next = system.pod();
        next.wait_until_ready(true).await;
        pods.push(next);
    }
    let at = leader(&pods.iter().collect::<Vec<_>>()).await;
    let killed = pods.remove(at);
    drop(killed);
    let ticket = system.database.ticket().await;
    let id = reserve(&pods[0], "ada", ticket).await.unwrap();
    assert_eq!(cancel(&pods[0], "ada", &id).await, StatusCode::NO_CONTENT);
    check_history(&system, false).await;
    assert_eq!(leader(&[&pods[0]]).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_ends_tells_the_others_that_they_may_publish() {
    let nats = Nats::start().await;
    let system = System::with(nats.url()).await;
    let listener = async_nats::connect(nats.url()).await.unwrap();
    let mut free = listener.subscribe("orders-operator.relay.*.free").await.unwrap();
    listener.flush().await.unwrap();
    // One that is delayed for seconds has no time left to.
    for _ in 0..5 {
        let mut pod = system.pod();
        pod.wait_until_ready(true).await;
        leader(&[&pod]).await;
        pod.terminate();
        assert!(pod.ended().await.success());
        if timeout(Duration::from_secs(5), free.next()).await.is_ok_and(|told| told.is_some()) {
            return;
        }
    }
    panic!("five pods have ended, and none has said that it publishes no more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_frozen_past_its_lease_tells_nothing_again_when_it_wakes() {
    on_both(a_pod_is_frozen).await;
}

async fn a_pod_is_frozen(kind: Kind) {
    let system = System::on(kind).await;
    let mut pods = vec![system.pod(), system.pod()];
    for pod in &pods {
        pod.wait_until_ready(true).await;
    }
    let frozen = pods.remove(leader(&pods.iter().collect::<Vec<_>>()).await);
    let other = &pods[0];
    let ticket = system.database.ticket().await;
    let signal = |name: &str| {
        let status = Command::new("kill").args([name, &frozen.id().to_string()]).status().unwrap();
        assert!(status.success());
    };
    let mut id = reserve(&frozen, "ada", ticket).await.unwrap();
    // What it had handed to its socket would be sent all the same.
    system.all_told().await;
    signal("-STOP");
    for _ in 0..5 {
        assert_eq!(cancel(other, "ada", &id).await, StatusCode::NO_CONTENT);
        id = reserve(other, "ada", ticket).await.unwrap();
    }
    // The other one has taken over.
    system.all_told().await;
    assert_eq!(leader(&[other]).await, 0);
    frozen.lines.try_iter().for_each(drop);
    signal("-CONT");
    // It may have become the one that publishes again, if the other is delayed: then the log says what was before.
    eventually("it has noticed", || async {
        let has_said = frozen.lines.try_iter().any(|line| line.contains("cannot publish events"));
        (has_said || frozen.metric("orders_events_leads").await == 0).then_some(())
    })
    .await;
    assert_eq!(cancel(&frozen, "ada", &id).await, StatusCode::NO_CONTENT);
    assert!(reserve(&frozen, "bob", ticket).await.is_some());
    check_history(&system, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_former_leader_has_sent_and_what_arrives_after_later_events_is_refused() {
    let system = System::new().await;
    // A duplicate would show.
    system.streams().await.make_forgetful(&system.stream, system.subjects_and_marks()).await;
    let line = LateLine::to(system.url.trim_start_matches("nats://").to_owned()).await;
    let former = system.pod_by_broker(&format!("nats://127.0.0.1:{}", line.port));
    former.wait_until_ready(true).await;
    assert_eq!(leader(&[&former]).await, 0);
    let next = system.pod();
    next.wait_until_ready(true).await;
    let ticket = system.database.ticket().await;
    let mut id = reserve(&former, "ada", ticket).await.unwrap();
    system.all_told().await;

    line.hold();
    for _ in 0..3 {
        assert_eq!(cancel(&former, "ada", &id).await, StatusCode::NO_CONTENT);
        id = reserve(&former, "ada", ticket).await.unwrap();
    }
    line.something_is_held().await;
    assert_eq!(leader(&[&next]).await, 0);
    system.all_told().await;
    assert_eq!(cancel(&next, "ada", &id).await, StatusCode::NO_CONTENT);
    assert!(reserve(&next, "bob", ticket).await.is_some());
    system.all_told().await;
    line.deliver().await;
    check_history(&system, false).await;
}
