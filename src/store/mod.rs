//! MongoDB: connection, indexes, tickets, reserving, transitions, expiry queries.
//!
//! The only module that names the `mongodb` crate. What it promises:
//!
//! - **The database decides.** One active order per ticket is a unique index, and every transition is a single
//!   conditional write. No decision depends on an earlier read, so any number of processes may call any of this at
//!   any time, and be killed at any point.
//! - **No transactions, no change streams, no client-level bulk writes**: a standalone MongoDB, a replica set,
//!   FerretDB and DocumentDB all work.
//! - **Every call ends** within [`PATIENCE`] (except what reads a whole collection: creating an index, checking all orders, `audit`), with a [`StoreError`]
//!   that tells an unavailable database from a bad request. An election is waited out.
//! - **By the primary, and for a majority.** What decides is read from the primary, whatever the connection string says,
//!   and no write counts before a majority of the servers has acknowledged it. Nor does what is only read (`majority`).
//! - Documents written by the Node service (mongoose) are read, and other services' fields are kept.
//!
//! ```text
//! args         the command line's part about it
//! database     `Store`: one database, its connection pool and its collections
//! connect      from a connection string to a client, and to the identity of its database
//! uri          connection strings, by an allow-list
//! choice       whether the database that is used by default is the one that is meant
//! tls          the CA and the client certificate
//! guard        between the driver and servers that nobody vouches for: checks what they answer
//! own_indexes  our indexes; a unique one guarantees that each ticket is sold only once
//! ticket_index that one, as queries use it
//! index_definition  what an index guarantees, and which of others are in the way
//! indexes      creates and checks the indexes
//! duplicates   stored orders because of which a ticket has been sold twice, or would be
//!
//! clock        bounds of the database's clock
//! server_time  asks the database for its time
//!
//! reserve      reserving a ticket
//! orders       reading an order, and its transitions
//! payments     when an order can be paid for, and that its payment begins
//! expiry       the sweeper's side: due orders and their expiry
//! list         a user's orders, page by page
//! positions    the place of each order in the pages of its user
//! page_query   the query for one page
//! first_pages  combines concurrent requests for first pages
//! tickets      the local copies of tickets
//! deleted_tickets  those that are gone
//! audit        what in a database would surprise this program
//!
//! outbox       the field for what is pending of an order, and whether it is used
//! outbox_entry what a write that changes an order puts there
//! settle       what a payment does to its order
//! system_id    which system a database is that of
//! dead_letters what other services have sent and cannot be read
//! republish    what consumers have lost, to be published again
//! pending      orders with something in their outbox, and marking them as published
//! relay_lease  who publishes it
//! events_health whether that goes on
//!
//! batcher      combines concurrent calls into fewer commands
//! by_ids       one query for the documents of several ids
//! loader       reads documents by id, in batches
//! holders      reads the orders that hold tickets, in batches
//! known_holders  which of these reads are worth their cost
//! inserter     inserts orders, in batches
//!
//! document     orders and tickets as BSON documents
//! answer       bounds on what a server answers
//! cast         values of other types, as mongoose reads them
//! majority     what no failover takes back
//! causal       reads that see what was written before, after a failover too
//! retry        deadlines, and retries after transient errors
//! error        errors, sorted by what can be done about them
//! driver_error what an error of the driver means
//! remedy       what of them those may read who may not read the log
//! code         the server's error codes
//! ```

mod answer;
mod args;
mod audit;
mod batcher;
mod by_ids;
mod cast;
mod causal;
mod choice;
mod clock;
mod code;
mod connect;
mod database;
mod dead_letters;
mod deleted_tickets;
mod document;
mod driver_error;
mod duplicates;
mod error;
mod events_health;
mod expiry;
mod first_pages;
mod guard;
mod holders;
mod index_definition;
mod indexes;
mod inserter;
mod known_holders;
mod list;
mod loader;
mod majority;
mod orders;
mod outbox;
mod outbox_entry;
mod own_indexes;
mod page_query;
mod payments;
mod pending;
mod positions;
mod relay_lease;
mod remedy;
mod republish;
mod reserve;
mod retry;
mod server_time;
mod settle;
mod system_id;
mod ticket_index;
mod tickets;
mod tls;
mod uri;

pub use args::DatabaseArgs;
pub use audit::{Duplicate, ForeignIndex, Holder};
pub use clock::ServerClock;
pub use connect::{ConnectOptions, Pools, TargetId};
pub use database::Store;
pub use dead_letters::{DeadLetter, StoredLetter};
pub use deleted_tickets::DeletedTicket;
pub use error::{ErrorCategory, StoreError};
pub use events_health::{EventsHealth, EventsShown, EventsTask, EventsTrouble};
pub use expiry::{ExpiringOrders, ExpiryQuery, RejectedOrders};
pub use list::Page;
pub use orders::{CancelError, Transitioned};
pub use page_query::{ListOrder, Listing};
pub use payments::PaymentError;
pub use pending::{Change, ChangeKind, Pending, PendingOrder, Published, RefusedPayment};
pub use relay_lease::{Positions, RelayLease, advance_positions, process_name};
pub use remedy::database_at;
pub use republish::{LostOrder, LostTickets, Requeued};
pub use reserve::{ReserveError, Reserved};
pub use retry::{DEADLINE, PATIENCE, ending_by, patience};
pub use settle::Settled;
pub use system_id::{InvalidSystemId, SystemId};
pub use tickets::Upserted;
pub use tls::{ClientTls, TlsArgs};
