//! NATS Streaming for tests: a server that a test can kill, what the channels of a server have, and neighbours in Node.js
//! with the base classes of the course.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    bed::setting,
    cluster::{eventually, root},
    nats::Event,
    server::{Server, free_port},
    watchdog,
};

/// The cluster of every server here.
pub const CLUSTER: &str = "ticketing";

/// How long a neighbour that may fail has for a connection. It ends by itself, much sooner, if it gets none: only to start takes
/// seconds on a machine with other work.
const CONNECTED_WITHIN: Duration = Duration::from_secs(30);

/// How long it has for one event. It would wait for the answer of a server that was killed for half a minute.
const PUBLISHED_WITHIN: Duration = Duration::from_secs(3);

/// A server of a test's own.
pub struct StreamingServer {
    port: u16,
    monitor: u16,
    /// Where it keeps its data, if it does.
    data: Option<PathBuf>,
    /// The NATS server that it uses, if it is not its own.
    nats: Option<String>,
    server: Option<Server>,
}

impl StreamingServer {
    /// One that forgets everything when it is killed, as the course's does.
    pub async fn start() -> Self {
        Self::start_at(None, None).await
    }

    /// One that is a client of this NATS server.
    pub async fn start_on(nats: &str) -> Self {
        Self::start_at(None, Some(nats.to_owned())).await
    }

    /// One that keeps its data when it is killed.
    pub async fn start_with_files() -> Self {
        let name = format!("orders-operator-nats-streaming-{:016x}", fastrand::u64(..));
        Self::start_at(Some(std::env::temp_dir().join(name)), None).await
    }

    async fn start_at(data: Option<PathBuf>, nats: Option<String>) -> Self {
        let mut this = Self { port: free_port(), monitor: free_port(), data, nats, server: None };
        this.restart().await;
        this
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub fn channels(&self) -> Channels {
        Channels(format!("http://127.0.0.1:{}", self.monitor))
    }

    pub fn kill(&mut self) {
        self.server = None;
    }

    pub async fn restart(&mut self) {
        self.run(&[]);
        // Killed in the middle of a write, it ends at once unless it is told so.
        if !self.is_ready().await {
            self.run(&["--file_truncate_bad_eof"]);
            assert!(self.is_ready().await, "the NATS Streaming server has ended");
        }
    }

    fn run(&mut self, more: &[&str]) {
        let (port, monitor) = (self.port, self.monitor);
        self.server = Some(Server::run("nats-streaming", port, |_| {
            let mut command = Command::new(setting("NATS_STREAMING_SERVER"));
            command.args(["--addr", "127.0.0.1", "--port", &port.to_string(), "--cluster_id", CLUSTER]);
            command.args(["--http_port", &monitor.to_string()]);
            command.args(self.nats.iter().flat_map(|nats| ["--nats_server", nats]));
            if let Some(data) = &self.data {
                command.args(["--store", "file", "--dir"]).arg(data);
            }
            command.args(more);
            command
        }));
    }

    /// Waits until it is ready; not if it has ended before.
    async fn is_ready(&mut self) -> bool {
        let channels = self.channels();
        eventually("the NATS Streaming server is ready", || {
            let has_ended = self.server.as_mut().is_none_or(Server::has_ended);
            let channels = &channels;
            async move {
                let is_ready =
                    channels.ask("serverz").await.is_ok_and(|server| server["state"] == "STANDALONE");
                if is_ready { Some(true) } else { has_ended.then_some(false) }
            }
        })
        .await
    }
}

impl Drop for StreamingServer {
    fn drop(&mut self) {
        self.server = None;
        if let Some(data) = &self.data {
            drop(std::fs::remove_dir_all(data));
        }
    }
}

/// The channels of a server, by its monitoring endpoint.
pub struct Channels(String);

impl Channels {
    /// Those of the server that all tests share.
    pub fn shared() -> Self {
        Self(setting("TEST_STREAMING_MONITOR"))
    }

