//! Sets the controller up, and runs it until the shutdown.

use std::{sync::Arc, time::Duration};

use futures::{Stream, StreamExt, stream};
use kube::{
    Client,
    runtime::{
        Controller,
        controller::{Config, Error as RuntimeError},
        reflector::{ObjectRef, Store},
        watcher,
    },
};
use prometheus_client::registry::Registry;
use thiserror::Error;
use tokio::{sync::Semaphore, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{
    api_server::ApiServer,
    args::ControllerArgs,
    children::{creating::Creating, observed::ObservedChildren, served::Served},
    claims::{
        hosts_file::{HostsFile, HostsFileError},
        registry::ClaimRegistry,
    },
    context::Context,
    known_services::KnownServices,
    metrics::Metrics,
    raw_orders_service::RawOrdersService,
    reconcile::{ReconcileError, error_policy, reconcile},
    resource_state::ResourceStates,
    secrets::{references::Secrets, refresh::Refresh},
    services::OrdersServices,
    trigger::Trigger,
    upgrades::{Limits, Upgrades, mover::Mover},
    watches::{Started, Watches, optional_api::OptionalApi},
};
use crate::runtime::{
    Process, RunError,
    admin::{Health, Heartbeat, Readiness},
    cache_sync::CacheSync,
    cluster,
    events::Events,
    lease::{Candidate, Leadership, LeaseLost, LeaseSettings},
    watch,
};

/// How long a reconcile may take before the process counts as stuck. Each of its requests is bounded, and together they
/// take some minutes in the worst case.
const STUCK_AFTER: Duration = Duration::from_secs(600);

/// For how much longer than the Lease lasts nobody may lead before that counts as wrong: a crashed leader is replaced once its
/// Lease has expired.
const LEADERLESS: Duration = Duration::from_secs(15);

/// How many requests to the API server may be in flight for each reconcile that may run. A reconcile that creates every
/// child could use more, but each takes a connection, which is kept for as long as it may be needed again.
const REQUESTS_PER_RECONCILE: usize = 2;

/// How long reconciles may go on after the shutdown begins, before the lease is handed over without them.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the controller ended.
#[derive(Debug, Error)]
pub enum ControllerError {
    /// What ends every process of ours.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The hosts file cannot be used, and there is no former one: whatever was rendered would be a guess.
    #[error(transparent)]
    HostsFile(#[from] HostsFileError),
    /// There could be two leaders at once.
    #[error(
        "--renew-deadline is {renew_deadline} s, and --lease-duration {lease_duration} s: a controller must end before another \
         one may lead, so make the first one shorter"
    )]
    LeaseTimes {
        /// When a leader ends that cannot renew the Lease.
        renew_deadline: u16,
        /// When another one may lead.
        lease_duration: u16,
    },
}

/// Runs the controller until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start. Failures of the API server later on are waited out.
pub async fn run(args: ControllerArgs) -> Result<(), ControllerError> {
    let (renew_deadline, lease_duration) = (args.renew_deadline, args.lease_duration);
    if renew_deadline >= lease_duration {
        return Err(ControllerError::LeaseTimes { renew_deadline, lease_duration });
    }
    let hosts_file = args.hosts_file.as_deref().map(HostsFile::read).transpose()?;
    Ok(run_with(args, hosts_file).await?)
}

