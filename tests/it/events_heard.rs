//! What is done with the events of the neighbours, by a real broker: whatever they send, in whatever order, and whoever is
//! away.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use async_nats::jetstream::consumer::{AckPolicy, pull};
use futures::TryStreamExt;
use mongodb::{
    IndexModel,
    bson::{DateTime, Document, doc, oid::ObjectId},
    options::IndexOptions,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    api_process::Process,
    cluster::eventually,
    events::{Kind, System, cancel, check_history, on_both, reserve, reserve_in},
    fault_proxy::{Fault, FaultProxy},
    mongo::{answer, uri},
    nats::Streams,
    streaming::Neighbour,
};

/// The subjects of what is consumed.
const HEARD: [&str; 3] = ["ticket:created", "ticket:updated", "payment:created"];

/// A system whose neighbours can publish before any pod runs.
struct Neighbours {
    system: System,
    sender: Sender,
}

/// Who publishes.
enum Sender {
    /// To a stream, and the sequence of the last message that was sent.
    Stream(Streams, AtomicU64),
    /// A service of the course.
    Course(Neighbour),
}

impl Neighbours {
    async fn on(kind: Kind) -> Self {
        let system = System::on(kind).await;
        let sender = match kind {
            Kind::JetStream => Sender::Stream(system.streams().await, AtomicU64::default()),
            Kind::Streaming => {
                let name = format!("neighbours-{}", system.database.name);
                Sender::Course(Neighbour::start(&system.url, &name, &name, &[]).await)
            }
        };
        Self { system, sender }
    }

    async fn send(&self, subject: &str, data: &[u8]) {
        let subject = self.system.subject(subject);
        match &self.sender {
            Sender::Stream(streams, sent) => {
                let data = data.to_vec().into();
                let ack = streams.0.publish(subject, data).await.unwrap().await.unwrap();
                sent.fetch_max(ack.sequence, Ordering::SeqCst);
            }
            Sender::Course(neighbour) => neighbour.publish_bytes(&subject, data).await,
        }
    }

    async fn ticket(&self, id: &str, version: u32, price: f64) {
        let title = format!("concert {version}");
        let event =
            json!({ "id": id, "version": version, "title": title, "price": price, "userId": "seller" });
        let subject = if version == 0 { "ticket:created" } else { "ticket:updated" };
        self.send(subject, event.to_string().as_bytes()).await;
    }

    async fn pay(&self, payment: &str, order: &str) {
        let event = json!({ "id": payment, "orderId": order, "stripeId": "ch_1" });
        self.send("payment:created", event.to_string().as_bytes()).await;
    }

    /// How many messages are not acknowledged yet; none if that is not known.
    async fn unacknowledged(&self) -> Option<u64> {
        let Sender::Stream(streams, sent) = &self.sender else {
            let mut count = 0;
            for name in HEARD {
                let channel = self.system.subject(name);
                count += self.system.channels.unacknowledged(&channel, "orders-service").await?;
            }
            return Some(count);
        };
        let stream = streams.0.get_stream(&self.system.stream).await.unwrap();
        let info = stream.consumer_info("orders-service").await.ok()?;
        let count = info.num_pending + info.num_ack_pending as u64;
        // A consumer counts a new message some time after it was stored.
        (count > 0 || info.ack_floor.stream_sequence >= sent.load(Ordering::SeqCst)).then_some(count)
    }

    async fn all_heard(&self) {
        eventually("everything is acknowledged", || async {
            (self.unacknowledged().await == Some(0)).then_some(())
        })
        .await;
    }

    async fn stored_ticket(&self, id: &str) -> Option<Document> {
        let id = ObjectId::parse_str(id).unwrap();
        self.system.database.tickets().find_one(doc! { "_id": id }).await.unwrap()
    }

    async fn dead_letters(&self) -> Vec<Document> {
        self.system.database.dead_letters().find(doc! {}).await.unwrap().try_collect().await.unwrap()
    }

