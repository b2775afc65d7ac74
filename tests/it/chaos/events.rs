//! A chaos test of events, on both brokers: pods are killed, frozen past their lease and woken, the broker and the database
//! are killed and restarted, while tickets change hands, payments and tickets arrive twice and out of order. A judge then
//! reads the database and everything that the broker has.
//!
//! It prints its seed. `make chaos-events BROKER=jetstream SEED=7 SECONDS=60` repeats it.

use std::{
    collections::{BTreeMap, VecDeque},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_nats::jetstream::consumer::{AckPolicy, pull};
use fastrand::Rng;
use futures::TryStreamExt;
use mongodb::bson::{Document, doc, oid::ObjectId};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use super::events_judge::{Case, Order, Told};
use crate::{
    api_process::Process,
    bed::{SPARE_MONGO, number, restart, seed, setting},
    cluster::PATIENCE,
    events::SUBJECTS,
    mongo::{TestDatabase, cookie},
    nats::{Event, Nats, Streams},
    server::Server,
    streaming::{CLUSTER, Channels, Neighbour, StreamingServer},
};

/// The subjects of what pods hear, and by which name.
const HEARD: [&str; 3] = ["ticket:created", "ticket:updated", "payment:created"];
const DURABLE: &str = "orders-service";

/// How long an order can be paid for.
const WINDOW: &str = "2";

/// How many tickets are on sale at the same time, and how many buyers compete for them.
const ON_SALE: usize = 6;
const BUYERS: usize = 12;

/// How long a leader is frozen, at least: its lease is over by then, and another has begun.
const FROZEN: Duration = Duration::from_millis(6_500);

/// What is asked of a broker here. Its neighbours speak to it by clients of their own.
trait Broker: Sync {
    /// The settings by which pods reach it.
    fn settings(&self) -> Vec<(String, String)>;

    /// Kills it, and starts it again after a while with its data.
    async fn kill_and_restart(&mut self, away: Duration);

    /// Publishes as a neighbour does. It may fail, and may have arrived all the same.
    fn publisher(&self) -> impl Publisher;

    /// How many messages are not acknowledged by us. From then on nobody publishes any more.
    async fn unheard(&self) -> Result<u64, String>;

    /// All events, oldest first.
    async fn events(&self) -> Vec<Event>;
}

trait Publisher: Clone + Send + Sync + 'static {
    fn publish(&self, subject: &str, data: &Value) -> impl Future<Output = ()> + Send;
}

/// A server of its own with JetStream, and one stream that notices no duplicates.
struct JetStream {
    server: Nats,
    publisher: ToJetStream,
}

const STREAM: &str = "ticketing";

impl JetStream {
    async fn start() -> Self {
        let server = Nats::start().await;
        let streams = Streams::of(&server.url()).await;
        let mut subjects: Vec<_> = SUBJECTS.map(str::to_owned).into();
        subjects.push("orders-operator.fence.order:created.*".into());
        streams.make_forgetful(STREAM, subjects).await;
        // As the pods make it, but that it does not wait for long for those that were killed.
        let config = pull::Config {
            durable_name: Some(DURABLE.into()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: Duration::from_secs(2),
            filter_subjects: HEARD.map(str::to_owned).into(),
            ..pull::Config::default()
        };
        let stream = streams.0.get_stream(STREAM).await.unwrap();
        stream.create_consumer(config).await.unwrap();
        let publisher = ToJetStream { url: server.url(), streams: Arc::default() };
        Self { server, publisher }
    }
}

impl Broker for JetStream {
    fn settings(&self) -> Vec<(String, String)> {
        vec![("NATS_URL".into(), self.server.url())]
    }

    async fn kill_and_restart(&mut self, away: Duration) {
        self.server.kill();
        sleep(away).await;
        self.server.restart().await;
    }

    fn publisher(&self) -> impl Publisher {
        self.publisher.clone()
    }

    async fn unheard(&self) -> Result<u64, String> {
        // Its client would send later what it could not while the server was away.
        drop(self.publisher.streams.lock().await.take());
        let streams = Streams::of(&self.server.url()).await;
        let stream = streams.0.get_stream(STREAM).await.map_err(|error| error.to_string())?;
        let consumer = stream.consumer_info(DURABLE).await.map_err(|error| error.to_string())?;
        Ok(consumer.num_pending + consumer.num_ack_pending as u64)
    }

