//! The controller: makes the cluster what each OrdersService says.
//!
//! A reconcile is five steps: `dereference` fetches what the spec refers to, `validate` names
//! every problem of it, `build` makes the children, `apply` carries out, `status` tells. The
//! middle two are pure. There is no finalizer: the children go with their owner reference.

mod apply;
mod backoff;
pub mod build;
mod cache;
mod claims;
mod dereference;
#[cfg(test)]
mod fixture;
mod gateway;
mod kind;
mod lists;
mod memory;
mod metrics;
mod partial;
mod pods;
mod print;
mod problem;
mod quantity;
mod reconcile;
mod refresh;
pub mod render;
mod replicas;
mod rollout;
mod routes;
mod status;
mod stored;
mod streams;
mod underway;
pub mod validate;
mod version;
mod wake;
mod watched;

use std::{sync::Arc, time::Duration};

use clap::{Args, ValueEnum};
use futures::{StreamExt, stream};
use kube::{
    Client, ResourceExt,
    runtime::{
        controller::{Config, Error as ControllerError},
        watcher,
    },
};
use prometheus_client::registry::Registry;
use tokio::{sync::Semaphore, task::JoinHandle};
use tokio_util::sync::CancellationToken;

pub use dereference::Dereferenced;
pub use problem::Problem;

use self::{
    apply::Children,
    backoff::Backoff,
    claims::Claims,
    dereference::References,
    gateway::Gateways,
    kind::Kind,
    memory::Memory,
    metrics::Metrics,
    problem::Cluster,
    reconcile::{Context, ReconcileError},
    streams::Followed,
    underway::Underway,
    wake::Wake,
    watched::Watched,
};
use crate::{
    routing,
    runtime::{
        Process, RunError,
        admin::{Health, Heartbeat, Readiness},
        cluster,
        events::Events,
        lease::{Candidate, Leadership, LeaseLost, LeaseSettings},
        telemetry::LogArgs,
        watch::{self, WatchArgs},
    },
};

/// How long a reconcile may take before the process counts as stuck. Its calls are bounded one by one,
/// and come to some minutes at the worst.
const STUCK: Duration = Duration::from_secs(600);

/// How many calls to the API server may be under way for each reconcile that may be. One that makes everything new could
/// have more, but each is a connection of its own, for as long as it may be needed again.
const CALLS: usize = 2;

/// How long reconciles that run at the shutdown may go on, before the lease is handed over without them.
const DRAIN: Duration = Duration::from_secs(5);

/// Watches OrdersServices and makes their children.
#[derive(Args, Clone, Debug)]
pub struct ControllerArgs {
    /// Image for OrdersServices that name none; usually the image that this controller itself runs
    #[arg(long, env = "DEFAULT_IMAGE", value_name = "IMAGE")]
    pub default_image: Option<String>,

    /// Namespace to watch; to be repeated, or separated by commas, for several. Default: all
    #[arg(long, env = "WATCH_NAMESPACE", value_name = "NAMESPACE", value_delimiter = ',')]
    pub namespace: Vec<String>,

    /// How many OrdersServices are reconciled at the same time
    #[arg(long, env = "CONCURRENCY", value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub concurrency: u16,

    /// Seconds after which a Secret that OrdersServices name is read again; a change of it rolls the pods
    #[arg(long, env = "SECRET_REFRESH_SECONDS", value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub secret_refresh: u32,

    /// Who may have routes on a host: every namespace, or the one that was first to claim it
    #[arg(long, env = "HOST_POLICY", value_name = "POLICY", value_enum, default_value_t)]
    pub host_policy: HostPolicy,

    /// Namespace of the Lease by which one of several controllers leads. Default: no election, for a
    /// controller that is the only one
    #[arg(long, env = "LEASE_NAMESPACE", value_name = "NAMESPACE")]
    pub lease_namespace: Option<String>,

    /// Name of that Lease
    #[arg(long, env = "LEASE_NAME", value_name = "NAME", default_value = "orders-operator-controller")]
    pub lease_name: String,

    /// Port of /livez, /readyz and /metrics
    #[arg(long, env = "ADMIN_PORT", value_name = "PORT", default_value_t = 8081)]
    pub admin_port: u16,

    /// The watches on the API server
    #[command(flatten)]
    pub watch: WatchArgs,

    /// Logging
    #[command(flatten)]
    pub log: LogArgs,
}

