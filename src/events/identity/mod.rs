//! `events identity`: which system a database is that of, and that it takes the place of another one.
//!
//! ```text
//! args   the command line
//! error  why it stopped
//! run    shows or sets it
//! ```

mod args;
mod error;
mod run;

pub use args::IdentityArgs;
pub use error::IdentityError;
pub use run::run;
