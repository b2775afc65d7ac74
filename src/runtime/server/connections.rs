//! The open connections of a server: how many there may be, and which of them make room for others.
//!
//! A connection waits for the server while a handler works or a response is being produced, and for its client at any
//! other time: for a request, for the rest of its body, or for the client to take the response. Of the connections that
//! wait for their clients, those that have waited longest make room. Nothing else counts, such as whether a connection
//! was of any use before: whoever gets that for many connections once would keep them.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::limits::Limits;

/// How often it is looked again for a connection that makes room, while there is none.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How often the log says that connections cannot be accepted.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// How many of all connections make room at once, as a fraction: looking through all of them for each one that is
/// accepted would take more time than serving it.
const FRACTION: usize = 64;

/// The same where files have run out.
const FRACTION_WITHOUT_FILES: usize = 4;

/// What is counted of a server.
#[derive(Clone, Debug, Default)]
pub struct ServerMetrics {
    /// Connections that are open.
    pub open: Gauge,
    /// Connections that made room for others.
    pub evicted: Counter,
    /// Connections that the operating system did not let the process accept.
    pub accept_errors: Counter,
    /// HTTP/2 requests refused because too many were in progress.
    pub refused: Counter,
    /// Streams of HTTP/2 that were ended, since the client did not take the response.
    pub stalled: Counter,
}

/// The open connections.
pub(super) struct Connections {
    limits: Limits,
    slots: Arc<Semaphore>,
    more_requests: Arc<Semaphore>,
    open: Mutex<Open>,
    pub(super) metrics: ServerMetrics,
    started: Instant,
}

#[derive(Default)]
struct Open {
    next_id: u64,
    by_id: HashMap<u64, Arc<Connection>>,
    last_error: Option<Instant>,
}

impl Connections {
    pub(super) fn new(limits: Limits, metrics: ServerMetrics) -> Self {
        Self {
            limits,
            slots: Arc::new(Semaphore::new(limits.connections)),
            more_requests: Arc::new(Semaphore::new(limits.more_requests)),
            open: Mutex::default(),
            metrics,
            started: Instant::now(),
        }
    }

    /// Waits until there is room for another connection, and makes it if there is none.
    pub(super) async fn admit(self: &Arc<Self>) -> Admitted {
        let slot = loop {
            if let Ok(slot) = self.slots.clone().try_acquire_owned() {
                break slot;
            }
            self.evict(self.limits.connections / FRACTION);
            // If every connection waits for the server, one of them soon waits for its client, or ends.
            if let Ok(Ok(slot)) = timeout(LOOK_AGAIN, self.slots.clone().acquire_owned()).await {
                break slot;
            }
        };
        let mut open = self.lock();
        let id = open.next_id;
        open.next_id += 1;
        let connection = Arc::new(Connection {
            started: self.started,
            since: AtomicU64::new(self.started.elapsed().as_millis() as u64),
            more_requests: self.more_requests.clone(),
            busy: AtomicU32::new(0),
            requests: AtomicU32::new(0),
            closed: CancellationToken::new(),
        });
        open.by_id.insert(id, connection.clone());
        self.metrics.open.set(i64::try_from(open.by_id.len()).unwrap_or(i64::MAX));
        Admitted { connections: self.clone(), id, connection, _slot: slot }
    }

    /// Closes those that have waited longest for their clients: so many, and at least one.
    fn evict(&self, count: usize) {
        let open = self.lock();
        let mut waiting: Vec<_> = open
            .by_id
            .iter()
            .filter(|(_, connection)| connection.waits_for_client() && !connection.closed.is_cancelled())
            .map(|(id, connection)| {
                // Those of one millisecond by their ids, the older first.
                let order = (connection.since.load(Ordering::Relaxed), *id);
                (order, connection)
            })
            .collect();
        let count = count.max(1).min(waiting.len());
        if count == 0 {
            return;
        }
        waiting.select_nth_unstable_by_key(count - 1, |(order, _)| *order);
        for (_, connection) in waiting.into_iter().take(count) {
            connection.closed.cancel();
            self.metrics.evicted.inc();
        }
        tracing::debug!(count, "idle connections make room for others");
    }

    /// Closes those that have had no request for so long.
    pub(super) fn close_idle(&self, since: Duration) {
        let before = self.started.elapsed().saturating_sub(since).as_millis() as u64;
        let open = self.lock();
        let idle = |connection: &&Arc<Connection>| {
            connection.requests.load(Ordering::Relaxed) == 0
                && connection.since.load(Ordering::Relaxed) <= before
        };
        open.by_id.values().filter(idle).for_each(|connection| connection.closed.cancel());
    }