async fn run_with(args: ControllerArgs, hosts_file: Option<HostsFile>) -> Result<(), RunError> {
    let health = Health::default();
    let (ready, is_led) = (health.readiness("caches"), health.readiness("leader"));
    let ticking = health.heartbeat("runtime", Duration::from_secs(60));
    let reconciling = health.heartbeat("reconciles", Duration::from_secs(60));
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let mut process = Process::start(args.listen.at(args.admin_port), health, registry)?;

    let (client, shutdown) = (cluster(&args.client, &args.watch).await?, process.shutdown.clone());
    let hand_over = CancellationToken::new();
    let (leadership, mut election) = elect(&client, &args, &hand_over);
    let api = Arc::new(ApiServer::new(
        client,
        leadership.clone(),
        metrics.clone(),
        REQUESTS_PER_RECONCILE * usize::from(args.concurrency),
    ));
    let namespaces = watch::scopes(&args.namespace);
    let (trigger, queues) = Trigger::new(&namespaces, metrics.clone());
    let claims = ClaimRegistry::new(args.host_policy.into());
    if let Some(file) = &hosts_file {
        claims.set_allowed(file.allowed().clone());
    }
    let (context, watches) = watched(&args, &namespaces, api, claims, trigger, metrics.clone(), &shutdown);
    tracing::info!(namespaces = watch::described(&args.namespace), "controller started");

    let result = tokio::select! {
        () = controllers(watches.stores, queues, &context, args.concurrency) => {
            if shutdown.is_cancelled() { Ok(()) } else { Err(RunError::Ended) }
        }
        () = drain_timeout(&shutdown) => Ok(()),
        error = process.admin_failed() => Err(error),
        ended = &mut election => Err(match ended {
            Ok(Err(lost)) => RunError::LeaseLost(lost),
            Ok(Ok(())) | Err(_) => RunError::Ended,
        }),
        () = watches.run => Err(RunError::Ended),
        () = work_beside(&context, hosts_file, max_age(&args)) => Err(RunError::Ended),
        () = lists_complete(&watches.required_lists, &context.initial_lists, &ready) => Err(RunError::Ended),
        () = leading(&leadership, &metrics) => Err(RunError::Ended),
        () = beat(&ticking, &reconciling, &metrics) => Err(RunError::Ended),
        () = follow_leader(&leadership, &is_led, &args) => Err(RunError::Ended),
    };
    // Not earlier, since nothing is written from here on.
    hand_over.cancel();
    if !election.is_finished() && election.await.is_err() {
        tracing::error!("the election panicked");
    }
    result
}

/// Builds the watches, and what every reconcile uses, most of which they fill.
fn watched(
    args: &ControllerArgs,
    namespaces: &[Option<String>],
    api: Arc<ApiServer>,
    claims: ClaimRegistry,
    trigger: Trigger,
    metrics: Metrics,
    shutdown: &CancellationToken,
) -> (Arc<Context>, Started) {
    let (observed, states) = (ObservedChildren::default(), ResourceStates::default());
    let (gateway_api, middlewares) = (Served::default(), Served::default());
    let known_services = KnownServices::default();
    let watches = Watches {
        config: args.watch.config(),
        api: &api,
        observed: &observed,
        states: &states,
        claims: &claims,
        known_services: &known_services,
        gateway_api: &gateway_api,
        middlewares: &middlewares,
        ingress_classes: args.ingress_classes,
        trigger: &trigger,
        metrics: &metrics,
    }
    .start(namespaces);
    let context = Context {
        services: OrdersServices::new(watches.stores.clone()),
        observed,
        creating: Creating::default(),
        states,
        claims,
        known_services,
        secrets: Secrets::new(max_age(args)),
        gateway_api,
        middlewares,
        initial_lists: watches.initial_lists.clone(),
        trigger,
        events: Events::new(api.client.clone(), "orders-operator"),
        metrics,
        slots: Semaphore::new(args.concurrency.into()),
        shutdown: shutdown.clone(),
        identity: identity(args),
        awaits_sweeper: args.await_sweeper,
        upgrades: Upgrades::new(args.default_image.clone(), limits(args)),
        user_from_cluster: args.user_from_cluster,
        traefik_safe_naming: args.traefik_safe_naming,
        api,
    };
    (Arc::new(context), watches)
}

