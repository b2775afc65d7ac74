//! `orders-operator serve` as a process: start-up, outages of its database, and graceful shutdown.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
        mpsc::{Receiver, channel, sync_channel},
    },
};

use mongodb::bson::{doc, oid::ObjectId};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::cluster::{PATIENCE, eventually};
use crate::machine::Container;
use crate::mongo::{JWT_KEY, TestDatabase, answer, by_way_of, cookie, uri};

fn command(settings: &[(&str, &str)]) -> Command {
    under(&[], settings)
}

fn under(wrapper: &[&str], settings: &[(&str, &str)]) -> Command {
    let mut words = wrapper.iter().copied().chain([env!("CARGO_BIN_EXE_orders-operator"), "serve"]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words).env_clear().envs(settings.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A running `serve` process, and the two addresses that it listens on.
pub(crate) struct Process {
    child: Child,
    pub(crate) api: String,
    pub(crate) admin: String,
    client: reqwest::Client,
    /// Its log lines, until the process exits.
    pub(crate) lines: Receiver<String>,
}

impl Process {
    pub(crate) fn start(mongo_uri: &str, database: &str, more: &[(&str, &str)]) -> Self {
        let (sender, lines) = channel();
        Self::run(&[], mongo_uri, database, more, lines, move |line| sender.send(line).is_ok())
    }

    /// Starts it by way of `wrapper`, a command that takes the program as its last arguments.
    pub(crate) fn start_under(
        wrapper: &[&str],
        mongo_uri: &str,
        database: &str,
        more: &[(&str, &str)],
    ) -> Self {
        let (sender, lines) = channel();
        Self::run(wrapper, mongo_uri, database, more, lines, move |line| sender.send(line).is_ok())
    }

    /// Starts it with a log that is read only as far as the test takes its lines.
    pub(crate) fn start_with_slow_reader(mongo_uri: &str, database: &str) -> Self {
        let (sender, lines) = sync_channel(0);
        Self::run(&[], mongo_uri, database, &[], lines, move |line| sender.send(line).is_ok())
    }

    fn run(
        wrapper: &[&str],
        mongo_uri: &str,
        database: &str,
        more: &[(&str, &str)],
        lines: Receiver<String>,
        read: impl Fn(String) -> bool + Send + 'static,
    ) -> Self {
        let settings = [
            ("JWT_KEY", JWT_KEY),
            ("MONGO_URI", mongo_uri),
            ("MONGO_DATABASE", database),
            ("LISTEN_ADDRESS", "127.0.0.1"),
            ("PORT", "0"),
            ("ADMIN_PORT", "0"),
            ("LOG_FORMAT", "json"),
        ];
        let mut child = under(wrapper, &[settings.as_slice(), more].concat()).spawn().unwrap();
        read_lines(child.stderr.take().unwrap(), read);
        let api = address(&lines, "serving the orders API");
        let admin = address(&lines, "serving the admin endpoints");
        Self { child, api, admin, client: reqwest::Client::new(), lines }
    }

    pub(crate) async fn readyz(&self) -> (StatusCode, String) {
        let response = self.client.get(format!("http://{}/readyz", self.admin)).send().await.unwrap();
        (response.status(), response.text().await.unwrap())
    }

    /// The value of a metric; 0 where it is not exported yet.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let page = self.metrics().await;
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }

    pub(crate) async fn metrics(&self) -> String {
        let response = self.client.get(format!("http://{}/metrics", self.admin)).send().await.unwrap();
        response.text().await.unwrap()
    }

    pub(crate) async fn wait_until_ready(&self, ready: bool) {
        let is_as_wanted = || async { (self.readyz().await.0.is_success() == ready).then_some(()) };
        eventually(if ready { "it is ready" } else { "it is not ready" }, is_as_wanted).await;
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.api))
    }

    pub(crate) fn by(&self, user: &str, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.request(method, path).header("cookie", cookie(user))
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn terminate(&self) {
        let status = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status().unwrap();
        assert!(status.success());
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        eventually("the process exits", || {
            let status = self.child.try_wait().unwrap();
            async move { status }
        })
        .await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads a pipe in a thread, to its end: nobody may take the lines any more, and the process still never finds it full.
fn read_lines(pipe: impl std::io::Read + Send + 'static, read: impl Fn(String) -> bool + Send + 'static) {
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            read(line);
        }
    });
}

