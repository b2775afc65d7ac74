//! Leader election by a Lease: of any number of candidates, at most one considers itself the leader.
//!
//! Every write carries the resourceVersion that it is based on, so of two that race one loses. A lease has expired when
//! its record has not changed for its duration by this machine's monotonic clock; clocks of machines are never compared.
//! A leader that cannot renew in time stops leading before another candidate may acquire the lease, even if it was
//! frozen meanwhile. A standby watches the record: it takes over at once when the lease is released, and sends no
//! requests while it is renewed.

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
    Api, Client, Resource,
    api::{Patch, PatchParams, PostParams},
    runtime::{
        WatchStreamExt,
        watcher::{self, watch_object},
    },
};
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{history::History, watch::WatchBackoff};

/// How long the release of the lease may take, however often it is renewed: the next leader would have to wait until it
/// expires.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// Creates the Lease; the candidates then write it by updates.
const FIELD_MANAGER: &str = "orders-operator";

/// The settings of a leader election.
#[derive(Clone, Debug)]
pub struct LeaseSettings {
    /// The namespace of the Lease.
    pub namespace: String,
    /// The name of the Lease.
    pub name: String,
    /// The identity of this candidate, unique among all.
    pub identity: String,
    /// How long after its last renewal others may acquire the lease.
    pub duration: Duration,
    /// How long after its last renewal a leader may go on writing; shorter than `duration`.
    pub renew_deadline: Duration,
    /// How often to renew, and how soon to retry after a failure.
    pub retry: Duration,
}

impl LeaseSettings {
    /// With the defaults of client-go: 15, 10 and 2 seconds.
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

/// Why a candidate ends its process.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LeaseLost {
    /// It was the leader, and another candidate holds the lease, or it could not be renewed in time.
    #[error("the lease was lost: {0}; this process ends, so that there is only one writer")]
    Lost(String),
    /// Nothing that was read before holds any more.
    #[error(
        "the API server shows an earlier state than before, as after a backup was restored; this process exits, to \
         read everything again"
    )]
    WentBack,
}

/// Whether this process leads. Clones share one state.
#[derive(Clone, Debug)]
pub struct Leadership {
    leads: watch::Receiver<bool>,
    /// Until when it may write, in milliseconds after `epoch`.
    until: Arc<AtomicU64>,
    /// When it was last seen that somebody leads, this process or another, in milliseconds after `epoch`.
    led: Arc<AtomicU64>,
    epoch: Instant,
}

impl Leadership {
    /// The leadership of a process that runs without an election.
    pub fn alone() -> Self {
        let (_, leads) = watch::channel(true);
        let (until, led) = (Arc::new(AtomicU64::new(u64::MAX)), Arc::new(AtomicU64::new(u64::MAX)));
        Self { leads, until, led, epoch: Instant::now() }
    }

    /// Waits until this process leads, possibly forever.
    pub async fn begins(&self) {
        if self.leads.clone().wait_for(|leads| *leads).await.is_err() {
            // The candidate is gone without having become the leader.
            std::future::pending::<()>().await;
        }
    }

    /// For how long, as far as this process can see, nobody has been leading.
    pub fn vacant_for(&self) -> Duration {
        self.epoch.elapsed().saturating_sub(Duration::from_millis(self.led.load(Ordering::Acquire)))
    }

    /// Somebody leads at this moment.
    fn somebody_leads(&self) {
        self.led.store(self.epoch.elapsed().as_millis() as u64, Ordering::Release);
    }

    /// Whether this process may write now. If it was frozen for longer than its lease, this is the first to know.
    pub fn may_write(&self) -> bool {
        (self.epoch.elapsed().as_millis() as u64) < self.until.load(Ordering::Acquire)
    }
}

/// A candidate for the lease.
pub struct Candidate {
    api: Api<Lease>,
    settings: LeaseSettings,
    leads: watch::Sender<bool>,
    leadership: Leadership,
    observed: Option<ObservedRecord>,
    history: History,
    /// Whether the record may name this candidate: it has written so, and perhaps not got the answer.
    may_hold: bool,
}

/// The record of another holder, and when it last changed.
struct ObservedRecord {
    holder: String,
    renew_time: Option<MicroTime>,
    since: Instant,
    /// Its `leaseDurationSeconds`.
    duration: Duration,
}

/// The changes of the Lease; none stands for its absence.
type Changes = BoxStream<'static, Result<Option<Lease>, watcher::Error>>;

/// The result of one attempt to acquire or renew the lease.
enum Attempt {
    Held,
    HeldBy(String),
    /// Another candidate wrote at the same time; the next attempt shows what.
    Conflict,
    /// The Lease is at an earlier version than before.
    WentBack,
}

