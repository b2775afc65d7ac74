//! A separate database for each test, and the API in front of it.

use std::{
    net::SocketAddr,
    ops::Deref,
    sync::atomic::{AtomicU32, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use mongodb::{
    Client, Collection, Database,
    bson::{DateTime, Document, doc, oid::ObjectId},
};
use orders_operator::{
    api,
    order::{ReservationTerms, Ticket, TicketId, Version},
    store::{ConnectOptions, ExpiryQuery, Store, StoreError},
};
use prometheus_client::registry::Registry;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    cluster::{PATIENCE, eventually},
    jwt, watchdog,
};

/// The key that the tests sign sessions with.
pub(crate) const JWT_KEY: &str = "the tests' own key";

/// How long the API waits for its database, and a little less, before it gives up an attempt and may answer that the database
/// is unavailable.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(4);

/// The server that the tests use.
pub(crate) fn uri() -> String {
    std::env::var("MONGO_URI").ok().filter(|uri| !uri.is_empty()).expect(
        "MONGO_URI is not set: `make test` starts a database and sets it; to use your own, set it to a server on \
         which databases named orders_test_* may be made and dropped",
    )
}

/// The server's URI through a proxy at a local port, and the address that the proxy must forward to.
pub(crate) fn by_way_of(port: u16) -> (String, String) {
    let uri = uri();
    let (scheme, rest) = uri.split_once("://").unwrap();
    let (hosts, options) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (user, host) = hosts.rsplit_once('@').map_or(("", hosts), |(user, host)| (user, host));
    let host = host.split(',').next().unwrap();
    let behind = if host.contains(':') { host.to_owned() } else { format!("{host}:27017") };
    let user = if user.is_empty() { String::new() } else { format!("{user}@") };
    let options = match options.split_once('?') {
        Some((path, options)) => format!("{path}?{options}&directConnection=true"),
        None => format!("/{}?directConnection=true", options.trim_start_matches('/')),
    };
    (format!("{scheme}://{user}127.0.0.1:{port}{options}"), behind)
}

/// A database for one test, which is dropped at its end, also if it fails.
pub(crate) struct TestDatabase {
    pub(crate) store: Store,
    pub(crate) name: String,
    uri: String,
    raw: Database,
}

impl TestDatabase {
    /// An empty database with its indexes.
    pub(crate) async fn new() -> Self {
        let database = Self::bare().await;
        make_indexes(&database.store).await;
        database
    }

    /// An empty database without indexes.
    pub(crate) async fn bare() -> Self {
        Self::at(uri()).await
    }

    /// An empty database without indexes, on the server at `uri`.
    pub(crate) async fn at(uri: String) -> Self {
        watchdog::watch();
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("orders_test_{}_{number}_{:08x}", std::process::id(), fastrand::u32(..));
        let options = ConnectOptions { database: Some(&name), ..ConnectOptions::new(&uri) };
        let store = Store::connect(options).await.expect("MONGO_URI is usable");
        let raw = Client::with_uri_str(&uri).await.unwrap().database(&name);
        Self { store, name, uri, raw }
    }

    /// The connection string of this database at an address of the server, which pods may reach at another one than tests do.
    pub(crate) fn at_server(&self, server: &str) -> String {
        let (hosts, options) = server.split_once('?').unwrap_or((server, ""));
        format!("{}/{}?{options}", hosts.trim_end_matches('/'), self.name)
    }

    /// The raw orders, to write or read them as another program does.
    pub(crate) fn orders(&self) -> Collection<Document> {
        self.raw.collection("orders")
    }

    /// The raw tickets.
    pub(crate) fn tickets(&self) -> Collection<Document> {
        self.raw.collection("tickets")
    }

    /// What neighbours have sent and nobody can read.
    pub(crate) fn dead_letters(&self) -> Collection<Document> {
        self.raw.collection("deadLetters")
    }

    /// Who publishes events.
    pub(crate) fn relays(&self) -> Collection<Document> {
        self.raw.collection("relays")
    }

    /// A collection of somebody else's.
    pub(crate) fn collection(&self, name: &str) -> Collection<Document> {
        self.raw.collection(name)
    }

    /// The server's query plan for `command`.
    pub(crate) async fn explain(&self, command: Document) -> String {
        let explain = doc! { "explain": command, "verbosity": "queryPlanner" };
        self.raw.run_command(explain).await.unwrap().to_string()
    }

    /// Drops an index of the orders.
    pub(crate) async fn drop_index(&self, name: &str) {
        // FerretDB says `ok: true`, which the driver takes for no success.
        if let Err(error) = self.orders().drop_index(name).await {
            assert!(error.to_string().contains("instead got Boolean(true)"), "{error}");
        }
    }

    /// The server's reply to `command`.
    pub(crate) async fn command(&self, command: Document) -> Document {
        self.raw.run_command(command).await.unwrap()
    }

    /// The document of one order.
    pub(crate) async fn stored(&self, id: &str) -> Document {
        let id = ObjectId::parse_str(id).unwrap();
        self.orders().find_one(doc! { "_id": id }).await.unwrap().expect("the order is stored")
    }

    /// A new ticket.
    pub(crate) async fn ticket(&self) -> TicketId {
        let id = ticket_id();
        let ticket = Ticket { id, title: "concert".into(), price: 20.0, version: Version(0) };
        self.store.upsert_tickets(&[ticket]).await.unwrap();
        id
    }

    /// Stores `count` orders of `user`, with `fields` set. Returns their ids, oldest first.
    pub(crate) async fn many_orders(&self, user: &str, count: usize, fields: Document) -> Vec<String> {
        let ids: Vec<ObjectId> = (0..count).map(|_| ObjectId::new()).collect();
        for ids in ids.chunks(1000) {
            let order = |id: &ObjectId| {
                let mut order = doc! {
                    "_id": id, "userId": user, "status": "created", "ticket": ObjectId::new(),
                    "expiresAt": DateTime::from_millis(DateTime::now().timestamp_millis() + 900_000), "version": 0,
                };
                order.extend(fields.clone());
                order
            };
            self.orders().insert_many(ids.iter().map(order)).await.unwrap();
        }
        ids.into_iter().map(ObjectId::to_hex).collect()
    }

    /// Stores `count` orders of `user`, each with a ticket of its own that has this title. Returns their ids, oldest first.
    pub(crate) async fn orders_of_tickets(&self, user: &str, count: usize, title: &str) -> Vec<String> {
        let ids: Vec<ObjectId> = (0..count).map(|_| ObjectId::new()).collect();
        for ids in ids.chunks(200) {
            let ticket = |id: &ObjectId| doc! { "_id": id, "title": title, "price": 20, "version": 0 };
            self.tickets().insert_many(ids.iter().map(ticket)).await.unwrap();
            let order = |id: &ObjectId| {
                doc! {
                    "_id": id, "userId": user, "status": "created", "ticket": id, "version": 0,
                    "expiresAt": DateTime::from_millis(DateTime::now().timestamp_millis() + 900_000),
                }
            };
            self.orders().insert_many(ids.iter().map(order)).await.unwrap();
        }
        ids.into_iter().map(ObjectId::to_hex).collect()
    }

    /// Stores an order as the Node service writes it, with `changes` set. Returns its id.
    pub(crate) async fn mongoose_order(&self, changes: Document) -> String {
        let mut order = doc! {
            "_id": ObjectId::new(), "userId": "u1", "status": "created",
            "expiresAt": DateTime::from_millis(DateTime::now().timestamp_millis() + 900_000),
            "ticket": ObjectId::new(), "version": 0, "__v": 0,
        };
        order.extend(changes);
        let id = order.get_object_id("_id").unwrap().to_hex();
        self.orders().insert_one(order).await.unwrap();
        id
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        // The test's runtime is shutting down, and dropping the database needs a running one.
        let (uri, name) = (self.uri.clone(), self.name.clone());
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let options = ConnectOptions { database: Some(&name), ..ConnectOptions::new(&uri) };
                if let Err(error) = Store::connect(options).await.unwrap().drop_database().await {
                    eprintln!("cannot drop {name}: {error}");
                }
            });
        });
        let _ = dropping.join();
    }
}