/// The address in the log line with this message; the order of the lines is not fixed.
fn address(lines: &Receiver<String>, message: &str) -> String {
    loop {
        let line = lines.recv_timeout(PATIENCE).expect("the process logs its address");
        let line: Value = serde_json::from_str(&line).unwrap_or_default();
        if line["message"] == message {
            return line["address"].as_str().unwrap().to_owned();
        }
    }
}

/// A TCP proxy to the database that can be stopped, which closes its connections, and started again.
struct Proxy {
    port: u16,
    target: String,
    uri: String,
    tasks: Option<JoinSet<()>>,
}

impl Proxy {
    async fn stopped() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (uri, target) = by_way_of(port);
        Self { port, target, uri, tasks: None }
    }

    async fn start(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.unwrap();
        let (target, mut tasks) = (Arc::new(self.target.clone()), JoinSet::new());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let target = target.clone();
                connections.spawn(async move {
                    let mut server = TcpStream::connect(target.as_str()).await.unwrap();
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        self.tasks = Some(tasks);
    }

    async fn stop(&mut self) {
        if let Some(mut tasks) = self.tasks.take() {
            tasks.shutdown().await;
        }
    }
}

fn run(settings: &[(&str, &str)]) -> Output {
    command(settings).output().unwrap()
}

#[test]
fn a_missing_or_invalid_setting_is_reported_in_one_line_with_exit_code_2() {
    let (key, mongo) = (("JWT_KEY", "secret"), ("MONGO_URI", "mongodb://127.0.0.1:1"));
    for (settings, wanted) in [
        (vec![mongo], "JWT_KEY is not set"),
        (vec![mongo, ("JWT_KEY", "")], "JWT_KEY is not set"),
        (vec![key], "MONGO_URI is not set"),
        (vec![key, ("MONGO_URI", "  ")], "MONGO_URI is not set"),
        (vec![key, ("MONGO_URI", "postgres://user:hunter2@host")], "the MongoDB URI is not usable"),
        (vec![key, mongo, ("MONGO_DATABASE", "a/b")], "is not a database name"),
    ] {
        let output = run(&settings);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.lines().count() == 1 && text.contains(wanted), "{text}");
        assert!(!text.contains("hunter2") && !text.contains("secret"), "{text}");
    }
    for window in ["0", "604801", "15m"] {
        let output = run(&[key, mongo, ("EXPIRATION_WINDOW_SECONDS", window)]);
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8(output.stderr).unwrap().contains("from 1 to 604800"));
    }
}

#[test]
fn the_help_shows_no_secrets_from_the_environment() {
    let settings = [("JWT_KEY", "hunter2"), ("MONGO_URI", "mongodb://u:hunter2@host")];
    let output = command(&settings).arg("--help").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("--mongo-uri") && !text.contains("hunter2"), "{text}");
}

#[tokio::test]
async fn it_starts_without_its_database_and_recovers_from_an_outage() {
    let database = TestDatabase::bare().await;
    let mut proxy = Proxy::stopped().await;
    let process = Process::start(&proxy.uri, &database.name, &[]);
    let (status, text) = process.readyz().await;
    assert!(status == StatusCode::SERVICE_UNAVAILABLE && text.contains("[-]database"), "{text}");
    let alive = process.client.get(format!("http://{}/livez", process.admin)).send().await.unwrap();
    assert_eq!(alive.status(), StatusCode::OK);
    let away = (StatusCode::SERVICE_UNAVAILABLE, json!({ "errors": [{ "message": "Service unavailable" }] }));
    assert_eq!(answer(process.by("u1", Method::GET, "/api/orders")).await, away);

    for round in 1..=2 {
        proxy.start().await;
        process.wait_until_ready(true).await;
        let body = json!({ "ticketId": database.ticket().await.to_string() });
        let reserve = process.by("u1", Method::POST, "/api/orders").json(&body);
        assert_eq!(answer(reserve).await.0, StatusCode::CREATED);
        let metrics = process.metrics().await;
        for series in [
            r#"orders_api_requests_total{method="POST",route="/api/orders",status="2xx"}"#,
            r#"orders_api_request_duration_seconds_count{method="POST",route="/api/orders"}"#,
            r#"orders_api_reservations_total{outcome="reserved"}"#,
        ] {
            assert!(metrics.contains(&format!("{series} {round}\n")), "{metrics}");
        }

        proxy.stop().await;
        assert_eq!(answer(process.by("u1", Method::GET, "/api/orders")).await, away);
        process.wait_until_ready(false).await;
    }
}

