//! Completions for shells, and man pages, of the command line as it is.
//!
//! ```text
//! args   the command lines
//! write  writes them
//! ```

mod args;
mod write;

pub use args::{CompletionArgs, ManArgs};
pub use write::{ManualError, completion, man_pages};