    /// What the server answers; null if there is no such thing. It may not answer.
    async fn ask(&self, path: &str) -> reqwest::Result<Value> {
        let response = reqwest::get(format!("{}/streaming/{path}", self.0)).await?;
        if response.status().is_client_error() {
            return Ok(Value::Null);
        }
        response.error_for_status()?.json().await
    }

    /// The same of a server that runs. No answer is not taken for one.
    async fn answer(&self, path: &str) -> Value {
        eventually("the server's monitor answers", || async { self.ask(path).await.ok() }).await
    }

    async fn channel(&self, channel: &str) -> Value {
        let channel = channel.replace(':', "%3A");
        self.answer(&format!("channelsz?channel={channel}&subs=1")).await
    }

    /// Whether the server knows a client by this id.
    pub async fn knows(&self, client_id: &str) -> bool {
        !self.answer(&format!("clientsz?client={client_id}")).await.is_null()
    }

    /// How many messages a channel has had.
    pub async fn count(&self, channel: &str) -> u64 {
        self.channel(channel).await["last_seq"].as_u64().unwrap_or_default()
    }

    /// How many messages of a channel a durable queue group has not acknowledged; none if there is no such group.
    pub async fn unacknowledged(&self, channel: &str, group: &str) -> Option<u64> {
        let found = self.channel(channel).await;
        let name = format!("{group}:{group}");
        let members = found["subscriptions"].as_array()?.iter().filter(|member| member["queue_name"] == name);
        let of_member = |member: &Value| {
            (member["last_sent"].as_u64().unwrap_or_default(), member["pending_count"].as_u64().unwrap_or(1))
        };
        let members: Vec<_> = members.map(of_member).collect();
        let sent = members.iter().map(|(sent, _)| *sent).max()?;
        let waiting: u64 = members.iter().map(|(_, pending)| *pending).sum();
        Some(found["last_seq"].as_u64().unwrap_or_default().saturating_sub(sent) + waiting)
    }

    /// How many members a durable queue group has that are connected.
    pub async fn members(&self, channel: &str, group: &str) -> usize {
        let found = self.channel(channel).await;
        let name = format!("{group}:{group}");
        let members = found["subscriptions"].as_array().cloned().unwrap_or_default();
        members.iter().filter(|member| member["queue_name"] == name && member["is_offline"] == false).count()
    }

    /// All that some channels have, oldest first, as a neighbour hears it.
    pub async fn events(&self, url: &str, channels: &[String]) -> Vec<Event> {
        let mut wanted = 0;
        for channel in channels {
            wanted += self.count(channel).await;
        }
        let name = format!("reader-{:016x}", fastrand::u64(..));
        let reader = Neighbour::start(url, &name, &name, channels).await;
        let mut heard = reader.wait_for(usize::try_from(wanted).unwrap()).await;
        heard.sort_by(|one, other| one.published.total_cmp(&other.published));
        heard.into_iter().map(|heard| Event { subject: heard.subject, id: None, data: heard.data }).collect()
    }
}

/// What a neighbour has heard.
#[derive(Clone, Debug)]
pub struct Heard {
    pub subject: String,
    pub data: Value,
    published: f64,
}

/// A service of the course, in Node.js.
pub struct Neighbour {
    child: Child,
    input: Mutex<Option<ChildStdin>>,
    lines: Arc<Mutex<Vec<Value>>>,
}

impl Neighbour {
    /// Starts one that hears of `subjects` as a member of the queue group `queue`.
    pub async fn start(url: &str, client: &str, queue: &str, subjects: &[String]) -> Self {
        let mut this = Self::spawn(url, client, queue, subjects);
        eventually("the neighbour is connected", || {
            let ended = this.child.try_wait().unwrap();
            let connected = this.count("connected").checked_sub(1);
            assert!(connected.is_some() || ended.is_none(), "{client} has ended: {ended:?}");
            async move { connected }
        })
        .await;
        this
    }