/// Reconciles what is queued, until the shutdown and the end of the reconciles that run then.
async fn controllers(
    stores: Vec<Store<RawOrdersService>>,
    queues: Vec<impl Stream<Item = ObjectRef<RawOrdersService>> + Send + 'static>,
    context: &Arc<Context>,
    concurrency: u16,
) {
    let controllers = stores.into_iter().zip(queues).map(|(store, queue)| {
        Controller::<RawOrdersService>::for_stream(stream::pending(), store)
            .reconcile_on(queue)
            .with_config(Config::default().concurrency(concurrency))
            .graceful_shutdown_on(context.shutdown.clone().cancelled_owned())
            .run(reconcile, error_policy, context.clone())
            .boxed()
    });
    let mut results = stream::select_all(controllers);
    while let Some(result) = results.next().await {
        observe(result, &context.metrics);
    }
}

/// Ends some time after the shutdown has begun.
async fn drain_timeout(shutdown: &CancellationToken) {
    shutdown.cancelled().await;
    tokio::time::sleep(DRAIN_TIMEOUT).await;
    tracing::warn!("some reconciles are still running; what they write from now on is not sent");
}

/// What goes on beside the reconciles, without end: reads Secrets again, moves OrdersServices to a new image, looks for optional
/// APIs, and follows the hosts file.
async fn work_beside(context: &Context, hosts_file: Option<HostsFile>, max_age: Duration) {
    let Context { api, services, claims, trigger, secrets, metrics, .. } = context;
    let probe = async |of: OptionalApi<'_>| of.probe(api, claims, services, trigger).await;
    let refresh = Refresh { api, secrets, services, trigger, max_age };
    let mover = Mover {
        upgrades: &context.upgrades,
        api,
        services,
        initial_lists: &context.initial_lists,
        events: &context.events,
        metrics,
    };
    let follow_hosts = async {
        match hosts_file {
            Some(file) => file.follow(claims, trigger, metrics).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = probe(OptionalApi::gateway(&context.gateway_api)) => {}
        () = probe(OptionalApi::traefik(&context.middlewares)) => {}
        () = refresh.run() => {}
        () = mover.run() => {}
        () = follow_hosts => {}
    }
}

/// Keeps the readiness that tells whether the initial lists are complete. It never ends.
async fn lists_complete(required: &CacheSync, all: &CacheSync, ready: &Readiness) {
    synced(required).await;
    synced(all).await;
    ready.set(Ok(()));
    std::future::pending().await
}

/// Counts when this process becomes the leader. It never ends.
async fn leading(leadership: &Leadership, metrics: &Metrics) {
    leadership.begins().await;
    metrics.became_leader();
    std::future::pending().await
}

/// How old the copies of Secrets may get.
fn max_age(args: &ControllerArgs) -> Duration {
    Duration::from_secs(args.secret_refresh.into())
}

/// Waits until the lists are complete; if that takes long, logs which are not.
async fn synced(lists: &CacheSync) {
    const PATIENCE: Duration = Duration::from_secs(30);
    while tokio::time::timeout(PATIENCE, lists.synced()).await.is_err() {
        tracing::warn!(
            kinds = lists.pending().join(","),
            "still waiting for the initial lists of these kinds"
        );
    }
}

/// Stands for election, if there is one. The task ends when the lease is lost or handed over.
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
    // The suffix distinguishes the lives of a container.
    let identity = format!("{}_{:08x}", host_name(), fastrand::u32(..));
    let settings = LeaseSettings {
        duration: lease_duration(args),
        renew_deadline: Duration::from_secs(args.renew_deadline.into()),
        ..LeaseSettings::new(namespace, &args.lease_name, &identity)
    };
    let (candidate, leadership) = Candidate::new(client.clone(), settings);
    (leadership, tokio::spawn(candidate.run(hand_over)))
}

fn lease_duration(args: &ControllerArgs) -> Duration {
    Duration::from_secs(args.lease_duration.into())
}

/// How OrdersServices are moved to a new image.
fn limits(args: &ControllerArgs) -> Limits {
    Limits {
        concurrent: args.rollout_max_concurrent.into(),
        pause: Duration::from_secs(args.rollout_pause.into()),
        failures: args.rollout_stop_after_failures.into(),
    }
}

