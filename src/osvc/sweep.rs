//! `sweep`: one pass of the sweeper over the database of one OrdersService.

use super::{args::SweepArgs, cluster::Cluster, error::OsvcError, printed::Printed};
use crate::{
    runtime::telemetry::{self, LogArgs, LogFormat},
    sweeper,
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
    sweeper::run_one(cluster.client, &cluster.namespace, &args.name, args.dry_run).await?;
    Ok(Printed { text: String::new(), code: 0 })
}