/// Who may have routes on a host.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostPolicy {
    /// Every namespace; each path goes to the oldest object that claims it
    #[default]
    Shared,
    /// The namespace of the oldest object that claims the host
    Namespace,
}

impl From<HostPolicy> for routing::HostPolicy {
    fn from(policy: HostPolicy) -> Self {
        match policy {
            HostPolicy::Shared => Self::Shared,
            HostPolicy::Namespace => Self::Namespace,
        }
    }
}

/// Runs the controller until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start; failures of the API server later on are waited out.
pub async fn run(args: ControllerArgs) -> Result<(), RunError> {
    let health = Health::default();
    let caches = health.readiness("caches");
    let ticking = health.heartbeat("runtime", Duration::from_secs(60));
    let reconciling = health.heartbeat("reconciles", Duration::from_secs(60));
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let mut process = Process::start(args.admin_port, health, registry)?;

    let (client, shutdown) = (cluster(&args.watch).await?, process.shutdown.clone());
    let hand_over = CancellationToken::new();
    let (leadership, mut election) = elect(&client, &args, &hand_over);
    let namespaces = watch::scopes(&args.namespace);
    let children = Children {
        cluster: Arc::new(Cluster::new(
            client.clone(),
            leadership.clone(),
            metrics.clone(),
            CALLS * usize::from(args.concurrency),
        )),
        watched: Watched::new(
            Kind::ALL.into_iter().filter(|kind| kind.is_everywhere()).count() * namespaces.len(),
        ),
        memory: Memory::default(),
        underway: Underway::default(),
        gateways: Gateways::default(),
    };
    let gateways = children.gateways.clone();
    let watched = children.watched.clone();
    let (wake, woken) = Wake::new(&namespaces);
    // The resources and the Ingresses of each scope, and the IngressClasses.
    let claims = Claims::new(args.host_policy.into(), 2 * namespaces.len() + 1, wake.clone());
    let backoff = Arc::new(Backoff::default());
    let config = args.watch.config();
    let classes = streams::follow_classes(&client, config.clone(), &claims, metrics.clone());
    let followed = Followed { config, children: &children, claims: &claims, backoff: &backoff };
    let (services, controllers): (Vec<_>, Vec<_>) = namespaces
        .iter()
        .zip(woken)
        .map(|(namespace, woken)| streams::follow(namespace.as_deref(), &followed, woken))
        .unzip();
    let stores = services.clone();
    let cluster = children.cluster.clone();
    let context = Arc::new(Context {
        events: Events::new(client.clone(), "orders-operator"),
        children,
        references: References::new(Duration::from_secs(args.secret_refresh.into())),
        refresh: Duration::from_secs(args.secret_refresh.into()),
        claims: claims.clone(),
        services,
        wake,
        slots: Semaphore::new(args.concurrency.into()),
        shutdown: shutdown.clone(),
        default_image: args.default_image.clone(),
        backoff,
        metrics: metrics.clone(),
    });
    tracing::info!(namespaces = watch::described(&args.namespace), "controller started");

    let refresh = refresh::follow(&context);
    let run = stream::select_all(controllers.into_iter().map(|controller| {
        controller
            .with_config(Config::default().concurrency(args.concurrency))
            .graceful_shutdown_on(shutdown.clone().cancelled_owned())
            .run(reconcile::reconcile, reconcile::on_error, context.clone())
            .boxed()
    }))
    .for_each(|result| {
        observe(result, &metrics);
        std::future::ready(())
    });
    let tell_readiness = async {
        let filled = async {
            for store in &stores {
                store.wait_until_ready().await.map_err(|error| error.to_string())?;
            }
            watched.filled().await;
            claims.settled().await;
            Ok(())
        };
        futures::join!(tell(&caches, filled), beat(&ticking, &reconciling, &metrics))
    };
    let tell_leadership = async {
        leadership.begins().await;
        metrics.leads();
        std::future::pending::<()>().await;
    };
    let at_gateways = || {
        let all = context.services.iter().flat_map(|services| services.state());
        all.filter(|stored| stored.is_at_gateway())
    };
    let wake_them = || {
        at_gateways()
            .for_each(|found| context.wake.wake(&found.namespace().unwrap_or_default(), &found.name_any()));
    };
    let gateways = gateways.follow(&cluster, || at_gateways().next().is_some(), wake_them);
    let too_late = async {
        shutdown.cancelled().await;
        tokio::time::sleep(DRAIN).await;
        tracing::warn!("reconciles still run; what they write from now on is not sent");
    };
    let result = tokio::select! {
        () = run => if shutdown.is_cancelled() { Ok(()) } else { Err(RunError::Ended) },
        () = too_late => Ok(()),
        error = process.admin_failed() => Err(error),
        ended = &mut election => Err(match ended {
            Ok(Err(lost)) => RunError::LeaseLost(lost),
            Ok(Ok(())) | Err(_) => RunError::Ended,
        }),
        ((), ()) = tell_readiness => Err(RunError::Ended),
        () = tell_leadership => Err(RunError::Ended),
        () = classes => Err(RunError::Ended),
        () = gateways => Err(RunError::Ended),
        () = refresh => Err(RunError::Ended),
    };
    // Only now: nothing is written any more.
    hand_over.cancel();
    if !election.is_finished() && election.await.is_err() {
        tracing::error!("the election had panicked");
    }
    result
}