impl Candidate {
    /// A candidate that does not lead yet, and a handle to its leadership.
    pub fn new(client: Client, settings: LeaseSettings) -> (Self, Leadership) {
        let (leads, receiver) = watch::channel(false);
        let (until, led) = (Arc::default(), Arc::default());
        let leadership = Leadership { leads: receiver, until, led, epoch: Instant::now() };
        let api = Api::namespaced(client, &settings.namespace);
        (
            Self {
                api,
                settings,
                leads,
                leadership: leadership.clone(),
                observed: None,
                history: History::default(),
                may_hold: false,
            },
            leadership,
        )
    }

    /// Acquires the lease when possible, renews it, and releases it when `stop` is cancelled.
    ///
    /// # Errors
    /// When it was the leader and has lost the lease, or when the API server has forgotten what it showed before.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), LeaseLost> {
        let mut renewed = None;
        let (mut known_holder, mut refusals) = (String::new(), EveryMinute::default());
        let mut changes = self.changes();
        loop {
            let mut stand_by = false;
            let started = Instant::now();
            // A leader's attempt must not last longer than its leadership.
            let left = renewed.map_or(self.settings.renew_deadline, |renewed: Instant| {
                (renewed + self.settings.renew_deadline).saturating_duration_since(started)
            });
            let attempt = tokio::select! {
                () = stop.cancelled() => return self.release().await,
                attempt = tokio::time::timeout(left, self.attempt()) => attempt,
            };
            match attempt {
                Ok(Ok(Attempt::Held)) => {
                    self.leadership.somebody_leads();
                    // Counted from before the attempt, since the other candidates count from after it.
                    self.extend_until(started + self.settings.renew_deadline);
                    if renewed.replace(started).is_none() {
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
                    self.leadership.somebody_leads();
                }
                Ok(Ok(Attempt::Conflict)) => {}
                Ok(Ok(Attempt::WentBack)) => {
                    self.resign();
                    return Err(LeaseLost::WentBack);
                }
                // It is tried every two seconds; whoever does not lead need not say so each time.
                Ok(Err(error)) if renewed.is_some() || refusals.is_due() => {
                    tracing::warn!(lease = self.settings.name, %error, "cannot acquire or renew the lease")
                }
                Ok(Err(_)) => {}
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
                () = stop.cancelled() => return self.release().await,
                () = pause => {}
            }
        }
    }

    /// The changes of the Lease. No request is sent before the stream is polled.
    fn changes(&self) -> Changes {
        watch_object(self.api.clone(), &self.settings.name).backoff(WatchBackoff::default()).boxed()
    }

    /// Waits until the other holder has released its lease, or the lease should have expired by what the watch has
    /// shown. The next attempt then reads the Lease, so a failed watch delays nothing beyond the lease's duration. It also
    /// tells whether the API server shows an earlier state than the watch did: a watch itself may be behind.
    async fn stand_by(&mut self, changes: &mut Changes) {
        loop {
            let left = self.observed.as_ref().map_or(self.settings.retry, |observed| {
                (observed.since + observed.duration).saturating_duration_since(Instant::now())
            });
            // A little longer, as it expires only after its full duration.
            let expired = tokio::time::sleep(left + Duration::from_millis(10));
            let lease = tokio::select! {
                () = expired => return,
                change = changes.next() => match change {
                    Some(Ok(lease)) => lease,
                    Some(Err(error)) => {
                        tracing::warn!(lease = self.settings.name, %error, "the watch on the lease failed; restarting it");
                        continue;
                    }
                    None => std::future::pending().await,
                },
            };
            let Some(lease) = lease else { return };
            if self.history.went_back(lease.metadata.resource_version.as_deref()) {
                return;
            }
            let Some(spec) = lease.spec else { return };
            match spec.holder_identity.clone() {
                Some(holder) if !holder.is_empty() && !self.is_expired(&holder, &spec) => {
                    self.leadership.somebody_leads();
                }
                _ => return,
            }
        }
    }

    /// Acquires or renews the lease, if that is possible now.
    async fn attempt(&mut self) -> kube::Result<Attempt> {
        let lease = match self.api.get_opt(&self.settings.name).await? {
            Some(lease) => lease,
            None => self.create().await?,
        };
        if self.history.went_back(lease.metadata.resource_version.as_deref()) {
            return Ok(Attempt::WentBack);
        }
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        if holder != self.settings.identity && !holder.is_empty() && !self.is_expired(&holder, &spec) {
            self.may_hold = false;
            return Ok(Attempt::HeldBy(holder));
        }
        let ours = Lease { spec: Some(self.record(&spec)), ..lease };
        self.may_hold = true;
        let written = self.api.replace(&self.settings.name, &PostParams::default(), &ours).await;
        if let Ok(written) = &written
            && self.history.went_back(written.metadata.resource_version.as_deref())
        {
            return Ok(Attempt::WentBack);
        }
        attempted(written)
    }