#[tokio::test]
async fn on_sigterm_it_becomes_unready_finishes_requests_in_flight_and_exits_with_0() {
    let database = TestDatabase::bare().await;
    let mut process = Process::start(&uri(), &database.name, &[("DRAIN_SECONDS", "2")]);
    process.wait_until_ready(true).await;

    // A request whose body is half received.
    let body = json!({ "ticketId": database.ticket().await.to_string() }).to_string();
    let (first, second) = body.split_at(10);
    let head = format!(
        "POST /api/orders HTTP/1.1\r\nhost: x\r\ncookie: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        cookie("u1"),
        body.len()
    );
    let mut in_flight = TcpStream::connect(&process.api).await.unwrap();
    in_flight.write_all(format!("{head}{first}").as_bytes()).await.unwrap();

    process.terminate();
    process.wait_until_ready(false).await;
    assert!(process.readyz().await.1.contains("shutting down"));
    let late = process.by("u1", Method::GET, "/api/orders");
    assert_eq!(answer(late).await, (StatusCode::OK, json!([])), "it goes on accepting for the drain");

    // After it has stopped accepting connections, the request in flight is still answered.
    let refused = || async { TcpStream::connect(&process.api).await.err() };
    eventually("it accepts no more connections", refused).await;
    assert!(process.child.try_wait().unwrap().is_none(), "it does not end before the request in flight");
    in_flight.write_all(second.as_bytes()).await.unwrap();
    let mut answered = String::new();
    in_flight.read_to_string(&mut answered).await.unwrap();
    assert!(answered.starts_with("HTTP/1.1 201"), "{answered}");
    assert_eq!(process.ended().await.code(), Some(0));
}

#[tokio::test]
async fn why_a_session_is_not_taken_is_in_the_log_and_counted() {
    let database = TestDatabase::bare().await;
    let process = Process::start(&uri(), &database.name, &[("LOG_LEVEL", "debug")]);
    let token = |key, claims: Value| crate::jwt::signed(key, &claims);
    let secret = token("another key", json!({ "id": "u1" }));
    for (bearer, why) in [
        (secret.clone(), "signature"),
        (token(JWT_KEY, json!({ "id": "u1", "exp": 1 })), "expired"),
        (token(JWT_KEY, json!({ "id": "u1", "nbf": 99_999_999_999_u64 })), "not_yet_valid"),
        (token(JWT_KEY, json!({ "email": "u1@example.com" })), "no_user"),
        ("nonsense".to_owned(), "malformed"),
    ] {
        let request = process.request(Method::GET, "/api/orders").bearer_auth(bearer);
        assert_eq!(answer(request).await.0, StatusCode::UNAUTHORIZED, "{why}");
        let wanted = format!("orders_api_unauthenticated_total{{why=\"{why}\"}} 1\n");
        let metrics = process.metrics().await;
        assert!(metrics.contains(&wanted), "{metrics}");
        let line = loop {
            let line = process.lines.recv_timeout(PATIENCE).unwrap();
            if line.contains("not signed in") {
                break line;
            }
        };
        assert!(line.contains(&format!("\"why\":\"{why}\"")) && !line.contains(&secret), "{line}");
    }
    assert_eq!(answer(process.request(Method::GET, "/api/orders")).await.0, StatusCode::UNAUTHORIZED);
    assert!(process.metrics().await.contains("orders_api_unauthenticated_total{why=\"absent\"} 1\n"));
}