/// Stands for election, where there is one; the task ends when the lease is lost or handed over.
fn elect(
    client: &Client,
    args: &ControllerArgs,
    hand_over: &CancellationToken,
) -> (Leadership, JoinHandle<Result<(), LeaseLost>>) {
    let hand_over = hand_over.clone();
    let Some(namespace) = &args.lease_namespace else {
        let alone = async move {
            hand_over.cancelled().await;
            Ok(())
        };
        return (Leadership::alone(), tokio::spawn(alone));
    };
    // In a pod the host's name is the pod's. What follows tells its containers' lives apart.
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "controller".into());
    let identity = format!("{host}_{:08x}", fastrand::u32(..));
    let settings = LeaseSettings::new(namespace, &args.lease_name, &identity);
    let (candidate, leadership) = Candidate::new(client.clone(), settings);
    (leadership, tokio::spawn(candidate.run(hand_over)))
}

/// Says that the process is ready once it is.
async fn tell(readiness: &Readiness, filled: impl Future<Output = Result<(), String>>) {
    readiness.set(filled.await);
}

/// Beats as long as the runtime comes round, and no reconcile runs for far too long.
async fn beat(runtime: &Heartbeat, reconciles: &Heartbeat, metrics: &Metrics) {
    loop {
        runtime.beat();
        if metrics.longest_running() < STUCK {
            reconciles.beat();
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
}

fn observe<T>(result: Result<T, ControllerError<ReconcileError, watcher::Error>>, metrics: &Metrics) {
    match result {
        // Success is counted, and failure logged, where the object is at hand.
        Ok(_) | Err(ControllerError::ReconcilerFailed(..)) => {}
        // A child outlives its owner for a moment: that is how garbage collection works.
        Err(ControllerError::ObjectNotFound(object)) => metrics.not_found(&*object),
        Err(error @ (ControllerError::QueueError(_) | ControllerError::RunnerError(_))) => {
            tracing::error!(%error, "the controller's queue failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::reflector::ObjectRef;
    use tokio::time::sleep;

    use super::*;
    use crate::{controller::metrics::Outcome, crd::OrdersService};

    #[tokio::test(start_paused = true)]
    async fn a_process_is_not_alive_while_a_reconcile_never_ends_and_idle_or_slow_it_is() {
        let health = Health::default();
        let is_alive = || health.livez().status().is_success();
        let limit = Duration::from_secs(60);
        let (runtime, reconciles) =
            (health.heartbeat("runtime", limit), health.heartbeat("reconciles", limit));
        let metrics = Metrics::register(&mut Registry::default());
        let counted = metrics.clone();
        let beating = tokio::spawn(async move { beat(&runtime, &reconciles, &counted).await });
        let object = ObjectRef::<OrdersService>::new("orders");
        sleep(10 * STUCK).await;
        assert!(is_alive(), "nothing happened, and nothing had to");
        let slow = metrics.start(&object);
        sleep(STUCK).await;
        assert!(is_alive());
        slow.stop(Outcome::Ok);
        let stuck = metrics.start(&object);
        sleep(STUCK / 2).await;
        metrics.start(&object).stop(Outcome::Ok);
        sleep(STUCK / 2 + limit + Duration::from_secs(10)).await;
        assert!(!is_alive(), "that others come to an end does not hide it");
        drop(stuck);
        sleep(Duration::from_secs(10)).await;
        assert!(is_alive());
        // As when the runtime does not come round any more.
        beating.abort();
        sleep(limit + Duration::from_secs(10)).await;
        assert!(!is_alive());
    }
}
