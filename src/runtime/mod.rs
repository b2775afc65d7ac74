//! What every long-running subcommand shares: the admin server, shutdown and telemetry.

pub mod admin;
mod process;
mod shutdown;
pub mod telemetry;

pub use process::{Process, RunError};
pub use shutdown::on_signal;
