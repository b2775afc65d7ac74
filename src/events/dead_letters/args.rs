//! The command line of `events dead-letters`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::store::DatabaseArgs;

/// Look at messages from other services that could not be handled, handle them again, or drop them
#[derive(Args, Clone)]
#[command(
    after_long_help = AFTER_HELP,
    mut_arg("uri", |uri| uri.global(true)),
    mut_arg("database", |database| database.global(true))
)]
pub struct DeadLettersArgs {
    /// What to do
    #[command(subcommand)]
    pub action: Action,

    /// The database
    #[command(flatten)]
    pub database: DatabaseArgs,
}

/// What to do with dead letters.
#[derive(Subcommand, Clone, Debug)]
pub enum Action {
    /// List them, the newest first
    List {
        /// The most that are listed
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
    /// Show one, with what was sent
    Show {
        /// Its id, as the list shows it
        id: String,

        /// Write exactly the bytes that were sent and nothing else, for example to correct them in a file
        #[arg(long)]
        raw: bool,
    },
    /// Handle some again, as if they had just arrived; those that succeed are dropped
    Replay {
        /// Their ids, as the list shows them
        #[arg(required = true)]
        ids: Vec<String>,

        /// File with what should have been sent, for one letter
        #[arg(long, value_name = "FILE")]
        with: Option<PathBuf>,

        /// Also those whose payment was refused, for which the money may have been given back
        #[arg(long)]
        even_refused: bool,

        /// How much longer an order can be paid for once its payment has begun, in seconds; as the pods have it
        #[arg(long, env = "PAYMENT_GRACE_SECONDS", value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=604_800))]
        payment_grace_seconds: u32,
    },
    /// Drop some
    Drop {
        /// Their ids, as the list shows them
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

/// Its lines fit a terminal of 80 columns.
const AFTER_HELP: &str = "\
Exit status:
  0   done
  1   the database could not be used
  2   the command line is wrong
  3   a letter is not there, or still cannot be handled

Examples:
  orders-operator events dead-letters list
  orders-operator events dead-letters show tickets:17:1795368564464
  orders-operator events dead-letters show ID --raw > fixed.json
  orders-operator events dead-letters replay ID --with fixed.json";
