//! What is consumed only where it is named: tickets that are gone, and payments that begin. And what is malformed, whatever it
//! is about.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
};

use futures::TryStreamExt;
use mongodb::bson::{Document, doc, oid::ObjectId};
use reqwest::Method;
use serde_json::json;

use crate::{
    api_process::Process,
    cluster::eventually,
    dead_letters::dead_letters,
    events::{System, check_history, reserve},
    mongo::answer,
    nats::{Nats, Streams},
    packaging::monitoring,
    sweeper_status::metrics_in,
};

/// A system whose stream is there, so that neighbours can publish before any pod runs.
struct Neighbours {
    system: System,
    streams: Streams,
    /// By consumer, the sequence of the last message for it that was sent.
    sent: Mutex<BTreeMap<&'static str, u64>>,
}

impl Neighbours {
    /// With more subjects than every system has.
    async fn with(more: &[&str]) -> Self {
        Self::on(System::new().await, more).await
    }

    /// A system on a broker of its own.
    async fn on(system: System, more: &[&str]) -> Self {
        let streams = system.streams().await;
        let mut subjects = system.subjects();
        subjects.extend(more.iter().map(|name| system.subject(name)));
        streams.make_forgetful(&system.stream, subjects).await;
        Self { system, streams, sent: Mutex::default() }
    }

    /// Publishes something, and returns its sequence.
    async fn publish(&self, subject: &str, data: impl Into<Vec<u8>>) -> u64 {
        let name = self.system.subject(subject);
        self.streams.0.publish(name, data.into().into()).await.unwrap().await.unwrap().sequence
    }

    async fn send(&self, subject: &str, data: impl Into<Vec<u8>>) {
        let sequence = self.publish(subject, data).await;
        let consumer = match subject {
            "ticket:deleted" => "orders-service-ticket-deleted",
            "payment:started" => "orders-service-payment-started",
            _ => "orders-service",
        };
        self.sent.lock().unwrap().insert(consumer, sequence);
    }

    async fn ticket(&self, id: &str, version: u32, price: f64) {
        let title = format!("concert {version}");
        let event =
            json!({ "id": id, "version": version, "title": title, "price": price, "userId": "seller" });
        let subject = if version == 0 { "ticket:created" } else { "ticket:updated" };
        self.send(subject, event.to_string()).await;
    }

    async fn pay(&self, payment: &str, order: &str) {
        let event = json!({ "id": payment, "orderId": order, "stripeId": "ch_1" });
        self.send("payment:created", event.to_string()).await;
    }

    /// How many messages are not acknowledged yet, and up to which all are. A consumer counts a new one some time after it
    /// was stored.
    async fn unacknowledged(&self, consumer: &str) -> (u64, u64) {
        let stream = self.streams.0.get_stream(&self.system.stream).await.unwrap();
        let Ok(info) = stream.consumer_info(consumer).await else { return (u64::MAX, 0) };
        (info.num_pending + info.num_ack_pending as u64, info.ack_floor.stream_sequence)
    }

    async fn all_heard(&self) {
        eventually("everything is acknowledged", || async {
            let sent = self.sent.lock().unwrap().clone();
            for (consumer, sequence) in sent {
                let (count, up_to) = self.unacknowledged(consumer).await;
                if count > 0 || up_to < sequence {
                    return None;
                }
            }
            Some(())
        })
        .await;
    }

    async fn stored_ticket(&self, id: &str) -> Option<Document> {
        let id = ObjectId::parse_str(id).unwrap();
        self.system.database.tickets().find_one(doc! { "_id": id }).await.unwrap()
    }

    async fn dead_letters(&self) -> Vec<Document> {
        let found =
            self.system.database.dead_letters().find(doc! {}).sort(doc! { "sequence": 1 }).await.unwrap();
        found.try_collect().await.unwrap()
    }
}

fn id() -> String {
    ObjectId::new().to_hex()
}

async fn status(pod: &Process, user: &str, order: &str) -> (String, i64) {
    let (_, order) = answer(pod.by(user, Method::GET, &format!("/api/orders/{order}"))).await;
    (order["status"].as_str().unwrap().to_owned(), order["version"].as_i64().unwrap())
}

fn pod(neighbours: &Neighbours) -> Process {
    let names = ["ticket:deleted", "payment:started"].map(|name| neighbours.system.subject(name));
    neighbours
        .system
        .pod_set(&[("NATS_TICKET_DELETED", names[0].as_str()), ("NATS_PAYMENT_STARTED", names[1].as_str())])
}

