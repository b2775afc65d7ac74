//! The command line. Each subcommand is one call into the library.

use std::{
    env,
    ffi::{OsStr, OsString},
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use clap::{Args, CommandFactory, Parser, Subcommand};
use orders_operator::{
    api, check,
    controller::{self, render},
    crd,
    events::{dead_letters, identity, publish},
    import, manual, migrate, osvc,
    runtime::{telemetry, traces::Traces},
    sweeper,
};
use tokio::runtime::Builder;

/// The orders service of a ticketing system on Kubernetes, and its operator.
///
/// In a cluster, the controller creates a Deployment, a Service and an Ingress for each OrdersService; the last
/// rule of the Ingress is the web client. The pods of the Deployment run the orders API (serve). The sweeper
/// moves unpaid orders to cancelled when they expire.
#[derive(Parser)]
#[command(
    name = "orders-operator",
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

fn main() -> ExitCode {
    if let Some(words) = words_to_complete() {
        return exit_code(print(&osvc::complete(Plugin::command(), words)));
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
        Ok(runtime) => runtime.block_on(run(command)),
        Err(error) => failed(&error, 1),
    }
}

async fn run(command: Command) -> ExitCode {
    match command {
        Command::Controller(args) => {
            let traces = match telemetry::init(&args.log, "orders-operator-controller") {
                Ok(traces) => traces,
                Err(error) => return failed(&error, 1),
            };
            flush(exit_code(controller::run(args).await), traces).await
        }
        Command::Sweeper(args) => {
            let traces = match telemetry::init(&args.log, "orders-operator-sweeper") {
                Ok(traces) => traces,
                Err(error) => return failed(&error, 1),
            };
            let code = match sweeper::run(args).await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failed(&error, error.exit_code()),
            };
            flush(code, traces).await
        }
        Command::Serve(args) => {
            let traces = match telemetry::init(&args.log, "orders-operator-serve") {
                Ok(traces) => traces,
                Err(error) => return failed(&error, 1),
            };
            let code = match api::serve(*args).await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failed(&error, error.exit_code()),
            };
            flush(code, traces).await
        }
        Command::Crd => match crd::crd_yaml() {
            Ok(yaml) => exit_code(print(&yaml)),
            Err(error) => failed(&error, 1),
        },
        Command::Openapi => match api::openapi_json() {
            Ok(json) => exit_code(print(&json)),
            Err(error) => failed(&error, 1),
        },
        Command::Render(args) | Command::Osvc(Osvc { command: PluginCommand::Render(args) }) => {
            match render::render(&args) {
                Ok(render::Rendered { text, warnings }) => {
                    warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
                    exit_code(print(&text))
                }
                Err(error) => failed(&error, 1),
            }
        }
        Command::Migrate(args) | Command::Osvc(Osvc { command: PluginCommand::Migrate(args) }) => {
            match migrate::run(args).await {
                Ok(migrated) => {
                    let code = migrated.exit_code();
                    match print(&migrated.yaml) {
                        Ok(()) => {
                            eprint!("{}", migrated.findings.table());
                            ExitCode::from(code)
                        }
                        Err(error) => failed(&error, 1),
                    }
                }
                Err(error) => failed(&error, 1),
            }
        }
        Command::Osvc(Osvc { command: PluginCommand::Osvc(command) }) => {
            let code = match osvc::run(command).await {
                Ok(osvc::Printed { text, code }) => match print(&text) {
                    Ok(()) => ExitCode::from(code),
                    Err(error) => failed(&error, 1),
                },
                Err(error) => failed(&error, error.exit_code()),
            };
            flush(code, None).await
        }
        Command::Completion(args) | Command::Osvc(Osvc { command: PluginCommand::Completion(args) }) => {
            let (command, name) =
                if is_plugin() { (Plugin::command(), PLUGIN) } else { (Cli::command(), "orders-operator") };
            exit_code(print(&manual::completion(args, command, name)))
        }
        Command::Man(args) => exit_code(manual::man_pages(&args, [Cli::command(), Plugin::command()])),
        Command::Tickets(Tickets { command: TicketsCommand::Import(args) }) => {
            match import::run(args).await {
                Ok(summary) => {
                    println!("{summary}");
                    ExitCode::SUCCESS
                }
                Err(error) => failed(&error, error.exit_code()),
            }
        }
        Command::Events(Events { command: EventsCommand::Publish(args) }) => match publish::run(args).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error, error.exit_code()),
        },
        Command::Events(Events { command: EventsCommand::Identity(args) }) => match identity::run(args).await
        {
            Ok(text) => match print(&text) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failed(&error, 1),
            },
            Err(error) => failed(&error, error.exit_code()),
        },
        Command::Events(Events { command: EventsCommand::DeadLetters(args) }) => {
            match dead_letters::run(args).await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failed(&error, error.exit_code()),
            }
        }
        Command::Orders(Orders { command: OrdersCommand::Check(args) }) => match check::run(args).await {
            Ok(findings) => match print(&format!("{findings}\n")) {
                Ok(()) => ExitCode::from(findings.exit_code()),
                Err(error) => failed(&error, 1),
            },
            Err(error) => failed(&error, error.exit_code()),
        },
    }
}

/// Prints to the standard output. A broken pipe is not an error: the reader, such as `head`, may have read enough.
fn print(text: &str) -> io::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

fn exit_code<E: std::error::Error>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error, 1),
    }
}

/// Returns the exit code once the last traces are sent and the last log lines written. Tasks of the runtime send the
/// traces, so the wait must not block one of its threads.
async fn flush(code: ExitCode, traces: Option<Traces>) -> ExitCode {
    if let Some(traces) = traces
        && tokio::task::spawn_blocking(|| traces.flush()).await.is_err()
    {
        tracing::warn!("the last traces may not have been sent");
    }
    telemetry::flush();
    code
}

fn failed(error: &dyn std::error::Error, code: u8) -> ExitCode {
    telemetry::print(&format!("orders-operator: {error}"));
    ExitCode::from(code)
}