/// Looks for something in the database, as the sweeper does, and finds nothing: whether it can be reached.
pub(crate) async fn reach(store: &Store) -> Result<(), StoreError> {
    store.find_expiring(&ExpiryQuery::due(Timestamp::UNIX_EPOCH, Duration::ZERO, 1)).await.map(drop)
}

/// Makes the indexes of a store, also where the machine is so busy that the database does not answer in time.
pub(crate) async fn make_indexes(store: &Store) {
    eventually("the indexes are made", || async {
        match store.ensure_indexes().await {
            Ok(()) => Some(()),
            Err(error) if error.is_unavailable() && !error.is_of_an_index() => None,
            Err(error) => panic!("{error}"),
        }
    })
    .await;
}

/// Why the indexes of a store cannot be made, apart from a database that does not answer in time.
pub(crate) async fn refusal_of_indexes(store: &Store) -> StoreError {
    eventually("the indexes are refused", || async {
        let error = store.ensure_indexes().await.expect_err("the indexes cannot be made");
        (!error.is_unavailable()).then_some(error)
    })
    .await
}

/// The result of a write, which is retried if it conflicts with another one.
pub(crate) async fn answer_of<T, F>(mut write: impl FnMut() -> F) -> T
where
    F: Future<Output = mongodb::error::Result<T>>,
{
    for _ in 0..20 {
        match write().await {
            Ok(answer) => return answer,
            Err(error) if error.to_string().contains("deadlock") => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("20 deadlocks in a row");
}

/// An unused ticket id.
pub(crate) fn ticket_id() -> TicketId {
    TicketId::from_bytes(ObjectId::new().bytes())
}

/// The cookie of a signed-in user.
pub(crate) fn cookie(user: &str) -> String {
    let claims = json!({ "id": user, "email": format!("{user}@example.com"), "iat": 1 });
    let token = jwt::signed(JWT_KEY, &claims);
    format!("session={}", STANDARD.encode(json!({ "jwt": token }).to_string()))
}

/// The API with a database of its own: several pods on real ports, which share nothing but the database.
pub(crate) struct TestApi {
    database: TestDatabase,
    pods: Vec<SocketAddr>,
    next_pod: AtomicUsize,
    client: reqwest::Client,
}

const PODS: usize = 4;

impl Deref for TestApi {
    type Target = TestDatabase;

    fn deref(&self) -> &TestDatabase {
        &self.database
    }
}

impl TestApi {
    pub(crate) async fn new() -> Self {
        Self::with(ReservationTerms::default()).await
    }

    pub(crate) async fn with(terms: ReservationTerms) -> Self {
        Self::over(TestDatabase::new().await, terms).await
    }

    /// The API with `database`, which has its indexes.
    pub(crate) async fn over(database: TestDatabase, terms: ReservationTerms) -> Self {
        let mut pods = Vec::new();
        for _ in 0..PODS {
            let options =
                ConnectOptions { database: Some(&database.name), ..ConnectOptions::new(&database.uri) };
            let store = Store::connect(options).await.unwrap();
            let routes = api::router(store, JWT_KEY, terms, &mut Registry::default());
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            pods.push(listener.local_addr().unwrap());
            tokio::spawn(async move { axum::serve(listener, routes).await });
        }
        Self { database, pods, next_pod: AtomicUsize::new(0), client: reqwest::Client::new() }
    }

    /// A request without a session, to the pods in turn.
    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let pod = self.pods[self.next_pod.fetch_add(1, Ordering::Relaxed) % PODS];
        self.client.request(method, format!("http://{pod}{path}"))
    }

    /// A request by `user`.
    pub(crate) fn by(&self, user: &str, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.request(method, path).header("cookie", cookie(user))
    }

    /// Reserves `ticket` for `user`, with an idempotency key of its own, so that it can be repeated.
    pub(crate) async fn reserve(&self, user: &str, ticket: TicketId) -> (StatusCode, Value) {
        let (body, key) = (json!({ "ticketId": ticket.to_string() }), unused_key());
        let request =
            || self.by(user, Method::POST, "/api/orders").header("idempotency-key", &key).json(&body);
        repeated(GIVEN_UP_AFTER, request).await
    }

    /// The id of a new order of `user` for `ticket`.
    pub(crate) async fn reserved(&self, user: &str, ticket: TicketId) -> String {
        let (status, order) = self.reserve(user, ticket).await;
        assert_eq!(status, StatusCode::CREATED, "{order}");
        order["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn get(&self, user: &str, path: &str) -> (StatusCode, Value) {
        answer(self.by(user, Method::GET, path)).await
    }

    pub(crate) async fn cancel(&self, user: &str, id: &str) -> (StatusCode, Value) {
        let path = format!("/api/orders/{id}");
        repeated(GIVEN_UP_AFTER, || self.by(user, Method::DELETE, &path)).await
    }
}

/// An idempotency key that no other request has.
pub(crate) fn unused_key() -> String {
    format!("{:016x}", fastrand::u64(..))
}

/// Sends a request that may be repeated, until the answer is another one than that the database is unavailable: on a machine
/// with other work it may be so slow that it is.
pub(crate) async fn persistently(request: impl Fn() -> reqwest::RequestBuilder) -> (StatusCode, Value) {
    repeated(Duration::ZERO, request).await
}

/// The same, but a request of which that is said after less time than this is not repeated: it has another reason.
async fn repeated(least: Duration, request: impl Fn() -> reqwest::RequestBuilder) -> (StatusCode, Value) {
    let started = Instant::now();
    loop {
        let asked = Instant::now();
        let answered = answer(request()).await;
        let is_over = asked.elapsed() < least || started.elapsed() > PATIENCE;
        if answered.0 != StatusCode::SERVICE_UNAVAILABLE || is_over {
            return answered;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Sends a request; an empty body is `null`.
pub(crate) async fn answer(request: reqwest::RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.unwrap();
    let status = response.status();
    let bytes = response.bytes().await.unwrap();
    (status, if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() })
}