async fn delete(neighbours: &Neighbours, id: &str, version: Option<u32>) {
    neighbours.send("ticket:deleted", json!({ "id": id, "version": version }).to_string()).await;
    neighbours.all_heard().await;
}

async fn ticket(neighbours: &Neighbours, id: &str, version: u32) -> Option<i32> {
    neighbours.ticket(id, version, 20.0).await;
    neighbours.all_heard().await;
    let stored = neighbours.stored_ticket(id).await?;
    stored.get_i32("version").ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_that_is_gone_cannot_be_reserved_and_no_late_event_brings_it_back() {
    let neighbours = Neighbours::with(&["ticket:deleted", "payment:started"]).await;
    let pod = pod(&neighbours);
    pod.wait_until_ready(true).await;
    let [gone, at_two, never] = [id(), id(), id()];
    assert_eq!(ticket(&neighbours, &gone, 0).await, Some(0));
    let order = reserve(&pod, "ada", gone.parse().unwrap()).await.unwrap();
    delete(&neighbours, &gone, None).await;
    assert!(neighbours.stored_ticket(&gone).await.is_none());
    // Whoever has an order keeps it; nobody gets another.
    assert_eq!(status(&pod, "ada", &order).await, ("created".to_owned(), 0));
    assert!(reserve(&pod, "bob", gone.parse().unwrap()).await.is_none());
    for version in [0, 1, 99] {
        assert_eq!(ticket(&neighbours, &gone, version).await, None, "nothing says that it is back");
    }
    // With a version, what is newer counts.
    assert_eq!(ticket(&neighbours, &at_two, 1).await, Some(1));
    delete(&neighbours, &at_two, Some(2)).await;
    assert_eq!(ticket(&neighbours, &at_two, 2).await, None);
    assert_eq!(ticket(&neighbours, &at_two, 3).await, Some(3));
    delete(&neighbours, &at_two, Some(2)).await;
    assert_eq!(ticket(&neighbours, &at_two, 3).await, Some(3), "that was before");
    // Its events come in the wrong order.
    delete(&neighbours, &never, None).await;
    assert_eq!(ticket(&neighbours, &never, 0).await, None);
    let page = pod.metrics().await;
    assert!(
        page.contains("orders_events_consumed_total{subject=\"ticket:deleted\",outcome=\"deleted\"} 2"),
        "{page}"
    );
    assert_eq!(neighbours.dead_letters().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_begins_is_told_of_and_one_for_no_order_is_a_dead_letter() {
    let neighbours = Neighbours::with(&["ticket:deleted", "payment:started"]).await;
    let pod = pod(&neighbours);
    pod.wait_until_ready(true).await;
    let order = reserve(&pod, "ada", neighbours.system.database.ticket().await).await.unwrap();
    let start = async |order: &str| {
        neighbours.send("payment:started", json!({ "orderId": order }).to_string()).await;
        neighbours.all_heard().await;
    };
    for _ in 0..2 {
        start(&order).await;
        assert_eq!(status(&pod, "ada", &order).await, ("awaiting:payment".to_owned(), 1));
    }
    neighbours.pay("p1", &order).await;
    neighbours.all_heard().await;
    start(&order).await;
    assert_eq!(status(&pod, "ada", &order).await, ("complete".to_owned(), 2));
    start(&id()).await;
    neighbours.system.all_told().await;
    check_history(&neighbours.system, false).await;
    let events = neighbours.streams.events(&neighbours.system.stream).await;
    let updated = neighbours.system.subject("order:updated");
    let updated: Vec<_> = events.iter().filter(|event| event.subject == updated).collect();
    assert_eq!(updated.len(), 1);
    assert_eq!(
        (updated[0].data["version"].as_u64(), &updated[0].data["status"]),
        (Some(1), &json!("awaiting:payment"))
    );
    let letters = neighbours.dead_letters().await;
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].get_str("reason").ok(), Some("unknown-order"));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_they_are_not_named_they_are_not_heard() {
    let neighbours = Neighbours::with(&["ticket:deleted", "payment:started"]).await;
    let pod = neighbours.system.pod();
    pod.wait_until_ready(true).await;
    let ticket_id = id();
    neighbours.ticket(&ticket_id, 0, 20.0).await;
    neighbours.all_heard().await;
    let order = reserve(&pod, "ada", ticket_id.parse().unwrap()).await.unwrap();
    neighbours.publish("ticket:deleted", json!({ "id": ticket_id }).to_string()).await;
    neighbours.publish("payment:started", json!({ "orderId": order }).to_string()).await;
    // What comes after them is consumed.
    assert_eq!(ticket(&neighbours, &ticket_id, 1).await, Some(1));
    assert_eq!(status(&pod, "ada", &order).await, ("created".to_owned(), 0));
}

/// Ten ways in which an event may be malformed, whatever it is about; with `ID` for an id.
const SPOILT: [&str; 10] = [
    "",
    "not JSON",
    "{\"id\":\"ID\"",
    "null",
    "[{\"id\":\"ID\",\"orderId\":\"ID\"}]",
    "\"ID\"",
    "{}",
    "{\"id\":null,\"orderId\":null}",
    "{\"id\":\"no id\",\"orderId\":\"no id\"}",
    "{\"id\":{\"$oid\":7},\"orderId\":{\"$oid\":7}}",
];

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_each_kind_that_is_malformed_in_ten_ways_blocks_nobody_and_is_replayed_once_it_is_mended()
{
    let kinds = ["ticket:created", "ticket:updated", "ticket:deleted", "payment:started", "payment:created"];
    let neighbours = Neighbours::with(&["ticket:deleted", "payment:started"]).await;
    let names = ["ticket:deleted", "payment:started"].map(|name| neighbours.system.subject(name));
    let pod =
        neighbours.system.pod_set(&[("NATS_TICKET_DELETED", &names[0]), ("NATS_PAYMENT_STARTED", &names[1])]);
    pod.wait_until_ready(true).await;
    let [ticket, gone] = [id(), id()];
    let order = reserve(&pod, "ada", neighbours.system.database.ticket().await).await.unwrap();
    for kind in kinds {
        for spoilt in SPOILT {
            neighbours.send(kind, spoilt.replace("ID", &id())).await;
        }
    }
    neighbours.ticket(&gone, 0, 20.0).await;
    neighbours.all_heard().await;
    assert!(neighbours.stored_ticket(&gone).await.is_some(), "what comes after them is heard");
    let letters = neighbours.dead_letters().await;
    assert_eq!(letters.len(), kinds.len() * SPOILT.len());
    let of_kind = |kind: &str| {
        let letter = letters
            .iter()
            .find(|letter| letter.get_str("subject").is_ok_and(|subject| subject == kind))
            .unwrap();
        letter.get_str("_id").unwrap().to_owned()
    };
    let folder = std::env::temp_dir().join(format!("orders-operator-mended-{:08x}", fastrand::u32(..)));
    std::fs::create_dir_all(&folder).unwrap();
    for (kind, mended, outcome) in [
        ("ticket:created", json!({ "id": ticket, "title": "concert", "price": 5 }), "the ticket is written"),
        (
            "ticket:updated",
            json!({ "id": ticket, "title": "c", "price": 6, "version": 1 }),
            "the ticket is written",
        ),
        ("ticket:deleted", json!({ "id": gone }), "the ticket is deleted"),
        ("payment:started", json!({ "orderId": order }), "the payment has begun"),
        ("payment:created", json!({ "id": "p1", "orderId": order }), "the order is complete"),
    ] {
        let (letter, file) = (of_kind(kind), folder.join("mended.json"));
        std::fs::write(&file, mended.to_string()).unwrap();
        let arguments = ["replay", &letter, "--with", file.to_str().unwrap()];
        let (code, printed) = dead_letters(&neighbours.system, &arguments).await;
        assert_eq!((code, printed), (Some(0), format!("{letter}: {outcome}\n")), "{kind}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(neighbours.dead_letters().await.len(), letters.len() - kinds.len());
    assert_eq!(status(&pod, "ada", &order).await, ("complete".to_owned(), 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_of_the_dashboard_and_the_alerts_exist() {
    let mut server = Nats::start().await;
    let neighbours = Neighbours::on(System::with(server.url()).await, &[]).await;
    let pod = neighbours.system.pod();
    pod.wait_until_ready(true).await;
    neighbours.send("ticket:created", "{").await;
    reserve(&pod, "ada", neighbours.system.database.ticket().await).await.unwrap();
    neighbours.all_heard().await;
    neighbours.ticket(&id(), 0, 20.0).await;
    neighbours.all_heard().await;
    neighbours.system.all_told().await;
    // A metric with labels exists once it has counted something.
    server.kill();
    let page = eventually("a failure is counted", || async {
        let page = pod.metrics().await;
        page.contains("orders_events_failures_total{").then_some(page)
    })
    .await;
    let there: BTreeSet<_> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let asked = serde_json::to_string(&monitoring()).unwrap();
    let asked = metrics_in(&asked, "orders_events_");
    assert!(asked.len() > 5 && asked.is_subset(&there), "{:?} are not there", asked.difference(&there));
}
