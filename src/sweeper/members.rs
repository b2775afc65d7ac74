//! Who sweeps: one Lease for each sweeper that is alive, in a namespace that they share.
//!
//! None of these Leases gives anyone a right; they only say who is there. A sweeper that ends deletes
//! its own, so that the others need not wait; one that crashed counts as dead after a while, and later
//! somebody clears up after it.

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
    ranks::{Life, Members},
};
use crate::runtime::watch::events;

/// How often a sweeper renews its Lease.
const RENEW: Duration = Duration::from_secs(3);

/// How long a Lease says that it lasts.
const LASTS: Duration = Duration::from_secs(10);

/// The longest that a call may take; and the longest that leaving may.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// When the Lease of one that is dead is deleted.
const FORGET: Duration = Duration::from_secs(120);

/// By which the Leases of sweepers are found.
const LABEL: (&str, &str) = ("app.kubernetes.io/component", "sweeper");

/// This sweeper among the others.
pub struct Membership {
    api: Api<Lease>,
    /// What the names of all their Leases begin with.
    group: String,
    me: String,
    lives: HashMap<String, Life>,
    members: watch::Sender<Arc<Members>>,
    metrics: Metrics,
}

impl Membership {
    /// The sweepers of `group`, whose Leases are in `namespace`.
    pub fn new(
        client: Client,
        namespace: &str,
        group: &str,
        metrics: Metrics,
    ) -> (Self, watch::Receiver<Arc<Members>>) {
        let me = format!("{group}-{:08x}", fastrand::u32(..));
        let (members, receiver) = watch::channel(Arc::new(Members::new(me.clone(), Vec::new())));
        let (api, group) = (Api::namespaced(client, namespace), format!("{group}-"));
        metrics.sweepers(1);
        (Self { api, group, me, lives: HashMap::new(), members, metrics }, receiver)
    }

    /// Waits until it knows the others; but not for long, for being alone is no harm. Then it goes on in the
    /// background: joins them when it `sweeps`, so that nobody counts on it before, and leaves them at `stop`.
    pub async fn join(
        mut self,
        config: watcher::Config,
        sweeps: CancellationToken,
        stop: CancellationToken,
    ) -> tokio::task::JoinHandle<()> {
        let config = config.labels(&format!("{}={}", LABEL.0, LABEL.1));
        let mut events = events(self.api.clone(), config).boxed();
        let first = async {
            while let Some(event) = events.next().await {
                let listed = matches!(event, Ok(watcher::Event::InitDone));
                self.take(event);
                if listed {
                    break;
                }
            }
        };
        if tokio::time::timeout(CALL_TIMEOUT, first).await.is_err() {
            tracing::warn!("the API server does not say who else sweeps; beginning alone");
        }
        self.tell();
        tokio::spawn(self.run(events, sweeps, stop))
    }

