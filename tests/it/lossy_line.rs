//! A line to a NATS server that loses some of what a client publishes: whoever asks by it gets no answer.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinSet,
};

use crate::cluster::eventually;

/// Whether a message is lost, by its subject and what is in it.
type IsLost = fn(&str, &str) -> bool;

/// The line. It ends with its test, and so do its connections.
pub struct LossyLine {
    pub port: u16,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

struct State {
    is_lost: IsLost,
    is_mended: AtomicBool,
    lost: AtomicUsize,
}

impl LossyLine {
    /// A line to the server at this address.
    pub async fn to(server: String, is_lost: IsLost) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State { is_lost, is_mended: AtomicBool::new(false), lost: AtomicUsize::new(0) });
        let (shared, mut tasks) = (state.clone(), JoinSet::new());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (from_client, mut to_client) = client.into_split();
                let (mut from_server, to_server) = TcpStream::connect(&server).await.unwrap().into_split();
                let state = shared.clone();
                connections.spawn(async move {
                    tokio::select! {
                        _ = forward(&state, from_client, to_server) => {}
                        _ = copy(&mut from_server, &mut to_client) => {}
                    }
                });
            }
        });
        Self { port, state, _tasks: tasks }
    }

    /// From now on nothing is lost.
    pub fn mend(&self) {
        self.state.is_mended.store(true, Ordering::SeqCst);
    }

    /// Waits until something was lost.
    pub async fn has_lost(&self) {
        let lost = || async { (self.state.lost.load(Ordering::SeqCst) > 0).then_some(()) };
        eventually("something is lost on the line", lost).await;
    }
}

async fn forward(state: &State, from_client: OwnedReadHalf, mut to_server: OwnedWriteHalf) -> Option<()> {
    let mut from_client = BufReader::new(from_client);
    loop {
        let mut message = Vec::new();
        from_client.read_until(b'\n', &mut message).await.ok().filter(|count| *count > 0)?;
        let head = String::from_utf8_lossy(&message).into_owned();
        let words: Vec<_> = head.split_whitespace().collect();
        if let [kind, subject, .., length] = words[..]
            && ["PUB", "HPUB"].iter().any(|name| kind.eq_ignore_ascii_case(name))
        {
            let mut payload = vec![0; length.parse::<usize>().ok()? + 2];
            from_client.read_exact(&mut payload).await.ok()?;
            if !state.is_mended.load(Ordering::SeqCst)
                && (state.is_lost)(subject, &String::from_utf8_lossy(&payload))
            {
                state.lost.fetch_add(1, Ordering::SeqCst);
                continue;
            }
            message.extend_from_slice(&payload);
        }
        to_server.write_all(&message).await.ok()?;
    }
}
