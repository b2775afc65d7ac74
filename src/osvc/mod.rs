//! `kubectl osvc`: what someone asks of the OrdersServices of a cluster, from a shell.
//!
//! It reads through the API server, with the rights of whoever asks, and changes nothing but by `sweep`. Names, messages and
//! last words of pods were written by others, so whatever of them reaches a terminal is escaped.
//!
//! ```text
//! args     the command line
//! error    why a command has no answer, and the exit codes
//! cluster  the way to the API server: context, namespace, deadlines
//! paint    colours, and the escaping of what others wrote
//! printed  the answer as it is printed: text, JSON or YAML
//! routes   the objects of a cluster that have to do with routes
//! status/  `status`: one OrdersService
//! explain  `explain`: what takes a URL
//! sweep    `sweep`: one pass over one database
//! check/   `check`: whether a cluster, an installation and its OrdersServices are as they should be
//! complete what kubectl asks for while a command is typed
//! ```

mod args;
mod check;
mod cluster;
mod complete;
mod error;
mod explain;
mod paint;
mod printed;
mod routes;
mod status;
mod sweep;

pub use args::{CheckArgs, ExplainArgs, OsvcCommand, StatusArgs, SweepArgs};
pub use check::MIN_KUBERNETES;
pub use cluster::ClusterArgs;
pub use complete::{COMPLETE, complete};
pub use error::OsvcError;
pub use printed::Printed;

/// Runs a command, and gives what is to be printed.
///
/// # Errors
/// When there is no answer.
pub async fn run(command: OsvcCommand) -> Result<Printed, OsvcError> {
    match command {
        OsvcCommand::Status(args) => status::run(&args).await,
        OsvcCommand::Explain(args) => explain::run(&args).await,
        OsvcCommand::Sweep(args) => sweep::run(&args).await,
        OsvcCommand::Check(args) => check::run(&args).await,
    }
}
