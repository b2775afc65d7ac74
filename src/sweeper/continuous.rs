//! The continuous mode: sweeps the databases of the cluster's OrdersServices as these change, or a single database.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, stream};
use kube::{
    Client,
    core::DeserializeGuard,
    runtime::{WatchStreamExt, reflector, watcher},
};
use prometheus_client::registry::Registry;
use tokio::{
    sync::{Notify, watch::Receiver},
    time::{Instant, MissedTickBehavior, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    args::SweeperArgs, error::SweeperError, health::TargetHealth, membership::Membership, metrics::Metrics,
    peers::Peers, report::Reporter, resolve::Resolver, tasks::Sweeps,
};
use crate::{
    crd::OrdersService,
    runtime::{
        Process, RunError,
        admin::{Health, Heartbeat, Readiness},
        cluster,
        lease::LeaseLost,
        watch,
    },
};

/// How often all resources are processed although none has changed: Secrets change, and orders expire.
const RESYNC: Duration = Duration::from_secs(5);

/// The shortest interval between the beginnings of two rounds over all resources, however often something changes.
const MIN_INTERVAL: Duration = Duration::from_millis(250);

/// How long the shutdown waits for the final status updates: what is not written then is never counted. A third of what the
/// kubelet allows for the whole of it.
const FINAL_REPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// Sweeps until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start, or the admin server or the watches end.
pub async fn run(args: &SweeperArgs) -> Result<(), SweeperError> {
    let target = args.target()?;
    let health = Health::default();
    let ready = health.readiness("targets");
    let heartbeat = health.heartbeat("targets", Duration::from_secs(120));
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let mut process = Process::start(args.listen.at(args.admin_port), health, registry)?;
    let changed = Arc::new(Notify::new());
    let sweeps = |peers| {
        Sweeps::new(metrics.clone(), peers, changed.clone(), process.shutdown.clone())
            .with_max_sleep(args.max_sleep())
    };
    if let Some(target) = target {
        tracing::info!(target = %target.key, "sweeper started");
        let mut sweeps = sweeps(alone());
        sweeps.set_targets(HashMap::from([(target.key.clone(), target)]));
        ready.set(Ok(()));
        let result = run_until_shutdown(&mut process, &heartbeat).await;
        sweeps.stop().await;
        return Ok(result?);
    }

    let client = cluster(&args.client, &args.watch).await?;
    let (sweeping, leave) = (CancellationToken::new(), CancellationToken::new());
    let went_back = CancellationToken::new();
    let (peers, membership) = match &args.lease_namespace {
        Some(namespace) => {
            let (membership, peers) = Membership::new(
                client.clone(),
                namespace,
                &args.lease_name,
                metrics.clone(),
                went_back.clone(),
            );
            (peers, Some(membership.join(args.watch.config(), sweeping.clone(), leave.clone()).await))
        }
        None => (alone(), None),
    };
    let mut sweeper = ClusterSweeper {
        resolver: Resolver::new(client.clone()),
        reporter: Reporter::new(client.clone()),
        sweeps: sweeps(peers.clone()),
        services: Vec::new(),
        sweeping,
    };
    tracing::info!(namespaces = watch::described(&args.namespace), "sweeper started");
    let result = tokio::select! {
        result = sweeper.run(&client, args, &mut process, &changed, peers, &metrics, &ready, &heartbeat) => result,
        () = went_back.cancelled() => Err(LeaseLost::WentBack.into()),
    };
    sweeper.stop(leave, membership).await;
    Ok(result?)
}

fn alone() -> Receiver<Arc<Peers>> {
    tokio::sync::watch::channel(Arc::new(Peers::alone())).1
}

/// Waits for the shutdown of the process.
async fn run_until_shutdown(process: &mut Process, heartbeat: &Heartbeat) -> Result<(), RunError> {
    let mut beats = tokio::time::interval(RESYNC);
    let shutdown = process.shutdown.clone();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            error = process.admin_failed() => return Err(error),
            _ = beats.tick() => heartbeat.beat(),
        }
    }
}

/// Sweeps the databases of a cluster's OrdersServices.
struct ClusterSweeper {
    resolver: Resolver,
    reporter: Reporter,
    sweeps: Sweeps,
    services: Vec<Arc<DeserializeGuard<OrdersService>>>,
    /// Cancelled once it has started to sweep.
    sweeping: CancellationToken,
}

