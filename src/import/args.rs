//! The command line of `tickets import`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::store::TlsArgs;

/// Loads tickets from lines of JSON, such as {"id":"65f0c1d2a3b4c5d6e7f80912","title":"concert","price":20,"version":0}
#[derive(Args, Clone)]
pub struct TicketsImportArgs {
    /// The file to read, or - for standard input; a file written by mongoexport works too
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Where the orders are: mongodb://HOST/DATABASE (required)
    #[arg(long, env = "MONGO_URI", hide_env_values = true)]
    pub mongo_uri: Option<String>,

    /// The database's name [default: the URI's, else "orders"]
    #[arg(long, env = "MONGO_DATABASE")]
    pub database: Option<String>,

    /// TLS to the database
    #[command(flatten)]
    pub tls: TlsArgs,

    /// What to do with a line that is not a ticket
    #[arg(long, value_enum, default_value_t)]
    pub on_error: OnError,
}

/// What to do with a line that is not a ticket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OnError {
    /// Stop; the lines before it are imported.
    #[default]
    Stop,
    /// Report it and continue.
    Skip,
}
