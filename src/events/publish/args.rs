//! The command line of `events publish`.

use clap::Args;
use jiff::Timestamp;

use crate::store::DatabaseArgs;

/// Publish again what other services have lost because they restored a backup or a stream was deleted
#[derive(Args, Clone)]
#[command(after_long_help = AFTER_HELP)]
pub struct PublishArgs {
    /// Publish every order that was created since this time, such as 2026-11-22T17:00:00Z, or whose time to pay was
    /// not over by then
    #[arg(long, value_name = "TIME")]
    pub since: Timestamp,

    /// Count what would be published; nothing is changed
    #[arg(long)]
    pub dry_run: bool,

    /// The database
    #[command(flatten)]
    pub database: DatabaseArgs,
}

/// Its lines fit a terminal of 80 columns.
const AFTER_HELP: &str = "\
It puts the orders in the outbox again, and the pods, which go on meanwhile,
publish them: of each ticket all orders in their order, and last the one that
holds it. A service that has lost nothing gets the events too, so see that it
can bear that. Interrupted, and called again with the same --since, it goes on.

Exit status:
  0   everything is published again; with --dry-run: it is counted
  1   the database could not be used
  2   the command line is wrong, or the database has no events

Examples:
  orders-operator events publish --since 2026-11-22T17:00:00Z --dry-run
  orders-operator events publish --since 2026-11-22T17:00:00Z";
