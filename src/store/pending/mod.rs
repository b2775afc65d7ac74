//! Pending orders, that is orders with something in their outbox: finding them, and marking them as published.
//!
//! ```text
//! order      such an order, as its document says it
//! queries    finds them, with everything that must be published before
//! past       the same, past those that are left out for now
//! holders    the orders that hold their tickets
//! published  marks as published: clears what the broker has
//! backlog    how much is pending, and for how long
//! ```

mod backlog;
mod holders;
mod order;
mod past;
mod published;
mod queries;

pub use order::{Change, ChangeKind, PendingOrder, RefusedPayment};
pub use published::Published;
pub use queries::Pending;