impl ClusterSweeper {
    #[allow(clippy::too_many_arguments)]
    async fn run(
        &mut self,
        client: &Client,
        args: &SweeperArgs,
        process: &mut Process,
        changed: &Notify,
        mut peers: Receiver<Arc<Peers>>,
        metrics: &Metrics,
        ready: &Readiness,
        heartbeat: &Heartbeat,
    ) -> Result<(), RunError> {
        let (stores, streams): (Vec<_>, Vec<_>) = watch::scopes(&args.namespace)
            .into_iter()
            .map(|namespace| {
                let api = watch::api::<DeserializeGuard<OrdersService>>(client, namespace.as_deref());
                let (services, writer) = reflector::store();
                let events = watch::events(api, args.watch.config()).modify(watch::strip_unused_metadata);
                (services, events.reflect(writer).boxed())
            })
            .unzip();
        let mut events = stream::select_all(streams);
        let mut resync = tokio::time::interval(RESYNC);
        resync.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let shutdown = process.shutdown.clone();
        let check = |event: Option<watcher::Result<watcher::Event<_>>>| match event {
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => {
                metrics.watch_failed();
                tracing::warn!(%error, "the watch on OrdersServices failed; restarting it");
                Ok(())
            }
            None => Err(RunError::Ended),
        };
        let (mut next, mut is_due) = (Instant::now(), false);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                error = process.admin_failed() => return Err(error),
                () = sleep_until(next), if is_due => {}
                event = events.next() => check(event)?,
                _ = resync.tick() => {}
                () = changed.notified() => {}
                Ok(()) = peers.changed() => {}
            }
            // All events that are ready are processed together: an initial list has one for each resource.
            while let Some(event) = events.next().now_or_never() {
                check(event)?;
            }
            heartbeat.beat();
            // The lists of all namespaces must have arrived, or targets would be missing.
            if stores.iter().any(|store| store.wait_until_ready().now_or_never().is_none()) {
                continue;
            }
            ready.set(Ok(()));
            is_due = Instant::now() < next;
            if is_due {
                continue;
            }
            next = Instant::now() + MIN_INTERVAL;
            self.services = stores.iter().flat_map(|store| store.state()).collect();
            self.round(&shutdown).await;
        }
    }

    /// One round over all resources. It is given up at the shutdown: the API server may be what does not answer.
    async fn round(&mut self, shutdown: &CancellationToken) {
        let round = async {
            let sweeps = &self.sweeps;
            let is_failing = |id: &_| matches!(sweeps.health(id), TargetHealth::Failing(_));
            let targets = self.resolver.resolve(&self.services, is_failing).await;
            self.reporter.track(&self.services, &self.resolver, &self.sweeps);
            self.sweeps.set_targets(targets);
            self.sweeping.cancel();
            self.reporter.report(&self.services, &self.resolver, &self.sweeps).await;
        };
        shutdown.run_until_cancelled(round).await;
    }

    /// Lets the peers take over, stops the sweeps, and writes the final status updates.
    async fn stop(mut self, leave: CancellationToken, membership: Option<tokio::task::JoinHandle<()>>) {
        leave.cancel();
        self.sweeps.stop().await;
        let final_report = self.reporter.flush(&self.services, &self.resolver, &self.sweeps);
        if tokio::time::timeout(FINAL_REPORT_TIMEOUT, final_report).await.is_err() {
            tracing::warn!("could not write the final status of every OrdersService in time");
        }
        if let Some(membership) = membership
            && membership.await.is_err()
        {
            tracing::error!("the task that renews this sweeper's entry in the Lease has panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future::pending};

    use hyper::{Request, Response, StatusCode};
    use kube::client::Body;
    use serde_json::json;
    use tokio::time::sleep;

    use super::*;

    /// A sweeper with one resource, whose API server has no Secrets and does not answer what goes to a path with this end.
    fn sweeper(silent: &'static str) -> ClusterSweeper {
        let answer = move |request: Request<Body>| async move {
            if request.uri().path().ends_with(silent) {
                pending::<()>().await;
            }
            let body = json!({"status": "Failure", "reason": "NotFound", "code": 404}).to_string();
            let answer = Response::builder().status(StatusCode::NOT_FOUND);
            Ok::<_, Infallible>(answer.body(Body::from(body.into_bytes())).unwrap())
        };
        let client = Client::new(tower::service_fn(answer), "shop");
        let service = json!({
            "apiVersion": "ticketing.dev/v1alpha1", "kind": "OrdersService",
            "metadata": {"name": "orders", "namespace": "shop", "uid": "u", "generation": 1},
            "spec": {"auth": {"jwtSecretRef": {"name": "jwt"}}, "database": {"uriSecretRef": {"name": "mongo"}}},
        });
        let metrics = Metrics::register(&mut Registry::default());
        ClusterSweeper {
            resolver: Resolver::new(client.clone()),
            reporter: Reporter::new(client),
            sweeps: Sweeps::new(metrics, alone(), Arc::new(Notify::new()), CancellationToken::new()),
            services: vec![Arc::new(serde_json::from_value(service).unwrap())],
            sweeping: CancellationToken::new(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_shutdown_waits_for_no_round_that_the_api_server_holds_up() {
        for (silent, longest) in [("/secrets/mongo", 1), ("/status", 11)] {
            let (mut sweeper, shutdown) = (sweeper(silent), CancellationToken::new());
            let begun = Instant::now();
            let stop = async {
                sleep(Duration::from_secs(1)).await;
                shutdown.cancel();
            };
            tokio::join!(sweeper.round(&shutdown), stop);
            assert_eq!(begun.elapsed().as_secs(), 1, "{silent}");
            sweeper.stop(CancellationToken::new(), None).await;
            assert!(begun.elapsed().as_secs() <= longest, "{silent}: {:?}", begun.elapsed());
        }
    }
}
