//! The controller: makes the cluster what each OrdersService says.
//!
//! A reconcile is five steps: `dereference` fetches what the spec refers to, `validate` names
//! every problem of it, `build` makes the children, `apply` carries out, `status` tells. The
//! middle two are pure. There is no finalizer: the children go with their owner reference.

mod apply;
mod backoff;
pub mod build;
mod dereference;
#[cfg(test)]
mod fixture;
mod metrics;
mod problem;
mod quantity;
mod reconcile;
pub mod render;
mod replicas;
mod status;
pub mod validate;

use std::{sync::Arc, time::Duration};

use clap::Args;
use futures::StreamExt;
use k8s_openapi::api::{
    apps::v1::Deployment,
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{Service, ServiceAccount},
    networking::v1::{Ingress, NetworkPolicy},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Client,
    core::DeserializeGuard,
    runtime::{
        Controller,
        controller::{Config, Error as ControllerError},
        events::{Recorder, Reporter},
        watcher,
    },
};
use prometheus_client::registry::Registry;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use dereference::Dereferenced;
pub use problem::Problem;

use self::{
    problem::Cluster,
    reconcile::{Context, ReconcileError},
};
use crate::{
    crd::OrdersService,
    runtime::{
        Process, RunError,
        admin::Health,
        lease::{Candidate, Leadership, LeaseLost, LeaseSettings},
        telemetry::LogArgs,
        watch,
    },
};

/// Watches OrdersServices and makes their children.
#[derive(Args, Clone, Debug)]
pub struct ControllerArgs {
    /// Image for OrdersServices that name none; usually the image that this controller itself runs
    #[arg(long, env = "DEFAULT_IMAGE", value_name = "IMAGE")]
    pub default_image: Option<String>,

    /// Namespace to watch. Default: all
    #[arg(long, env = "WATCH_NAMESPACE", value_name = "NAMESPACE")]
    pub namespace: Option<String>,

    /// How many OrdersServices are reconciled at the same time
    #[arg(long, env = "CONCURRENCY", value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub concurrency: u16,

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

    /// Logging
    #[command(flatten)]
    pub log: LogArgs,
}

/// Runs the controller until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start; failures of the API server later on are waited out.
pub async fn run(args: ControllerArgs) -> Result<(), RunError> {
    let health = Health::default();
    let caches = health.readiness("caches");
    let ticking = health.heartbeat("runtime", Duration::from_secs(60));
    let mut registry = Registry::default();
    let metrics = metrics::Metrics::register(&mut registry);
    let mut process = Process::start(args.admin_port, health, registry).await?;

    let client = process.client.clone();
    let controller = controller(&client, &args);
    let filled = controller.store();
    let shutdown = process.shutdown.clone();
    let hand_over = CancellationToken::new();
    let (leadership, mut election) = elect(&client, &args, &hand_over);
    let context = Arc::new(Context {
        recorder: Recorder::new(
            client.clone(),
            Reporter { controller: "orders-operator".into(), instance: None },
        ),
        cluster: Cluster { client, leadership: leadership.clone() },
        shutdown: shutdown.clone(),
        default_image: args.default_image.clone(),
        backoff: backoff::Backoff::default(),
        metrics: metrics.clone(),
    });
    tracing::info!(namespace = args.namespace.as_deref().unwrap_or("(all)"), "controller started");

    let run = controller
        .graceful_shutdown_on(shutdown.clone().cancelled_owned())
        .run(reconcile::reconcile, reconcile::on_error, context)
        .for_each(|result| {
            observe(result, &metrics);
            std::future::ready(())
        });
    let tell_readiness = async {
        caches.set(filled.wait_until_ready().await.map_err(|error| error.to_string()));
        loop {
            ticking.beat();
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    };
    let tell_leadership = async {
        leadership.begins().await;
        metrics.leads();
        std::future::pending::<()>().await;
    };
    let result = tokio::select! {
        () = run => if shutdown.is_cancelled() { Ok(()) } else { Err(RunError::Ended) },
        error = process.admin_failed() => Err(error),
        ended = &mut election => Err(match ended {
            Ok(Err(lost)) => RunError::LeaseLost(lost),
            Ok(Ok(())) | Err(_) => RunError::Ended,
        }),
        () = tell_readiness => Err(RunError::Ended),
        () = tell_leadership => Err(RunError::Ended),
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

/// The watches: the resources themselves, and every kind of child, deletions included.
fn controller(client: &Client, args: &ControllerArgs) -> Controller<DeserializeGuard<OrdersService>> {
    let namespace = args.namespace.as_deref();
    Controller::new(watch::api::<DeserializeGuard<OrdersService>>(client, namespace), watch::config())
        .with_config(Config::default().concurrency(args.concurrency))
        .owns(watch::api::<Deployment>(client, namespace), watch::config())
        .owns(watch::api::<Service>(client, namespace), watch::config())
        .owns(watch::api::<Ingress>(client, namespace), watch::config())
        .owns(watch::api::<HorizontalPodAutoscaler>(client, namespace), watch::config())
        .owns(watch::api::<PodDisruptionBudget>(client, namespace), watch::config())
        .owns(watch::api::<ServiceAccount>(client, namespace), watch::config())
        .owns(watch::api::<NetworkPolicy>(client, namespace), watch::config())
}

fn observe<T>(
    result: Result<T, ControllerError<ReconcileError, watcher::Error>>,
    metrics: &metrics::Metrics,
) {
    match result {
        // Success is counted, and failure logged, where the object is at hand. A child outliving its
        // owner for a moment is how garbage collection works.
        Ok(_) | Err(ControllerError::ReconcilerFailed(..) | ControllerError::ObjectNotFound(_)) => {}
        Err(ControllerError::QueueError(error)) => {
            metrics.watch_failed();
            tracing::warn!(%error, "a watch failed; it is begun again");
        }
        Err(error @ ControllerError::RunnerError(_)) => {
            tracing::error!(%error, "the controller's queue failed")
        }
    }
}
