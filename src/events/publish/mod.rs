//! `events publish`: tells again what neighbours have lost.
//!
//! ```text
//! args   the command line
//! error  why it stopped
//! run    notes it again, and waits until it is told
//! ```

mod args;
mod error;
mod run;

pub use args::PublishArgs;
pub use error::PublishError;
pub use run::run;
