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

mod batch;
mod connect;
mod document;
mod error;
pub mod expiry;
mod indexes;
mod insert;
mod list;
mod lookup;
mod orders;
mod payments;
mod reserve;
mod retry;
mod tickets;

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use mongodb::{
    Client, Collection, Database,
    bson::{Document, RawDocumentBuf, doc},
};

pub use connect::{ConnectOptions, Pools, TargetId};
pub use error::{ErrorCategory, StoreError};
pub use expiry::{Look, Query, Refused};
pub use list::{Listing, Page};
pub use orders::{CancelError, Moved};
pub use payments::PaymentError;
pub use reserve::{ReserveError, Reserved};
pub use retry::DEADLINE;

use insert::Inserts;
use list::FirstPages;
use lookup::Lookup;

/// The orders of one database. Clones share one connection pool.
#[derive(Clone)]
pub struct Store {
    database: Database,
    /// Keeps a pool that is shared.
    _pool: Arc<Client>,
    target: TargetId,
    /// Made by the first reservation: they are large, and a sweeper never makes one.
    gates: Arc<OnceLock<Box<reserve::Gates>>>,
    orders_by_id: Lookup,
    tickets_by_id: Lookup,
    inserts: Inserts,
    first_pages: FirstPages,
}

impl Store {
    /// Prepares a connection pool; the servers are contacted by the first call that needs them.
    ///
    /// Only `mongodb+srv` needs the network here, to ask the DNS for the servers' names.
    ///
    /// # Errors
    /// When the URI or the database's name is not usable; the message never repeats credentials.
    pub async fn connect(options: ConnectOptions<'_>) -> Result<Self, StoreError> {
        Self::connect_in(&Pools::default(), options).await
    }

    /// The same, with a connection pool that others may use too.
    ///
    /// # Errors
    /// As above.
    pub async fn connect_in(pools: &Pools, options: ConnectOptions<'_>) -> Result<Self, StoreError> {
        let (pool, target) = pools.open(&options).await?;
        let database = pool.database(&target.database);
        Ok(Self {
            orders_by_id: Lookup::new(database.collection(ORDERS), "reading an order"),
            tickets_by_id: Lookup::new(database.collection(TICKETS), "reading a ticket"),
            inserts: Inserts::new(database.collection(ORDERS), "storing an order"),
            first_pages: FirstPages::default(),
            database,
            _pool: pool,
            target,
            gates: Arc::default(),
        })
    }

    /// Which servers and database these orders are in.
    #[must_use]
    pub fn target(&self) -> &TargetId {
        &self.target
    }

    /// Asks the database for next to nothing.
    ///
    /// A read and not a `ping`, which a server answers that has lost its storage or its primary.
    ///
    /// # Errors
    /// When it is not there, or does not let us in.
    pub async fn ping(&self) -> Result<(), StoreError> {
        retry::once("asking the database whether it is there", async {
            self.orders().find_one(doc! { "_id": 0 }).projection(doc! { "_id": 1 }).await
        })
        .await
        .map(drop)
    }

    /// Drops the whole database. Tests clean up by it.
    ///
    /// # Errors
    /// When the server refuses or is not there.
    #[doc(hidden)]
    pub async fn drop_database(&self) -> Result<(), StoreError> {
        retry::transient("dropping the database", || async { self.database.drop().await }).await
    }

    fn orders(&self) -> Collection<Document> {
        self.database.collection(ORDERS)
    }

    /// Orders as bytes, so that one malformed document fails by itself and not its whole batch.
    fn raw_orders(&self) -> Collection<RawDocumentBuf> {
        self.database.collection(ORDERS)
    }

    /// Tickets as bytes, for the same reason.
    fn raw_tickets(&self) -> Collection<RawDocumentBuf> {
        self.database.collection(TICKETS)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.target).finish()
    }
}

const ORDERS: &str = "orders";
const TICKETS: &str = "tickets";

/// The field of an order that was reserved with an idempotency key.
const IDEMPOTENCY_KEY: &str = "idempotencyKey";
