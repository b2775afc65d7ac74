//! The command line. Each subcommand is one call into the library.
//!
//! ```text
//! run   which call that is, and the code that the program ends with
//! exit  what is printed at the end, and that code
//! ```

mod exit;
mod run;

use std::{
    env,
    ffi::{OsStr, OsString},
    path::Path,
    process::ExitCode,
};

use clap::{Args, CommandFactory, Parser, Subcommand};
use tokio::runtime::Builder;

use self::exit::{failed, printed};
use crate::{
    api, check,
    controller::{self, render},
    events::{dead_letters, identity, publish},
    import, manual, migrate, osvc, sweeper,
};

/// The orders service of a ticketing system on Kubernetes, and its operator.
///
/// In a cluster, the controller creates a Deployment, a Service and an Ingress for each OrdersService; the last
/// rule of the Ingress is the web client. The pods of the Deployment run the orders API (serve). The sweeper
/// moves unpaid orders to cancelled when they expire.
#[derive(Parser)]
#[command(
    name = "orders-operator",
    bin_name = "orders-operator",
    version,
    after_help = "Examples:
  orders-operator crd | kubectl apply -f -                         install the CRD
  orders-operator controller                                       run against $KUBECONFIG's cluster
  orders-operator render examples/ --default-image orders:1        print what would be applied
  orders-operator migrate infra/k8s > orders.yaml                  from hand-written manifests
  orders-operator osvc status orders -n ticketing                  as kubectl osvc status
  orders-operator serve --port 3000                                with JWT_KEY and MONGO_URI set
  orders-operator tickets import tickets.ndjson                    with MONGO_URI set
  orders-operator orders check                                     with MONGO_URI set
  orders-operator events dead-letters list                         with MONGO_URI set
  orders-operator events publish --since 2026-11-22T17:00:00Z      the same"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Create, update and repair the children of every OrdersService
    Controller(controller::ControllerArgs),
    /// Move expired orders to cancelled, in the database of every OrdersService or in one
    ///
    /// An order expires when the clock of the database reaches its expiresAt; the clock of this machine does
    /// not matter. Orders are cancelled by a conditional write, so an order that is paid for at the same
    /// moment is either paid for or cancelled, and no order is cancelled twice, however many sweepers run.
    /// There is no state but the orders: a sweeper can be killed at any moment, and the next one finds
    /// whatever became due meanwhile.
    Sweeper(sweeper::SweeperArgs),
    /// Serve the orders HTTP API
    Serve(Box<api::ServeArgs>),
    /// Print the CustomResourceDefinition as YAML
    Crd,
    /// Print the OpenAPI 3.1 description of the orders HTTP API as JSON
    Openapi,
    /// Print the children that the controller would create for OrdersServices in files, without a cluster
    Render(render::RenderArgs),
    // The help is that of the arguments.
    Migrate(migrate::MigrateArgs),
    /// Look at the OrdersServices of a cluster, as `kubectl osvc` does
    ///
    /// Under the name kubectl-osvc, somewhere on the PATH, this program is a plugin of kubectl: `kubectl osvc status orders`.
    Osvc(Osvc),
    /// Manage the local copies of tickets
    Tickets(Tickets),
    /// Examine the orders of a database
    Orders(Orders),
    /// Look at the events of other services, and publish again what they have lost
    Events(Events),
    // The help of these is that of the arguments.
    Completion(manual::CompletionArgs),
    Man(manual::ManArgs),
}

#[derive(Args)]
struct Osvc {
    #[command(subcommand)]
    command: PluginCommand,
}

/// Look at the OrdersServices of a cluster
///
/// An OrdersService runs the orders API of a ticketing system, and orders its routes with the web client last. This reads what the
/// operator reports of them, with your rights, and changes nothing but by sweep.
#[derive(Parser)]
#[command(name = PLUGIN, bin_name = "kubectl osvc", version)]
struct Plugin {
    #[command(subcommand)]
    command: PluginCommand,
}

#[derive(Subcommand)]
enum PluginCommand {
    #[command(flatten)]
    Osvc(osvc::OsvcCommand),
    /// Print the children that the controller would create for OrdersServices in files, without a cluster
    Render(render::RenderArgs),
    // The help of these is that of the arguments.
    Migrate(migrate::MigrateArgs),
    Completion(manual::CompletionArgs),
}

/// The name by which kubectl finds the program as a plugin.
const PLUGIN: &str = "kubectl-osvc";

#[derive(Args)]
struct Events {
    #[command(subcommand)]
    command: EventsCommand,
}

#[derive(Subcommand)]
enum EventsCommand {
    // The help is that of the arguments.
    DeadLetters(dead_letters::DeadLettersArgs),
    Publish(publish::PublishArgs),
    Identity(identity::IdentityArgs),
}

#[derive(Args)]
struct Tickets {
    #[command(subcommand)]
    command: TicketsCommand,
}

#[derive(Subcommand)]
enum TicketsCommand {
    /// Import tickets from NDJSON, one per line: needed when orders are added to a system that already has tickets
    Import(import::TicketsImportArgs),
}

#[derive(Args)]
struct Orders {
    #[command(subcommand)]
    command: OrdersCommand,
}

#[derive(Subcommand)]
enum OrdersCommand {
    // The help is that of the arguments.
    Check(check::OrdersCheckArgs),
}

/// Whether the program was called by its name as a plugin of kubectl.
fn is_plugin() -> bool {
    let name = env::args_os().next();
    name.as_deref().map(Path::new).and_then(Path::file_stem) == Some(OsStr::new(PLUGIN))
}

/// The words that kubectl wants completed; none if the program was not called for that.
fn words_to_complete() -> Option<Vec<OsString>> {
    let mut words = env::args_os().skip(1);
    (is_plugin() && words.next()? == osvc::COMPLETE).then(|| words.collect())
}

/// Runs the program with the words of its command line; gives the code that it ends with.
pub fn main() -> ExitCode {
    if let Some(words) = words_to_complete() {
        return printed(&osvc::complete(Plugin::command(), words));
    }
    let command = if is_plugin() {
        Command::Osvc(Osvc { command: Plugin::parse().command })
    } else {
        Cli::parse().command
    };
    let mut runtime = match command {
        // The controller mostly waits, and its tasks are short: a thread pool would spend more time on waking threads
        // than on the work.
        Command::Controller(_) => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    match runtime.enable_all().build() {
        Ok(runtime) => runtime.block_on(run::run(command)),
        Err(error) => failed(&error, 1),
    }
}
