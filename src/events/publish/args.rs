//! The command line of `events publish`.

use clap::Args;
use jiff::Timestamp;

use crate::store::DatabaseArgs;

/// Tell other services again what they have lost: by a restore of theirs, or with a stream that was deleted
#[derive(Args, Clone)]
#[command(after_long_help = AFTER_HELP)]
pub struct PublishArgs {
    /// Tell of every order that was made since, or whose time was not over then, such as 2026-11-22T17:00:00Z
    #[arg(long, value_name = "TIME")]
    pub since: Timestamp,

    /// Count what would be told; nothing is changed
    #[arg(long)]
    pub dry_run: bool,

    /// The database
    #[command(flatten)]
    pub database: DatabaseArgs,
}

/// Its lines fit a terminal of 80 columns.
const AFTER_HELP: &str = "\
It notes the events in the database, and the pods, which go on meanwhile, tell
them: of each ticket all orders in their order, that which holds it last. A
neighbour that has lost nothing hears them too, so see that it can bear that.
Interrupted, and called again with the same --since, it goes on.

Exit status:
  0   everything is told again; with --dry-run: it is counted
  1   the database could not be used
  2   the command line is wrong, or the database has no events

Examples:
  orders-operator events publish --since 2026-11-22T17:00:00Z --dry-run
  orders-operator events publish --since 2026-11-22T17:00:00Z";
