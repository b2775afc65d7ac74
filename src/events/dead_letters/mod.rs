//! `events dead-letters`: shows what could not be read, and handles it again.
//!
//! ```text
//! args   the command line
//! error  why it stopped
//! run    lists, shows, replays and drops
//! ```

mod args;
mod error;
mod run;

pub use args::DeadLettersArgs;
pub use error::DeadLettersError;
pub use run::run;
