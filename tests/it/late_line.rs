//! A line to a server that may hold what a client sends, and deliver it later, though the client is gone by then: what
//! happens to whatever a process had handed to its socket, or to its client, before it was frozen.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::JoinSet,
    time::sleep,
};

use crate::cluster::eventually;

/// A line to a NATS server.
pub struct LateLine {
    pub port: u16,
    holds: watch::Sender<bool>,
    /// How many connections have something that is held, and how many have delivered it to the end.
    counts: watch::Receiver<Counts>,
    _tasks: JoinSet<()>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    held: usize,
    delivered: usize,
}

impl LateLine {
    /// A line to the server at this address.
    pub async fn to(server: String) -> Self {
        Self::slow(server, Duration::ZERO).await
    }

    /// A line on which whatever a client sends takes so long.
    pub async fn slow(server: String, takes: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (holds, held) = watch::channel(false);
        let (counting, counts) = watch::channel(Counts::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (held, counting) = (held.clone(), counting.clone());
                let upstream = TcpStream::connect(&server).await.unwrap();
                connections.spawn(connect(client, upstream, takes, held, counting));
            }
        });
        Self { port, holds, counts, _tasks: tasks }
    }

    /// From now on nothing of what clients send arrives.
    pub fn hold(&self) {
        self.holds.send_replace(true);
    }

    /// Waits until a client has sent something that is held.
    pub async fn something_is_held(&self) {
        eventually("something is held", || async { (self.counts.borrow().held > 0).then_some(()) }).await;
    }

    /// Delivers what is held, also of clients that are gone, and waits until the server has seen it.
    pub async fn deliver(&self) {
        self.holds.send_replace(false);
        eventually("what was held is delivered", || async {
            let counts = *self.counts.borrow();
            (counts.delivered == counts.held).then_some(())
        })
        .await;
    }
}

async fn connect(
    client: TcpStream,
    upstream: TcpStream,
    takes: Duration,
    mut holds: watch::Receiver<bool>,
    counting: watch::Sender<Counts>,
) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = upstream.into_split();
    let (answers, mut answered) = watch::channel(false);
    let mark = format!("late-line-{:016x}", fastrand::u64(..));
    let (sent, mut sending) = mpsc::unbounded_channel();
    // Whatever the client has sent is taken at once, since it may be gone later.
    let take = async move {
        let mut buffer = vec![0; 65_536];
        while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
            drop(sent.send(buffer[..count].to_vec()));
        }
    };
    // The server's answers are read also when nobody takes them any more.
    let wanted = mark.clone().into_bytes();
    let back = async move {
        let (mut buffer, mut last) = (vec![0; 65_536], Vec::new());
        while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
            drop(to_client.write_all(&buffer[..count]).await);
            last.extend_from_slice(&buffer[..count]);
            if last.windows(wanted.len()).any(|part| part == wanted) {
                answers.send_replace(true);
            }
            last.drain(..last.len().saturating_sub(wanted.len()));
        }
        answers.send_replace(true);
    };
    let there = async move {
        let (mut was_held, mut is_delivered) = (false, false);
        while let Some(chunk) = sending.recv().await {
            if *holds.borrow() && !was_held {
                was_held = true;
                counting.send_modify(|counts| counts.held += 1);
            }
            drop(holds.wait_for(|holds| !holds).await);
            sleep(takes).await;
            if to_server.write_all(&chunk).await.is_err() {
                break;
            }
            if was_held && !is_delivered && sending.is_empty() && !sending.is_closed() {
                is_delivered = true;
                counting.send_modify(|counts| counts.delivered += 1);
            }
        }
        if was_held && !is_delivered {
            // The server works in order, so this message comes back after it has seen everything.
            let message = format!("SUB {mark} 99999\r\nPUB {mark} 0\r\n\r\n");
            if to_server.write_all(message.as_bytes()).await.is_ok() {
                drop(answered.wait_for(|answered| *answered).await);
            }
            counting.send_modify(|counts| counts.delivered += 1);
        }
        drop(to_server.shutdown().await);
    };
    tokio::join!(take, back, there);
}
