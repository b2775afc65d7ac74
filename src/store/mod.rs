//! MongoDB: connection, indexes, tickets, reserving, transitions, expiry queries.
//!
//! The only module that names the database's crate. What it promises:
//!
//! - **The database decides.** One active order per ticket is a unique index; every transition is a
//!   single conditional write. Nothing is decided by reading first, so any number of processes may
//!   call any of this at any moment, and be killed in the midst of it.
//! - **No transactions, no change streams, no client-level bulk writes**: a standalone MongoDB, a
//!   replica set, FerretDB and DocumentDB all serve.
//! - **Every call ends** within [`DEADLINE`] (making an index apart), with a [`StoreError`] that tells an
//!   absent database from a broken request.
//! - Documents written by the Node service (mongoose) are read, and fields that are not ours are kept.
//!
//! ```text
//! database     `Store`: one database, its connection pool and its collections
//! connect      from a connection string to a client, and which database it leads to
//! indexes      the indexes, of which one guarantees that a ticket is sold once
//!
//! reserve      reserving a ticket
//! orders       reading an order, cancelling it
//! payments     paying for an order
//! expiry       the sweeper's queries and writes
//! list         a user's orders, page by page; its query is in page_query, first_pages batches it
//! tickets      the local copies of tickets
//!
//! batch        one command for several concurrent calls; lookup and insert use it
//! gates        keeps the buyers of one process apart
//! document     orders and tickets as BSON documents
//! retry        the deadline of every call, and retries of transient errors
//! error, code  what can go wrong, by what one can do about it
//! ```

mod batch;
mod code;
mod connect;
mod database;
mod document;
mod error;
mod expiry;
mod first_pages;
mod gates;
mod indexes;
mod insert;
mod list;
mod lookup;
mod orders;
mod page_query;
mod payments;
mod reserve;
mod retry;
mod tickets;

pub use connect::{ConnectOptions, Pools, TargetId};
pub use database::Store;
pub use error::{ErrorCategory, StoreError};
pub use expiry::{Look, Query, Refused};
pub use list::Page;
pub use orders::{CancelError, Moved};
pub use page_query::Listing;
pub use payments::PaymentError;
pub use reserve::{ReserveError, Reserved};
pub use retry::DEADLINE;
pub use tickets::Upserted;
