//! What the broker does not take, since the user has no right to a subject or a stream is full: it waits, and nothing else does.

use async_nats::jetstream::stream;
use mongodb::bson::{DateTime, doc, oid::ObjectId};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{
    api_process::Process,
    cluster::eventually,
    events::{Kind, SUBJECTS, System, cancel, on_both, reserve, reserve_in},
    nats::{Nats, Streams},
    streaming::{CLUSTER, Neighbour, StreamingServer},
};

/// The sum of a metric over all its labels.
async fn sum(pod: &Process, metric: &str) -> u64 {
    let page = pod.metrics().await;
    let lines = page.lines().filter(|line| line.starts_with(metric));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// Whoever publishes beside the pods.
pub(crate) enum Sender {
    Stream(Streams),
    /// A service of the course, and what it needs.
    Course {
        neighbour: Neighbour,
        _server: StreamingServer,
    },
}

impl Sender {
    /// One by this server; a server of NATS Streaming is started on it if that is the kind.
    pub(crate) async fn on(kind: Kind, url: &str) -> Self {
        match kind {
            Kind::JetStream => Self::Stream(Streams::of(url).await),
            Kind::Streaming => Self::of_the_course(StreamingServer::start_on(url).await, url).await,
        }
    }

    /// A service of the course, by a server of NATS Streaming that runs on this one.
    pub(crate) async fn of_the_course(server: StreamingServer, url: &str) -> Self {
        let neighbour = Neighbour::start(url, "neighbour", "neighbour", &[]).await;
        Self::Course { neighbour, _server: server }
    }

    pub(crate) async fn send(&self, subject: &str, data: &Value) {
        match self {
            Self::Stream(streams) => {
                let sent = streams.0.publish(subject.to_owned(), data.to_string().into()).await;
                sent.unwrap().await.unwrap();
            }
            Self::Course { neighbour, .. } => neighbour.publish(subject, data).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_the_user_may_not_publish_holds_back_nothing_else() {
    on_both(a_refusal_that_may_not_be_published).await;
}

async fn a_refusal_that_may_not_be_published(kind: Kind) {
    let denied = r#"deny: ["payment:refused", "_STAN.pub.*.payment:refused"]"#;
    let users = format!(
        "[{{ user: orders, password: s, permissions: {{ publish: {{ {denied} }} }} }}, {{ user: other, password: s }}]"
    );
    let server = Nats::with(&format!("authorization {{ users: {users} }}")).await;
    let url = |user: &str| server.url().replace("//", &format!("//{user}:s@"));
    let system = System::with(url("orders")).await;
    let sender = Sender::on(kind, &url("other")).await;
    if let Sender::Stream(streams) = &sender {
        let mark = ["orders-operator.fence.order:created.*"];
        let subjects = SUBJECTS.iter().chain(&mark).map(ToString::to_string).collect();
        streams.make_forgetful("ticketing", subjects).await;
    }
    let of_kind = match kind {
        Kind::JetStream => ("NATS_STREAM", "ticketing"),
        Kind::Streaming => ("NATS_CLUSTER_ID", CLUSTER),
    };
    let pod = system.pod_set(&[("NATS_SUBJECTS", ""), of_kind]);
    pod.wait_until_ready(true).await;
    let pay = async |order: &str| {
        sender.send("payment:created", &json!({ "id": "p1", "orderId": order, "stripeId": "c" })).await;
    };
    // It is answered at once, since there is no order whose outbox could have the refusal.
    pay(&ObjectId::new().to_hex()).await;
    let retried = "orders_events_consumed_total{subject=\"payment:created\",outcome=\"retried\"}";
    eventually("it was tried again and again", || async { (pod.metric(retried).await > 2).then_some(()) })
        .await;
    everything_else_goes_on(&system, &pod, &sender).await;
    // Once a machine may be too slow.
    let failures = sum(&pod, "orders_events_failures_total{").await;
    assert!(failures <= 1, "{}", pod.metrics().await);
    let health = system.database.store.events_health().await.unwrap();
    assert_eq!(health.consuming.map(|trouble| trouble.reason).as_deref(), Some("BrokerFailed"));

    // This one is put in the outbox, and published like a change.
    let taken = system.lease().await.get_datetime("taken").ok().copied();
    let over = reserve(&pod, "ada", system.database.ticket().await).await.unwrap();
    assert_eq!(cancel(&pod, "ada", &over).await, StatusCode::NO_CONTENT);
    pay(&over).await;
    let failed = "orders_events_failures_total{reason=\"BrokerFailed\"}";
    eventually("it is held back", || async { (pod.metric(failed).await > 1).then_some(()) }).await;
    everything_else_goes_on(&system, &pod, &sender).await;
    let has_gone_on = system.lease().await.get_datetime("taken").ok().copied() == taken;
    let has_lost = pod.metric("orders_events_failures_total{reason=\"LeaseLost\"}").await > 0;
    assert!(has_gone_on || has_lost, "one event has ended the whole relay: {}", pod.metrics().await);
}

/// Tickets are consumed, orders are published, and payments complete them.
async fn everything_else_goes_on(system: &System, pod: &Process, sender: &Sender) {
    for _ in 0..3 {
        let id = ObjectId::new();
        let event = json!({ "id": id.to_hex(), "version": 0, "title": "concert", "price": 20 });
        sender.send("ticket:created", &event).await;
        let ticket = id.to_hex().parse().unwrap();
        let order = eventually("the ticket is heard of", || reserve(pod, "ada", ticket)).await;
        sender.send("payment:created", &json!({ "id": "p2", "orderId": order, "stripeId": "c" })).await;
        let order = ObjectId::parse_str(&order).unwrap();
        let is_told = doc! { "_id": order, "status": "complete", "outbox": { "$exists": false } };
        let orders = system.database.orders();
        eventually("it is paid for, and told", || async { orders.find_one(is_told.clone()).await.unwrap() })
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_full_holds_back_what_goes_there_and_nothing_else() {
    let system = System::new().await;
    let streams = system.streams().await;
    let (beginnings, mut others): (Vec<_>, Vec<_>) =
        system.subjects().into_iter().partition(|subject| subject.ends_with("order:created"));
    others.push(format!("orders-operator.fence.{}.*", system.subject("order:updated")));
    streams.make_forgetful(&system.stream, others).await;
    let mark = format!("orders-operator.fence.{}.*", beginnings[0]);
    let full = stream::Config {
        name: format!("{}-beginnings", system.stream),
        subjects: beginnings.into_iter().chain([mark]).collect(),
        max_messages: 1,
        discard: stream::DiscardPolicy::New,
        ..stream::Config::default()
    };
    streams.0.create_stream(full.clone()).await.unwrap();
    let silent = system.silent_store().await;
    // The neighbours know this one already.
    let ticket = system.database.ticket().await;
    let known = reserve_in(&silent, ticket).await.to_string();
    let told = doc! { "$unset": { "outbox": "" } };
    system.database.orders().update_many(doc! {}, told).await.unwrap();
    let pod = system.pod();
    pod.wait_until_ready(true).await;
    let waiting = reserve(&pod, "ada", system.database.ticket().await).await.unwrap();
    eventually("the broker does not take it", || async {
        (pod.metric("orders_events_failures_total{reason=\"BrokerFailed\"}").await > 0).then_some(())
    })
    .await;
    // It is counted before it is recorded.
    eventually("that is noted", || async {
        let health = system.database.store.events_health().await.unwrap();
        health.publishing.filter(|trouble| trouble.reason == "BrokerFailed")
    })
    .await;
    assert_eq!(cancel(&pod, "u1", &known).await, StatusCode::NO_CONTENT);
    let told = streams.wait_for(&system.stream, 1).await;
    assert_eq!(told[0].data["id"], json!(known));
    assert_eq!(pod.metric("orders_events_leads").await, 1, "it goes on");
    // Room for the marks too.
    streams.0.update_stream(stream::Config { max_messages: 100, ..full.clone() }).await.unwrap();
    system.all_told().await;
    let told = streams.events(&full.name).await;
    assert_eq!((told.len(), &told[0].data["id"]), (1, &json!(waiting)));
}

/// More than a round of the relay has.
const HELD_BACK: u32 = 2300;

#[tokio::test(flavor = "multi_thread")]
async fn however_many_orders_are_held_back_those_behind_them_are_told_and_they_too_once_the_broker_takes_them()
 {
    let config = |denied: &str| {
        let rights = format!("permissions: {{ publish: {{ deny: [{denied}] }} }}");
        format!("authorization {{ users: [{{ user: orders, password: s, {rights} }}] }}")
    };
    let server = Nats::with(&config("\"order:created\"")).await;
    let system = System::with(server.url().replace("//", "//orders:s@")).await.of_the_course();
    system.silent_store().await;
    let orders = system.database.orders();
    let ticket = |number: u32| {
        let mut bytes = [0; 12];
        bytes[8..].copy_from_slice(&number.to_be_bytes());
        ObjectId::from_bytes(bytes)
    };
    let since = DateTime::now();
    let later = DateTime::from_millis(since.timestamp_millis() + 86_400_000);
    let made = |number: u32| {
        doc! {
            "userId": "u1", "status": "created", "version": 0, "expiresAt": later,
            "ticket": ticket(number), "outbox": { "since": since, "created": 20 },
        }
    };
    orders.insert_many((0..HELD_BACK).map(made)).await.unwrap();
    // The neighbours know these. They come last, by ticket and by age.
    let ended = |number: u32| {
        doc! {
            "userId": "u1", "status": "cancelled", "version": 1, "expiresAt": since,
            "ticket": ticket(number), "outbox": { "since": since },
        }
    };
    let ended: Vec<_> = (HELD_BACK..HELD_BACK + 3).map(ended).collect();
    let ids = orders.insert_many(&ended).await.unwrap().inserted_ids;
    let is_told =
        doc! { "_id": { "$in": ids.into_values().collect::<Vec<_>>() }, "outbox": { "$exists": false } };

    let pod = system.pod();
    pod.wait_until_ready(true).await;
    eventually("what comes after those that are held back is told", || async {
        (orders.count_documents(is_told.clone()).await.unwrap() == 3).then_some(())
    })
    .await;
    let left = orders.count_documents(doc! { "outbox": { "$exists": true } }).await.unwrap();
    assert_eq!(left, u64::from(HELD_BACK));

    server.reload(&config("\"nothing\""));
    system.all_told().await;
    let mut told = system.events().await;
    assert!(told.drain(..3).all(|event| event.subject == "order:cancelled"));
    let begun: std::collections::BTreeSet<_> =
        told.iter().map(|event| event.data["id"].to_string()).collect();
    assert_eq!((told.len(), begun.len()), (HELD_BACK as usize, HELD_BACK as usize));
}