    async fn run(
        mut self,
        mut events: BoxStream<'static, watcher::Result<watcher::Event<Lease>>>,
        sweeps: CancellationToken,
        stop: CancellationToken,
    ) {
        let mut renewals = tokio::time::interval(RENEW);
        renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                // From the beginning of its sweeps on.
                () = async {
                    sweeps.cancelled().await;
                    renewals.tick().await;
                } => {
                    self.renew().await;
                    self.forget().await;
                }
                event = events.next() => match event {
                    Some(event) => self.take(event),
                    None => break,
                },
            }
            self.tell();
        }
        self.leave().await;
    }

    /// What the watch says of the others.
    fn take(&mut self, event: watcher::Result<watcher::Event<Lease>>) {
        match event {
            Ok(watcher::Event::Apply(lease) | watcher::Event::InitApply(lease)) => self.seen(&lease),
            Ok(watcher::Event::Delete(lease)) => {
                self.lives.remove(&lease.name_any());
            }
            // One whose deletion was missed goes by its silence.
            Ok(watcher::Event::Init | watcher::Event::InitDone) => {}
            Err(error) => {
                self.metrics.watch_failed();
                tracing::warn!(%error, "the watch on the sweepers' Leases failed; it is begun again");
            }
        }
    }

    fn seen(&mut self, lease: &Lease) {
        let (name, now) = (lease.name_any(), Instant::now());
        if name == self.me || !name.starts_with(&self.group) {
            return;
        }
        let version = lease.resource_version().unwrap_or_default();
        let lasts = lease.spec.as_ref().and_then(|spec| u64::try_from(spec.lease_duration_seconds?).ok());
        let lasts = lasts.map_or(LASTS, Duration::from_secs);
        let renewed = lease.spec.as_ref().and_then(|spec| Some(spec.renew_time.as_ref()?.0));
        let was_over = renewed.is_some_and(|renewed| {
            Duration::try_from(Timestamp::now().duration_since(renewed)).is_ok_and(|since| since > lasts)
        });
        self.lives
            .entry(name)
            .and_modify(|life| life.seen(version.clone(), lasts, now))
            .or_insert_with(|| Life::new(version, lasts, was_over, now));
    }

    /// Says who is alive, where that has changed.
    fn tell(&self) {
        let now = Instant::now();
        let alive = self.lives.iter().filter(|(_, life)| life.is_alive(now)).map(|(name, _)| name.clone());
        let members = Members::new(self.me.clone(), alive.collect());
        self.metrics.sweepers(members.count());
        self.members.send_if_modified(|last| {
            let changed = **last != members;
            if changed {
                tracing::info!(sweepers = members.count(), "the sweepers that are alive have changed");
                *last = Arc::new(members);
            }
            changed
        });
    }

    async fn renew(&mut self) {
        match tokio::time::timeout(CALL_TIMEOUT, self.write()).await {
            Ok(Ok(())) => self.lives.values_mut().for_each(Life::renewed_own),
            // The others will take over what is late; and this one goes on, for none of them may be there.
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
                lease_duration_seconds: i32::try_from(LASTS.as_secs()).ok(),
                renew_time: Some(MicroTime(Timestamp::now())),
                ..LeaseSpec::default()
            }),
        };
        self.api.create(&PostParams::default(), &lease).await.map(drop)
    }

    /// Deletes the Leases of those that have been dead for long.
    async fn forget(&mut self) {
        let now = Instant::now();
        let dead = |(_, life): &(&String, &Life)| !life.is_alive(now) && life.silent(now) > FORGET;
        let Some((name, version)) =
            self.lives.iter().find(dead).map(|(name, life)| (name.clone(), life.version().to_owned()))
        else {
            return;
        };
        // Were it renewed meanwhile, it stays.
        let unchanged = Preconditions { resource_version: Some(version), uid: None };
        let params = DeleteParams { preconditions: Some(unchanged), ..DeleteParams::default() };
        self.lives.remove(&name);
        match tokio::time::timeout(CALL_TIMEOUT, self.api.delete(&name, &params)).await {
            Ok(Err(error)) => tracing::debug!(lease = name, %error, "the Lease of a dead sweeper stays"),
            Ok(Ok(_)) => tracing::info!(lease = name, "deleted the Lease of a dead sweeper"),
            Err(_) => {}
        }
    }

    async fn leave(self) {
        let left =
            tokio::time::timeout(CALL_TIMEOUT, self.api.delete(&self.me, &DeleteParams::default())).await;
        match left {
            Ok(Ok(_)) => tracing::info!(lease = self.me, "left the other sweepers"),
            // It had not joined them yet.
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => {}
            // They notice by its silence.
            Ok(Err(error)) => {
                tracing::warn!(lease = self.me, %error, "cannot delete the Lease of this sweeper")
            }
            Err(_) => tracing::warn!(lease = self.me, "no time to delete the Lease of this sweeper"),
        }
    }
}
