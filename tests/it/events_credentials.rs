//! How pods show a NATS server who they are: by a user and a password, a token, or the credentials of an operator's user; and
//! the rights that such a user needs. And what becomes of events when that changes while pods run.

use std::{
    collections::BTreeMap,
    process::{Command, Stdio},
};

use async_nats::{ConnectOptions, jetstream};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Secret};
use mongodb::bson::{doc, oid::ObjectId};
use orders_operator::crd::ConditionType::EventsFlowing;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::{
    api_process::Process,
    cluster::{TestNamespace, eventually, root},
    events::{Kind, System, cancel, leader, on_both, reserve},
    events_rejected::Sender,
    mongo::{TestDatabase, uri},
    nats::{Event, Nats, Streams},
    streaming::{CLUSTER, Neighbour, StreamingServer},
    sweeper::service,
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

/// The configuration of a server, and a user's credentials; and another one, by which that user is revoked, with the credentials of
/// the next.
async fn credentials() -> [(String, String); 2] {
    let mut node = Command::new("node");
    node.arg(root().join("tests/mongoose/credentials.js")).stdin(Stdio::null());
    let output = spawn_blocking(move || node.output().expect("node is installed")).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let made: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    [&made, &made["next"]].map(|made| (text(&made["config"]), text(&made["creds"])))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_credentials_of_an_operators_user_are_read_from_a_file_again_and_again() {
    let [(config, creds), _] = credentials().await;
    let [(_, of_another_operator), _] = credentials().await;
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

/// What was published of orders, each with its order.
fn told_of_orders(events: Vec<Event>, system: &System) -> Vec<(String, String)> {
    let subjects = ["order:created", "order:cancelled", "order:completed", "order:updated"];
    let names: BTreeMap<_, _> = subjects.map(|subject| (system.subject(subject), subject)).into();
    let short = |event: Event| {
        Some((names.get(&event.subject)?.to_string(), event.data["id"].as_str().unwrap().to_owned()))
    };
    let mut told: Vec<_> = events.into_iter().filter_map(short).collect();
    told.sort_unstable();
    told
}

/// An order that is published while the credentials are good, and one that waits until there are new ones.
struct Orders {
    known: String,
    waiting: String,
}

impl Orders {
    /// Makes both, with `refuse` in between, after which the server refuses the pod.
    async fn make(system: &System, pod: &Process, refuse: impl FnOnce()) -> Self {
        pod.wait_until_ready(true).await;
        let known = reserve(pod, "ada", system.database.ticket().await).await.unwrap();
        system.all_told().await;
        refuse();
        let line = is_refused(pod).await;
        assert!(line.contains("check the credentials"), "{line}");
        let waiting = reserve(pod, "bob", system.database.ticket().await).await.unwrap();
        Self { known, waiting }
    }

    fn payment(&self) -> Value {
        json!({ "id": "p1", "orderId": self.known, "stripeId": "c" })
    }

    /// Waits until the payment, which came meanwhile, has completed the first order, and all is published.
    async fn all_told(&self, system: &System) {
        let known = ObjectId::parse_str(&self.known).unwrap();
        let paid = doc! { "_id": known, "status": "complete" };
        let orders = system.database.orders();
        eventually("the payment is heard of", || async { orders.find_one(paid.clone()).await.unwrap() })
            .await;
        system.all_told().await;
    }

    /// Each event once.
    fn events(&self) -> [(String, String); 3] {
        let mut events = [
            ("order:completed".to_owned(), self.known.clone()),
            ("order:created".to_owned(), self.known.clone()),
            ("order:created".to_owned(), self.waiting.clone()),
        ];
        events.sort_unstable();
        events
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_credentials_may_change_while_pods_run_and_nothing_is_lost() {
    let [(config, creds), (next_config, next_creds)] = credentials().await;
    let server = Nats::with(&config).await;
    let system = System::with(server.url()).await;
    let file = server.folder().join("orders.creds");
    std::fs::write(&file, creds).unwrap();
    let pod = system.pod_set(&[("NATS_CREDS_FILE", file.to_str().unwrap())]);
    let orders = Orders::make(&system, &pod, || server.reload(&next_config)).await;
    let next = ConnectOptions::with_credentials(&next_creds).unwrap();
    let streams = Streams(jetstream::new(next.connect(server.url()).await.unwrap()));
    let payment = orders.payment().to_string().into();
    streams.0.publish(system.subject("payment:created"), payment).await.unwrap().await.unwrap();
    std::fs::write(&file, next_creds).unwrap();
    orders.all_told(&system).await;
    assert_eq!(told_of_orders(streams.events(&system.stream).await, &system), orders.events());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_or_token_reaches_the_next_pods_and_nothing_is_lost() {
    let users = |password: &str| {
        format!(
            "authorization {{ users: [{{ user: orders, password: {password} }}, {{ user: other, password: s }}] }}"
        )
    };
    let login = |password: &str| format!("orders:{password}");
    on_both(|kind| pods_with_a_new_login(kind, users, login)).await;
    let token = |token: &str| format!("authorization {{ token: {token} }}");
    pods_with_a_new_login(Kind::JetStream, token, str::to_owned).await;
}

async fn pods_with_a_new_login(kind: Kind, config: impl Fn(&str) -> String, login: impl Fn(&str) -> String) {
    let server = Nats::with(&config("one")).await;
    let url = |login: &str| server.url().replace("//", &format!("//{login}@"));
    let (former, new, other) = (url(&login("one")), url(&login("two")), url("other:s"));
    let (system, streaming) = match kind {
        Kind::JetStream => (System::with(new.clone()).await, None),
        Kind::Streaming => {
            let streaming = StreamingServer::start_on(&other).await;
            (System::streaming(new.clone(), streaming.channels()).await, Some(streaming))
        }
    };
    let mut first = system.pod_by_broker(&former);
    let orders = Orders::make(&system, &first, || server.reload(&config("two"))).await;
    let sender = match streaming {
        Some(streaming) => Sender::of_the_course(streaming, &other).await,
        None => Sender::on(kind, &new).await,
    };
    sender.send(&system.subject("payment:created"), &orders.payment()).await;
    // As a rolling update does it.
    let second = system.pod();
    second.wait_until_ready(true).await;
    first.terminate();
    assert!(first.ended().await.success());
    orders.all_told(&system).await;
    assert_eq!(told_of_orders(system.events().await, &system), orders.events());
}

/// The pods of a Deployment as a kubelet starts them: by what its template says, and what the Secret has that it names.
struct Pods {
    checksum: String,
    pod: Process,
}

impl Pods {
    /// Those of a template with other values of Secrets than this.
    async fn after(checksum: &str, namespace: &TestNamespace, system: &System) -> Self {
        let (checksum, mark, secret) = eventually("the template has other values", || async {
            let template = namespace.api::<Deployment>().get_opt("orders").await.unwrap()?.spec?.template;
            let found = template.metadata?.annotations?.remove("ticketing.dev/secrets-checksum")?;
            let env = template.spec?.containers.into_iter().next()?.env?;
            let variable = |name: &str| env.iter().find(|variable| variable.name == name).cloned();
            let secret = variable("NATS_URL")?.value_from?.secret_key_ref?;
            let mark = variable("NATS_SETTINGS_MARK")?.value?;
            (found != checksum).then_some((found, mark, secret))
        })
        .await;
        let mut data = namespace.api::<Secret>().get(&secret.name).await.unwrap().data.unwrap();
        let url = String::from_utf8(data.remove(&secret.key).unwrap().0).unwrap();
        let pod = system.pod_set(&[("NATS_URL", &url), ("NATS_SETTINGS_MARK", &mark)]);
        Self { checksum, pod }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_changes_in_its_secret_rolls_the_pods_soon_and_events_flow_again() {
    let config = |password: &str| format!("authorization {{ user: orders, password: {password} }}");
    let server = Nats::with(&config("one")).await;
    let url = |password: &str| server.url().replace("//", &format!("//orders:{password}@"));
    let system = System::with(url("two")).await;
    let namespace = TestNamespace::create("login").await;
    namespace.secrets(&uri()).await;
    namespace.secret("nats", "NATS_URL", &url("one")).await;
    let events = json!({"events": {"nats": {"urlSecretRef": {"name": "nats"}}}});
    namespace.apply(&service(&namespace, "orders", &system.database, events)).await.unwrap();
    let _processes = [namespace.run("controller").await, namespace.run("sweeper").await];
    let mut before = Pods::after("", &namespace, &system).await;
    namespace.condition("orders", EventsFlowing, "True", "AsExpected").await;
    let orders = Orders::make(&system, &before.pod, || server.reload(&config("two"))).await;
    let message = namespace.condition("orders", EventsFlowing, "False", "BrokerRefused").await;
    assert!(message.contains("check the credentials in the Secret"), "{message}");
    Sender::on(Kind::JetStream, &url("two"))
        .await
        .send(&system.subject("payment:created"), &orders.payment())
        .await;

    namespace.secret("nats", "NATS_URL", &url("two")).await;
    // While all is well the Secrets are read every five minutes, less a quarter at most: this does not wait so long.
    let next = Pods::after(&before.checksum, &namespace, &system).await;
    next.pod.wait_until_ready(true).await;
    before.pod.terminate();
    assert!(before.pod.ended().await.success());
    namespace.condition("orders", EventsFlowing, "True", "AsExpected").await;
    orders.all_told(&system).await;
    assert_eq!(told_of_orders(system.events().await, &system), orders.events());
    namespace.remove().await;
}

/// A server with a user who has the rights of the page, by the number of their block, and another who may do everything; and
/// the URLs of both.
async fn with_rights(block: usize) -> (Nats, [String; 2]) {
    let page = std::fs::read_to_string(root().join("docs/events.md")).unwrap();
    let blocks = page.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix("text\n"));
    let rights = blocks.filter(|block| block.starts_with("permissions: {")).collect::<Vec<_>>()[block];
    let users =
        format!("[{{ user: orders, password: secret, {rights} }}, {{ user: other, password: secret }}]");
    let server = Nats::with(&format!("authorization {{ users: {users} }}")).await;
    let urls = ["orders", "other"].map(|user| server.url().replace("//", &format!("//{user}:secret@")));
    (server, urls)
}

/// Does all that pods do: they consume tickets and payments, answer payments, publish orders, and one takes over.
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
        line.contains("the NATS server reports an error") || line.contains("retrying") && is_of_rights
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