    /// Creates the Lease, held by nobody, unless another candidate has just done so. By server-side apply, since RBAC
    /// can limit that to a name, but not a POST.
    async fn create(&self) -> kube::Result<Lease> {
        let lease = serde_json::json!({
            "apiVersion": Lease::api_version(&()), "kind": Lease::kind(&()), "metadata": {"name": self.settings.name},
        });
        self.api.patch(&self.settings.name, &PatchParams::apply(FIELD_MANAGER), &Patch::Apply(lease)).await
    }

    /// Whether the lease of another holder has expired: its record has not changed for its duration.
    fn is_expired(&mut self, holder: &str, spec: &LeaseSpec) -> bool {
        let duration = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let duration = duration.map_or(self.settings.duration, Duration::from_secs);
        match &self.observed {
            Some(observed) if observed.holder == holder && observed.renew_time == spec.renew_time => {
                observed.since.elapsed() > duration
            }
            _ => {
                self.observed = Some(ObservedRecord {
                    holder: holder.to_owned(),
                    renew_time: spec.renew_time.clone(),
                    since: Instant::now(),
                    duration,
                });
                false
            }
        }
    }

    /// The record with this candidate as the holder, based on the one before.
    fn record(&self, before: &LeaseSpec) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let is_own = before.holder_identity.as_deref() == Some(self.settings.identity.as_str());
        let transitions = before.lease_transitions.unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.settings.identity.clone()),
            lease_duration_seconds: i32::try_from(self.settings.duration.as_secs()).ok(),
            acquire_time: before.acquire_time.clone().filter(|_| is_own).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if is_own { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        }
    }

    fn extend_until(&self, deadline: Instant) {
        let until = deadline.saturating_duration_since(self.leadership.epoch).as_millis() as u64;
        self.leadership.until.store(until, Ordering::Release);
    }

    fn lost(&self, why: String) -> LeaseLost {
        self.resign();
        LeaseLost::Lost(why)
    }

    fn resign(&self) {
        self.leadership.until.store(0, Ordering::Release);
        self.leads.send_replace(false);
    }

    /// Releases the lease, so that the next leader need not wait until it expires.
    async fn release(self) -> Result<(), LeaseLost> {
        self.leadership.until.store(0, Ordering::Release);
        if !self.may_hold {
            return Ok(());
        }
        let release = async {
            let mut lease = self.api.get(&self.settings.name).await?;
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() == Some(self.settings.identity.as_str()) {
                spec.holder_identity = Some(String::new());
                self.api.replace(&self.settings.name, &PostParams::default(), &lease).await?;
                tracing::info!(lease = self.settings.name, "released the lease");
            }
            Ok::<(), kube::Error>(())
        };
        match tokio::time::timeout(self.settings.retry.max(RELEASE_TIMEOUT), release).await {
            Ok(Ok(())) => {}
            // It expires.
            Ok(Err(error)) => {
                tracing::warn!(lease = self.settings.name, %error, "cannot release the lease")
            }
            Err(_) => tracing::warn!(lease = self.settings.name, "could not release the lease in time"),
        }
        Ok(())
    }
}

/// Lets through what is to be said at once, and then once a minute.
#[derive(Debug, Default)]
struct EveryMinute(Option<Instant>);

impl EveryMinute {
    fn is_due(&mut self) -> bool {
        let is_due = self.0.is_none_or(|said| said.elapsed() >= Duration::from_secs(60));
        if is_due {
            self.0 = Some(Instant::now());
        }
        is_due
    }
}

