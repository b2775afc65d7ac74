//! How pods show a NATS server who they are: by a user and a password, a token, or the credentials of an operator's user; and
//! the rights that such a user needs.

use std::process::{Command, Stdio};

use async_nats::{ConnectOptions, jetstream};
use mongodb::bson::{doc, oid::ObjectId};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::{
    api_process::Process,
    cluster::{eventually, root},
    events::{System, cancel, leader, reserve},
    mongo::{TestDatabase, uri},
    nats::Nats,
    streaming::{CLUSTER, Neighbour, StreamingServer},
};

/// Reserves something, and waits until the broker has acknowledged its event.
async fn is_told(system: &System, pod: &Process) {
    pod.wait_until_ready(true).await;
    reserve(pod, "ada", system.database.ticket().await).await.unwrap();
    system.all_told().await;
    let page = pod.metrics().await;
    assert!(page.contains("orders_events_published_total{subject=\"order:created\"} 1"), "{page}");
}

async fn is_refused(pod: &Process) -> String {
    eventually("the log says that the server refuses", || {
        let line = pod.lines.try_iter().find(|line| line.contains("BrokerRefused"));
        async move { line }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_a_password_and_a_token_are_taken_from_the_url() {
    for (config, login, wrong) in [
        ("authorization { user: orders, password: \"p@ss/%\" }", "orders:p%40ss%2F%25@", "orders:hunter2@"),
        ("authorization { token: \"t0k/n\" }", "t0k%2Fn@", "hunter2@"),
    ] {
        let server = Nats::with(config).await;
        let url = |login: &str| server.url().replace("//", &format!("//{login}"));
        let system = System::with(url(login)).await;
        is_told(&system, &system.pod()).await;
        let line = is_refused(&system.pod_by_broker(&url(wrong))).await;
        assert!(line.contains("check the credentials") && !line.contains("hunter2"), "{line}");
    }
}

/// The configuration of a server, and a user's credentials.
async fn credentials() -> (String, String) {
    let mut node = Command::new("node");
    node.arg(root().join("tests/mongoose/credentials.js")).stdin(Stdio::null());
    let output = spawn_blocking(move || node.output().expect("node is installed")).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let made: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    (text("config"), text("creds"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_credentials_of_an_operators_user_are_read_from_a_file_again_and_again() {
    let (config, creds) = credentials().await;
    let (_, of_another_operator) = credentials().await;
    let server = Nats::with(&config).await;
    let system = System::with(server.url()).await;
    let file = server.folder().join("orders.creds");
    let pod = system.pod_set(&[("NATS_CREDS_FILE", file.to_str().unwrap())]);
    let line = is_refused(&pod).await;
    assert!(line.contains("the credentials in") && line.contains("orders.creds"), "{line}");
    std::fs::write(&file, of_another_operator).unwrap();
    eventually("the server has refused them", || async {
        let page = pod.metrics().await;
        let failures = "orders_events_failures_total{reason=\"BrokerRefused\"} ";
        let count: u32 = page.lines().find_map(|line| line.strip_prefix(failures))?.parse().ok()?;
        (count > 4).then_some(())
    })
    .await;
    assert_eq!(pod.metric("orders_events_connected").await, 0);
    std::fs::write(&file, &creds).unwrap();
    is_told(&system, &pod).await;
    // Nothing of them is in the log.
    let seed = creds.lines().find(|line| line.starts_with("SU")).unwrap();
    assert!(!pod.lines.try_iter().any(|line| line.contains(seed)));
}

/// A server with a user who has the rights of the page, by the number of their block, and another who may do everything; and
/// the URLs of both.
async fn with_rights(block: usize) -> (Nats, [String; 2]) {
    let page = std::fs::read_to_string(root().join("docs/events.md")).unwrap();
    let blocks = page.split("```").skip(1).step_by(2).filter(|block| block.starts_with("\npermissions: {"));
    let rights = blocks.collect::<Vec<_>>()[block];
    let users =
        format!("[{{ user: orders, password: secret, {rights} }}, {{ user: other, password: secret }}]");
    let server = Nats::with(&format!("authorization {{ users: {users} }}")).await;
    let urls = ["orders", "other"].map(|user| server.url().replace("//", &format!("//{user}:secret@")));
    (server, urls)
}

/// Does all that pods do: they hear of tickets and payments, answer payments, tell of orders, and one takes over.
async fn rights_are_enough<F: Future<Output = ()>>(
    settings: &[(&str, &str)],
    publish: impl Fn(&'static str, Value) -> F,
) {
    let database = TestDatabase::bare().await;
    let told = || async {
        let left = database.orders().count_documents(doc! { "outbox": { "$exists": true } }).await.unwrap();
        (left == 0).then_some(())
    };
    let mut lines = Vec::new();
    for _ in 0..2 {
        let mut pod = Process::start(&uri(), &database.name, settings);
        pod.wait_until_ready(true).await;
        eventually("it publishes", || async { (pod.metric("orders_events_leads").await == 1).then_some(()) })
            .await;
        let [ticket, unknown] = [ObjectId::new().to_hex(), ObjectId::new().to_hex()];
        let event = json!({ "id": ticket, "version": 0, "title": "concert", "price": 20, "userId": "s" });
        publish("ticket:created", event).await;
        let ticket = ticket.parse().unwrap();
        let order = eventually("the ticket is heard of", || reserve(&pod, "ada", ticket)).await;
        cancel(&pod, "ada", &order).await;
        for order in [&order, &unknown] {
            publish("payment:created", json!({ "id": "p1", "orderId": order, "stripeId": "ch_1" })).await;
        }
        let answered =
            "orders_events_dead_letters_total{subject=\"payment:created\",reason=\"order-not-found\"}";
        eventually("it is answered", || async { (pod.metric(answered).await == 1).then_some(()) }).await;
        eventually("all is told", told).await;
        pod.terminate();
        assert!(pod.ended().await.success());
        lines.extend(pod.lines.try_iter());
        // Whoever comes next has to read it all back.
        let beginning = doc! { "positions": [{ "stream": "ticketing", "sequence": 0_i64 }] };
        database.relays().update_one(doc! { "_id": "orders" }, doc! { "$set": beginning }).await.unwrap();
        let again = doc! { "$set": { "outbox": { "since": mongodb::bson::DateTime::now() } } };
        database.orders().update_many(doc! {}, again).await.unwrap();
    }
    // Too few rights are refused, or seen as a failure; that something took too long is not one of them.
    let is_failure = |line: &&String| {
        let is_of_rights = ["BrokerRefused", "BrokerFailed"].iter().any(|reason| line.contains(reason));
        line.contains("the NATS server reports an error") || line.contains("trying again") && is_of_rights
    };
    let failures: Vec<_> = lines.iter().filter(is_failure).collect();
    assert!(failures.is_empty(), "{failures:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rights_on_the_page_are_enough_on_jetstream() {
    let (server, [orders, _]) = with_rights(0).await;
    let other = ConnectOptions::with_user_and_password("other".into(), "secret".into());
    let streams = jetstream::new(other.connect(server.url()).await.unwrap());
    rights_are_enough(&[("NATS_URL", &orders)], |subject, data| {
        let streams = &streams;
        async move {
            streams.publish(subject, data.to_string().into()).await.unwrap().await.unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rights_on_the_page_are_enough_on_nats_streaming() {
    let (_server, [orders, other]) = with_rights(1).await;
    let _streaming = StreamingServer::start_on(&other).await;
    let neighbour = Neighbour::start(&other, "neighbour", "neighbour", &[]).await;
    rights_are_enough(&[("NATS_URL", &orders), ("NATS_CLUSTER_ID", CLUSTER)], |subject, data| {
        let neighbour = &neighbour;
        async move { neighbour.publish(subject, &data).await }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_drops_for_lack_of_a_right_is_in_the_log_once() {
    let rights = "permissions: { publish: { deny: \"orders-operator.relay.>\" } }";
    let server = Nats::with(&format!(
        "authorization {{ users: [{{ user: orders, password: secret, {rights} }}, {{ user: other, password: secret }}] }}"
    ))
    .await;
    let url = |user: &str| server.url().replace("//", &format!("//{user}:secret@"));
    let system = System::with(url("other")).await;
    let pods = [(); 2].map(|()| system.pod_by_broker(&url("orders")));
    for pod in &pods {
        pod.wait_until_ready(true).await;
    }
    // It tells the one that publishes of each reservation, by a message that the server drops.
    let other = &pods[1 - leader(&pods.iter().collect::<Vec<_>>()).await];
    let mut lines = Vec::new();
    for _ in 0..20 {
        reserve(other, "ada", system.database.ticket().await).await.unwrap();
        system.all_told().await;
        lines.extend(other.lines.try_iter());
    }
    eventually("the log has it", || {
        lines.extend(other.lines.try_iter());
        let has_it = lines.iter().any(|line| line.contains("the NATS server reports an error"));
        async move { has_it.then_some(()) }
    })
    .await;
    let said: Vec<_> = lines.iter().filter(|line| line.contains("Permissions Violation")).collect();
    // Once for a connection, of which a busy machine may need another.
    assert!(said.len() <= 2, "{said:#?}");
}
