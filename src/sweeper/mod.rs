//! The sweeper: moves expired orders to `cancelled`, in the database of every OrdersService.
//!
//! What is due follows from the orders alone, so nothing can be lost. Every write is conditional, so any number of
//! sweepers may run, crash or be paused at any moment.
//!
//! ```text
//! args, error              the command line, and why the sweeper ends
//! continuous, once         the two modes: until it is stopped, or until nothing is due
//! resolve, wanted, targets from OrdersServices and their Secrets to the databases to sweep
//! membership, peers        the Lease that live sweepers share, and the rank of each for a target
//! tasks                    one task per target, with backoff
//! sweep                    one step in one database: find a batch, cancel it, decide when to come back
//! batch, left_out          the orders of one step; those that are left out for a while
//! index_repair             when missing indexes are made
//! lookahead, backlog       how far to query ahead; how to go through a backlog
//! pacing                   batch sizes and rate limits
//! health, falling_behind   the health of a target
//! events                   whether events flow
//! status, report           the conditions and events that follow from it; writes them to the resources
//! writes                   what became of these writes
//! metrics                  what /metrics has
//! ```

mod args;
mod backlog;
mod batch;
mod continuous;
mod error;
mod events;
mod falling_behind;
mod health;
mod index_repair;
mod left_out;
mod lookahead;
mod membership;
mod metrics;
mod once;
mod pacing;
mod peers;
mod report;
mod resolve;
mod status;
mod sweep;
mod targets;
mod tasks;
mod wanted;
mod writes;

pub use args::SweeperArgs;
pub use error::SweeperError;
pub use once::{One, run_one};

/// Runs the sweeper: until SIGTERM or SIGINT, or with `--once` or `--dry-run` until nothing is due, and then with a
/// summary on standard output.
///
/// # Errors
/// When it cannot start, or could not sweep every database once. In continuous mode, failures of the API server or of a
/// database are retried.
pub async fn run(args: SweeperArgs) -> Result<(), SweeperError> {
    if args.once || args.dry_run { once::run(&args).await } else { continuous::run(&args).await }
}
