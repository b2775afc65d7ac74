//! What every long-running subcommand shares: the admin server, leadership, shutdown and telemetry.

pub mod admin;
mod backoff;
pub mod cache_sync;
pub mod events;
pub mod lease;
mod process;
pub mod secret_cache;
mod shutdown;
pub mod telemetry;
pub mod traces;
pub mod watch;

pub use backoff::exponential;
pub use process::{Process, RunError, cluster};
pub use shutdown::on_signal;
