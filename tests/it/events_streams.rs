//! The streams of JetStream in which events are published: those that are there, and the one that is made.

use std::{collections::BTreeSet, time::Duration};

use async_nats::jetstream::stream::{self, StorageType};
use mongodb::bson::{doc, oid::ObjectId};
use serde_json::{Value, json};

use crate::{
    cluster::eventually,
    events::{System, reserve, reserve_in},
    lossy_line::LossyLine,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_made_anew_is_known_from_its_beginning() {
    let system = System::new().await;
    let pod = system.pod();
    pod.wait_until_ready(true).await;
    for _ in 0..5 {
        reserve(&pod, "ada", system.database.ticket().await).await.unwrap();
    }
    system.all_told().await;
    drop(pod);
    let streams = system.streams().await;
    streams.0.delete_stream(&system.stream).await.unwrap();
    streams.make_forgetful(&system.stream, system.subjects()).await;

    let next = system.pod();
    next.wait_until_ready(true).await;
    for _ in 0..2 {
        reserve(&next, "ada", system.database.ticket().await).await.unwrap();
    }
    system.all_told().await;
    // Otherwise whoever leads next would read all of the stream, each time, until it is as long as the last one was.
    eventually("the place in the new stream is noted", || async {
        let places = system.lease().await.get_array("positions").ok()?.clone();
        let place = places[0].as_document().unwrap().get("sequence").cloned();
        (place.and_then(|place| place.as_i64()) == Some(2)).then_some(())
    })
    .await;
    assert_eq!(system.heard().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_existing_stream_is_not_altered_and_a_subject_that_none_has_is_named() {
    let system = System::new().await;
    let streams = system.streams().await;
    streams.make_forgetful(&system.stream, vec![format!("{}.else", system.database.name)]).await;
    let pod = system.pod();
    pod.wait_until_ready(true).await;
    let line = eventually("the log names the reason", || {
        let line = pod.lines.try_iter().find(|line| line.contains("SubjectWithoutStream"));
        async move { line }
    })
    .await;
    assert!(line.contains(&system.subject("ticket:created")) && line.contains(&system.stream), "{line}");
    let id = reserve(&pod, "ada", system.database.ticket().await).await;
    assert!(id.is_some(), "the API goes on");
    let page = pod.metrics().await;
    assert!(page.contains("orders_events_failures_total{reason=\"SubjectWithoutStream\"}"), "{page}");
    let subjects = &streams.0.get_stream(&system.stream).await.unwrap().cached_info().config.subjects.clone();
    assert_eq!(subjects.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_that_is_made_is_as_the_settings_say() {
    let system = System::new().await;
    let pod = system.pod_set(&[("NATS_STREAM_MAX_AGE_SECONDS", "7200")]);
    pod.wait_until_ready(true).await;
    let streams = system.streams().await;
    let config = eventually("the stream is made", || async {
        Some(streams.0.get_stream(&system.stream).await.ok()?.cached_info().config.clone())
    })
    .await;
    let subjects = |subjects: Vec<String>| subjects.into_iter().collect::<BTreeSet<_>>();
    assert_eq!(subjects(config.subjects), subjects(system.subjects_and_marks()));
    assert_eq!((config.storage, config.num_replicas), (StorageType::File, 1));
    assert_eq!(config.max_age, Duration::from_secs(7200));
    assert_eq!(config.duplicate_window, Duration::from_secs(900));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_each_subject_has_a_stream_of_its_own_they_are_used_and_none_is_made() {
    let system = System::new().await;
    let streams = system.streams().await;
    let name = |subject: &str| subject.replace(['.', ':'], "-");
    for subject in system.subjects() {
        streams.make_forgetful(&name(&subject), vec![subject]).await;
    }
    let pod = system.pod();
    pod.wait_until_ready(true).await;
    let ticket = ObjectId::new().to_hex();
    let publish = async |subject: &str, event: Value| {
        let sent = streams.0.publish(system.subject(subject), event.to_string().into()).await.unwrap();
        sent.await.unwrap();
    };
    publish("ticket:created", json!({ "id": ticket, "version": 0, "title": "t", "price": 20 })).await;
    let id = eventually("the ticket is heard of", || reserve(&pod, "ada", ticket.parse().unwrap())).await;
    publish("payment:created", json!({ "id": "p1", "orderId": id, "stripeId": "ch_1" })).await;
    for (subject, version) in [("order:created", 0), ("order:completed", 1)] {
        let told = streams.wait_for(&name(&system.subject(subject)), 1).await;
        assert_eq!((told.len(), &told[0].data["version"]), (1, &json!(version)));
    }
    assert!(streams.0.get_stream(&system.stream).await.is_err(), "there is one more");
}

/// More events than a stream keeps.
const MANY: u64 = 400;

#[tokio::test(flavor = "multi_thread")]
async fn whoever_publishes_goes_on_when_its_mark_has_left_the_stream() {
    let system = System::new().await;
    let streams = system.streams().await;
    let small = stream::Config {
        name: system.stream.clone(),
        subjects: system.subjects_and_marks(),
        max_messages: 50,
        ..stream::Config::default()
    };
    streams.0.create_stream(small).await.unwrap();
    let silent = system.silent_store().await;
    for _ in 0..MANY {
        reserve_in(&silent, system.database.ticket().await).await;
    }
    let pod = system.pod();
    pod.wait_until_ready(true).await;
    system.all_told().await;
    // Eight times at least its mark was gone. The lease itself may be lost where a machine stands still.
    let lost = pod.metric("orders_events_failures_total{reason=\"LeaseLost\"}").await;
    assert!(lost <= 2, "it has given up {lost} times");
    assert_eq!(pod.metric("orders_events_published_total{subject=\"order:created\"}").await, MANY);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_told_without_marks_because_the_question_whether_there_are_any_had_no_answer() {
    let system = System::new().await;
    let server = system.url.trim_start_matches("nats://").to_owned();
    let line = LossyLine::to(server, |subject, payload| {
        subject == "$JS.API.STREAM.NAMES" && payload.contains("orders-operator.fence")
    })
    .await;
    let pod = system.pod_by_broker(&format!("nats://127.0.0.1:{}", line.port));
    pod.wait_until_ready(true).await;
    reserve(&pod, "ada", system.database.ticket().await).await.unwrap();
    line.has_lost().await;
    eventually("that is a failure", || async {
        (pod.metric("orders_events_failures_total{reason=\"BrokerTooSlow\"}").await > 0).then_some(())
    })
    .await;
    assert_eq!(
        system.database.orders().count_documents(doc! { "outbox": { "$exists": true } }).await.unwrap(),
        1
    );
    line.mend();
    system.all_told().await;
    let stream = system.streams().await.0.get_stream(&system.stream).await.unwrap();
    let mark = format!("orders-operator.fence.{}.0", system.subject("order:created"));
    stream.get_last_raw_message_by_subject(&mark).await.expect("who publishes has set its mark");
}