    async fn events(&self) -> Vec<Event> {
        Streams::of(&self.server.url()).await.events(STREAM).await
    }
}

#[derive(Clone)]
struct ToJetStream {
    url: String,
    streams: Arc<tokio::sync::Mutex<Option<Arc<Streams>>>>,
}

impl Publisher for ToJetStream {
    async fn publish(&self, subject: &str, data: &Value) {
        let mut known = self.streams.lock().await;
        if known.is_none()
            && let Ok(client) = async_nats::connect(&self.url).await
        {
            *known = Some(Arc::new(Streams(async_nats::jetstream::new(client))));
        }
        let Some(streams) = known.clone() else { return };
        drop(known);
        if let Ok(ack) = streams.0.publish(subject.to_owned(), data.to_string().into()).await {
            drop(ack.await);
        }
    }
}

/// A server of NATS Streaming with files.
struct Streaming {
    server: StreamingServer,
    publisher: ToStreaming,
}

impl Streaming {
    async fn start() -> Self {
        let server = StreamingServer::start_with_files().await;
        let publisher = ToStreaming { url: server.url(), neighbour: Arc::default() };
        Self { server, publisher }
    }

    fn channels(&self) -> Channels {
        self.server.channels()
    }
}

impl Broker for Streaming {
    fn settings(&self) -> Vec<(String, String)> {
        let pairs = [("NATS_URL", self.server.url()), ("NATS_CLUSTER_ID", CLUSTER.to_owned())];
        pairs.map(|(name, value)| (name.to_owned(), value)).into()
    }

    async fn kill_and_restart(&mut self, away: Duration) {
        self.server.kill();
        sleep(away).await;
        self.server.restart().await;
    }

    fn publisher(&self) -> impl Publisher {
        self.publisher.clone()
    }

    async fn unheard(&self) -> Result<u64, String> {
        // As above.
        drop(self.publisher.neighbour.lock().await.take());
        let (channels, mut count) = (self.channels(), 0);
        for channel in HEARD {
            let unheard = channels.unacknowledged(channel, DURABLE).await;
            count += unheard.ok_or_else(|| format!("nobody is subscribed to {channel}"))?;
        }
        Ok(count)
    }

    async fn events(&self) -> Vec<Event> {
        self.channels().events(&self.server.url(), &SUBJECTS.map(str::to_owned)).await
    }
}

/// A service of the course, which is replaced when its server does not answer it.
#[derive(Clone)]
struct ToStreaming {
    url: String,
    neighbour: Arc<tokio::sync::Mutex<Option<Neighbour>>>,
}

impl Publisher for ToStreaming {
    async fn publish(&self, subject: &str, data: &Value) {
        let mut known = self.neighbour.lock().await;
        if known.is_none() {
            let name = format!("neighbour-{:016x}", fastrand::u64(..));
            *known = Neighbour::try_start(&self.url, &name).await;
        }
        let Some(neighbour) = &mut *known else { return };
        if !neighbour.try_publish(subject, data).await {
            *known = None;
        }
    }
}

/// What the load shares: where pods are, and what is on sale.
struct Market<P> {
    pods: Mutex<Vec<String>>,
    tickets: Mutex<VecDeque<String>>,
    publisher: P,
    client: reqwest::Client,
    is_open: AtomicBool,
}

impl<P: Publisher> Market<P> {
    fn is_open(&self) -> bool {
        self.is_open.load(Ordering::SeqCst)
    }

    /// Sells tickets, each of which then changes: its events come twice, and in any order.
    async fn sell(self: Arc<Self>, mut random: Rng) {
        while self.is_open() {
            let id = ObjectId::new().to_hex();
            let mut versions: Vec<u32> = (0..random.u32(1..4)).collect();
            versions.extend((0..random.usize(0..3)).map(|_| random.u32(0..4)).filter(|version| *version < 3));
            random.shuffle(&mut versions);
            for version in versions {
                let subject = if version == 0 { "ticket:created" } else { "ticket:updated" };
                let price = f64::from(version) + 0.5;
                let event = json!({ "id": id, "version": version, "title": "concert", "price": price, "userId": "s" });
                self.publisher.publish(subject, &event).await;
            }
            {
                let mut tickets = self.tickets.lock().unwrap();
                tickets.push_back(id);
                if tickets.len() > ON_SALE {
                    tickets.pop_front();
                }
            }
            sleep(Duration::from_millis(random.u64(100..600))).await;
        }
    }

