//! What is published of orders, by a real broker: whatever is killed, and when.

use std::{
    collections::{BTreeMap, HashSet},
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use futures::StreamExt;
use mongodb::bson::{DateTime, Document, doc, oid::ObjectId};
use orders_operator::{
    order::{OrderId, ReservationTerms, TicketId, UserId},
    store::{ConnectOptions, Store},
};
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    api_process::Process,
    bed::setting,
    cluster::{PATIENCE, eventually, step_by_step},
    fault_proxy::{Fault, FaultProxy},
    late_line::LateLine,
    machine::Container,
    mongo::{TestDatabase, answer, make_indexes, persistently, unused_key, uri},
    nats::{Event, Nats, Streams},
    pki::Pki,
    streaming::{CLUSTER, Channels},
};

pub(crate) const SUBJECTS: [&str; 8] = [
    "ticket:created",
    "ticket:updated",
    "payment:created",
    "order:created",
    "order:updated",
    "order:cancelled",
    "order:completed",
    "payment:refused",
];

/// The two brokers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    JetStream,
    Streaming,
}

/// Plays a scenario on both brokers.
pub(crate) async fn on_both<F: Future<Output = ()>>(scenario: impl Fn(Kind) -> F) {
    futures::future::join(scenario(Kind::JetStream), scenario(Kind::Streaming)).await;
}

/// A database, and subjects of its own on a server that others use too.
pub(crate) struct System {
    pub(crate) database: TestDatabase,
    pub(crate) url: String,
    pub(crate) kind: Kind,
    /// The stream of these subjects, on JetStream.
    pub(crate) stream: String,
    /// The channels of these subjects, on NATS Streaming.
    pub(crate) channels: Channels,
    /// What the names of the subjects begin with.
    prefix: String,
}

impl System {
    pub(crate) async fn new() -> Self {
        Self::with(setting("TEST_NATS_URL")).await
    }

    pub(crate) async fn with(url: String) -> Self {
        let database = TestDatabase::bare().await;
        let stream = format!("stream-{}", database.name);
        let prefix = format!("{}.", database.name);
        Self { database, url, kind: Kind::JetStream, stream, channels: Channels::shared(), prefix }
    }

    /// On the server of this kind that others use too. A duplicate shows there.
    pub(crate) async fn on(kind: Kind) -> Self {
        match kind {
            Kind::JetStream => {
                let system = Self::new().await;
                system.streams().await.make_forgetful(&system.stream, system.subjects()).await;
                system
            }
            Kind::Streaming => Self::streaming(setting("TEST_STREAMING_URL"), Channels::shared()).await,
        }
    }

    /// On a NATS Streaming server.
    pub(crate) async fn streaming(url: String, channels: Channels) -> Self {
        Self { kind: Kind::Streaming, channels, ..Self::with(url).await }
    }

    /// With the names of the course, on a server that nobody else uses.
    pub(crate) fn of_the_course(self) -> Self {
        Self { stream: "ticketing".into(), prefix: String::new(), ..self }
    }

