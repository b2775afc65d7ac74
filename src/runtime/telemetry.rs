//! Logging: to standard error, as text for people or as JSON for collectors.

use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use tracing_subscriber::{EnvFilter, fmt};

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One readable line per event; colour only on a terminal.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// The logging flags of every long-running subcommand.
#[derive(Args, Clone, Debug)]
pub struct LogArgs {
    /// How log lines are written
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t, help_heading = "Logging")]
    pub log_format: LogFormat,

    /// Which events are logged: a level (error, warn, info, debug, trace), or directives such as
    /// "info,orders_operator=debug"
    #[arg(long, env = "LOG_LEVEL", default_value = "info", value_parser = parse_filter, help_heading = "Logging")]
    pub log_level: String,
}

/// Rejects at the command line what the subscriber would reject later.
fn parse_filter(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text)
        .map(|_| text.to_owned())
        .map_err(|error| format!("{error}; write a level such as \"info\""))
}

/// Installs the process's log subscriber; a second call changes nothing.
pub fn init(args: &LogArgs) {
    // The value was parsed by clap already; the fallback is for callers that made it by hand.
    let filter = EnvFilter::try_new(&args.log_level).unwrap_or_else(|_| EnvFilter::new("info"));
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour);
    let installed = match args.log_format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if installed.is_err() {
        tracing::debug!("a log subscriber was installed before; it stays");
    }
}
