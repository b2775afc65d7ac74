//! `orders check`: looks for what in a database would surprise this program, before it takes over from the Node.js service and
//! whenever the unique index cannot be built.
//!
//! It changes nothing, unless it is told to cancel all but one of the orders that hold the same ticket.
//!
//! ```text
//! args      the command line
//! run       the checks, in their order, and the cancellations
//! findings  what was found, as it is printed and counted
//! error     why it stopped, and the exit codes
//! ```

mod args;
mod error;
mod findings;
mod run;

pub use args::{FixDuplicates, OrdersCheckArgs};
pub use error::CheckError;
pub use findings::Findings;
pub use run::run;