/// The operator's name for others: the Lease, which the replicas of one installation share.
fn identity(args: &ControllerArgs) -> String {
    args.lease_namespace
        .as_ref()
        .map_or_else(host_name, |namespace| format!("{namespace}/{}", args.lease_name))
}

/// The name of the host, which in a pod is the pod's.
fn host_name() -> String {
    std::env::var("HOSTNAME").unwrap_or_else(|_| "controller".into())
}

/// Beats as long as the runtime makes progress, and no single reconcile has been running for far too long.
async fn beat(runtime: &Heartbeat, reconciles: &Heartbeat, metrics: &Metrics) {
    loop {
        runtime.beat();
        if metrics.longest_running() < STUCK_AFTER {
            reconciles.beat();
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
}

/// Keeps the readiness that tells whether somebody leads: without a leader nothing is reconciled, and no condition can say
/// so.
async fn follow_leader(leadership: &Leadership, is_led: &Readiness, args: &ControllerArgs) {
    const LOOK: Duration = Duration::from_secs(1);
    const SAID_AGAIN: u32 = 60;
    let namespace = args.lease_namespace.as_deref().unwrap_or_default();
    let missing = format!(
        "nobody leads, so nothing is reconciled: check that this account has the chart's permissions on Lease \
         {namespace}/{}, and that the API server accepts writes",
        args.lease_name
    );
    let mut silent_for = SAID_AGAIN;
    loop {
        if leadership.vacant_for() < lease_duration(args) + LEADERLESS {
            is_led.set(Ok(()));
            silent_for = SAID_AGAIN;
        } else {
            is_led.set(Err(missing.clone()));
            if silent_for >= SAID_AGAIN {
                tracing::error!("{missing}; the log has the reason");
                silent_for = 0;
            }
            silent_for += 1;
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn observe<T>(result: Result<T, RuntimeError<ReconcileError, watcher::Error>>, metrics: &Metrics) {
    match result {
        // Success is counted and failure logged in the reconcile, which has the object.
        Ok(_) | Err(RuntimeError::ReconcilerFailed(..)) => {}
        // A child outlives its owner until it is garbage-collected.
        Err(RuntimeError::ObjectNotFound(object)) => metrics.not_found(&(&*object).into()),
        Err(error @ (RuntimeError::QueueError(_) | RuntimeError::RunnerError(_))) => {
            tracing::error!(%error, "the controller's queue failed");
        }
    }
}

#[cfg(test)]
mod tests {

    use tokio::time::sleep;

    use super::*;
    use crate::controller::{metrics::ReconcileResult, object_key::ObjectKey};

    #[tokio::test(start_paused = true)]
    async fn a_stuck_reconcile_fails_the_liveness_probe_and_an_idle_or_slow_one_does_not() {
        let health = Health::default();
        let is_alive = || health.livez().status().is_success();
        let limit = Duration::from_secs(60);
        let (runtime, reconciles) =
            (health.heartbeat("runtime", limit), health.heartbeat("reconciles", limit));
        let metrics = Metrics::register(&mut Registry::default());
        let counted = metrics.clone();
        let beating = tokio::spawn(async move { beat(&runtime, &reconciles, &counted).await });
        let object = ObjectKey::new("shop", "orders");
        sleep(10 * STUCK_AFTER).await;
        assert!(is_alive(), "nothing happened, and nothing had to");
        let slow = metrics.reconcile_started(&object);
        sleep(STUCK_AFTER).await;
        assert!(is_alive());
        slow.stop(ReconcileResult::Ok);
        let stuck = metrics.reconcile_started(&object);
        sleep(STUCK_AFTER / 2).await;
        metrics.reconcile_started(&object).stop(ReconcileResult::Ok);
        sleep(STUCK_AFTER / 2 + limit + Duration::from_secs(10)).await;
        assert!(!is_alive(), "that others come to an end does not hide it");
        drop(stuck);
        sleep(Duration::from_secs(10)).await;
        assert!(is_alive());
        // As if the runtime made no progress.
        beating.abort();
        sleep(limit + Duration::from_secs(10)).await;
        assert!(!is_alive());
    }
}
