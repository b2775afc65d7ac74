//! docs/switching.md, with the services of the course as neighbours: from the Node.js orders service to ours and back again, and
//! from NATS Streaming to JetStream. Nothing is lost, nothing is told twice, and no neighbour hears what would end it.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex},
};

use mongodb::{
    Collection,
    bson::{DateTime, Document, doc, oid::ObjectId},
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::{
    api_process::Process,
    cluster::{eventually, root},
    events::{Kind, System, cancel, check_events, check_history, reserve},
    mongo::{answer, uri},
    nats::Nats,
    streaming::{CLUSTER, StreamingServer},
    watchdog,
};

/// The course's own time for an order, in seconds.
const WINDOW: u64 = 900;

/// A service of the course: what it keeps is in the database of the system.
struct Service {
    name: &'static str,
    child: Child,
    input: Option<ChildStdin>,
    lines: Arc<Mutex<Vec<Value>>>,
}

impl Service {
    async fn start(system: &System, name: &'static str) -> Self {
        watchdog::watch();
        let cluster = if system.kind == Kind::Streaming { CLUSTER } else { "-" };
        let mut child = Command::new("node")
            .arg(root().join("tests/mongoose/course.js"))
            .args([name, cluster, &system.url, &format!("{name}-depl-1")])
            .env("MONGO_URI", uri())
            .env("MONGO_DATABASE", &system.database.name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node is installed");
        let (input, output) = (child.stdin.take(), child.stdout.take().unwrap());
        let lines = Arc::<Mutex<Vec<Value>>>::default();
        let into = lines.clone();
        std::thread::spawn(move || {
            // The classes of the course print lines of their own.
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                into.lock().unwrap().extend(serde_json::from_str(&line).ok().filter(Value::is_object));
            }
        });
        let mut this = Self { name, child, input, lines };
        this.says(0).await;
        this
    }

    /// What it says after so many lines.
    async fn says(&mut self, known: usize) -> Value {
        let name = self.name;
        eventually(&format!("{name} answers"), || {
            assert_eq!(self.child.try_wait().unwrap(), None, "{name} has ended");
            let line = self.lines.lock().unwrap().get(known).cloned();
            async move { line }
        })
        .await
    }

    /// Has it do something, and returns the answer.
    async fn ask(&mut self, command: Value) -> Result<Value, String> {
        let known = self.lines.lock().unwrap().len();
        self.input.as_mut().unwrap().write_all(format!("{command}\n").as_bytes()).unwrap();
        let answer = self.says(known).await;
        match answer["failed"].as_str() {
            Some(why) => Err(why.to_owned()),
            None => Ok(answer["done"].clone()),
        }
    }

    /// The same for what cannot fail and is answered by an id.
    async fn id(&mut self, command: Value) -> String {
        self.ask(command).await.unwrap().as_str().unwrap().to_owned()
    }

    /// Has it take its leave, as when its Deployment has no replicas.
    async fn close(mut self) {
        drop(self.input.take());
        let status = eventually(&format!("{} ends", self.name), || {
            let status = self.child.try_wait().unwrap();
            async move { status }
        })
        .await;
        assert!(status.success(), "{}", self.name);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The neighbours of the orders.
struct Neighbours {
    tickets: Service,
    payments: Service,
}

impl Neighbours {
    async fn start(system: &System) -> Self {
        let (tickets, payments) =
            tokio::join!(Service::start(system, "tickets"), Service::start(system, "payments"));
        Self { tickets, payments }
    }

    /// A new ticket, once the orders have heard of it.
    async fn sell(&mut self, system: &System, title: &str) -> String {
        let ticket = self.tickets.id(json!({ "sell": { "title": title, "price": 20 } })).await;
        heard(system.database.tickets(), &ticket, doc! {}).await;
        ticket
    }

    /// Waits until both have heard that an order was made of this ticket.
    async fn see_made(&self, system: &System, order: &str, ticket: &str) {
        heard(course(system, "courseTickets"), ticket, doc! { "orderId": order }).await;
        heard(course(system, "courseOrders"), order, doc! { "status": "created" }).await;
        self.see_same(system, ticket).await;
    }

    /// Waits until both have heard that an order was cancelled.
    async fn see_cancelled(&self, system: &System, order: &str, ticket: &str) {
        heard(course(system, "courseTickets"), ticket, doc! { "orderId": null }).await;
        heard(course(system, "courseOrders"), order, doc! { "status": "cancelled" }).await;
        self.see_same(system, ticket).await;
    }

    /// Waits until the orders have the ticket as the tickets service has it, which tells of each change of the order.
    async fn see_same(&self, system: &System, ticket: &str) {
        let id = doc! { "_id": ObjectId::parse_str(ticket).unwrap() };
        eventually("the copy of the ticket is the newest", || async {
            let theirs = course(system, "courseTickets").find_one(id.clone()).await.unwrap()?;
            let ours = system.database.tickets().find_one(id.clone()).await.unwrap()?;
            (ours.get("version") == theirs.get("version") && ours.get("price") == theirs.get("price"))
                .then_some(())
        })
        .await;
    }

    async fn close(self) {
        tokio::join!(self.tickets.close(), self.payments.close());
    }
}

fn course(system: &System, collection: &str) -> Collection<Document> {
    system.database.collection(collection)
}

/// Waits until a document has these values.
async fn heard(collection: Collection<Document>, id: &str, mut wanted: Document) {
    wanted.insert("_id", ObjectId::parse_str(id).unwrap());
    eventually(&format!("{} has {wanted}", collection.name()), || async {
        collection.find_one(wanted.clone()).await.unwrap()
    })
    .await;
}

/// Runs the program to its end, with the database of the system.
async fn program(system: &System, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_orders-operator"));
    command.args(arguments).args(["--uri", &uri(), "--database", &system.database.name]);
    let output = spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

async fn order(pod: &Process, user: &str, id: &str) -> Value {
    answer(pod.by(user, Method::GET, &format!("/api/orders/{id}"))).await.1
}

/// Whether there is nothing left that could change or is to be told, by the command of the page.
async fn nothing_is_open(system: &System) {
    let left = doc! { "$or": [
        { "status": { "$in": ["created", "awaiting:payment"] } }, { "outbox": { "$exists": true } },
    ] };
    eventually("no order is open, and nothing is to be told", || async {
        (system.database.orders().count_documents(left.clone()).await.unwrap() == 0).then_some(())
    })
    .await;
}

/// Waits until every group has heard everything.
async fn everybody_has_heard(system: &System) {
    let of_orders =
        ["ticket:created", "ticket:updated", "payment:created"].map(|name| (name, "orders-service"));
    let of_others = ["order:created", "order:cancelled"]
        .into_iter()
        .flat_map(|name| [(name, "tickets-service"), (name, "payments-service")]);
    for (channel, group) in of_orders.into_iter().chain(of_others) {
        eventually(&format!("{group} has heard all of {channel}"), || async {
            (system.channels.unacknowledged(channel, group).await == Some(0)).then_some(())
        })
        .await;
    }
}

/// A pod, as the Deployment of the OrdersService starts it.
async fn pod(system: &System) -> Process {
    let pod = system.pod_set(&[("NATS_CLIENT_ID", "orders-5d9c7b-1")]);
    pod.wait_until_ready(true).await;
    eventually("events flow", || async { (pod.metric("orders_events_leads").await == 1).then_some(()) })
        .await;
    pod
}

async fn end(mut pod: Process) {
    pod.terminate();
    assert!(pod.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn from_the_node_service_to_ours_and_back_again_as_the_page_says() {
    let mut server = StreamingServer::start().await;
    let system = System::streaming(server.url(), server.channels()).await.of_the_course();
    let mut old = Service::start(&system, "orders").await;
    let expiration = Service::start(&system, "expiration").await;
    let mut others = Neighbours::start(&system).await;
    let mut tickets = Vec::new();
    for title in ["kept", "given up", "paid", "expires"] {
        tickets.push(others.sell(&system, title).await);
    }
    let mut held = Vec::new();
    for (user, ticket) in ["ada", "bob", "eve", "frank"].into_iter().zip(&tickets) {
        let made = old.id(json!({ "reserve": { "user": user, "ticket": ticket, "seconds": WINDOW } })).await;
        others.see_made(&system, &made, ticket).await;
        held.push(made);
    }
    old.ask(json!({ "cancel": { "order": held[1] } })).await.unwrap();
    others.see_cancelled(&system, &held[1], &tickets[1]).await;

    // 1 and 2: look at the database, and stop the old pods. What comes while neither runs waits on the broker.
    program(&system, &["orders", "check"]).await;
    old.close().await;
    let payment = others.payments.id(json!({ "pay": { "order": held[2] } })).await;
    others.tickets.ask(json!({ "change": { "id": tickets[1], "price": 25 } })).await.unwrap();
    let new = others.tickets.id(json!({ "sell": { "title": "new", "price": 30 } })).await;

    // 3 and 4: ours, with the same broker and the same database.
    let ours = pod(&system).await;
    let of_new =
        eventually("a new ticket can be reserved", || reserve(&ours, "gus", new.parse().unwrap())).await;
    others.see_made(&system, &of_new, &new).await;
    heard(system.database.orders(), &held[2], doc! { "status": "complete", "paymentId": &payment }).await;
    others.see_same(&system, &tickets[1]).await;
    // 5: orders that the Node.js service made end as ours do, by their users and by the sweeper.
    expiration.close().await;
    assert_eq!(cancel(&ours, "ada", &held[0]).await, StatusCode::NO_CONTENT);
    others.see_cancelled(&system, &held[0], &tickets[0]).await;
    let frank = doc! { "_id": ObjectId::parse_str(&held[3]).unwrap() };
    let past = doc! { "$set": { "expiresAt": DateTime::from_millis(0) } };
    system.database.orders().update_one(frank, past).await.unwrap();
    program(&system, &["sweeper", "--once"]).await;
    others.see_cancelled(&system, &held[3], &tickets[3]).await;
    let dearer = reserve(&ours, "hal", tickets[1].parse().unwrap()).await.unwrap();
    assert_eq!(order(&ours, "hal", &dearer).await["ticket"]["price"], 25);
    others.see_made(&system, &dearer, &tickets[1]).await;
    check_history(&system, false).await;

    // Back again. 1 and 2: nobody asks any more, and nothing is open in the end.
    others.payments.ask(json!({ "pay": { "order": dearer } })).await.unwrap();
    assert_eq!(cancel(&ours, "gus", &of_new).await, StatusCode::NO_CONTENT);
    nothing_is_open(&system).await;
    // 3 to 5: everybody has heard everything, and the broker forgets it.
    everybody_has_heard(&system).await;
    others.see_cancelled(&system, &of_new, &new).await;
    check_history(&system, false).await;
    end(ours).await;
    system.database.drop_index("untold_orders").await;
    others.close().await;
    server.kill();
    server.restart().await;
    // 6: the Node.js services, which go on with the tickets as we have left them.
    let expiration = Service::start(&system, "expiration").await;
    let mut old = Service::start(&system, "orders").await;
    let mut others = Neighbours::start(&system).await;
    let taken =
        old.ask(json!({ "reserve": { "user": "ivy", "ticket": tickets[1], "seconds": WINDOW } })).await;
    assert_eq!(taken.unwrap_err(), "Ticket is already reserved");
    others.tickets.ask(json!({ "change": { "id": new, "price": 35 } })).await.unwrap();
    others.see_same(&system, &new).await;
    for (ticket, seconds) in [(&new, WINDOW), (&tickets[0], 1)] {
        let reserve = json!({ "reserve": { "user": "ivy", "ticket": ticket, "seconds": seconds } });
        let made = old.id(reserve).await;
        if seconds == WINDOW {
            others.see_made(&system, &made, ticket).await;
        } else {
            // By the service for expiration.
            heard(system.database.orders(), &made, doc! { "status": "cancelled" }).await;
            others.see_cancelled(&system, &made, ticket).await;
        }
    }
    // What it has heard has cancelled nothing else, and all of them are still there.
    heard(system.database.orders(), &held[2], doc! { "status": "complete", "version": 1 }).await;
    heard(system.database.orders(), &dearer, doc! { "status": "complete" }).await;
    others.close().await;
    old.close().await;
    expiration.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_nats_streaming_to_jetstream_as_the_page_says() {
    let server = StreamingServer::start().await;
    let mut system = System::streaming(server.url(), server.channels()).await.of_the_course();
    let mut others = Neighbours::start(&system).await;
    let before = pod(&system).await;
    let tickets = [others.sell(&system, "open").await, others.sell(&system, "paid").await];
    let mut held = Vec::new();
    for (user, ticket) in ["ada", "bob"].into_iter().zip(&tickets) {
        let made = reserve(&before, user, ticket.parse().unwrap()).await.unwrap();
        others.see_made(&system, &made, ticket).await;
        held.push(made);
    }
    others.payments.ask(json!({ "pay": { "order": held[1] } })).await.unwrap();
    heard(system.database.orders(), &held[1], doc! { "status": "complete" }).await;

    // 1: the new server. 3 and 4: nobody asks any more, what is noted is told, and everybody has heard everything.
    let nats = Nats::start().await;
    system.all_told().await;
    everybody_has_heard(&system).await;
    let told_before = system.events().await;
    // 5: all stop.
    others.close().await;
    end(before).await;
    // 6: all start with the new one.
    (system.kind, system.url) = (Kind::JetStream, nats.url());
    let mut others = Neighbours::start(&system).await;
    let after = pod(&system).await;
    assert_eq!(cancel(&after, "ada", &held[0]).await, StatusCode::NO_CONTENT);
    others.see_cancelled(&system, &held[0], &tickets[0]).await;
    let next = reserve(&after, "cleo", tickets[0].parse().unwrap()).await.unwrap();
    others.see_made(&system, &next, &tickets[0]).await;
    let new = others.sell(&system, "new").await;
    let of_new = reserve(&after, "dan", new.parse().unwrap()).await.unwrap();
    others.see_made(&system, &of_new, &new).await;
    others.payments.ask(json!({ "pay": { "order": of_new } })).await.unwrap();
    heard(system.database.orders(), &of_new, doc! { "status": "complete" }).await;
    system.all_told().await;
    let told = [told_before, system.events().await].concat();
    check_events(&system, &told, false).await;
    others.close().await;
}
