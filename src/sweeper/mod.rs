//! The sweeper: moves expired orders to `cancelled`, in the database of every OrdersService.
//!
//! Nothing but the orders themselves says what is due, so nothing can be lost, and every write is
//! conditional, so any number of sweepers may run, crash or be paused at any moment.
//!
//! ```text
//! resolve, targets   which databases there are
//! members, ranks     which sweeper comes to which of them, and when
//! clock              the database's time
//! outlook, pacing    how far to look ahead, how long to sleep, how much to take at once
//! sweep              one step in one database
//! run                the steps of all, each in a task of its own
//! behind, status     what to say of it; report writes it into the resources
//! follow, once       the two ways to run: for good, or until nothing is due
//! ```

mod args;
mod behind;
mod clock;
mod error;
mod follow;
mod health;
mod members;
mod metrics;
mod once;
mod outlook;
mod pacing;
mod ranks;
mod report;
mod resolve;
mod run;
mod status;
mod stride;
mod sweep;
mod targets;

pub use args::SweeperArgs;
pub use error::SweeperError;

/// Sweeps as `args` say: until SIGTERM or SIGINT, or until nothing is due, and then with a summary on the
/// standard output.
///
/// # Errors
/// When it cannot start, or could not sweep every database that it was to sweep once. While it runs for
/// good, failures of the API server or of a database are waited out.
pub async fn run(args: SweeperArgs) -> Result<(), SweeperError> {
    if args.once || args.dry_run { once::run(&args).await } else { follow::run(&args).await }
}
