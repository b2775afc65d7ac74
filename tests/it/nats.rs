//! A NATS server that a test can kill, and what the streams of a server have.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use async_nats::{
    ConnectOptions,
    jetstream::{self, consumer, stream},
};
use futures::TryStreamExt;
use serde_json::Value;
use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::{
    bed::setting,
    cluster::eventually,
    pki::Pki,
    server::{Server, free_port},
};

/// A server of a test's own, which keeps its data when it is killed.
pub struct Nats {
    port: u16,
    data: PathBuf,
    server: Option<Server>,
    /// The folder of a CA, if it is reached by TLS.
    pki: Option<PathBuf>,
}

impl Nats {
    pub async fn start() -> Self {
        Self::start_with("", None).await
    }

    /// A server with more in its configuration.
    pub async fn with(config: &str) -> Self {
        Self::start_with(config, None).await
    }

    /// Starts one that is reached by TLS only, with a certificate of this CA.
    pub async fn start_by_tls(pki: &Pki) -> Self {
        Self::start_with("", Some(pki.folder().to_owned())).await
    }

    async fn start_with(config: &str, pki: Option<PathBuf>) -> Self {
        let data = std::env::temp_dir().join(format!("orders-operator-jetstream-{:016x}", fastrand::u64(..)));
        std::fs::create_dir_all(&data).unwrap();
        std::fs::write(data.join("config"), config).unwrap();
        let mut this = Self { port: free_port(), data, server: None, pki };
        this.restart().await;
        this
    }

    pub fn url(&self) -> String {
        let scheme = if self.pki.is_some() { "tls" } else { "nats" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// A folder that is gone with the server.
    pub fn folder(&self) -> &Path {
        &self.data
    }

    pub fn kill(&mut self) {
        self.server = None;
    }

    /// Has it read another configuration, while it runs. It ends connections whose credentials are not valid any more.
    pub fn reload(&self, config: &str) {
        std::fs::write(self.data.join("config"), config).unwrap();
        self.server.as_ref().unwrap().signal("HUP");
    }

    pub async fn restart(&mut self) {
        let (port, data) = (self.port, self.data.clone());
        self.server = Some(Server::run("nats", port, |_| {
            let mut command = Command::new(setting("NATS_SERVER"));
            command.args(["--addr", "127.0.0.1", "--port", &port.to_string(), "--jetstream"]);
            command.arg("--config").arg(data.join("config")).arg("--store_dir").arg(data);
            if let Some(pki) = &self.pki {
                command.arg("--tlscert").arg(pki.join("server.crt"));
                command.arg("--tlskey").arg(pki.join("server.key")).arg("--tls");
            }
            command
        }));
        eventually("the NATS server answers", || async {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
            let mut begin = [0; 4];
            stream.read_exact(&mut begin).await.ok().filter(|_| begin == *b"INFO")
        })
        .await;
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.server = None;
        drop(std::fs::remove_dir_all(&self.data));
    }
}

/// Three servers that are a cluster, each of which keeps what it has when it is killed.
pub struct NatsCluster(Vec<Nats>);

impl NatsCluster {
    pub async fn start() -> Self {
        let ports = [free_port(), free_port(), free_port()];
        let routes = ports.map(|port| format!("nats://127.0.0.1:{port}")).join(", ");
        // None of them answers before the others are there.
        let servers = ports.iter().enumerate().map(|(number, port)| {
            let cluster = format!("name: ticketing, listen: \"127.0.0.1:{port}\", routes: [{routes}]");
            let config = format!("server_name: server-{number}\ncluster {{ {cluster} }}\n");
            async move { Nats::with(&config).await }
        });
        Self(futures::future::join_all(servers).await)
    }

    /// The URLs of all three.
    pub fn urls(&self) -> String {
        self.0.iter().map(Nats::url).collect::<Vec<_>>().join(",")
    }

    /// The one that leads a stream, of so many that keep it; none while nobody does.
    pub async fn leader(&self, stream: &str) -> Option<(usize, usize)> {
        let streams = Streams::of(&self.urls()).await;
        let found = streams.0.get_stream(stream).await.ok()?;
        let info = found.cached_info();
        let leader = info.cluster.as_ref()?.leader.as_ref()?.strip_prefix("server-")?.parse().ok()?;
        Some((leader, info.config.num_replicas))
    }

    pub fn server(&mut self, number: usize) -> &mut Nats {
        &mut self.0[number]
    }
}

/// One event of a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub subject: String,
    pub id: Option<String>,
    pub data: Value,
}

/// The streams of a server.
pub struct Streams(pub jetstream::Context);

impl Streams {
    pub async fn of(urls: &str) -> Self {
        let urls: Vec<_> = urls.split(',').collect();
        // The client takes no login from a URL.
        let login = urls[0].split_once("://").and_then(|(_, rest)| Some(rest.rsplit_once('@')?.0));
        let options = match login.map(|login| login.split_once(':').ok_or(login)) {
            Some(Ok((user, password))) => {
                ConnectOptions::with_user_and_password(user.into(), password.into())
            }
            Some(Err(token)) => ConnectOptions::with_token(token.into()),
            None => ConnectOptions::new(),
        };
        Self(jetstream::new(options.connect(urls).await.unwrap()))
    }

    /// Makes a stream that takes something for a duplicate for a moment only.
    pub async fn make_forgetful(&self, name: &str, subjects: Vec<String>) {
        let config = stream::Config {
            name: name.into(),
            subjects,
            duplicate_window: std::time::Duration::from_millis(100),
            ..stream::Config::default()
        };
        self.0.create_stream(config).await.unwrap();
    }

    /// How many events a stream has; none if there is no stream.
    pub async fn count(&self, stream: &str) -> u64 {
        if self.0.get_stream(stream).await.is_err() {
            return 0;
        }
        self.events_or_text(stream).await.len() as u64
    }

    /// All events that a stream has, oldest first.
    pub async fn events(&self, stream: &str) -> Vec<Event> {
        let events = self.events_or_text(stream).await;
        assert!(events.iter().all(|event| event.data.is_object()), "{events:?}");
        events
    }

    /// The same, with null for data that is not JSON.
    pub async fn events_or_text(&self, stream: &str) -> Vec<Event> {
        let found = self.0.get_stream(stream).await.unwrap();
        let count = found.cached_info().state.messages;
        let config = consumer::pull::OrderedConfig::default();
        let consumer = found.create_consumer(config).await.unwrap();
        let mut messages = consumer.messages().await.unwrap();
        let mut events = Vec::new();
        for _ in 0..count {
            let message = messages.try_next().await.unwrap().unwrap();
            if message.subject.starts_with("orders-operator.fence.") {
                continue;
            }
            let headers = message.headers.as_ref();
            events.push(Event {
                subject: message.subject.to_string(),
                id: headers.and_then(|headers| headers.get("Nats-Msg-Id")).map(|id| id.as_str().to_owned()),
                data: serde_json::from_slice(&message.payload).unwrap_or_default(),
            });
        }
        events
    }

    /// Waits until a stream has so many events, and returns them.
    pub async fn wait_for(&self, stream: &str, count: u64) -> Vec<Event> {
        eventually(&format!("{stream} has {count} events"), || async {
            (self.count(stream).await >= count).then_some(())
        })
        .await;
        self.events(stream).await
    }
}
