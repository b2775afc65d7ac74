//! Which sweepers are alive: each has a Lease of its own, in a namespace that they share.
//!
//! These Leases are no locks; they only announce their sweepers. A sweeper that ends deletes its Lease, so that the
//! others take over at once. One that crashed counts as dead once its Lease has expired, and another sweeper deletes
//! the Lease later.

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
    Api, Client, ResourceExt,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions},
    runtime::watcher,
};
use tokio::{sync::watch, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{
    metrics::Metrics,
    peers::{PeerLease, Peers},
};
use crate::runtime::watch::events;

/// How often a sweeper renews its Lease.
const RENEW_INTERVAL: Duration = Duration::from_secs(3);

/// The duration of a Lease.
const LEASE_DURATION: Duration = Duration::from_secs(10);

/// The longest that one call to the API server may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// How long after its last renewal the Lease of a dead sweeper is deleted.
const DELETE_AFTER: Duration = Duration::from_secs(120);

/// The label of the sweepers' Leases.
const LABEL: (&str, &str) = ("app.kubernetes.io/component", "sweeper");

/// The Lease of this sweeper, and those of its peers.
pub struct Membership {
    api: Api<Lease>,
    /// The prefix of the names of all their Leases.
    prefix: String,
    me: String,
    leases: HashMap<String, PeerLease>,
    peers: watch::Sender<Arc<Peers>>,
    metrics: Metrics,
}

impl Membership {
    /// The sweepers whose Leases are in `namespace`, with names that begin with `group`.
    pub fn new(
        client: Client,
        namespace: &str,
        group: &str,
        metrics: Metrics,
    ) -> (Self, watch::Receiver<Arc<Peers>>) {
        let me = format!("{group}-{:08x}", fastrand::u32(..));
        let (peers, receiver) = watch::channel(Arc::new(Peers::new(me.clone(), Vec::new())));
        let (api, prefix) = (Api::namespaced(client, namespace), format!("{group}-"));
        metrics.sweepers(1);
        (Self { api, prefix, me, leases: HashMap::new(), peers, metrics }, receiver)
    }

    /// Lists the peers, but does not wait for long: a sweeper that takes itself for the only one does no harm. The
    /// rest goes on in the background. The Lease is created when `sweeping` is cancelled, so that no peer relies on a
    /// sweeper that has not started, and deleted at `stop`.
    pub async fn join(
        mut self,
        config: watcher::Config,
        sweeping: CancellationToken,
        stop: CancellationToken,
    ) -> tokio::task::JoinHandle<()> {
        let config = config.labels(&format!("{}={}", LABEL.0, LABEL.1));
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
                    self.renew().await;
                    self.delete_a_dead_one().await;
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
            Ok(watcher::Event::Delete(lease)) => {
                self.leases.remove(&lease.name_any());
            }
            // A Lease whose deletion was missed expires like that of a crashed sweeper.
            Ok(watcher::Event::Init | watcher::Event::InitDone) => {}
            Err(error) => {
                self.metrics.watch_failed();
                tracing::warn!(%error, "the watch on the sweepers' Leases failed; restarting it");
            }
        }
    }

    fn observe(&mut self, lease: &Lease) {
        let (name, now) = (lease.name_any(), Instant::now());
        if name == self.me || !name.starts_with(&self.prefix) {
            return;
        }
        let version = lease.resource_version().unwrap_or_default();
        let duration = lease.spec.as_ref().and_then(|spec| u64::try_from(spec.lease_duration_seconds?).ok());
        let duration = duration.map_or(LEASE_DURATION, Duration::from_secs);
        let renewed = lease.spec.as_ref().and_then(|spec| Some(spec.renew_time.as_ref()?.0));
        let is_expired = renewed.is_some_and(|renewed| {
            Duration::try_from(Timestamp::now().duration_since(renewed)).is_ok_and(|since| since > duration)
        });
        self.leases
            .entry(name)
            .and_modify(|lease| lease.observe(version.clone(), duration, now))
            .or_insert_with(|| PeerLease::new(version, duration, is_expired, now));
    }

    /// Publishes which sweepers are alive, if that has changed.
    fn publish(&self) {
        let now = Instant::now();
        let alive = self.leases.iter().filter(|(_, lease)| lease.is_alive(now)).map(|(name, _)| name.clone());
        let peers = Peers::new(self.me.clone(), alive.collect());
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

    async fn renew(&mut self) {
        match tokio::time::timeout(CALL_TIMEOUT, self.write()).await {
            Ok(Ok(())) => self.leases.values_mut().for_each(PeerLease::count_own_renewal),
            // It goes on sweeping, as it may be the only one. Any peers take over what is late.
            Ok(Err(error)) => {
                tracing::warn!(lease = self.me, %error, "cannot renew the Lease of this sweeper")
            }
            Err(_) => tracing::warn!(
                lease = self.me,
                "the API server did not renew the Lease of this sweeper in time"
            ),
        }
    }

    async fn write(&self) -> kube::Result<()> {
        let patch = serde_json::json!({"spec": {"renewTime": MicroTime(Timestamp::now())}});
        match self.api.patch(&self.me, &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            result => return result.map(drop),
        }
        let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "sweeper".into());
        let label = (LABEL.0.to_owned(), LABEL.1.to_owned());
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(self.me.clone()),
                labels: Some([label].into()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(host),
                lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
                renew_time: Some(MicroTime(Timestamp::now())),
                ..LeaseSpec::default()
            }),
        };
        self.api.create(&PostParams::default(), &lease).await.map(drop)
    }

    /// Deletes the Lease of a sweeper that has been dead for long, if there is one.
    async fn delete_a_dead_one(&mut self) {
        let now = Instant::now();
        let dead = |(_, lease): &(&String, &PeerLease)| !lease.is_alive(now) && lease.age(now) > DELETE_AFTER;
        let Some((name, version)) =
            self.leases.iter().find(dead).map(|(name, lease)| (name.clone(), lease.version().to_owned()))
        else {
            return;
        };
        // If it has been renewed meanwhile, it stays.
        let unchanged = Preconditions { resource_version: Some(version), uid: None };
        let params = DeleteParams { preconditions: Some(unchanged), ..DeleteParams::default() };
        self.leases.remove(&name);
        match tokio::time::timeout(CALL_TIMEOUT, self.api.delete(&name, &params)).await {
            Ok(Err(error)) => {
                tracing::debug!(lease = name, %error, "cannot delete the Lease of a dead sweeper")
            }
            Ok(Ok(_)) => tracing::info!(lease = name, "deleted the Lease of a dead sweeper"),
            Err(_) => {}
        }
    }

    async fn leave(self) {
        let deleted =
            tokio::time::timeout(CALL_TIMEOUT, self.api.delete(&self.me, &DeleteParams::default())).await;
        match deleted {
            Ok(Ok(_)) => tracing::info!(lease = self.me, "deleted the Lease of this sweeper"),
            // It had not been created yet.
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => {}
            // It expires.
            Ok(Err(error)) => {
                tracing::warn!(lease = self.me, %error, "cannot delete the Lease of this sweeper")
            }
            Err(_) => tracing::warn!(lease = self.me, "no time to delete the Lease of this sweeper"),
        }
    }
}