    /// The name that a subject has here.
    pub(crate) fn subject(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub(crate) fn subjects(&self) -> Vec<String> {
        SUBJECTS.iter().map(|name| self.subject(name)).collect()
    }

    /// The subjects, with that of the marks by which what comes too late is refused.
    pub(crate) fn subjects_and_marks(&self) -> Vec<String> {
        let mut subjects = self.subjects();
        subjects.push(format!("orders-operator.fence.{}.*", self.subject("order:created")));
        subjects
    }

    pub(crate) fn settings(&self) -> Vec<(String, String)> {
        let renamed: Vec<_> = SUBJECTS.iter().map(|name| format!("{name}={}", self.subject(name))).collect();
        let of_kind = match self.kind {
            Kind::JetStream => ("NATS_STREAM", self.stream.as_str()),
            Kind::Streaming => ("NATS_CLUSTER_ID", CLUSTER),
        };
        let pairs = [("NATS_URL", self.url.as_str()), ("NATS_SUBJECTS", &renamed.join(",")), of_kind];
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    pub(crate) fn pod(&self) -> Process {
        self.pod_by(&uri())
    }

    pub(crate) fn pod_by(&self, uri: &str) -> Process {
        self.pod_with(uri, &[])
    }

    pub(crate) fn pod_with(&self, uri: &str, more: &[(&str, &str)]) -> Process {
        let settings = self.settings();
        let settings = settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let settings: Vec<_> = settings.chain(more.iter().copied()).collect();
        Process::start(uri, &self.database.name, &settings)
    }

    /// A pod that reaches the broker at another address.
    pub(crate) fn pod_by_broker(&self, url: &str) -> Process {
        self.pod_set(&[("NATS_URL", url)])
    }

    /// A pod with more settings, or others.
    pub(crate) fn pod_set(&self, more: &[(&str, &str)]) -> Process {
        self.pod_with(&uri(), more)
    }

    pub(crate) async fn streams(&self) -> Streams {
        Streams::of(&self.url).await
    }

    /// Who may publish, and since when; empty before anybody might.
    pub(crate) async fn lease(&self) -> Document {
        let lease = self.database.relays().find_one(doc! { "_id": "orders" }).await.unwrap();
        lease.unwrap_or_default()
    }

    /// By what the broker distinguishes this system from others.
    pub(crate) async fn identity(&self) -> String {
        let found = self.database.relays().find_one(doc! { "_id": "identity" }).await.unwrap();
        found.unwrap_or_default().get_str("system").unwrap_or_default().to_owned()
    }

    /// Makes it the system that had this identity; what the command says.
    pub(crate) async fn set_identity(&self, system: &str) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_orders-operator"));
        command.args(["events", "identity", "--set", system, "--database", &self.database.name]);
        command.env("MONGO_URI", uri()).stdin(Stdio::null());
        let output = spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A store that puts changes in the outbox, and publishes nothing.
    pub(crate) async fn silent_store(&self) -> Store {
        let uri = uri();
        let options = ConnectOptions { database: Some(&self.database.name), ..ConnectOptions::new(&uri) };
        let store = Store::connect(options).await.unwrap().with_events();
        make_indexes(&store).await;
        store
    }

    /// Waits until nothing is pending, for as long as it becomes less: how much there is may depend on the machine.
    pub(crate) async fn all_told(&self) {
        let (orders, mut least, mut since) = (self.database.orders(), u64::MAX, Instant::now());
        let mut tick = interval(Duration::from_millis(20));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while least > 0 {
            tick.tick().await;
            let left = orders.count_documents(doc! { "outbox": { "$exists": true } }).await.unwrap();
            if left < least {
                (least, since) = (left, Instant::now());
            }
            assert!(
                since.elapsed() < PATIENCE,
                "for {PATIENCE:?} there are {least} orders or more to tell of"
            );
        }
    }

    /// Everything that was published of orders, and on JetStream what was published by others, oldest first.
    pub(crate) async fn events(&self) -> Vec<Event> {
        match self.kind {
            Kind::JetStream => self.streams().await.events_or_text(&self.stream).await,
            Kind::Streaming => self.channels.events(&self.url, &self.told()).await,
        }
    }

    /// The subjects of what is published.
    fn told(&self) -> Vec<String> {
        SUBJECTS[3..].iter().map(|name| self.subject(name)).collect()
    }

    /// How much was published.
    pub(crate) async fn published(&self) -> u64 {
        match self.kind {
            Kind::JetStream => self.streams().await.count(&self.stream).await,
            Kind::Streaming => {
                let (mut known, told) = (0, self.told());
                for channel in &told {
                    known += self.channels.count(channel).await;
                }
                known
            }
        }
    }

    /// Waits until so much was published.
    pub(crate) async fn wait_for(&self, count: u64) {
        step_by_step(&format!("{count} messages are published"), || async {
            let known = self.published().await;
            (known >= count).then_some(()).ok_or(known)
        })
        .await;
    }

    /// The events without what makes them this system's.
    pub(crate) async fn heard(&self) -> Vec<(String, String)> {
        let events = self.events().await;
        let short = |event: Event| {
            let subject = event.subject.strip_prefix(&self.prefix).unwrap().to_owned();
            (subject, event.data["id"].as_str().unwrap().to_owned())
        };
        events.into_iter().map(short).collect()
    }
}

pub(crate) async fn reserve(pod: &Process, user: &str, ticket: TicketId) -> Option<String> {
    let (body, key) = (json!({ "ticketId": ticket.to_string() }), unused_key());
    let request = || pod.by(user, Method::POST, "/api/orders").header("idempotency-key", &key).json(&body);
    let (status, order) = persistently(request).await;
    (status == StatusCode::CREATED).then(|| order["id"].as_str().unwrap().to_owned())
}

pub(crate) async fn cancel(pod: &Process, user: &str, id: &str) -> StatusCode {
    let path = format!("/api/orders/{id}");
    persistently(|| pod.by(user, Method::DELETE, &path)).await.0
}

pub(crate) async fn reserve_in(store: &Store, ticket: TicketId) -> OrderId {
    let user = UserId::new("u1").unwrap();
    let reserved = store.reserve(&user, ticket, None, &ReservationTerms::default()).await.unwrap();
    reserved.reservation().order.id
}

/// Waits until one of `pods` publishes, and returns which.
pub(crate) async fn leader(pods: &[&Process]) -> usize {
    eventually("a pod publishes", || async {
        for (at, pod) in pods.iter().enumerate() {
            if pod.metric("orders_events_leads").await == 1 {
                return Some(at);
            }
        }
        None
    })
    .await
}

#[tokio::test]
async fn an_order_is_told_when_it_is_made_and_when_it_is_cancelled() {
    let system = System::new().await;
    let pod = system.pod();
    pod.wait_until_ready(true).await;
    let ticket = system.database.ticket().await;
    let id = reserve(&pod, "ada", ticket).await.unwrap();
    let (_, order) = answer(pod.by("ada", Method::GET, &format!("/api/orders/{id}"))).await;
    assert_eq!(cancel(&pod, "ada", &id).await, StatusCode::NO_CONTENT);
    let events = system.streams().await.wait_for(&system.stream, 2).await;
    let wanted = [
        Event {
            subject: system.subject("order:created"),
            id: Some(format!("{id}:0")),
            data: json!({
                "id": id, "version": 0, "status": "created", "userId": "ada", "expiresAt": order["expiresAt"],
                "ticket": { "id": ticket.to_string(), "price": 20 },
            }),
        },
        Event {
            subject: system.subject("order:cancelled"),
            id: Some(format!("{id}:1")),
            data: json!({ "id": id, "version": 1, "ticket": { "id": ticket.to_string() } }),
        },
    ];
    assert_eq!(events, wanted);
    system.all_told().await;
    let page = pod.metrics().await;
    assert!(page.contains("orders_events_published_total{subject=\"order:created\"} 1"), "{page}");
    assert!(page.contains("orders_events_lag_seconds_count 2"), "{page}");
    assert_eq!(pod.metric("orders_events_connected").await, 1);
}

#[tokio::test]
async fn what_a_sweeper_cancels_is_told_though_it_has_no_settings_of_events() {
    let system = System::new().await;
    let pod = system.pod();
    pod.wait_until_ready(true).await;
    let id = reserve(&pod, "ada", system.database.ticket().await).await.unwrap();
    let object = ObjectId::parse_str(&id).unwrap();
    let past = doc! { "$set": { "expiresAt": DateTime::from_millis(0) } };
    system.database.orders().update_one(doc! { "_id": object }, past).await.unwrap();
    let mut sweeper = Command::new(env!("CARGO_BIN_EXE_orders-operator"));
    sweeper.args(["sweeper", "--once", "--uri", &uri(), "--database", &system.database.name]);
    let output = spawn_blocking(move || sweeper.output().unwrap()).await.unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 order expired"), "{output:?}");
    system.streams().await.wait_for(&system.stream, 2).await;
    assert_eq!(system.heard().await[1], ("order:cancelled".to_owned(), id));
}

/// Checks that all that happened to the orders was published: each order's events by version, and the orders of a ticket one after
/// the other.
pub(crate) async fn check_history(system: &System, may_repeat: bool) {
    system.all_told().await;
    check_events(system, &system.events().await, may_repeat).await;
}

/// The same of these events.
pub(crate) async fn check_events(system: &System, events: &[Event], may_repeat: bool) {
    let (mut heard, mut open) = (BTreeMap::<String, Vec<u64>>::new(), BTreeMap::<String, String>::new());
    let mut seen = HashSet::new();
    let of_orders = |event: &&Event| event.subject.contains("order:");
    for event in events.iter().filter(of_orders) {
        if !seen.insert((event.data["id"].to_string(), event.data["version"].to_string())) {
            assert!(may_repeat, "{event:?} is told twice");
            continue;
        }
        let [id, ticket] =
            [&event.data["id"], &event.data["ticket"]["id"]].map(|id| id.as_str().unwrap().to_owned());
        heard.entry(id.clone()).or_default().push(event.data["version"].as_u64().unwrap());
        if event.subject.ends_with("order:created") {
            assert_eq!(open.insert(ticket, id), None, "{event:?} comes before the end of the one before");
        } else {
            let holder = if event.subject.ends_with("order:updated") {
                open.get(&ticket).cloned()
            } else {
                open.remove(&ticket)
            };
            assert_eq!(holder, Some(id), "{event:?} is not about the order that holds the ticket");
        }
    }
    let mut cursor = system.database.orders().find(doc! {}).await.unwrap();
    let mut stored = 0;
    while cursor.advance().await.unwrap() {
        let order = cursor.deserialize_current().unwrap();
        let id = order.get_object_id("_id").unwrap().to_hex();
        let versions: Vec<_> = (0..=order.get_i32("version").unwrap().unsigned_abs().into()).collect();
        assert_eq!(heard.get(&id), Some(&versions), "{order}");
        stored += 1;
    }
    assert_eq!(heard.len(), stored, "no event is without its order");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_tickets_that_change_hands_quickly_the_orders_are_told_one_after_the_other() {
    on_both(tickets_change_hands_quickly).await;
}

async fn tickets_change_hands_quickly(kind: Kind) {
    let system = System::on(kind).await;
    let pods = [system.pod(), system.pod(), system.pod()];
    for pod in &pods {
        pod.wait_until_ready(true).await;
    }
    let tickets = [system.database.ticket().await, system.database.ticket().await];
    let (until, made) = (Instant::now() + Duration::from_secs(6), AtomicUsize::new(0));
    let buyers = (0..8).map(|number: usize| {
        let (pods, ticket, made) = (&pods, tickets[number % 2], &made);
        async move {
            let (user, mut turns) = (format!("u{number}"), number);
            while Instant::now() < until || made.load(Ordering::Relaxed) < 20 {
                turns += 1;
                if let Some(id) = reserve(&pods[turns % 3], &user, ticket).await {
                    made.fetch_add(1, Ordering::Relaxed);
                    cancel(&pods[(turns + 1) % 3], &user, &id).await;
                }
            }
        }
    });
    futures::future::join_all(buyers).await;
    check_history(&system, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_broker_is_away_orders_are_made_and_once_it_is_back_all_are_told() {
    let mut nats = Nats::start().await;
    let system = System::with(nats.url()).await;
    let pod = system.pod();
    pod.wait_until_ready(true).await;
    let ticket = system.database.ticket().await;
    let first = reserve(&pod, "ada", ticket).await.unwrap();
    system.all_told().await;

    nats.kill();
    eventually("it is seen to be away", || async {
        (pod.metric("orders_events_connected").await == 0).then_some(())
    })
    .await;
    assert_eq!(pod.metric("orders_events_has_leader").await, 0);
    assert_eq!(cancel(&pod, "ada", &first).await, StatusCode::NO_CONTENT);
    for _ in 0..5 {
        let id = reserve(&pod, "ada", ticket).await.unwrap();
        assert_eq!(cancel(&pod, "ada", &id).await, StatusCode::NO_CONTENT);
    }
    // The API does not depend on the broker.
    pod.wait_until_ready(true).await;
    let pending = async |wanted| {
        eventually("the pod knows how much waits", || async {
            (pod.metric("orders_events_pending").await == wanted).then_some(())
        })
        .await;
    };
    pending(6).await;
    nats.restart().await;
    check_history(&system, false).await;
    assert_eq!(system.heard().await.len(), 12);
    pending(0).await;
    assert_eq!(pod.metric("orders_events_oldest_pending_seconds").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_killed_before_it_notes_what_the_broker_has_leaves_no_duplicate() {
    on_both(a_pod_is_killed_before_it_notes).await;
}

async fn a_pod_is_killed_before_it_notes(kind: Kind) {
    let system = System::on(kind).await;
    let ticket = system.database.ticket().await;
    let proxy = FaultProxy::start().await;
    let pod = system.pod_by(&proxy.uri);
    pod.wait_until_ready(true).await;
    // Something is published before, so that there is a place from which on it is read back.
    let first = reserve(&pod, "ada", ticket).await.unwrap();
    assert_eq!(cancel(&pod, "ada", &first).await, StatusCode::NO_CONTENT);
    system.all_told().await;

    let is_note = |command: &Document| command.to_string().contains("$unset");
    let held = proxy.when("update", usize::MAX, is_note, Fault::HoldRequest);
    let second = reserve(&pod, "ada", ticket).await.unwrap();
    system.wait_for(3).await;
    held.wait(1).await;
    // Drop kills it, without a signal that it could handle.
    drop(pod);
    let silent = system.silent_store().await;
    silent.cancel(second.parse().unwrap(), &UserId::new("ada").unwrap()).await.unwrap();
    let third = reserve_in(&silent, ticket).await;

    let next = system.pod();
    next.wait_until_ready(true).await;
    check_history(&system, false).await;
    let wanted = [
        ("order:created", first.clone()),
        ("order:cancelled", first),
        ("order:created", second.clone()),
        ("order:cancelled", second),
        ("order:created", third.to_string()),
    ];
    assert_eq!(system.heard().await, wanted.map(|(subject, id)| (subject.to_owned(), id)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_noted_by_a_pod_that_is_gone_is_told_by_the_next_one() {
    on_both(the_next_pod_tells).await;
}

async fn the_next_pod_tells(kind: Kind) {
    let system = System::on(kind).await;
    let silent = system.silent_store().await;
    let mut wanted = Vec::new();
    for _ in 0..30 {
        wanted.push((
            "order:created".to_owned(),
            reserve_in(&silent, system.database.ticket().await).await.to_string(),
        ));
    }
    let pod = system.pod();
    pod.wait_until_ready(true).await;
    check_history(&system, false).await;
    let mut heard = system.heard().await;
    heard.sort();
    wanted.sort();
    assert_eq!(heard, wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_ticket_with_very_many_orders_what_is_told_is_noted_before_all_of_it_is() {
    let system = System::new().await;
    let (silent, ticket) = (system.silent_store().await, system.database.ticket().await);
    for _ in 0..40 {
        let id = reserve_in(&silent, ticket).await;
        silent.cancel(id, &UserId::new("u1").unwrap()).await.unwrap();
    }
    // So slow that no round publishes all of it.
    let line =
        LateLine::slow(system.url.trim_start_matches("nats://").to_owned(), Duration::from_millis(40)).await;
    let url = format!("nats://127.0.0.1:{}", line.port);
    let proxy = FaultProxy::start().await;
    let is_note = |command: &Document| command.to_string().contains("$unset");
    let held = proxy.when("update", 1, is_note, Fault::HoldReply);
    let pod = system.pod_with(&proxy.uri, &[("NATS_URL", &url)]);
    pod.wait_until_ready(true).await;
    held.wait(1).await;
    let untold = doc! { "outbox": { "$exists": true } };
    let left = eventually("something is noted", || async {
        let left = system.database.orders().count_documents(untold.clone()).await.unwrap();
        (left < 40).then_some(left)
    })
    .await;
    assert!(left > 0, "nothing was noted before all of it was told");
    held.lift();
    check_history(&system, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_does_not_publish_wakes_the_one_that_does() {
    let nats = Nats::start().await;
    let system = System::with(nats.url()).await;
    let pods = [system.pod(), system.pod()];
    for pod in &pods {
        pod.wait_until_ready(true).await;
    }
    let other = &pods[1 - leader(&pods.iter().collect::<Vec<_>>()).await];
    let listener = async_nats::connect(nats.url()).await.unwrap();
    let mut wakes = listener.subscribe("orders-operator.relay.*.changed").await.unwrap();
    listener.flush().await.unwrap();
    reserve(other, "ada", system.database.ticket().await).await.unwrap();
    assert!(timeout(PATIENCE, wakes.next()).await.unwrap().is_some());
    check_history(&system, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_without_a_broker_notes_changes_where_events_are_on_and_shows_nothing_of_it() {
    let system = System::new().await;
    system.silent_store().await;
    let pod = Process::start(&uri(), &system.database.name, &[]);
    pod.wait_until_ready(true).await;
    let body = json!({ "ticketId": system.database.ticket().await.to_string() });
    let (_, made) = answer(pod.by("ada", Method::POST, "/api/orders").json(&body)).await;
    let id = made["id"].as_str().unwrap();
    assert!(system.database.stored(id).await.contains_key("outbox"));
    let one = answer(pod.by("ada", Method::GET, &format!("/api/orders/{id}"))).await.1;
    let all = answer(pod.by("ada", Method::GET, "/api/orders")).await.1;
    for shown in [&made, &one, &all[0]] {
        let mut fields: Vec<_> = shown.as_object().unwrap().keys().map(String::as_str).collect();
        fields.sort_unstable();
        assert_eq!(fields, ["expiresAt", "id", "status", "ticket", "userId", "version"]);
    }
}

#[tokio::test]
async fn settings_that_cannot_work_end_the_program_with_what_to_write() {
    for (name, value, wanted) in [
        ("NATS_URL", "amqp://u:hunter2@h", "server 1 of NATS_URL is invalid"),
        ("NATS_STREAM", "a.b", "NATS_STREAM is \"a.b\""),
        ("NATS_SUBJECTS", "order:made=x", "order:created"),
    ] {
        let mut program = Command::new(env!("CARGO_BIN_EXE_orders-operator"));
        let settings = [("JWT_KEY", "k"), ("MONGO_URI", "mongodb://h/orders"), ("NATS_URL", "nats://h")];
        program.arg("serve").env_clear().envs(settings).env(name, value);
        let output = spawn_blocking(move || program.output().unwrap()).await.unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(wanted) && !error.contains("hunter2"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neighbour_in_node_js_hears_of_orders_by_its_own_client() {
    let system = System::new().await;
    let pod = system.pod();
    pod.wait_until_ready(true).await;
    let ticket = system.database.ticket().await;
    let id = reserve(&pod, "ada", ticket).await.unwrap();
    assert_eq!(cancel(&pod, "ada", &id).await, StatusCode::NO_CONTENT);
    system.streams().await.wait_for(&system.stream, 2).await;
    let mut node = Command::new("node");
    node.arg(crate::cluster::root().join("tests/mongoose/listener.js"))
        .args([&system.url, &system.stream, "tickets-service", "2"])
        .args([system.subject("order:created"), system.subject("order:cancelled")])
        .stdin(Stdio::null());
    let output = spawn_blocking(move || node.output().expect("node is installed")).await.unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let ticket = ticket.to_string();
    // What the course's tickets service does with them: the ticket is held, and then it is free again.
    let wanted = format!("{ticket} is held by {id}\n{ticket} is free\n");
    assert_eq!(printed, wanted, "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn a_broker_with_a_ca_of_its_own_is_reached_from_our_image_with_that_ca_only() {
    let (pki, database) = (Pki::new(), TestDatabase::bare().await);
    let (nats, container) = (Nats::start_by_tls(&pki).await, Container::with(pki.folder()));
    let ca = pki.path("ca.crt").display().to_string();
    for (ca, is_trusted) in [(ca.as_str(), true), ("", false)] {
        let settings = [("NATS_URL", nats.url()), ("NATS_CA_FILE", ca.to_owned())];
        let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
        let pod = Process::start_under(&container.command(), &uri(), &database.name, &settings);
        pod.wait_until_ready(true).await;
        let outcome = if is_trusted {
            "orders_events_connected"
        } else {
            // The public CAs are in the program, and this is none of theirs.
            "orders_events_failures_total{reason=\"BrokerUnreachable\"}"
        };
        eventually(outcome, || async { (pod.metric(outcome).await > 0).then_some(()) }).await;
        assert_eq!(pod.metric("orders_events_connected").await, u64::from(is_trusted));
    }
}