#[tokio::test]
async fn our_image_serves_as_any_user_on_a_read_only_file_system_with_nothing_else_in_it() {
    let database = TestDatabase::bare().await;
    let shared = std::env::temp_dir().join(format!("orders-operator-shared-{:016x}", fastrand::u64(..)));
    std::fs::create_dir(&shared).unwrap();
    let container = Container::with(&shared);
    let process = Process::start_under(&container.command(), &uri(), &database.name, &[]);
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let ids = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!(
        (ids("Uid:").split('\t').next(), ids("Gid:").split('\t').next()),
        (Some("1000650000"), Some("0"))
    );
    assert_eq!(ids("CapEff:").trim_matches('0'), "");
    process.wait_until_ready(true).await;
    let body = json!({ "ticketId": database.ticket().await.to_string() });
    let reserved = answer(process.by("u1", Method::POST, "/api/orders").json(&body)).await;
    assert_eq!(reserved.0, StatusCode::CREATED);
    std::fs::remove_dir(shared).unwrap();
}

#[tokio::test]
async fn the_error_for_a_port_in_use_names_the_port() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let settings = [
        ("JWT_KEY", JWT_KEY),
        ("MONGO_URI", "mongodb://127.0.0.1:1"),
        ("LISTEN_ADDRESS", "127.0.0.1"),
        ("LOG_LEVEL", "error"),
    ];
    for (api, admin) in [(port.as_str(), "0"), ("0", port.as_str())] {
        let output = run(&[settings.as_slice(), &[("PORT", api), ("ADMIN_PORT", admin)]].concat());
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(&format!("cannot listen on 127.0.0.1:{port}")), "{text}");
    }
}

#[tokio::test]
async fn a_connection_string_without_a_database_is_said_at_the_start() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (uri, database, is_said) in [
        ("mongodb://127.0.0.1:1", "", true),
        ("mongodb://127.0.0.1:1/?directConnection=true", "", true),
        ("mongodb://127.0.0.1:1/orders", "", false),
        ("mongodb://127.0.0.1:1", "orders", false),
    ] {
        let output = run(&[
            ("JWT_KEY", JWT_KEY),
            ("MONGO_URI", uri),
            ("MONGO_DATABASE", database),
            ("LISTEN_ADDRESS", "127.0.0.1"),
            ("PORT", &port),
        ]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(text.contains("the MongoDB URI names no database"), is_said, "{text}");
    }
}