    async fn ask(
        &self,
        user: &str,
        random: &mut Rng,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Option<(StatusCode, Value)> {
        let pod = random.choice(self.pods.lock().unwrap().iter()).cloned()?;
        let request =
            self.client.request(method, format!("http://{pod}{path}")).header("cookie", cookie(user));
        let request = if body.is_null() { request } else { request.json(body) };
        let response = request.send().await.ok()?;
        let status = response.status();
        Some((status, response.json().await.unwrap_or_default()))
    }

    /// Buys again and again, and then cancels, pays in time or too late, once or several times, or does nothing.
    async fn buy(self: Arc<Self>, user: String, mut random: Rng) {
        while self.is_open() {
            sleep(Duration::from_millis(random.u64(0..60))).await;
            let Some(ticket) = random.choice(self.tickets.lock().unwrap().iter()).cloned() else { continue };
            let body = json!({ "ticketId": ticket });
            let made = self.ask(&user, &mut random, Method::POST, "/api/orders", &body).await;
            let Some((StatusCode::CREATED, order)) = made else { continue };
            let id = order["id"].as_str().unwrap().to_owned();
            let path = format!("/api/orders/{id}");
            match random.u8(0..10) {
                0..5 => drop(self.ask(&user, &mut random, Method::DELETE, &path, &Value::Null).await),
                5..8 => {
                    let (first, second) = (random.u32(..), random.u32(..));
                    self.pay(first, &id).await;
                    if random.bool() {
                        self.pay(if random.bool() { first } else { second }, &id).await;
                    }
                    if random.bool() {
                        drop(self.ask(&user, &mut random, Method::DELETE, &path, &Value::Null).await);
                        self.pay(second, &id).await;
                    }
                }
                8 => {
                    sleep(Duration::from_millis(random.u64(1_500..2_500))).await;
                    self.pay(random.u32(..), &id).await;
                }
                // Its time runs out.
                _ => {}
            }
            if random.u8(0..50) == 0 {
                self.pay(random.u32(..), &ObjectId::new().to_hex()).await;
            }
        }
    }

    async fn pay(&self, payment: u32, order: &str) {
        let event = json!({ "id": format!("{payment:08x}"), "orderId": order, "stripeId": "ch_1" });
        self.publisher.publish("payment:created", &event).await;
    }
}

/// The pods, each with its name, and what is done to them.
struct Pods<'a, P> {
    running: Vec<(String, Process)>,
    started: u32,
    database: &'a str,
    settings: Vec<(String, String)>,
    market: Arc<Market<P>>,
    random: Rng,
    done: BTreeMap<&'static str, u32>,
}

impl<P: Publisher> Pods<'_, P> {
    fn start(&mut self) {
        self.started += 1;
        self.start_as(format!("orders-{}", self.started));
    }

    fn start_as(&mut self, name: String) {
        let mut settings: Vec<_> =
            self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        settings.push(("EXPIRATION_WINDOW_SECONDS", WINDOW));
        settings.push(("DRAIN_SECONDS", "0"));
        settings.push(("NATS_CLIENT_ID", &name));
        let pod = Process::start(&setting("SPARE_MONGO_URI"), self.database, &settings);
        self.running.push((name, pod));
        self.say(None);
    }

    /// Says where pods are, without this one.
    fn say(&self, but: Option<usize>) {
        let others = self.running.iter().enumerate().filter(|(at, _)| Some(*at) != but);
        *self.market.pods.lock().unwrap() = others.map(|(_, (_, pod))| pod.api.clone()).collect();
    }

    /// What the pods have said last, and what they have counted of events.
    async fn report(&self) -> String {
        let mut report = String::new();
        for (name, pod) in &self.running {
            let lines: Vec<_> = pod.lines.try_iter().collect();
            let metrics = timeout(Duration::from_secs(5), pod.metrics()).await.unwrap_or_default();
            let metrics = metrics.lines().filter(|line| line.starts_with("orders_events_"));
            let last = lines[lines.len().saturating_sub(30)..].iter().map(String::as_str);
            for line in last.chain(metrics.filter(|line| !line.contains("_bucket{"))) {
                report.push_str(&format!("{name}: {line}\n"));
            }
        }
        report
    }

    /// The one that publishes, or any.
    async fn leader(&mut self) -> usize {
        for (at, (_, pod)) in self.running.iter().enumerate() {
            if pod.metric("orders_events_leads").await == 1 {
                return at;
            }
        }
        self.random.usize(0..self.running.len())
    }

    async fn kill(&mut self) {
        let at =
            if self.random.bool() { self.leader().await } else { self.random.usize(0..self.running.len()) };
        let (name, pod) = self.running.swap_remove(at);
        drop(pod);
        self.say(None);
        sleep(Duration::from_millis(self.random.u64(0..1_500))).await;
        // As a container that is started again in its pod.
        self.start_as(name);
    }

