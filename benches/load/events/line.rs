//! A line to the database that counts the commands which pods send by it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinSet,
};

use crate::{Result, database};

/// The head of a message: its length, and what kind it is.
const HEAD: usize = 16;

/// The kind of every message but the first of a connection.
const OP_MSG: u32 = 2013;

/// Where its first document begins: after the flags and the kind of the section.
const DOCUMENT: usize = 5;

/// The commands by which a driver looks whether its server is there.
const OF_DRIVERS: [&[u8]; 3] = [b"hello", b"ping", b"isMaster"];

/// A line to the database of the benchmark; it ends when this is dropped.
pub struct Line {
    /// The connection string by which pods use it.
    pub uri: String,
    count: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Line {
    pub async fn open() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (uri, server) = by_way_of(&database::uri()?, listener.local_addr()?.port())?;
        let (count, mut tasks) = (Arc::<AtomicU64>::default(), JoinSet::new());
        let counting = count.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let Ok(upstream) = TcpStream::connect(&server).await else { continue };
                let ((from_client, mut to_client), (mut from_server, to_server)) =
                    (client.into_split(), upstream.into_split());
                connections.spawn(forward(from_client, to_server, counting.clone()));
                connections.spawn(async move { drop(copy(&mut from_server, &mut to_client).await) });
            }
        });
        Ok(Self { uri, count, _tasks: tasks })
    }

    /// How many commands have been sent, without those that look whether the server is there.
    pub fn commands(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// The connection string by way of this port, and the server behind it.
fn by_way_of(uri: &str, port: u16) -> Result<(String, String)> {
    let (scheme, rest) = uri.split_once("://").ok_or("MONGO_URI has no scheme")?;
    let (hosts, options) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (login, host) = hosts.rsplit_once('@').map_or(("", hosts), |(login, host)| (login, host));
    let host = host.split(',').next().unwrap_or_default();
    let server = if host.contains(':') { host.to_owned() } else { format!("{host}:27017") };
    let at = if login.is_empty() { "" } else { "@" };
    let (path, options) = options.split_once('?').unwrap_or((options, ""));
    let and = if options.is_empty() { "" } else { "&" };
    let path = path.trim_start_matches('/');
    Ok((format!("{scheme}://{login}{at}127.0.0.1:{port}/{path}?{options}{and}directConnection=true"), server))
}

/// Forwards messages, and counts the commands among them.
async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, count: Arc<AtomicU64>) {
    let mut message = vec![0; HEAD];
    loop {
        message.resize(HEAD, 0);
        if from.read_exact(&mut message).await.is_err() {
            return;
        }
        let number = |at: usize| {
            message.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
        };
        let (length, kind) = (number(0) as usize, number(12));
        message.resize(length.max(HEAD), 0);
        let read = match message.get_mut(HEAD..) {
            Some(rest) => from.read_exact(rest).await,
            None => return,
        };
        if read.is_err() || to.write_all(&message).await.is_err() {
            return;
        }
        if kind == OP_MSG && !is_of_driver(&message) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Whether a message only asks whether the server is there. A command is named by the first key of its document, which comes after
/// the length of the document and the type of the value.
fn is_of_driver(message: &[u8]) -> bool {
    let name = message.get(HEAD + DOCUMENT + 5..).unwrap_or_default();
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    OF_DRIVERS.contains(&name)
}