#[tokio::test]
async fn no_request_is_lost_when_a_pod_is_terminated_under_load() {
    let database = TestDatabase::bare().await;
    let mut stopping = Process::start(&uri(), &database.name, &[("DRAIN_SECONDS", "1")]);
    let remaining = Process::start(&uri(), &database.name, &[]);
    stopping.wait_until_ready(true).await;
    remaining.wait_until_ready(true).await;

    // Clients behave as a proxy does: they keep connections alive, and use the other pod after a response with
    // `connection: close`.
    let mut clients = JoinSet::new();
    let (signalled, closed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    for client in 0..8 {
        let (first, second) = (format!("http://{}", stopping.api), format!("http://{}", remaining.api));
        let tickets = [database.ticket().await, database.ticket().await];
        let (signalled, closed) = (signalled.clone(), closed.clone());
        clients.spawn(async move {
            let (user, http) = (format!("u{client}"), reqwest::Client::new());
            let (mut pod, mut after) = (first, 0);
            // Until the other pod has answered each kind of request.
            for turn in 0.. {
                let url = format!("{pod}/api/orders");
                let request = if turn % 2 == 0 {
                    http.get(&url)
                } else {
                    let body = json!({ "ticketId": tickets[turn / 2 % 2].to_string() });
                    http.post(&url).json(&body)
                };
                let response = request.header("cookie", cookie(&user)).send().await.unwrap();
                let status = response.status().as_u16();
                assert!([200, 201, 400].contains(&status), "{status} from {pod}");
                let closing = response.headers().get("connection").is_some_and(|value| value == "close");
                response.bytes().await.unwrap();
                if closing && pod != second {
                    assert!(signalled.load(Ordering::SeqCst), "connection: close before the signal");
                    closed.fetch_add(1, Ordering::SeqCst);
                    pod = second.clone();
                }
                after += u32::from(pod == second);
                if after == 4 {
                    break;
                }
            }
        });
    }
    let refusals = r#"reservations_total{outcome="already_reserved"}"#;
    let busy = || async { stopping.metrics().await.contains(refusals).then_some(()) };
    eventually("the load has started", busy).await;
    signalled.store(true, Ordering::SeqCst);
    stopping.terminate();
    while let Some(result) = clients.join_next().await {
        result.unwrap();
    }
    assert_eq!(closed.load(Ordering::SeqCst), 8);
    assert_eq!(stopping.ended().await.code(), Some(0));
}

#[tokio::test]
async fn http_2_without_tls_is_served_on_the_same_port() {
    let database = TestDatabase::bare().await;
    let process = Process::start(&uri(), &database.name, &[]);
    process.wait_until_ready(true).await;
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let url = format!("http://{}/api/orders", process.api);
    let requests = (0..50).map(|_| client.get(&url).header("cookie", cookie("u1")).send());
    for response in futures::future::join_all(requests).await {
        let response = response.unwrap();
        assert_eq!((response.version(), response.status()), (reqwest::Version::HTTP_2, StatusCode::OK));
    }
}

/// Stores so many orders of `u1` that a list of them is about 20 MB: more than the buffers of the sockets hold.
async fn long_list(database: &TestDatabase) -> usize {
    let ticket = ObjectId::new();
    let replica = doc! { "_id": ticket, "title": "x".repeat(2000), "price": 1, "version": 0 };
    database.tickets().insert_one(replica).await.unwrap();
    let fields = doc! { "ticket": ticket, "status": "cancelled" };
    database.many_orders("u1", 10_000, fields).await.len()
}

/// The peak resident memory of a process, in kB.
pub(crate) fn peak_memory(process: &Process) -> u64 {
    crate::cluster::peak_memory(process.child.id())
}

#[tokio::test]
async fn a_list_is_streamed_so_its_memory_does_not_grow_with_its_length() {
    let database = TestDatabase::new().await;
    let count = long_list(&database).await;
    let process = Process::start(&uri(), &database.name, &[]);
    process.wait_until_ready(true).await;
    answer(process.by("u1", Method::GET, "/api/orders?limit=500")).await;
    let before = peak_memory(&process);
    let body = process.by("u1", Method::GET, "/api/orders").send().await.unwrap().bytes().await.unwrap();
    let grown = peak_memory(&process) - before;
    assert!(body.len() > 20_000_000);
    assert_eq!(serde_json::from_slice::<Vec<Value>>(&body).unwrap().len(), count);
    assert!(grown < 5_000, "{grown} kB more for a list of {} kB", body.len() / 1000);
}

#[tokio::test]
async fn a_list_that_breaks_off_is_not_mistaken_for_a_complete_one() {
    let database = TestDatabase::new().await;
    long_list(&database).await;
    let mut proxy = Proxy::stopped().await;
    proxy.start().await;
    let process = Process::start(&proxy.uri, &database.name, &[]);
    process.wait_until_ready(true).await;
    let request = process.by("u1", Method::GET, "/api/orders").header("x-request-id", "the-long-list");
    let mut response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let mut text = response.chunk().await.unwrap().unwrap().to_vec();
    proxy.stop().await;
    let result = loop {
        match response.chunk().await {
            Ok(Some(chunk)) => text.extend_from_slice(&chunk),
            end => break end,
        }
    };
    assert!(result.is_err(), "the response ends as if it were complete");
    assert!(serde_json::from_slice::<Value>(&text).is_err());
    // It is counted, and the log says of which request and why.
    eventually("it is counted", || async {
        (process.metric("orders_api_lists_aborted_total").await == 1).then_some(())
    })
    .await;
    let mut lines = Vec::new();
    eventually("the log has the request's id with both", || {
        lines.extend(process.lines.try_iter());
        let is_said = |message: &str| {
            lines.iter().any(|line: &String| line.contains(message) && line.contains("the-long-list"))
        };
        let are_said =
            is_said("a list of orders was aborted before its end") && is_said("the database is unavailable");
        async move { are_said.then_some(()) }
    })
    .await;
    // The process keeps working.
    proxy.start().await;
    process.wait_until_ready(true).await;
    let after = process.by("u1", Method::GET, "/api/orders?limit=1");
    assert_eq!(answer(after).await.0, StatusCode::OK);
}
