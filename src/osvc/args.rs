//! The command line of `kubectl osvc`.

use clap::{Args, Subcommand};

use super::{cluster::ClusterArgs, printed::Output};

/// What is asked.
#[derive(Subcommand, Clone, Debug)]
pub enum OsvcCommand {
    /// Show one OrdersService: conditions, routes in order, pods, expiry and events
    ///
    /// Routes are shown as rendered, in the order in which they are matched, with the client last, and then the
    /// conflicts: routes of this resource that another object has, and the reverse.
    Status(StatusArgs),
    /// Explain which OrdersService, rule, Service and pods handle a request, and why
    ///
    /// Considers every OrdersService, Ingress and HTTPRoute in the cluster. The rules are those in the status of each
    /// OrdersService.
    Explain(ExplainArgs),
    /// Cancel the orders that are due in the database of one OrdersService
    ///
    /// Runs one pass of the sweeper, with the connection string in the Secret of the OrdersService. It connects from
    /// where it runs: run it where the name of the database resolves, such as in the operator's pod, or forward its
    /// port.
    Sweep(SweepArgs),
    /// Check the health of the cluster, the operator and its OrdersServices
    ///
    /// Each line is ok, a warning or a failure, with what to do. It does not connect to databases and brokers: their
    /// state is what the operator reports.
    Check(CheckArgs),
}

/// The command line of `status`.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = STATUS_HELP)]
pub struct StatusArgs {
    /// Name of the OrdersService
    #[arg(value_name = "NAME")]
    pub name: String,

    /// Output format
    #[arg(long, short, value_enum, value_name = "FORMAT", default_value_t)]
    pub output: Output,

    /// The way to the API server
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// The command line of `explain`.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = EXPLAIN_HELP, mut_arg("namespace", |arg| arg.help(EXPLAINED_NAMESPACE)))]
pub struct ExplainArgs {
    /// A URL, HOST/PATH, or /PATH for every host
    #[arg(value_name = "URL")]
    pub url: String,

    /// The way to the API server
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// The command line of `sweep`.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = SWEEP_HELP)]
pub struct SweepArgs {
    /// Name of the OrdersService
    #[arg(value_name = "NAME")]
    pub name: String,

    /// Only count the orders that are due; nothing is changed
    #[arg(long)]
    pub dry_run: bool,

    /// The way to the API server
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// The command line of `check`.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = CHECK_HELP, mut_arg("namespace", |arg| arg.help(CHECKED_NAMESPACE)))]
pub struct CheckArgs {
    /// Check whether the operator can be installed
    #[arg(long)]
    pub pre: bool,

    /// Namespace of the operator, if you may not list all namespaces; with --pre, where to install it
    #[arg(long, value_name = "NAMESPACE", default_value = "orders-operator")]
    pub operator_namespace: String,

    /// Output format
    #[arg(long, short, value_enum, value_name = "FORMAT", default_value_t)]
    pub output: Output,

    /// The way to the API server
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

const EXPLAINED_NAMESPACE: &str =
    "Only consider objects in this namespace, if you may not list all [default: all]";

const CHECKED_NAMESPACE: &str = "Only check the OrdersServices of this namespace [default: of all]";

/// Its lines fit a terminal of 80 columns, as those of the others.
const STATUS_HELP: &str = "\
Exit status:
  0   it is ready: the condition Ready is True for the current spec
  1   it is not, or is not there, or the API server has no answer
  2   the command line is wrong

Examples:
  kubectl osvc status orders -n ticketing
  kubectl osvc status orders -o json | jq .conditions";

const EXPLAIN_HELP: &str = "\
Exit status:
  0   a rule matches
  1   no rule matches, or the API server has no answer
  2   the command line is wrong

Examples:
  kubectl osvc explain https://ticketing.dev/api/orders/5
  kubectl osvc explain /api/users -n ticketing";

const SWEEP_HELP: &str = "\
Exit status:
  0   what was due is cancelled, or counted; or its expiry is suspended
  1   it could not be
  2   the command line is wrong

Examples:
  kubectl osvc sweep orders -n ticketing --dry-run
  kubectl -n orders-operator exec deploy/orders-operator -c sweeper -- \\
    /orders-operator osvc sweep orders -n ticketing

With sweeper.separate=true it is deploy/orders-operator-sweeper.";

const CHECK_HELP: &str = "\
Exit status:
  0   nothing fails; there may be warnings
  1   something fails, or the API server has no answer
  2   the command line is wrong

Examples:
  kubectl osvc check --pre
  kubectl osvc check
  kubectl osvc check -n ticketing -o json";
