//! The command line of `orders check`.

use clap::{Args, ValueEnum};

use crate::store::DatabaseArgs;

/// Look for what in a database stands in the way of this program: tickets that several active orders hold, documents that
/// cannot be read, orders that never expire, indexes of others, and orders in another database
///
/// It only reads, so it can run beside the Node.js service, before the switch; and whenever DuplicateActiveOrders is told.
#[derive(Args, Clone)]
#[command(after_long_help = AFTER_HELP, mut_arg("uri", |uri| uri.help(URI)))]
pub struct OrdersCheckArgs {
    /// The database
    #[command(flatten)]
    pub database: DatabaseArgs,

    /// Cancel all but one of the orders that hold the same ticket, after printing which
    #[arg(long, value_enum, value_name = "WHICH")]
    pub fix_duplicates: Option<FixDuplicates>,

    /// With --fix-duplicates: print what would be cancelled, and cancel nothing
    #[arg(long, requires = "fix_duplicates")]
    pub dry_run: bool,
}

/// Which of the orders that hold a ticket is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FixDuplicates {
    /// The oldest that is paid for, else the oldest. An order that is paid for is never cancelled.
    KeepOldest,
}

const URI: &str = "Where the orders are: mongodb://HOST/DATABASE (required). The environment variable keeps it out of process \
                   listings";

/// Its lines fit a terminal of 80 columns.
const AFTER_HELP: &str = "\
Exit status:
  0   nothing was found, or all of it is fixed
  1   the database could not be checked
  2   the command line is wrong
  3   something was found that is left to do

Examples:
  Before the switch from the Node.js service:
    orders-operator orders check --uri mongodb://localhost/orders
  Two buyers have the same ticket; show what would be cancelled, then do it:
    orders-operator orders check --fix-duplicates keep-oldest --dry-run
    orders-operator orders check --fix-duplicates keep-oldest";
