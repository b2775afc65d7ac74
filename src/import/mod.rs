//! `tickets import`: loads local copies of tickets, for orders that are added to a system which has tickets already.
//!
//! It is safe to run again at any time with any file, since an older version never overwrites a newer one. It holds
//! one batch in memory, however long the file is.
//!
//! ```text
//! args      the command line
//! run       reads the file and writes its tickets in batches
//! line      one line of the file, in bounded memory
//! ndjson    the ticket on a line
//! summary   what an import did
//! error     why it stopped, and the exit code
//! ```

mod args;
mod error;
mod line;
mod ndjson;
mod run;
mod summary;

pub use args::{OnError, TicketsImportArgs};
pub use error::ImportError;
pub use run::run;
pub use summary::ImportSummary;
