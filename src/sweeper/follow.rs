//! Sweeps for good: the databases of the cluster's OrdersServices, as these come and go, or one.

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
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;

use super::{
    args::SweeperArgs, error::SweeperError, health::TargetHealth, members::Membership, metrics::Metrics,
    ranks::Members, report::Reporter, resolve::Resolver, run::Sweeps,
};
use crate::{
    crd::OrdersService,
    runtime::{
        Process, RunError,
        admin::{self, Heartbeat, Readiness},
        cluster, watch,
    },
};

/// How often all is gone through although no OrdersService changed: Secrets change, and orders expire.
const REFRESH: Duration = Duration::from_secs(5);

/// How long the shutdown waits for the last words to the resources.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Sweeps until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start, or the admin server or the watches end.
pub async fn run(args: &SweeperArgs) -> Result<(), SweeperError> {
    let target = args.target()?;
    let health = admin::Health::default();
    let ready = health.readiness("targets");
    let looping = health.heartbeat("targets", Duration::from_secs(120));
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let mut process = Process::start(args.admin_port, health, registry)?;
    let changed = Arc::new(Notify::new());
    let sweeps = |members| {
        Sweeps::new(metrics.clone(), members, changed.clone(), process.shutdown.clone()).with_cap(args.cap())
    };
    if let Some(target) = target {
        tracing::info!(target = %target.id, "sweeper started");
        let mut sweeps = sweeps(alone());
        sweeps.follow(HashMap::from([(target.id.clone(), target)]));
        ready.set(Ok(()));
        let result = stay(&mut process, &looping).await;
        sweeps.stop().await;
        return Ok(result?);
    }

    let client = cluster(&args.watch).await?;
    let (begun, leave) = (CancellationToken::new(), CancellationToken::new());
    let (members, membership) = match &args.lease_namespace {
        Some(namespace) => {
            let (membership, members) =
                Membership::new(client.clone(), namespace, &args.lease_name, metrics.clone());
            (members, Some(membership.join(args.watch.config(), begun.clone(), leave.clone()).await))
        }
        None => (alone(), None),
    };
    let mut follower = Follower {
        resolver: Resolver::new(client.clone()),
        reporter: Reporter::new(client.clone()),
        sweeps: sweeps(members.clone()),
        services: Vec::new(),
        begun,
    };
    tracing::info!(namespaces = watch::described(&args.namespace), "sweeper started");
    let result =
        follower.run(&client, args, &mut process, &changed, members, &metrics, &ready, &looping).await;
    follower.end(leave, membership).await;
    Ok(result?)
}

fn alone() -> Receiver<Arc<Members>> {
    tokio::sync::watch::channel(Arc::new(Members::alone())).1
}

/// Waits for the end of the process.
async fn stay(process: &mut Process, looping: &Heartbeat) -> Result<(), RunError> {
    let mut beats = tokio::time::interval(REFRESH);
    let shutdown = process.shutdown.clone();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            error = process.admin_failed() => return Err(error),
            _ = beats.tick() => looping.beat(),
        }
    }
}

/// Follows the cluster.
struct Follower {
    resolver: Resolver,
    reporter: Reporter,
    sweeps: Sweeps,
    services: Vec<Arc<DeserializeGuard<OrdersService>>>,
    /// Cancelled when it has begun to sweep.
    begun: CancellationToken,
}

impl Follower {
    #[allow(clippy::too_many_arguments)]
    async fn run(
        &mut self,
        client: &Client,
        args: &SweeperArgs,
        process: &mut Process,
        changed: &Notify,
        mut members: Receiver<Arc<Members>>,
        metrics: &Metrics,
        ready: &Readiness,
        looping: &Heartbeat,
    ) -> Result<(), RunError> {
        let (stores, streams): (Vec<_>, Vec<_>) = watch::scopes(&args.namespace)
            .into_iter()
            .map(|namespace| {
                let api = watch::api::<DeserializeGuard<OrdersService>>(client, namespace.as_deref());
                let (services, writer) = reflector::store();
                let events = watch::events(api, args.watch.config()).modify(watch::spare);
                (services, events.reflect(writer).boxed())
            })
            .unzip();
        let mut events = stream::select_all(streams);
        let mut refresh = tokio::time::interval(REFRESH);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let shutdown = process.shutdown.clone();
        let take = |event: Option<watcher::Result<watcher::Event<_>>>| match event {
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => {
                metrics.watch_failed();
                tracing::warn!(%error, "the watch on OrdersServices failed; it is begun again");
                Ok(())
            }
            None => Err(RunError::Ended),
        };
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                error = process.admin_failed() => return Err(error),
                event = events.next() => take(event)?,
                _ = refresh.tick() => {}
                () = changed.notified() => {}
                Ok(()) = members.changed() => {}
            }
            // What is there already is one change: there may be an event for each of many resources.
            while let Some(event) = events.next().now_or_never() {
                take(event)?;
            }
            looping.beat();
            // Of several namespaces, every list counts.
            if stores.iter().any(|store| store.wait_until_ready().now_or_never().is_none()) {
                continue;
            }
            ready.set(Ok(()));
            self.services = stores.iter().flat_map(|store| store.state()).collect();
            let sweeps = &self.sweeps;
            let is_failing = |id: &_| matches!(sweeps.health(id), TargetHealth::Failing(_));
            let targets = self.resolver.resolve(&self.services, is_failing).await;
            self.reporter.meet(&self.services, &self.resolver, &self.sweeps);
            self.sweeps.follow(targets);
            self.begun.cancel();
            self.reporter.report(&self.services, &self.resolver, &self.sweeps, false).await;
        }
    }

    /// Ends the sweeps, says what they came to, and lets the next sweeper take over.
    async fn end(mut self, leave: CancellationToken, membership: Option<tokio::task::JoinHandle<()>>) {
        leave.cancel();
        self.sweeps.stop().await;
        let last_words = self.reporter.report(&self.services, &self.resolver, &self.sweeps, true);
        if tokio::time::timeout(LAST_WORDS, last_words).await.is_err() {
            tracing::warn!("no time to write the last status of every OrdersService");
        }
        if let Some(membership) = membership
            && membership.await.is_err()
        {
            tracing::error!("the sweeper's membership had panicked");
        }
    }
}
