//! The sweeper: moves expired orders to `cancelled`, in the database of every OrdersService.
//!
//! Nothing but the orders themselves says what is due, so nothing can be lost, and every write is
//! conditional, so any number of sweepers may run, crash or be paused at any moment. `targets`
//! finds the databases, `clock` reads their time, `pacing` says when and how much, `sweep`
//! does it; `report` tells the resources.

mod clock;
mod metrics;
mod pacing;
mod report;
mod resolve;
mod sweep;
mod targets;

use std::{collections::HashMap, sync::Arc, time::Duration};

use clap::Args;
use futures::{FutureExt, StreamExt, stream};
use kube::{
    core::DeserializeGuard,
    runtime::{WatchStreamExt, reflector, watcher},
};
use prometheus_client::registry::Registry;
use tokio::{
    sync::{Notify, watch::Receiver},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use self::{
    metrics::Metrics,
    resolve::Resolver,
    sweep::{Health, HealthSender, StoreProblem},
    targets::Target,
};
use crate::{
    crd::OrdersService,
    runtime::{Process, RunError, admin, telemetry::LogArgs, watch, watch::WatchArgs},
    store::TargetId,
};

/// How often the targets are worked out again although no OrdersService changed: Secrets change too.
const REFRESH: Duration = Duration::from_secs(10);

/// Moves expired orders to cancelled, in the database of every OrdersService.
#[derive(Args, Clone, Debug)]
pub struct SweeperArgs {
    /// Namespace whose OrdersServices are served; to be repeated, or separated by commas, for several.
    /// Default: all
    #[arg(long, env = "WATCH_NAMESPACE", value_name = "NAMESPACE", value_delimiter = ',')]
    pub namespace: Vec<String>,

    /// Port of /livez, /readyz and /metrics
    #[arg(long, env = "ADMIN_PORT", value_name = "PORT", default_value_t = 8082)]
    pub admin_port: u16,

    /// The watches on the API server
    #[command(flatten)]
    pub watch: WatchArgs,

    /// Logging
    #[command(flatten)]
    pub log: LogArgs,
}

/// Runs the sweeper until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start; failures of the API server or of a database later on are waited out.
pub async fn run(args: SweeperArgs) -> Result<(), RunError> {
    let health = admin::Health::default();
    let caches = health.readiness("caches");
    let looping = health.heartbeat("targets", Duration::from_secs(120));
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let mut process = Process::start(args.admin_port, health, registry, &args.watch).await?;
    let (client, shutdown) = (process.client.clone(), process.shutdown.clone());

    let (stores, streams): (Vec<_>, Vec<_>) = watch::scopes(&args.namespace)
        .iter()
        .map(|namespace| {
            let api = watch::api::<DeserializeGuard<OrdersService>>(&client, namespace.as_deref());
            let (services, writer) = reflector::store();
            (
                services,
                watcher(api, args.watch.config()).backoff(watch::Pauses::default()).reflect(writer).boxed(),
            )
        })
        .unzip();
    let mut events = stream::select_all(streams);
    tracing::info!(namespaces = watch::described(&args.namespace), "sweeper started");

    let changed_health = Arc::new(Notify::new());
    let mut sweeps = Sweeps {
        running: HashMap::new(),
        metrics: metrics.clone(),
        changed_health: changed_health.clone(),
        shutdown: shutdown.clone(),
    };
    let mut resolver = Resolver::new(client.clone());
    let mut refresh = tokio::time::interval(REFRESH);
    refresh.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut listed = false;
    let result = loop {
        let changed = tokio::select! {
            () = shutdown.cancelled() => break Ok(()),
            error = process.admin_failed() => break Err(error),
            event = events.next() => match event {
                // A list comes page by page; it counts when it is whole.
                Some(Ok(watcher::Event::Init | watcher::Event::InitApply(_))) => false,
                Some(Ok(_)) => true,
                Some(Err(error)) => {
                    metrics.watch_failed();
                    tracing::warn!(%error, "the watch on OrdersServices failed; it is begun again");
                    false
                }
                None => break Err(RunError::Ended),
            },
            _ = refresh.tick() => listed,
            () = changed_health.notified() => listed,
        };
        looping.beat();
        // Of several namespaces, every list counts.
        listed =
            listed || changed && stores.iter().all(|store| store.wait_until_ready().now_or_never().is_some());
        if changed && listed {
            caches.set(Ok(()));
            let services: Vec<_> = stores.iter().flat_map(|store| store.state()).collect();
            sweeps.follow(resolver.resolve(&services).await);
            report::report(&client, &services, |resource| match resolver.target_of(resource) {
                Some(Ok(id)) => sweeps.health(id),
                Some(Err(problem)) => Health::Failing(StoreProblem {
                    reason: "DatabaseUnreachable",
                    message: format!("the database is not known: {problem}"),
                }),
                None => Health::Unknown,
            })
            .await;
        }
    };
    sweeps.stop().await;
    result
}

/// The sweeps that run, one task for each target.
struct Sweeps {
    running: HashMap<TargetId, Running>,
    metrics: Metrics,
    changed_health: Arc<Notify>,
    shutdown: CancellationToken,
}

struct Running {
    target: Target,
    health: Receiver<Health>,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Sweeps {
    /// Starts what is new, stops what is gone, and does both for what changed.
    fn follow(&mut self, wanted: HashMap<TargetId, Target>) {
        self.running.retain(|id, running| {
            let keep = wanted.get(id) == Some(&running.target) && !running.task.is_finished();
            if !keep {
                // It ends at its next pause; being interrupted anywhere does no harm.
                running.cancel.cancel();
                tracing::info!(target = %id, "sweep stopped");
            }
            keep
        });
        for (id, target) in wanted {
            self.running.entry(id).or_insert_with_key(|id| {
                tracing::info!(target = %id, resources = target.resources.join(","), suspended = target.suspended, "sweep started");
                let cancel = self.shutdown.child_token();
                let (sender, health) = HealthSender::new(self.changed_health.clone());
                let sweep = sweep::run(target.clone(), self.metrics.clone(), sender, cancel.clone());
                Running { target, health, cancel, task: tokio::spawn(sweep) }
            });
        }
        self.metrics.targets(self.running.len());
    }

    /// How a target is.
    fn health(&self, id: &TargetId) -> Health {
        self.running.get(id).map_or(Health::Unknown, |running| running.health.borrow().clone())
    }

    /// Waits for the sweeps to end, which the shutdown has told them to.
    async fn stop(self) {
        self.shutdown.cancel();
        for (id, running) in self.running {
            if running.task.await.is_err() {
                tracing::error!(target = %id, "the sweep had panicked");
            }
        }
    }
}