/// A conflict is a lost race, which is not an error.
fn attempted(written: kube::Result<Lease>) -> kube::Result<Attempt> {
    match written {
        Ok(_) => Ok(Attempt::Held),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(Attempt::Conflict),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        future::pending,
        sync::{Mutex, PoisonError},
    };

    use hyper::{Method, Request, Response};
    use kube::client::Body;
    use serde_json::{Value, json};
    use tokio::sync::Notify;

    use super::*;

    /// An API server with one Lease, which carries out the first update and does not answer it.
    #[derive(Clone)]
    struct ApiServer {
        lease: Arc<Mutex<Value>>,
        is_held: Arc<Notify>,
    }

    impl ApiServer {
        fn new(holder: &str) -> Self {
            let lease = json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": "lease", "namespace": "shop", "resourceVersion": "1"},
                "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15},
            });
            Self { lease: Arc::new(Mutex::new(lease)), is_held: Arc::new(Notify::new()) }
        }

        fn candidate(&self) -> Candidate {
            let server = self.clone();
            let answer = move |request: Request<Body>| {
                let server = server.clone();
                async move { Ok::<_, Infallible>(server.answer(request).await) }
            };
            let client = Client::new(tower::service_fn(answer), "shop");
            Candidate::new(client, LeaseSettings::new("shop", "lease", "me")).0
        }

        async fn answer(&self, request: Request<Body>) -> Response<Body> {
            if request.method() == Method::PUT {
                let body = request.into_body().collect_bytes().await.unwrap();
                let is_first = {
                    let mut lease = self.lease.lock().unwrap_or_else(PoisonError::into_inner);
                    let is_first = lease["metadata"]["resourceVersion"] == "1";
                    *lease = serde_json::from_slice(&body).unwrap();
                    lease["metadata"]["resourceVersion"] = "2".into();
                    is_first
                };
                if is_first {
                    self.is_held.notify_one();
                    pending::<()>().await;
                }
            }
            let lease = self.lease.lock().unwrap_or_else(PoisonError::into_inner).to_string();
            Response::new(Body::from(lease.into_bytes()))
        }

        fn holder(&self) -> String {
            let lease = self.lease.lock().unwrap_or_else(PoisonError::into_inner);
            lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
        }
    }

    #[tokio::test]
    async fn a_lease_that_is_acquired_while_the_process_stops_is_released() {
        let (server, stop) = (ApiServer::new(""), CancellationToken::new());
        let candidate = tokio::spawn(server.candidate().run(stop.clone()));
        server.is_held.notified().await;
        assert_eq!(server.holder(), "me");
        stop.cancel();
        assert_eq!(candidate.await.unwrap(), Ok(()));
        assert_eq!(server.holder(), "");
    }

    #[tokio::test]
    async fn the_lease_of_another_is_left_alone_at_the_end() {
        let server = ApiServer::new("other");
        let mut candidate = server.candidate();
        // It has tried to acquire the lease, and another one was first.
        candidate.may_hold = true;
        assert_eq!(candidate.release().await, Ok(()));
        assert_eq!(server.holder(), "other");
    }

    /// An API server whose Lease has these versions at one read after the other, and `watched` in the list with which a
    /// watch begins; the watch itself shows nothing.
    fn api_server(read: &[u64], watched: Value) -> Client {
        let reads: Vec<_> = read.iter().map(|version| lease(*version, "other")).collect();
        let reads = Arc::new(Mutex::new(reads.into_iter()));
        let service = tower::service_fn(move |request: Request<Body>| {
            let is_of_all = request.uri().path().ends_with("/leases");
            let is_watch = request.uri().query().is_some_and(|query| query.contains("watch="));
            let answer = if is_of_all {
                json!({"apiVersion": "coordination.k8s.io/v1", "kind": "LeaseList", "items": [watched.clone()],
                       "metadata": {"resourceVersion": watched["metadata"]["resourceVersion"]}})
            } else {
                reads.lock().unwrap().next().unwrap()
            };
            async move {
                if is_watch {
                    std::future::pending::<()>().await;
                }
                Ok::<_, Infallible>(Response::new(Body::from(answer.to_string().into_bytes())))
            }
        });
        Client::new(service, "shop")
    }

    fn lease(version: u64, holder: &str) -> Value {
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
               "metadata": {"name": "lease", "namespace": "shop", "resourceVersion": version.to_string()},
               "spec": {"holderIdentity": holder, "leaseDurationSeconds": 3600,
                        "renewTime": "2026-01-01T00:00:00.000000Z"}})
    }

    #[tokio::test]
    async fn a_standby_ends_if_a_read_shows_an_earlier_state_than_its_watch_did() {
        // Once it is released, the Lease is read again.
        let client = api_server(&[10, 500], lease(1000, ""));
        let (candidate, leadership) = Candidate::new(client, LeaseSettings::new("shop", "lease", "me"));
        let ended = candidate.run(CancellationToken::new()).await;
        assert_eq!(ended, Err(LeaseLost::WentBack));
        assert!(!leadership.may_write());
    }

    #[tokio::test]
    async fn a_watch_that_is_behind_is_no_earlier_state() {
        let client = api_server(&[10, 10], lease(9, "other"));
        let (mut candidate, _leadership) = Candidate::new(client, LeaseSettings::new("shop", "lease", "me"));
        let mut changes = candidate.changes();
        assert!(matches!(candidate.attempt().await, Ok(Attempt::HeldBy(_))));
        candidate.stand_by(&mut changes).await;
        assert!(matches!(candidate.attempt().await, Ok(Attempt::HeldBy(_))));
    }
}