    /// The operating system does not let this process accept a connection, which in most cases means that too many files
    /// are open.
    pub(super) fn accept_failed(&self, error: &io::Error) {
        self.metrics.accept_errors.inc();
        {
            let mut open = self.lock();
            if open.last_error.is_none_or(|last| last.elapsed() >= LOG_INTERVAL) {
                open.last_error = Some(Instant::now());
                tracing::warn!(
                    %error, connections = open.by_id.len(),
                    "cannot accept connections; if too many files are open, raise the container's limit (nofile)"
                );
            }
        }
        // Many, since the next try is not at once, and others wait meanwhile.
        self.evict(self.limits.connections / FRACTION_WITHOUT_FILES);
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that is open until this is dropped.
pub(super) struct Admitted {
    connections: Arc<Connections>,
    id: u64,
    pub(super) connection: Arc<Connection>,
    _slot: OwnedSemaphorePermit,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut open = self.connections.lock();
        open.by_id.remove(&self.id);
        self.connections.metrics.open.set(i64::try_from(open.by_id.len()).unwrap_or(i64::MAX));
    }
}

/// One connection.
pub(super) struct Connection {
    started: Instant,
    /// When its client last did something, or was done something for, in milliseconds after `started`.
    since: AtomicU64,
    more_requests: Arc<Semaphore>,
    /// For how many of its requests the server works.
    busy: AtomicU32,
    /// How many requests are in progress, until their responses are sent.
    requests: AtomicU32,
    /// Cancelled when it is to be closed.
    pub(super) closed: CancellationToken,
}

impl Connection {
    /// Begins a request. `None` if it is not the only one of the connection, and there are too many.
    pub(super) fn request(self: &Arc<Self>) -> Option<InProgress> {
        let more = if self.requests.fetch_add(1, Ordering::Relaxed) == 0 {
            None
        } else {
            match self.more_requests.clone().try_acquire_owned() {
                Ok(permit) => Some(permit),
                Err(_) => {
                    self.requests.fetch_sub(1, Ordering::Relaxed);
                    return None;
                }
            }
        };
        self.touch();
        Some(InProgress { connection: self.clone(), _more: more })
    }

    /// The client has done something, or something was done for it.
    fn touch(&self) {
        self.since.store(self.started.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn waits_for_client(&self) -> bool {
        self.busy.load(Ordering::Relaxed) == 0
    }
}

/// A request that is in progress until this is dropped.
pub(super) struct InProgress {
    pub(super) connection: Arc<Connection>,
    _more: Option<OwnedSemaphorePermit>,
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.connection.requests.fetch_sub(1, Ordering::Relaxed);
        self.connection.touch();
    }
}

/// Whether the server works for a request, rather than waiting for its client.
pub(super) struct Busy {
    connection: Arc<Connection>,
    is_busy: AtomicBool,
}

impl Busy {
    pub(super) fn new(connection: Arc<Connection>, is_busy: bool) -> Self {
        let busy = Self { connection, is_busy: AtomicBool::new(false) };
        busy.set(is_busy);
        busy
    }

    pub(super) fn set(&self, is_busy: bool) {
        if self.is_busy.swap(is_busy, Ordering::Relaxed) != is_busy {
            if is_busy {
                self.connection.busy.fetch_add(1, Ordering::Relaxed);
            } else {
                self.connection.busy.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.connection.touch();
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.set(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn full(connections: usize) -> (Arc<Connections>, Vec<Admitted>) {
        let limits = Limits { connections, more_requests: 1 };
        let all = Arc::new(Connections::new(limits, ServerMetrics::default()));
        let mut admitted = Vec::new();
        for _ in 0..connections {
            admitted.push(all.admit().await);
            tokio::time::advance(Duration::from_millis(10)).await;
        }
        (all, admitted)
    }

    fn closed(admitted: &[Admitted]) -> Vec<usize> {
        let closed = |(place, one): (usize, &Admitted)| one.connection.closed.is_cancelled().then_some(place);
        admitted.iter().enumerate().filter_map(closed).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_that_has_waited_longest_for_its_client_makes_room_and_none_that_waits_for_the_server() {
        let (all, mut admitted) = full(4).await;
        let working = Busy::new(admitted[0].connection.clone(), true);
        // The client of the second has done something since.
        drop(admitted[1].connection.request());
        for expected in [2, 3, 1] {
            all.evict(0);
            assert!(admitted[expected].connection.closed.is_cancelled(), "{:?}", closed(&admitted));
        }
        assert_eq!(closed(&admitted), [1, 2, 3]);
        assert!(timeout(LOOK_AGAIN * 10, all.admit()).await.is_err(), "for the first, the server works");
        drop(working);
        let admit = tokio::spawn({
            let all = all.clone();
            async move { all.admit().await.id }
        });
        admitted[0].connection.closed.cancelled().await;
        admitted.remove(0);
        assert_eq!(admit.await.unwrap(), 4);
        assert_eq!(all.metrics.evicted.get(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn each_connection_may_have_one_request_and_all_together_few_more() {
        let (_all, admitted) = full(2).await;
        let first = admitted[0].connection.request().unwrap();
        let more = admitted[0].connection.request().unwrap();
        assert!(admitted[0].connection.request().is_none());
        let other = admitted[1].connection.request();
        assert!(other.is_some(), "what one connection does takes nothing from another's first request");
        assert!(admitted[1].connection.request().is_none());
        drop((first, more));
        assert!(admitted[1].connection.request().is_some());
    }
}
