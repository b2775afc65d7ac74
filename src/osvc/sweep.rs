//! `sweep`: one pass of the sweeper over the database of one OrdersService.

use kube::{Api, api::ListParams, core::DeserializeGuard};

use super::{
    args::SweepArgs,
    cluster::Cluster,
    error::{AskError, OsvcError},
    printed::Printed,
};
use crate::{
    crd::OrdersService,
    runtime::telemetry::{self, LogArgs, LogFormat},
    sweeper::{self, One},
};

/// Cancels what is due, or counts it. The sweeper prints its summary itself.
///
/// # Errors
/// When it cannot.
pub(super) async fn run(args: &SweepArgs) -> Result<Printed, OsvcError> {
    // What it says of single orders is in its log.
    let (log_format, log_level) = (LogFormat::Text, "warn".to_owned());
    let log = LogArgs { log_format, log_level, otlp_endpoint: None, otlp_certificate: None };
    telemetry::init(&log, "orders-operator-sweep").map_err(OsvcError::Log)?;
    let cluster = Cluster::of(&args.cluster).await?;
    let namespace = &cluster.namespace;
    let api = Api::<DeserializeGuard<OrdersService>>::namespaced(cluster.client.clone(), namespace);
    let what = format!("list OrdersServices in namespace {namespace}");
    let services = match cluster.list(&what, &api, ListParams::default()).await {
        Err(AskError::NotFound(_)) => return Err(OsvcError::NoSuchKind),
        listed => listed?,
    };
    let one = One { namespace, name: &args.name, call_timeout: cluster.patience };
    sweeper::run_one(cluster.client.clone(), services, &one, args.dry_run).await?;
    Ok(Printed { text: String::new(), code: 0 })
}
