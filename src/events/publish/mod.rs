//! `events publish`: publishes again what consumers have lost.
//!
//! ```text
//! args   the command line
//! error  why it stopped
//! run    puts it in the outbox again, and waits until it is published
//! ```

mod args;
mod error;
mod run;

pub use args::PublishArgs;
pub use error::PublishError;
pub use run::run;
