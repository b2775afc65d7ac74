//! The command line of the orders operator: each subcommand is one call into the library.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};
use orders_operator::{
    api,
    controller::{self, render},
    crd,
    runtime::{telemetry, traces::Traces},
    store::import,
    sweeper,
};
use tokio::runtime::Builder;

/// The orders service of a ticketing system on Kubernetes, and its operator.
///
/// In a cluster, the controller makes of each OrdersService a Deployment, a Service and an Ingress
/// whose last rule is the web client; the sweeper beside it moves unpaid orders to cancelled when
/// their time is up. The pods that the controller makes run the orders API (serve).
#[derive(Parser)]
#[command(
    name = "orders-operator",
    version,
    after_help = "Examples:
  orders-operator crd | kubectl apply -f -                         install the resource's definition
  orders-operator controller                                       run against $KUBECONFIG's cluster
  orders-operator render examples/ --default-image orders:1        review what would be applied
  orders-operator serve --port 3000                                with JWT_KEY and MONGO_URI set
  orders-operator tickets import tickets.ndjson                    with MONGO_URI set"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make and keep the children of every OrdersService
    Controller(controller::ControllerArgs),
    /// Move expired orders to cancelled, in the database of every OrdersService or in one
    ///
    /// An order expires when the database's own clock has reached its expiresAt; the clock of this machine
    /// does not matter. It is cancelled by a write that repeats every condition, so an order that is paid
    /// for at the same moment is either paid for or cancelled, and none is cancelled twice, however many
    /// sweepers run. Nothing is kept but the orders: a sweeper may be killed at any moment, and whatever
    /// became due meanwhile is found by the next one.
    Sweeper(sweeper::SweeperArgs),
    /// Serve the orders HTTP API
    Serve(api::ServeArgs),
    /// Print the CustomResourceDefinition as YAML
    Crd,
    /// Print the description of the orders HTTP API: OpenAPI 3.1, as JSON
    Openapi,
    /// Print the children that the controller would make of OrdersServices in files, without a cluster
    Render(render::RenderArgs),
    /// Work with the local copies of tickets
    Tickets(Tickets),
}

#[derive(Args)]
struct Tickets {
    #[command(subcommand)]
    command: TicketsCommand,
}

#[derive(Subcommand)]
enum TicketsCommand {
    /// Load tickets from NDJSON, one per line: needed when orders are added to a system that has tickets
    Import(import::TicketsImportArgs),
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let mut runtime = match command {
        // It waits most of the time, and what it then does is short: threads that wake each other for it would cost
        // more than they do.
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
            let traces = telemetry::init(&args.log, "orders-operator-controller");
            flushed(ended(controller::run(args).await), traces).await
        }
        Command::Sweeper(args) => {
            let traces = telemetry::init(&args.log, "orders-operator-sweeper");
            let code = match sweeper::run(args).await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failed(&error, error.exit_code()),
            };
            flushed(code, traces).await
        }
        Command::Serve(args) => {
            let traces = telemetry::init(&args.log, "orders-operator-serve");
            let code = match api::serve(args).await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failed(&error, error.exit_code()),
            };
            flushed(code, traces).await
        }
        Command::Crd => match crd::crd_yaml() {
            Ok(yaml) => ended(print(&yaml)),
            Err(error) => failed(&error, 1),
        },
        Command::Openapi => match api::openapi_json() {
            Ok(json) => ended(print(&json)),
            Err(error) => failed(&error, 1),
        },
        Command::Render(args) => match render::render(&args) {
            Ok(yaml) => ended(print(&yaml)),
            Err(error) => failed(&error, 1),
        },
        Command::Tickets(Tickets { command: TicketsCommand::Import(args) }) => {
            match import::import(args).await {
                Ok(summary) => {
                    println!("{summary}");
                    ExitCode::SUCCESS
                }
                Err(error) => failed(&error, error.exit_code()),
            }
        }
    }
}

/// Prints to the standard output; a reader that has seen enough, such as `head`, is no error.
fn print(text: &str) -> io::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

fn ended<E: std::error::Error>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error, 1),
    }
}

/// The exit code, once the last traces are sent: by tasks of the runtime, which must not be held up by whoever waits.
async fn flushed(code: ExitCode, traces: Option<Traces>) -> ExitCode {
    if let Some(traces) = traces
        && tokio::task::spawn_blocking(|| traces.flush()).await.is_err()
    {
        tracing::warn!("the last traces may be lost");
    }
    code
}

fn failed(error: &dyn std::error::Error, code: u8) -> ExitCode {
    eprintln!("orders-operator: {error}");
    ExitCode::from(code)
}