    /// The payments that were refused, as payment and reason.
    async fn refused(&self) -> Vec<(String, String)> {
        let events = self.system.events().await;
        let subject = self.system.subject("payment:refused");
        let refused = events.into_iter().filter(|event| event.subject == subject);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        refused.map(|event| (text(&event.data["id"]), text(&event.data["reason"]))).collect()
    }
}

fn id() -> String {
    ObjectId::new().to_hex()
}

async fn status(pod: &Process, user: &str, order: &str) -> (String, i64) {
    let (_, order) = answer(pod.by(user, Method::GET, &format!("/api/orders/{order}"))).await;
    (order["status"].as_str().unwrap().to_owned(), order["version"].as_i64().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn tickets_arrive_by_event_and_the_newest_version_counts_in_whatever_order_they_come() {
    on_both(tickets_arrive).await;
}

async fn tickets_arrive(kind: Kind) {
    let neighbours = Neighbours::on(kind).await;
    let [late, shuffled] = [id(), id()];
    // Before there is any pod.
    neighbours.ticket(&late, 0, 20.0).await;
    for version in [3, 0, 5, 1, 5, 4] {
        neighbours.ticket(&shuffled, version, f64::from(version) + 0.5).await;
    }
    let pods = [neighbours.system.pod(), neighbours.system.pod()];
    pods[0].wait_until_ready(true).await;
    neighbours.all_heard().await;
    let ticket = neighbours.stored_ticket(&shuffled).await.unwrap();
    assert_eq!(
        (ticket.get_i32("version").ok(), ticket.get_f64("price").ok(), ticket.get_str("title").ok()),
        (Some(5), Some(5.5), Some("concert 5"))
    );
    // A buyer can have it at once.
    let order = reserve(&pods[0], "ada", late.parse().unwrap()).await;
    assert!(order.is_some());
    neighbours.ticket(&late, 1, 30.0).await;
    // The pods share the messages, and of two with one version the first one counts.
    neighbours.all_heard().await;
    neighbours.ticket(&late, 1, 99.0).await;
    neighbours.all_heard().await;
    assert_eq!(neighbours.stored_ticket(&late).await.unwrap().get_i32("price").ok(), Some(30));
    assert_eq!(neighbours.dead_letters().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_completes_its_order_and_whoever_listens_hears_of_it_and_of_those_that_are_refused() {
    on_both(payments_complete_orders).await;
}

async fn payments_complete_orders(kind: Kind) {
    let neighbours = Neighbours::on(kind).await;
    let pod = neighbours.system.pod();
    pod.wait_until_ready(true).await;
    let [first, second] =
        [neighbours.system.database.ticket().await, neighbours.system.database.ticket().await];
    let paid = reserve(&pod, "ada", first).await.unwrap();
    let cancelled = reserve(&pod, "ada", second).await.unwrap();
    assert_eq!(cancel(&pod, "ada", &cancelled).await, StatusCode::NO_CONTENT);
    // Those that arrive together are settled together, whichever comes first.
    neighbours.pay("p1", &paid).await;
    neighbours.all_heard().await;
    for (payment, order) in
        [("p1", &paid), ("p2", &paid), ("p3", &cancelled), ("p2", &paid), ("p3", &cancelled)]
    {
        neighbours.pay(payment, order).await;
    }
    let unknown = id();
    neighbours.pay("p4", &unknown).await;
    neighbours.all_heard().await;
    neighbours.system.all_told().await;
    assert_eq!(status(&pod, "ada", &paid).await, ("complete".to_owned(), 1));
    assert_eq!(status(&pod, "ada", &cancelled).await, ("cancelled".to_owned(), 1));
    let mut refused = neighbours.refused().await;
    refused.sort();
    let wanted = [("p2", "already-paid"), ("p3", "order-cancelled"), ("p4", "order-not-found")];
    assert_eq!(refused, wanted.map(|(payment, reason)| (payment.to_owned(), reason.to_owned())));
    let letters = neighbours.dead_letters().await;
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].get_str("reason").ok(), Some("order-not-found"));
    let events = neighbours.system.events().await;
    let completed = neighbours.system.subject("order:completed");
    let completed: Vec<_> =
        events.iter().filter(|event| event.subject == completed).map(|event| &event.data).collect();
    let wanted = json!({
        "id": paid, "version": 1, "userId": "ada", "ticket": { "id": first.to_string() }, "paymentId": "p1",
    });
    assert_eq!(completed, [&wanted]);
    check_history(&neighbours.system, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whether_a_payment_was_in_time_is_decided_by_when_the_broker_has_got_it_and_not_by_when_we_hear_of_it()
 {
    on_both(payments_in_time).await;
}

async fn payments_in_time(kind: Kind) {
    let neighbours = Neighbours::on(kind).await;
    let database = &neighbours.system.database;
    let silent = neighbours.system.silent_store().await;
    let mut orders = Vec::new();
    for _ in 0..2 {
        orders.push(reserve_in(&silent, database.ticket().await).await.to_string());
    }
    // There is no pod until both of them are over, and no sweeper.
    neighbours.pay("p1", &orders[0]).await;
    let end = DateTime::from_millis(DateTime::now().timestamp_millis() + 5);
    database.orders().update_many(doc! {}, doc! { "$set": { "expiresAt": end } }).await.unwrap();
    eventually("their time is over", || async { (DateTime::now() > end).then_some(()) }).await;
    neighbours.pay("p2", &orders[1]).await;

    let pod = neighbours.system.pod();
    pod.wait_until_ready(true).await;
    neighbours.all_heard().await;
    neighbours.system.all_told().await;
    let early = database.stored(&orders[0]).await;
    assert_eq!(
        (early.get_str("status").ok(), early.get_str("paymentId").ok()),
        (Some("complete"), Some("p1"))
    );
    assert_eq!(database.stored(&orders[1]).await.get_str("status").ok(), Some("created"));
    assert_eq!(neighbours.refused().await, [("p2".to_owned(), "too-late".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_can_read_is_kept_and_delays_nobody() {
    on_both(nobody_can_read).await;
}

async fn nobody_can_read(kind: Kind) {
    let neighbours = Neighbours::on(kind).await;
    let pod = neighbours.system.pod();
    pod.wait_until_ready(true).await;
    let good = id();
    let spoilt: Vec<(&str, Vec<u8>)> = vec![
        ("ticket:created", b"".to_vec()),
        ("ticket:created", b"\xff\x00".to_vec()),
        ("ticket:updated", b"[1,2]".to_vec()),
        ("ticket:created", json!({ "title": "t", "price": 1 }).to_string().into()),
        ("ticket:created", json!({ "id": "no id", "title": "t", "price": 1 }).to_string().into()),
        ("ticket:updated", json!({ "id": good, "title": "t", "price": "cheap" }).to_string().into()),
        ("ticket:updated", json!({ "id": good, "title": "t", "price": 1, "version": -1 }).to_string().into()),
        ("ticket:created", vec![b'['; 200_000]),
        ("payment:created", json!({ "id": "p1" }).to_string().into()),
        ("payment:created", json!({ "id": {}, "orderId": good }).to_string().into()),
    ];
    let count = spoilt.len();
    for (subject, data) in &spoilt {
        neighbours.send(subject, data).await;
    }
    neighbours.ticket(&good, 0, 20.0).await;
    neighbours.all_heard().await;
    assert!(neighbours.stored_ticket(&good).await.is_some(), "what comes after them is heard");
    let letters = neighbours.dead_letters().await;
    assert_eq!(letters.len(), count);
    for (subject, data) in &spoilt {
        let is_it = |letter: &&Document| {
            letter.get_str("subject").is_ok_and(|kept| kept == *subject)
                && letter.get_binary_generic("data").is_ok_and(|kept| kept == data)
        };
        let letter = letters.iter().find(is_it).expect("it is kept");
        assert!(letter.get_str("detail").is_ok_and(|detail| !detail.is_empty()), "{letter}");
    }
    let page = pod.metrics().await;
    assert!(
        page.contains("orders_events_dead_letters_total{subject=\"ticket:created\",reason=\"not-json\"} 3"),
        "{page}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_away_nothing_is_acknowledged_and_once_it_is_back_all_is_done() {
    on_both(the_database_is_away).await;
}

async fn the_database_is_away(kind: Kind) {
    let neighbours = Neighbours::on(kind).await;
    let proxy = FaultProxy::start().await;
    let pod = neighbours.system.pod_by(&proxy.uri);
    pod.wait_until_ready(true).await;
    let order = reserve(&pod, "ada", neighbours.system.database.ticket().await).await.unwrap();
    neighbours.system.all_told().await;
    neighbours.all_heard().await;

    let away = || Fault::error(10107, "not the primary");
    let rules = ["find", "findAndModify", "update", "insert"].map(|command| proxy.on(command, away()));
    let ticket = id();
    neighbours.ticket(&ticket, 0, 20.0).await;
    neighbours.pay("p1", &order).await;
    rules[0].wait(3).await;
    eventually("both are waiting", || async { (neighbours.unacknowledged().await == Some(2)).then_some(()) })
        .await;
    for rule in &rules {
        rule.lift();
    }
    neighbours.all_heard().await;
    assert!(neighbours.stored_ticket(&ticket).await.is_some());
    let stored = neighbours.system.database.stored(&order).await;
    assert_eq!(stored.get_str("paymentId").ok(), Some("p1"));
    assert_eq!(neighbours.dead_letters().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_for_an_order_that_never_was_is_refused_before_it_is_acknowledged() {
    on_both(refused_before_it_is_acknowledged).await;
}

async fn refused_before_it_is_acknowledged(kind: Kind) {
    let neighbours = Neighbours::on(kind).await;
    let proxy = FaultProxy::start().await;
    let is_letter = |update: &Document| update.get_str("update").is_ok_and(|name| name == "deadLetters");
    let held = proxy.when("update", usize::MAX, is_letter, Fault::HoldRequest);
    let pod = neighbours.system.pod_by(&proxy.uri);
    pod.wait_until_ready(true).await;
    neighbours.pay("p1", &id()).await;
    held.wait(1).await;
    // As often as it was tried to keep the letter by now.
    let refused = neighbours.refused().await;
    let wanted = ("p1".to_owned(), "order-not-found".to_owned());
    assert!(!refused.is_empty() && refused.iter().all(|refused| *refused == wanted), "{refused:?}");
    assert_ne!(neighbours.unacknowledged().await, Some(0));
    held.lift();
    neighbours.all_heard().await;
    assert_eq!(neighbours.dead_letters().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_killed_before_it_acknowledges_changes_nothing_twice() {
    on_both(a_pod_is_killed_before_it_acknowledges).await;
}

async fn a_pod_is_killed_before_it_acknowledges(kind: Kind) {
    let neighbours = Neighbours::on(kind).await;
    if let Sender::Stream(streams, _) = &neighbours.sender {
        let stream = streams.0.get_stream(&neighbours.system.stream).await.unwrap();
        // As the pods make it, but that it does not wait for long.
        let config = pull::Config {
            durable_name: Some("orders-service".into()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: Duration::from_secs(1),
            filter_subjects: HEARD.map(|name| neighbours.system.subject(name)).into(),
            ..pull::Config::default()
        };
        stream.create_consumer(config).await.unwrap();
    }
    let proxy = FaultProxy::start().await;
    // NATS Streaming sees by the name that it is the same pod again.
    let name = [("NATS_CLIENT_ID", neighbours.system.database.name.as_str())];
    let pod = neighbours.system.pod_with(&proxy.uri, &name);
    pod.wait_until_ready(true).await;
    let order = reserve(&pod, "ada", neighbours.system.database.ticket().await).await.unwrap();
    let settles = |command: &Document| command.to_string().contains("paymentId");
    let held = proxy.when("findAndModify", 1, settles, Fault::HoldReply);
    neighbours.pay("p1", &order).await;
    held.wait(1).await;
    drop(pod);

    let next = neighbours.system.pod_with(&uri(), &name);
    next.wait_until_ready(true).await;
    neighbours.all_heard().await;
    neighbours.system.all_told().await;
    assert_eq!(status(&next, "ada", &order).await, ("complete".to_owned(), 1));
    assert_eq!(neighbours.refused().await, []);
    check_history(&neighbours.system, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_messages_are_heard_a_few_at_a_time() {
    on_both(large_messages).await;
}

async fn large_messages(kind: Kind) {
    let neighbours = Neighbours::on(kind).await;
    let ids: Vec<_> = (0..12).map(|_| id()).collect();
    for id in &ids {
        let event =
            json!({ "id": id, "version": 0, "title": "concert", "price": 1, "picture": "x".repeat(900_000) });
        neighbours.send("ticket:created", event.to_string().as_bytes()).await;
    }
    let pod = neighbours.system.pod();
    pod.wait_until_ready(true).await;
    neighbours.all_heard().await;
    for id in &ids {
        assert!(neighbours.stored_ticket(id).await.is_some());
    }
    // The broker ends a request when the next message is too large for what is left of it, which is no failure.
    let metrics = pod.metrics().await;
    assert!(!metrics.contains("orders_events_failures_total{reason=\"BrokerFailed\"}"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_that_another_index_refuses_delays_no_other() {
    on_both(another_index_refuses).await;
}

async fn another_index_refuses(kind: Kind) {
    let neighbours = Neighbours::on(kind).await;
    let unique = IndexModel::builder()
        .keys(doc! { "title": 1 })
        .options(IndexOptions::builder().unique(true).build())
        .build();
    neighbours.system.database.tickets().create_index(unique).await.unwrap();
    let ids: Vec<_> = (0..4).map(|_| id()).collect();
    // The third has the title of the second.
    for (id, version) in ids.iter().zip([0, 1, 1, 2]) {
        neighbours.ticket(id, version, 20.0).await;
    }
    let pod = neighbours.system.pod();
    pod.wait_until_ready(true).await;
    neighbours.all_heard().await;
    let mut stored = 0;
    for id in &ids {
        stored += usize::from(neighbours.stored_ticket(id).await.is_some());
    }
    let letters = neighbours.dead_letters().await;
    assert_eq!((stored, letters.len()), (3, 1));
    assert_eq!(letters[0].get_str("reason").ok(), Some("refused-by-database"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_of_others_is_left_alone_and_named() {
    let others = |subject: String| pull::Config { filter_subject: subject, ..pull::Config::default() };
    is_left_alone("is for other subjects", |neighbours| others(neighbours.system.subject("order:created")))
        .await;
    let ours = |neighbours: &Neighbours| {
        let filter_subjects = HEARD.map(|name| neighbours.system.subject(name)).to_vec();
        pull::Config { filter_subjects, ..pull::Config::default() }
    };
    let few_times = |neighbours: &Neighbours| pull::Config { max_deliver: 5, ..ours(neighbours) };
    is_left_alone("limits how often it delivers a message", few_times).await;
    let unacknowledged =
        |neighbours: &Neighbours| pull::Config { ack_policy: AckPolicy::None, ..ours(neighbours) };
    is_left_alone("does not wait for the acknowledgement", unacknowledged).await;
}

async fn is_left_alone(problem: &str, config: impl Fn(&Neighbours) -> pull::Config) {
    let neighbours = Neighbours::on(Kind::JetStream).await;
    let streams = neighbours.system.streams().await;
    let stream = streams.0.get_stream(&neighbours.system.stream).await.unwrap();
    let config = pull::Config { durable_name: Some("orders-service".into()), ..config(&neighbours) };
    stream.create_consumer(config).await.unwrap();
    let pod = neighbours.system.pod();
    pod.wait_until_ready(true).await;
    eventually("the log names the reason", || {
        let line = pod.lines.try_iter().find(|line| line.contains("ConsumerOfOthers"));
        async move { line.filter(|line| line.contains("NATS_DURABLE") && line.contains(problem)) }
    })
    .await;
    // What is published does not depend on it.
    reserve(&pod, "ada", neighbours.system.database.ticket().await).await.unwrap();
    neighbours.system.all_told().await;
}
