//! The command line of the sweeper.

use std::{collections::BTreeSet, time::Duration};

use clap::Args;

use super::{
    error::SweeperError,
    targets::{Target, TargetKey},
};
use crate::{
    runtime::{client::ClientArgs, server::ListenArgs, telemetry::LogArgs, watch::WatchArgs},
    store::{ConnectOptions, TlsArgs},
};

/// Which databases to sweep, for how long, and together with which other sweepers.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = AFTER_HELP)]
pub struct SweeperArgs {
    /// Namespace whose OrdersServices are swept; repeat the flag or separate names by commas for several.
    /// Default: all
    #[arg(
        long,
        env = "WATCH_NAMESPACE",
        value_name = "NAMESPACE",
        value_delimiter = ',',
        help_heading = "Targets"
    )]
    pub namespace: Vec<String>,

    /// Sweep this one database, without a cluster: a mongodb:// or mongodb+srv:// connection string. The
    /// environment variable keeps it out of process listings
    #[arg(long, env = "SWEEPER_URI", value_name = "URI", hide_env_values = true, help_heading = "Targets")]
    pub uri: Option<String>,

    /// Name of that database. Default: the one in the URI, else orders
    #[arg(long, value_name = "NAME", requires = "uri", help_heading = "Targets")]
    pub database: Option<String>,

    /// TLS to that database
    #[command(flatten)]
    pub tls: TlsArgs,

    /// With --uri: by how many seconds an order expires later once its payment has begun
    #[arg(long, value_name = "SECONDS", requires = "uri", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=604_800), help_heading = "Targets")]
    pub payment_grace: u32,

    /// With --uri: the most orders to cancel per second. Default: no limit
    #[arg(long, value_name = "N", requires = "uri", value_parser = clap::value_parser!(u32).range(1..=1_000_000), help_heading = "Targets")]
    pub max_per_second: Option<u32>,

    /// Cancel the orders that are due, print a summary, and exit
    #[arg(long, help_heading = "How long")]
    pub once: bool,

    /// Count the orders that are due, print a summary, and exit; nothing is changed
    #[arg(long, help_heading = "How long")]
    pub dry_run: bool,

    /// The longest sleep, in seconds, between two queries of a database in which no order is known to become
    /// due. An order that is stored or edited during the sleep is late by this at most
    #[arg(long, env = "MAX_SLEEP_SECONDS", value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=600), help_heading = "How long")]
    pub max_sleep: u32,

    /// Namespace of the Lease by which several sweepers share the databases. Default: none, for a single sweeper.
    /// Several without it are still correct, but duplicate their work
    #[arg(long, env = "LEASE_NAMESPACE", value_name = "NAMESPACE", help_heading = "Several sweepers")]
    pub lease_namespace: Option<String>,

    /// Name of that Lease; the same for all sweepers that divide the work
    #[arg(
        long,
        env = "LEASE_NAME",
        value_name = "NAME",
        default_value = "orders-operator-sweeper",
        help_heading = "Several sweepers"
    )]
    pub lease_name: String,

    /// Port of /livez, /readyz and /metrics; not opened with --once or --dry-run
    #[arg(long, env = "ADMIN_PORT", value_name = "PORT", default_value_t = 8082)]
    pub admin_port: u16,

    /// Where that port is opened
    #[command(flatten)]
    pub listen: ListenArgs,

    /// How to reach the API server
    #[command(flatten)]
    pub client: ClientArgs,

    /// The watches on the API server
    #[command(flatten)]
    pub watch: WatchArgs,

    /// Logging
    #[command(flatten)]
    pub log: LogArgs,
}

/// Its lines fit a terminal of 80 columns.
const AFTER_HELP: &str = "\
Several sweepers:
  All of them sweep, without locks. A hash ranks them for each database: the
  first cancels orders when they are due, the second those that are overdue by
  more than 2 seconds, the third by 4. So if one hangs or is killed, its orders
  are cancelled 2 seconds late. One that is stopped takes its entry out of the
  Lease, and the next takes over at once.

Signals:
  SIGTERM, SIGINT   shut down; a second one exits immediately

Exit status:
  0   stopped by a signal; with --once or --dry-run: all databases were swept
      or counted
  1   could not start; or a database could not be swept, see the summary
  2   the command line is wrong

Metrics:
  On /metrics of the admin port, with the prefix orders_operator_sweeper_:
  lateness_seconds, oldest_overdue_seconds, backlog, expired_total,
  conflicts_total, errors_total and more; see docs/sweeper.md.

Examples:
  Every OrdersService of $KUBECONFIG's cluster; those of two namespaces:
    orders-operator sweeper
    orders-operator sweeper --namespace shop,events
  One database, without a cluster; only count what is due there:
    orders-operator sweeper --uri mongodb://localhost/orders
    orders-operator sweeper --uri mongodb://localhost/orders --dry-run
  From cron, or a CronJob:
    SWEEPER_URI=mongodb://... orders-operator sweeper --once";

impl SweeperArgs {
    /// The single database to sweep, if `--uri` names one.
    ///
    /// # Errors
    /// When the connection string or the name is invalid.
    pub fn target(&self) -> Result<Option<Target>, SweeperError> {
        let Some(uri) = self.uri.as_deref().filter(|uri| !uri.is_empty()) else { return Ok(None) };
        let tls = self.tls.read().map_err(SweeperError::Target)?;
        let options = ConnectOptions {
            tls: tls.as_ref(),
            database: self.database.as_deref(),
            ..ConnectOptions::new(uri)
        };
        let id = options.target().map_err(SweeperError::Target)?;
        for warning in options.startup_warnings().map_err(SweeperError::Target)? {
            tracing::warn!("{warning}");
        }
        Ok(Some(Target {
            key: TargetKey { namespace: None, id },
            uri: uri.to_owned(),
            database: self.database.clone(),
            tls,
            grace: Duration::from_secs(self.payment_grace.into()),
            max_per_second: self.max_per_second,
            suspended: false,
            // The database says whether they are on.
            events: BTreeSet::new(),
            warnings: Vec::new(),
            resources: Vec::new(),
        }))
    }

    /// The longest sleep of a target's owner.
    pub fn max_sleep(&self) -> Duration {
        Duration::from_secs(self.max_sleep.into())
    }
}
