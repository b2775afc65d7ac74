//! Leadership by a Lease: of any number of processes, at most one believes that it leads.
//!
//! Every write carries the resourceVersion that it is based on, so of two that race one loses. Whether
//! the holder's lease is over is judged by this machine's monotonic clock since the record last
//! changed, never by comparing clocks. A leader that cannot renew in time stops leading before anyone
//! else may begin, even if it was frozen meanwhile. A standby watches the record, so that it takes over at
//! once when it is given up, and asks nothing as long as it is renewed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt, stream::BoxStream};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
    runtime::{
        WatchStreamExt,
        watcher::{self, watch_object},
    },
};
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How the lease is held.
#[derive(Clone, Debug)]
pub struct LeaseSettings {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Who this process is; no other may have the same.
    pub identity: String,
    /// How long others wait after the last renewal before they take it.
    pub duration: Duration,
    /// How long after its last renewal a leader may go on; shorter than `duration`.
    pub renew_deadline: Duration,
    /// How often to renew, and how soon to try again what failed.
    pub retry: Duration,
}

impl LeaseSettings {
    /// The times that client-go has: 15, 10 and 2 seconds.
    pub fn new(namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// Leadership was lost: another holds the lease, or it could not be renewed in time.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("the lease was lost: {0}; this process ends, so that there is only one writer")]
pub struct LeaseLost(String);

/// Whether this process leads. Clones share one state.
#[derive(Clone, Debug)]
pub struct Leadership {
    leads: watch::Receiver<bool>,
    /// Milliseconds after `epoch` until which it may write.
    until: Arc<AtomicU64>,
    epoch: Instant,
}

impl Leadership {
    /// The leadership of a process that has no rivals.
    pub fn alone() -> Self {
        let (_, leads) = watch::channel(true);
        Self { leads, until: Arc::new(AtomicU64::new(u64::MAX)), epoch: Instant::now() }
    }

    /// Waits until this process leads; never returns where it never does.
    pub async fn begins(&self) {
        if self.leads.clone().wait_for(|leads| *leads).await.is_err() {
            // The election is over, and was not won.
            std::future::pending::<()>().await;
        }
    }

    /// Whether it may write now. A process that was frozen past its lease learns it here first.
    pub fn may_write(&self) -> bool {
        (self.epoch.elapsed().as_millis() as u64) < self.until.load(Ordering::Acquire)
    }
}

/// One candidate for the lease.
pub struct Candidate {
    api: Api<Lease>,
    settings: LeaseSettings,
    leads: watch::Sender<bool>,
    leadership: Leadership,
    seen: Option<Seen>,
}

/// The record of another holder, and since when it has not changed.
struct Seen {
    holder: String,
    renewed: Option<MicroTime>,
    since: Instant,
    /// How long it lasts, by its own word.
    lasts: Duration,
}

/// The record, or none while there is none, whenever that changes.
type Changes = BoxStream<'static, Result<Option<Lease>, watcher::Error>>;

/// What one attempt came to.
enum Attempt {
    Held,
    HeldBy(String),
    /// Somebody wrote at the same time; what they wrote, the next look tells.
    Raced,
}

impl Candidate {
    /// A candidate that does not lead yet, and its leadership to be watched.
    pub fn new(client: Client, settings: LeaseSettings) -> (Self, Leadership) {
        let (leads, receiver) = watch::channel(false);
        let leadership =
            Leadership { leads: receiver, until: Arc::new(AtomicU64::new(0)), epoch: Instant::now() };
        let api = Api::namespaced(client, &settings.namespace);
        (Self { api, settings, leads, leadership: leadership.clone(), seen: None }, leadership)
    }

    /// Takes the lease when it can, renews it, and hands it over when `stop` is cancelled.
    ///
    /// # Errors
    /// When it led and does no more.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), LeaseLost> {
        let mut renewed = None;
        let mut known_holder = String::new();
        let mut changes = self.changes();
        loop {
            let mut stand_by = false;
            let begun = Instant::now();
            // A leader's attempt must end before its time does.
            let left = renewed.map_or(self.settings.renew_deadline, |renewed: Instant| {
                (renewed + self.settings.renew_deadline).saturating_duration_since(begun)
            });
            let attempt = tokio::select! {
                () = stop.cancelled() => return self.hand_over(renewed.is_some()).await,
                attempt = tokio::time::timeout(left, self.attempt()) => attempt,
            };
            match attempt {
                Ok(Ok(Attempt::Held)) => {
                    // Counted from before the attempt: the others count from after it.
                    self.lead_until(begun + self.settings.renew_deadline);
                    if renewed.replace(begun).is_none() {
                        tracing::info!(
                            lease = self.settings.name,
                            identity = self.settings.identity,
                            "leading"
                        );
                        self.leads.send_replace(true);
                    }
                }
                Ok(Ok(Attempt::HeldBy(holder))) => {
                    if renewed.is_some() {
                        return Err(self.lost(format!("{holder} holds it")));
                    }
                    if holder != known_holder {
                        tracing::info!(lease = self.settings.name, holder, "standing by");
                        known_holder = holder;
                    }
                    stand_by = true;
                }
                Ok(Ok(Attempt::Raced)) => {}
                Ok(Err(error)) => {
                    tracing::warn!(lease = self.settings.name, %error, "cannot reach the lease")
                }
                Err(_) => tracing::warn!(lease = self.settings.name, "the API server did not answer in time"),
            }
            if renewed.is_some_and(|renewed| renewed.elapsed() >= self.settings.renew_deadline) {
                let seconds = self.settings.renew_deadline.as_secs();
                return Err(self.lost(format!("it could not be renewed for {seconds} s")));
            }
            let pause = async {
                if stand_by {
                    self.stand_by(&mut changes).await;
                } else {
                    tokio::time::sleep(self.settings.retry.mul_f64(0.75 + 0.25 * fastrand::f64())).await;
                }
            };
            tokio::select! {
                () = stop.cancelled() => return self.hand_over(renewed.is_some()).await,
                () = pause => {}
            }
        }
    }

    /// The record whenever it changes. Nothing is asked before someone waits for it.
    fn changes(&self) -> Changes {
        watch_object(self.api.clone(), &self.settings.name).backoff(super::watch::Pauses::default()).boxed()
    }

    /// Waits until the lease of another was given up, or should be over. Without a watch that is when it
    /// would be over if it were not renewed, and then it is looked at.
    async fn stand_by(&mut self, changes: &mut Changes) {
        loop {
            let left = self.seen.as_ref().map_or(self.settings.retry, |seen| {
                (seen.since + seen.lasts).saturating_duration_since(Instant::now())
            });
            // A moment more: it must be over for longer than it lasts.
            let over = tokio::time::sleep(left + Duration::from_millis(10));
            let lease = tokio::select! {
                () = over => return,
                change = changes.next() => match change {
                    Some(Ok(lease)) => lease,
                    Some(Err(error)) => {
                        tracing::warn!(lease = self.settings.name, %error, "the watch on the lease failed; it is begun again");
                        continue;
                    }
                    None => std::future::pending().await,
                },
            };
            let Some(spec) = lease.and_then(|lease| lease.spec) else { return };
            match spec.holder_identity.clone() {
                Some(holder) if !holder.is_empty() && !self.is_over(&holder, &spec) => {}
                _ => return,
            }
        }
    }

    /// Takes or renews the lease, if that is possible now.
    async fn attempt(&mut self) -> kube::Result<Attempt> {
        let Some(lease) = self.api.get_opt(&self.settings.name).await? else {
            let metadata = ObjectMeta { name: Some(self.settings.name.clone()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.record(None)) };
            return decided(self.api.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        if holder != self.settings.identity && !holder.is_empty() && !self.is_over(&holder, &spec) {
            return Ok(Attempt::HeldBy(holder));
        }
        let ours = Lease { spec: Some(self.record(Some(&spec))), ..lease };
        decided(self.api.replace(&self.settings.name, &PostParams::default(), &ours).await)
    }

    /// Whether another's lease is over: its record has not changed for as long as it says it lasts.
    fn is_over(&mut self, holder: &str, spec: &LeaseSpec) -> bool {
        let lasts = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let lasts = lasts.map_or(self.settings.duration, Duration::from_secs);
        match &self.seen {
            Some(seen) if seen.holder == holder && seen.renewed == spec.renew_time => {
                seen.since.elapsed() > lasts
            }
            _ => {
                self.seen = Some(Seen {
                    holder: holder.to_owned(),
                    renewed: spec.renew_time.clone(),
                    since: Instant::now(),
                    lasts,
                });
                false
            }
        }
    }

    /// The record of this process as the holder, following `before`.
    fn record(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let goes_on = before
            .filter(|before| before.holder_identity.as_deref() == Some(self.settings.identity.as_str()));
        let transitions = before.and_then(|before| before.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.settings.identity.clone()),
            lease_duration_seconds: i32::try_from(self.settings.duration.as_secs()).ok(),
            acquire_time: goes_on
                .and_then(|before| before.acquire_time.clone())
                .or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if goes_on.is_some() {
                transitions
            } else {
                transitions.saturating_add(1)
            }),
            ..LeaseSpec::default()
        }
    }

    fn lead_until(&self, deadline: Instant) {
        let until = deadline.saturating_duration_since(self.leadership.epoch).as_millis() as u64;
        self.leadership.until.store(until, Ordering::Release);
    }

    fn lost(&self, why: String) -> LeaseLost {
        self.leadership.until.store(0, Ordering::Release);
        self.leads.send_replace(false);
        LeaseLost(why)
    }

    /// Gives the lease up, so that the next one need not wait for its end.
    async fn hand_over(self, leads: bool) -> Result<(), LeaseLost> {
        self.leadership.until.store(0, Ordering::Release);
        if !leads {
            return Ok(());
        }
        let give_up = async {
            let mut lease = self.api.get(&self.settings.name).await?;
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() == Some(self.settings.identity.as_str()) {
                spec.holder_identity = Some(String::new());
                self.api.replace(&self.settings.name, &PostParams::default(), &lease).await?;
            }
            Ok::<(), kube::Error>(())
        };
        match tokio::time::timeout(self.settings.retry, give_up).await {
            Ok(Ok(())) => tracing::info!(lease = self.settings.name, "handed over"),
            // It ends by itself.
            Ok(Err(error)) => {
                tracing::warn!(lease = self.settings.name, %error, "cannot hand the lease over")
            }
            Err(_) => tracing::warn!(lease = self.settings.name, "no time to hand the lease over"),
        }
        Ok(())
    }
}

/// A conflict is a lost race, not a failure.
fn decided(written: kube::Result<Lease>) -> kube::Result<Attempt> {
    match written {
        Ok(_) => Ok(Attempt::Held),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(Attempt::Raced),
        Err(error) => Err(error),
    }
}
