//! Which sweepers are alive: they share one Lease, in which each has an entry of its own.
//!
//! An entry is an annotation with the `LeaseSpec` of one sweeper. It is no lock; it only announces its sweeper. A sweeper
//! that ends removes its entry, so that the others take over at once. One that crashed counts as dead once its entry has
//! expired, and another sweeper removes the entry later. As the name of the Lease is known, no sweeper needs a right over
//! any other Lease.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream::BoxStream};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::watcher,
};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    metrics::Metrics,
    peers::{PeerLease, Peers},
};
use crate::runtime::{history::History, watch::events};

/// How often a sweeper renews its entry.
const RENEW_INTERVAL: Duration = Duration::from_secs(3);

/// How long after its last renewal an entry expires.
const LEASE_DURATION: Duration = Duration::from_secs(10);

/// The longest that one call to the API server may take, but for a renewal.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// The longest that a renewal may take. One that is given up loses its connection, and the next has to begin with a handshake:
/// to an API server that needs seconds for a call, none would ever succeed.
const RENEW_TIMEOUT: Duration = Duration::from_secs(30);

/// How long after its last renewal the entry of a dead sweeper is removed.
const REMOVE_AFTER: Duration = Duration::from_secs(30);

/// The prefix of the annotations that are entries.
const ENTRY_PREFIX: &str = "sweeper.ticketing.dev/";

/// The entry of this sweeper, and those of its peers.
pub struct Membership {
    api: Api<Lease>,
    /// The name of the Lease.
    lease: String,
    me: String,
    /// Whether the entry of this sweeper may be in the Lease.
    joined: bool,
    peer_leases: HashMap<String, PeerLease>,
    peers: watch::Sender<Arc<Peers>>,
    metrics: Metrics,
    history: History,
    /// Cancelled when the API server has forgotten what it showed before.
    went_back: CancellationToken,
}

impl Membership {
    /// The sweepers that share the Lease of this name in `namespace`.
    pub fn new(
        client: Client,
        namespace: &str,
        lease: &str,
        metrics: Metrics,
        went_back: CancellationToken,
    ) -> (Self, watch::Receiver<Arc<Peers>>) {
        let me = format!("{:08x}", fastrand::u32(..));
        let (peers, receiver) = watch::channel(Arc::new(Peers::new(me.clone(), Vec::new())));
        metrics.sweepers(1);
        let this = Self {
            api: Api::namespaced(client, namespace),
            lease: lease.to_owned(),
            me,
            joined: false,
            peer_leases: HashMap::new(),
            peers,
            metrics,
            history: History::default(),
            went_back,
        };
        (this, receiver)
    }

    /// Reads the entries of the peers, but does not wait for long: a sweeper that takes itself for the only one does no
    /// harm. The rest goes on in the background. The entry is made when `sweeping` is cancelled, so that no peer relies
    /// on a sweeper that has not started, and removed at `stop`.
    pub async fn join(
        mut self,
        config: watcher::Config,
        sweeping: CancellationToken,
        stop: CancellationToken,
    ) -> tokio::task::JoinHandle<()> {
        let config = config.fields(&format!("metadata.name={}", self.lease));
        let mut events = events(self.api.clone(), config).boxed();
        let first = async {
            while let Some(event) = events.next().await {
                let listed = matches!(event, Ok(watcher::Event::InitDone));
                self.handle(event);
                if listed {
                    break;
                }
            }
        };
        if tokio::time::timeout(CALL_TIMEOUT, first).await.is_err() {
            tracing::warn!("cannot list the other sweepers; starting as if there were none");
        }
        self.publish();
        tokio::spawn(self.run(events, sweeping, stop))
    }