    async fn freeze(&mut self) {
        let at = self.leader().await;
        let pod = self.running[at].1.id().to_string();
        let signal =
            |name: &str| assert!(Command::new("kill").args([name, &pod]).status().unwrap().success());
        signal("-STOP");
        self.say(Some(at));
        sleep(FROZEN + Duration::from_millis(self.random.u64(0..2_000))).await;
        signal("-CONT");
        self.say(None);
    }

    async fn roll(&mut self) {
        self.start();
        let (_, mut ending) = self.running.remove(0);
        self.say(None);
        ending.terminate();
        ending.ended().await;
    }

    async fn disturb(&mut self, broker: &mut impl Broker) {
        let what = match self.random.u8(0..10) {
            0..3 => {
                self.kill().await;
                "killed"
            }
            3..5 => {
                self.freeze().await;
                "frozen"
            }
            5..7 => {
                self.roll().await;
                "rolled"
            }
            7..9 => {
                broker.kill_and_restart(Duration::from_millis(self.random.u64(0..4_000))).await;
                "broker"
            }
            _ => {
                restart("SPARE_MONGO_RESTART").await;
                "database"
            }
        };
        *self.done.entry(what).or_default() += 1;
    }
}

/// A sweeper of this database, without a cluster.
fn sweeper(database: &str) -> Server {
    Server::run("sweeper", 0, |_| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_orders-operator"));
        command.args(["sweeper", "--database", database, "--admin-port", "0"]);
        command.env("SWEEPER_URI", setting("SPARE_MONGO_URI"));
        command
    })
}

async fn orders(database: &TestDatabase) -> Vec<Order> {
    let found: Vec<Document> =
        database.orders().find(doc! {}).sort(doc! { "_id": 1 }).await.unwrap().try_collect().await.unwrap();
    let list = |order: &Document| {
        let refused = order.get_array("refusedPayments").cloned().unwrap_or_default();
        refused.iter().map(|payment| payment.as_str().unwrap().to_owned()).collect()
    };
    let order = |order: &Document| Order {
        id: order.get_object_id("_id").unwrap().to_hex(),
        ticket: order.get_object_id("ticket").unwrap().to_hex(),
        status: order.get_str("status").unwrap().to_owned(),
        version: u64::try_from(order.get_i32("version").unwrap()).unwrap(),
        payment: order.get_str("paymentId").ok().map(str::to_owned),
        refused: list(order),
    };
    found.iter().map(order).collect()
}

/// Whether at least so many orders are cancelled, one is complete, and one has refused a payment. The database may be away.
async fn much_has_happened(database: &TestDatabase, cancelled: usize) -> bool {
    let orders = database.orders();
    let at_least = async |filter: Document, least: usize| {
        let count = orders.count_documents(filter).await.unwrap_or_default();
        count >= u64::try_from(least).unwrap()
    };
    at_least(doc! { "status": "cancelled" }, cancelled.max(1)).await
        && at_least(doc! { "status": "complete" }, 1).await
        && at_least(doc! { "refusedPayments.0": { "$exists": true } }, 1).await
}

async fn tickets(database: &TestDatabase) -> BTreeMap<String, u64> {
    let found: Vec<Document> = database.tickets().find(doc! {}).await.unwrap().try_collect().await.unwrap();
    let ticket = |ticket: &Document| {
        let version = u64::try_from(ticket.get_i32("version").unwrap()).unwrap();
        (ticket.get_object_id("_id").unwrap().to_hex(), version)
    };
    found.iter().map(ticket).collect()
}

/// What is left to do.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Left {
    /// Orders whose time is not over, or that have not expired.
    open: u64,
    /// Orders of which something is to be told.
    untold: u64,
    unheard: Result<u64, String>,
}

impl Left {
    async fn read(database: &TestDatabase, broker: &impl Broker) -> Result<Self, String> {
        let count = async |filter: Document| {
            database.orders().count_documents(filter).await.map_err(|error| error.to_string())
        };
        // What is left to be heard may be what others are waiting for.
        let before = broker.unheard().await;
        let open = count(doc! { "status": { "$in": ["created", "awaiting:payment"] } }).await?;
        let untold = count(untold()).await?;
        Ok(Self { open, untold, unheard: before.max(broker.unheard().await) })
    }

    fn is_nothing(&self) -> bool {
        *self == Self { open: 0, untold: 0, unheard: Ok(0) }
    }
}

fn untold() -> Document {
    doc! { "outbox": { "$exists": true } }
}

