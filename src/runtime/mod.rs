//! What every long-running subcommand shares: the admin server, shutdown and telemetry.

pub mod admin;
mod shutdown;
pub mod telemetry;

pub use shutdown::on_signal;
