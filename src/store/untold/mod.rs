//! The orders of which something is to be told, and that it has been told.
//!
//! ```text
//! order    such an order, as its document says it
//! looks    looks for them, with all that comes before
//! past     the same, past those that are left out for now
//! holders  the orders that hold their tickets
//! told     notes what has been told
//! waiting  how much waits, and for how long
//! ```

mod holders;
mod looks;
mod order;
mod past;
mod told;
mod waiting;

pub use looks::Untold;
pub use order::{Change, ChangeKind, RefusedPayment, UntoldOrder};
pub use told::Told;