    async fn run(
        mut self,
        mut events: BoxStream<'static, watcher::Result<watcher::Event<Lease>>>,
        sweeping: CancellationToken,
        stop: CancellationToken,
    ) {
        let mut renewals = tokio::time::interval(RENEW_INTERVAL);
        renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = async {
                    sweeping.cancelled().await;
                    renewals.tick().await;
                } => {
                    // At the stop it gets no longer than any other call.
                    let stopping = async {
                        stop.cancelled().await;
                        sleep(CALL_TIMEOUT).await;
                    };
                    let renewed = tokio::select! {
                        lease = self.renew() => lease,
                        () = stopping => None,
                    };
                    if let Some(lease) = renewed {
                        self.remove_a_dead_one(&lease).await;
                    }
                }
                event = events.next() => match event {
                    Some(event) => self.handle(event),
                    None => break,
                },
            }
            self.publish();
        }
        self.leave().await;
    }

    fn handle(&mut self, event: watcher::Result<watcher::Event<Lease>>) {
        match event {
            Ok(watcher::Event::Apply(lease) | watcher::Event::InitApply(lease)) => self.observe(&lease),
            // If somebody deletes the Lease, its sweepers make it again as they renew their entries.
            Ok(watcher::Event::Init | watcher::Event::InitDone | watcher::Event::Delete(_)) => {}
            Err(error) => {
                self.metrics.watch_failed();
                tracing::warn!(%error, "the watch on the sweepers' Lease failed; restarting it");
            }
        }
    }

    fn observe(&mut self, lease: &Lease) {
        let now = Instant::now();
        let entries: HashMap<&str, &str> = lease
            .annotations()
            .iter()
            .filter_map(|(key, entry)| Some((key.strip_prefix(ENTRY_PREFIX)?, entry.as_str())))
            .filter(|(sweeper, _)| *sweeper != self.me)
            .collect();
        self.peer_leases.retain(|sweeper, _| entries.contains_key(sweeper.as_str()));
        for (sweeper, entry) in entries {
            let spec: LeaseSpec = serde_json::from_str(entry).unwrap_or_default();
            let duration = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
            let duration = duration.map_or(LEASE_DURATION, Duration::from_secs);
            let is_expired = spec.renew_time.is_some_and(|renewed| {
                let since = Duration::try_from(Timestamp::now().duration_since(renewed.0));
                since.is_ok_and(|since| since > duration)
            });
            self.peer_leases
                .entry(sweeper.to_owned())
                .and_modify(|lease| lease.observe(entry, duration, now))
                .or_insert_with(|| PeerLease::new(entry, duration, is_expired, now));
        }
    }

    /// Publishes which sweepers are alive, if that has changed.
    fn publish(&self) {
        let now = Instant::now();
        let alive = self.peer_leases.iter().filter(|(_, lease)| lease.is_alive(now));
        let peers = Peers::new(self.me.clone(), alive.map(|(sweeper, _)| sweeper.clone()).collect());
        self.metrics.sweepers(peers.count());
        self.peers.send_if_modified(|last| {
            let changed = **last != peers;
            if changed {
                tracing::info!(sweepers = peers.count(), "the set of live sweepers has changed");
                *last = Arc::new(peers);
            }
            changed
        });
    }

    /// Renews the entry of this sweeper. Returns the Lease as it is then.
    async fn renew(&mut self) -> Option<Lease> {
        let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "sweeper".into());
        let spec = LeaseSpec {
            holder_identity: Some(host),
            lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
            renew_time: Some(MicroTime(Timestamp::now())),
            ..LeaseSpec::default()
        };
        self.joined = true;
        let entry = json!({"name": self.lease, "annotations": {key(&self.me): json!(spec).to_string()}});
        match tokio::time::timeout(RENEW_TIMEOUT, self.apply(entry)).await {
            Ok(Ok(lease)) => {
                if self.history.went_back(lease.metadata.resource_version.as_deref()) {
                    self.went_back.cancel();
                }
                self.peer_leases.values_mut().for_each(PeerLease::count_own_renewal);
                return Some(lease);
            }
            // It goes on sweeping, as it may be the only one. Any peers take over what is late.
            Ok(Err(error)) => {
                tracing::warn!(lease = self.lease, %error, "cannot renew this sweeper's entry in the Lease");
            }
            Err(_) => tracing::warn!(
                lease = self.lease,
                "the API server did not renew this sweeper's entry in the Lease in time"
            ),
        }
        None
    }

    /// Makes this metadata the part of the Lease that is this sweeper's. Server-side apply also creates the Lease, and RBAC
    /// can limit that to its name, unlike a POST.
    async fn apply(&self, metadata: Value) -> kube::Result<Lease> {
        let manager = format!("orders-operator-sweeper-{}", self.me);
        let lease = json!({
            "apiVersion": Lease::api_version(&()), "kind": Lease::kind(&()), "metadata": metadata,
        });
        let params = PatchParams::apply(&manager).force();
        self.api.patch(&self.lease, &params, &Patch::Apply(lease)).await
    }

    /// Removes from the Lease the entry of a sweeper that has been dead for long, if there is one.
    async fn remove_a_dead_one(&self, lease: &Lease) {
        let now = Instant::now();
        let dead = |(sweeper, peer): &(&String, &PeerLease)| {
            let is_dead = !peer.is_alive(now) && peer.age(now) > REMOVE_AFTER;
            is_dead && lease.annotations().get(&key(sweeper)).is_some_and(|entry| entry == peer.record())
        };
        let Some((sweeper, _)) = self.peer_leases.iter().find(dead) else { return };
        // If the Lease has changed meanwhile, that may be this entry: it stays until the next attempt.
        let version = lease.resource_version();
        let metadata = json!({"resourceVersion": version, "annotations": {key(sweeper): null}});
        let patch = Patch::Merge(json!({"metadata": metadata}));
        let params = PatchParams::default();
        let removed = self.api.patch(&self.lease, &params, &patch);
        match tokio::time::timeout(CALL_TIMEOUT, removed).await {
            Ok(Err(error)) => {
                tracing::debug!(lease = self.lease, %error, "cannot remove the entry of a dead sweeper")
            }
            Ok(Ok(_)) => tracing::info!(lease = self.lease, sweeper, "removed the entry of a dead sweeper"),
            Err(_) => {}
        }
    }

    async fn leave(self) {
        if !self.joined {
            return;
        }
        // Not even an empty map of annotations, or this sweeper would stay in the Lease's managed fields.
        match tokio::time::timeout(CALL_TIMEOUT, self.apply(json!({"name": self.lease}))).await {
            Ok(Ok(_)) => tracing::info!(lease = self.lease, "removed this sweeper's entry from the Lease"),
            // It expires.
            Ok(Err(error)) => {
                tracing::warn!(lease = self.lease, %error, "cannot remove this sweeper's entry from the Lease")
            }
            Err(_) => {
                tracing::warn!(lease = self.lease, "no time to remove this sweeper's entry from the Lease")
            }
        }
    }
}

/// The annotation that is the entry of this sweeper.
fn key(sweeper: &str) -> String {
    format!("{ENTRY_PREFIX}{sweeper}")
}
