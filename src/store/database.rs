//! One database: its connection pool and its collections.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use mongodb::{
    Client, Collection, Database,
    bson::{Document, RawDocumentBuf, doc},
};

use super::{
    connect::{ConnectOptions, Pools, TargetId},
    document::{ORDERS, TICKETS},
    error::StoreError,
    first_pages::FirstPages,
    gates::Gates,
    insert::Inserts,
    lookup::Lookup,
    retry,
};

/// The orders of one database. Clones share one connection pool.
#[derive(Clone)]
pub struct Store {
    pub(super) database: Database,
    /// Keeps a pool that is shared.
    _pool: Arc<Client>,
    target: TargetId,
    /// Made by the first reservation: they are large, and a sweeper never makes one.
    pub(super) gates: Arc<OnceLock<Box<Gates>>>,
    pub(super) orders_by_id: Lookup,
    pub(super) tickets_by_id: Lookup,
    pub(super) inserts: Inserts,
    pub(super) first_pages: FirstPages,
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

    pub(super) fn orders(&self) -> Collection<Document> {
        self.database.collection(ORDERS)
    }

    /// Orders as bytes, so that one malformed document fails by itself and not its whole batch.
    pub(super) fn raw_orders(&self) -> Collection<RawDocumentBuf> {
        self.database.collection(ORDERS)
    }

    /// Tickets as bytes, for the same reason.
    pub(super) fn raw_tickets(&self) -> Collection<RawDocumentBuf> {
        self.database.collection(TICKETS)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.target).finish()
    }
}
