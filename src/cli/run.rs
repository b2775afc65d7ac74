//! From a command to the call into the library that carries it out.

use std::{io, process::ExitCode};

use clap::CommandFactory;

use super::{
    Cli, Command, EventsCommand, OrdersCommand, PLUGIN, Plugin, PluginCommand, TicketsCommand,
    exit::{ended, failed, flush, printed, printed_with},
    is_plugin,
};
use crate::{
    api, check,
    controller::{self, render},
    crd,
    events::{dead_letters, identity, publish},
    import, manual, migrate, osvc,
    runtime::{telemetry, traces::Traces},
    sweeper,
};

/// Carries the command out; gives the code that the program ends with.
pub async fn run(command: Command) -> ExitCode {
    match command {
        Command::Controller(args) => {
            let traces = telemetry::init(&args.log, "orders-operator-controller");
            serve(traces, async { ended(controller::run(args).await, |_| 1) }).await
        }
        Command::Sweeper(args) => {
            let traces = telemetry::init(&args.log, "orders-operator-sweeper");
            serve(traces, async { ended(sweeper::run(args).await, |error| error.exit_code()) }).await
        }
        Command::Serve(args) => {
            let traces = telemetry::init(&args.log, "orders-operator-serve");
            serve(traces, async { ended(api::serve(*args).await, |error| error.exit_code()) }).await
        }
        Command::Crd => match crd::crd_yaml() {
            Ok(yaml) => printed(&yaml),
            Err(error) => failed(&error, 1),
        },
        Command::Openapi => match api::openapi_json() {
            Ok(json) => printed(&json),
            Err(error) => failed(&error, 1),
        },
        Command::Render(args) => render_files(&args),
        Command::Migrate(args) => migrate_files(args).await,
        Command::Osvc(plugin) => run_plugin(plugin.command).await,
        Command::Tickets(tickets) => match tickets.command {
            TicketsCommand::Import(args) => match import::run(args).await {
                Ok(summary) => {
                    println!("{summary}");
                    ExitCode::SUCCESS
                }
                Err(error) => failed(&error, error.exit_code()),
            },
        },
        Command::Orders(orders) => match orders.command {
            OrdersCommand::Check(args) => match check::run(args).await {
                Ok(findings) => printed_with(&format!("{findings}\n"), findings.exit_code()),
                Err(error) => failed(&error, error.exit_code()),
            },
        },
        Command::Events(events) => match events.command {
            EventsCommand::DeadLetters(args) => {
                ended(dead_letters::run(args).await, |error| error.exit_code())
            }
            EventsCommand::Publish(args) => ended(publish::run(args).await, |error| error.exit_code()),
            EventsCommand::Identity(args) => match identity::run(args).await {
                Ok(text) => printed(&text),
                Err(error) => failed(&error, error.exit_code()),
            },
        },
        Command::Completion(args) => completion(args),
        Command::Man(args) => ended(manual::man_pages(&args, [Cli::command(), Plugin::command()]), |_| 1),
    }
}

/// What can be asked as `kubectl osvc`.
async fn run_plugin(command: PluginCommand) -> ExitCode {
    match command {
        PluginCommand::Osvc(command) => {
            let code = match osvc::run(command).await {
                Ok(osvc::Printed { text, code }) => printed_with(&text, code),
                Err(error) => failed(&error, error.exit_code()),
            };
            flush(code, None).await
        }
        PluginCommand::Render(args) => render_files(&args),
        PluginCommand::Migrate(args) => migrate_files(args).await,
        PluginCommand::Completion(args) => completion(args),
    }
}

/// Runs what goes on until it is told to end, and sends its last traces and log lines.
async fn serve(traces: io::Result<Option<Traces>>, service: impl Future<Output = ExitCode>) -> ExitCode {
    match traces {
        Ok(traces) => flush(service.await, traces).await,
        Err(error) => failed(&error, 1),
    }
}

fn render_files(args: &render::RenderArgs) -> ExitCode {
    match render::render(args) {
        Ok(render::Rendered { text, warnings }) => {
            warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
            printed(&text)
        }
        Err(error) => failed(&error, 1),
    }
}

async fn migrate_files(args: migrate::MigrateArgs) -> ExitCode {
    match migrate::run(args).await {
        Ok(migrated) => {
            let code = printed_with(&migrated.yaml, migrated.exit_code());
            eprint!("{}", migrated.findings.table());
            code
        }
        Err(error) => failed(&error, 1),
    }
}

fn completion(args: manual::CompletionArgs) -> ExitCode {
    let (command, name) =
        if is_plugin() { (Plugin::command(), PLUGIN) } else { (Cli::command(), "orders-operator") };
    printed(&manual::completion(args, command, name))
}