    /// Starts one that hears nothing; none if it does not get a connection.
    pub async fn try_start(url: &str, client: &str) -> Option<Self> {
        let mut this = Self::spawn(url, client, client, &[]);
        this.says("connected", 0, CONNECTED_WITHIN).await.then_some(this)
    }

    /// Publishes as the course does. Whether the server has acknowledged it; if not, it may have arrived all the same.
    pub async fn try_publish(&mut self, subject: &str, data: &Value) -> bool {
        let known = self.lines.lock().unwrap().len();
        let line = format!("{}\n", json!({ "subject": subject, "data": data }));
        let input = self.input.get_mut().unwrap();
        input.as_mut().is_some_and(|input| input.write_all(line.as_bytes()).is_ok())
            && self.says("published", known, PUBLISHED_WITHIN).await
    }

    /// Whether it says something of this kind after so many lines, within this time and before it ends.
    async fn says(&mut self, kind: &str, after: usize, within: Duration) -> bool {
        let until = Instant::now() + within;
        let mut tick = tokio::time::interval(Duration::from_millis(2));
        while !self.lines.lock().unwrap()[after..].iter().any(|line| line.get(kind).is_some()) {
            if Instant::now() > until || self.child.try_wait().unwrap().is_some() {
                return false;
            }
            tick.tick().await;
        }
        true
    }

    fn spawn(url: &str, client: &str, queue: &str, subjects: &[String]) -> Self {
        watchdog::watch();
        let mut child = Command::new("node")
            .arg(root().join("tests/mongoose/streaming.js"))
            .args([url, CLUSTER, client, queue])
            .args(subjects)
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
                into.lock()
                    .unwrap()
                    .extend(serde_json::from_str::<Value>(&line).ok().filter(Value::is_object));
            }
        });
        Self { child, input: Mutex::new(input), lines }
    }

    fn count(&self, kind: &str) -> usize {
        self.lines.lock().unwrap().iter().filter(|line| line.get(kind).is_some()).count()
    }

    async fn send(&self, line: Value) {
        let known = self.count("published");
        self.input.lock().unwrap().as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
        eventually("it is published", || async { (self.count("published") > known).then_some(()) }).await;
    }

    /// Publishes as the course does.
    pub async fn publish(&self, subject: &str, data: &Value) {
        self.send(json!({ "subject": subject, "data": data })).await;
    }

    /// Publishes what the course may not.
    pub async fn publish_bytes(&self, subject: &str, data: &[u8]) {
        self.send(json!({ "subject": subject, "base64": STANDARD.encode(data) })).await;
    }

    /// What it has heard, each message once.
    pub fn heard(&self) -> Vec<Heard> {
        let mut known = BTreeSet::new();
        let lines = self.lines.lock().unwrap();
        let heard = lines.iter().filter_map(|line| {
            let (subject, sequence) = (line["heard"].as_str()?.to_owned(), line["sequence"].as_u64()?);
            known.insert((subject.clone(), sequence)).then(|| Heard {
                subject,
                data: line["data"].clone(),
                published: line["published"].as_f64().unwrap(),
            })
        });
        heard.collect()
    }

    /// Waits until it has heard so much, as long as it hears more and more.
    pub async fn wait_for(&self, count: usize) -> Vec<Heard> {
        loop {
            let heard = self.heard();
            let reached = heard.len();
            if reached >= count {
                return heard;
            }
            eventually(&format!("the neighbour hears more than {reached} of {count} messages"), || async {
                (self.heard().len() > reached).then_some(())
            })
            .await;
        }
    }

    /// Has it take its leave, as the course's services do when they are told to end.
    pub async fn close(mut self) {
        drop(self.input.lock().unwrap().take());
        eventually("the neighbour ends", || {
            let status = self.child.try_wait().unwrap();
            async move { status }
        })
        .await;
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