/// Waits until nothing is left to expire, to be told or to be heard, for as long as it becomes less.
async fn settled(database: &TestDatabase, broker: &impl Broker) -> Result<(), String> {
    let (mut last, mut changed) = (None, Instant::now());
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    loop {
        tick.tick().await;
        let left = Some(Left::read(database, broker).await);
        if matches!(&left, Some(Ok(left)) if left.is_nothing()) {
            return Ok(());
        }
        if left != last {
            (last, changed) = (left, Instant::now());
        } else if changed.elapsed() > PATIENCE {
            let order = database.orders().find_one(untold()).await;
            return Err(format!("for {PATIENCE:?} nothing has changed: {left:?}; not told: {order:?}"));
        }
    }
}

async fn run<B: Broker>(database: &TestDatabase, mut broker: B, seconds: u64) {
    let (seed, length) = (seed(), Duration::from_secs(number("CHAOS_SECONDS", seconds)));
    eprintln!("CHAOS_SEED={seed} CHAOS_SECONDS={}", length.as_secs());
    let mut random = Rng::with_seed(seed);
    let market = Arc::new(Market {
        pods: Mutex::default(),
        tickets: Mutex::default(),
        publisher: broker.publisher(),
        client: reqwest::Client::builder().timeout(Duration::from_secs(8)).build().unwrap(),
        is_open: AtomicBool::new(true),
    });
    let mut pods = Pods {
        running: Vec::new(),
        started: 0,
        database: &database.name,
        settings: broker.settings(),
        market: market.clone(),
        random: random.fork(),
        done: BTreeMap::new(),
    };
    for _ in 0..3 {
        pods.start();
    }
    pods.running[0].1.wait_until_ready(true).await;
    let sweeper = sweeper(&database.name);
    let mut load = JoinSet::new();
    load.spawn(market.clone().sell(random.fork()));
    for number in 0..BUYERS {
        load.spawn(market.clone().buy(format!("u{number}"), random.fork()));
    }
    // On a slow machine it takes longer until so much has happened that it shows something.
    let (started, least) = (Instant::now(), usize::try_from(length.as_secs() / 4).unwrap());
    while started.elapsed() < length || !much_has_happened(database, least).await {
        assert!(
            started.elapsed() < length + 4 * PATIENCE,
            "too little has happened: {}",
            pods.report().await
        );
        sleep(Duration::from_millis(pods.random.u64(300..2_500))).await;
        pods.disturb(&mut broker).await;
    }
    market.is_open.store(false, Ordering::SeqCst);
    while let Some(done) = load.join_next().await {
        done.unwrap();
    }
    let case = loop {
        if let Err(stuck) = settled(database, &broker).await {
            panic!("{stuck}\n{}", pods.report().await);
        }
        let case = Case {
            orders: orders(database).await,
            tickets: tickets(database).await.into_iter().collect(),
            told: broker.events().await.iter().map(|event| Told::read(event, "")).collect(),
        };
        // An order that its buyer has given up may be stored at any time, and then there is something to tell again.
        let is_settled = Left::read(database, &broker).await.is_ok_and(|left| left.is_nothing());
        if is_settled && orders(database).await == case.orders {
            break case;
        }
    };
    drop(sweeper);
    let mut ended = BTreeMap::<&str, u32>::new();
    for order in &case.orders {
        *ended.entry(&order.status).or_default() += 1;
    }
    let refused: usize = case.orders.iter().map(|order| order.refused.len()).sum();
    eprintln!(
        "{:?}; orders {ended:?}, payments refused {refused}, events {}, told more than once {}",
        pods.done,
        case.told.len(),
        case.duplicates()
    );
    let problems = case.problems();
    if !problems.is_empty() {
        let first = &problems[..problems.len().min(20)];
        panic!("{} problems: {first:#?}\n{}", problems.len(), pods.report().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "make test-chaos"]
async fn on_jetstream_every_change_is_told_in_order_and_every_payment_is_settled_once_whatever_happens() {
    let _beside_others = SPARE_MONGO.read().await;
    let database = TestDatabase::at(setting("SPARE_MONGO_URI")).await;
    run(&database, JetStream::start().await, 60).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "make test-chaos"]
async fn on_nats_streaming_every_change_is_told_in_order_and_every_payment_is_settled_once_whatever_happens()
{
    let _beside_others = SPARE_MONGO.read().await;
    let database = TestDatabase::at(setting("SPARE_MONGO_URI")).await;
    run(&database, Streaming::start().await, 20).await;
}
