//! `Store`: one database, its connection pool and its collections.

use std::{fmt, sync::Arc, time::Duration};

use mongodb::{
    Collection, Database,
    bson::{Document, RawDocumentBuf, doc},
    error::Result as DriverResult,
};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

use super::{
    causal::{Causal, CausalSession},
    clock::SharedClock,
    connect::{ConnectOptions, Pool, Pools, TargetId},
    document::{ORDERS, TICKETS},
    error::StoreError,
    first_pages::FirstPages,
    guard::Guard,
    holders::Holders,
    inserter::Inserter,
    loader::Loader,
    outbox::Outbox,
    retry,
    ticket_index::TicketIndex,
};

/// How long closing the connections may take.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// The orders and tickets of one database. Clones share one connection pool.
#[derive(Clone)]
pub struct Store {
    pub(super) database: Database,
    /// Keeps the shared pool alive.
    pool: Arc<Pool>,
    target: TargetId,
    is_chosen_by_default: bool,
    pub(super) order_loader: Loader,
    pub(super) ticket_loader: Loader,
    pub(super) inserter: Inserter,
    pub(super) first_pages: FirstPages,
    /// All orders of users who have few, as a majority has them.
    pub(super) few_orders: FirstPages,
    pub(super) holders: Holders,
    pub(super) ticket_index: TicketIndex,
    pub(super) clock: SharedClock,
    pub(super) outbox: Outbox,
    /// Of the outbox: who publishes, what is pending, and what has been published.
    relay_session: Causal,
}

impl Store {
    /// Creates a connection pool; the servers are contacted by the first call that needs them.
    ///
    /// Only `mongodb+srv` needs the network here, for the DNS query.
    ///
    /// # Errors
    /// When the URI or the database's name is not usable; the message never contains credentials.
    pub async fn connect(options: ConnectOptions<'_>) -> Result<Self, StoreError> {
        Self::connect_in(&Pools::default(), options).await
    }

    /// Like [`Store::connect`], with a connection pool shared through `pools`.
    ///
    /// # Errors
    /// As [`Store::connect`].
    pub async fn connect_in(pools: &Pools, options: ConnectOptions<'_>) -> Result<Self, StoreError> {
        let (pool, target) = pools.open(&options).await?;
        let database = pool.client.database(&target.database);
        let ticket_index = TicketIndex::default();
        Ok(Self {
            order_loader: Loader::new(database.collection(ORDERS), "reading an order"),
            ticket_loader: Loader::new(database.collection(TICKETS), "reading a ticket"),
            inserter: Inserter::new(database.collection(ORDERS), "storing an order"),
            first_pages: FirstPages::default(),
            few_orders: FirstPages::default(),
            holders: Holders::new(database.clone(), ticket_index.clone()),
            ticket_index,
            clock: SharedClock::default(),
            outbox: Outbox::default(),
            relay_session: Causal::default(),
            database,
            pool,
            target,
            is_chosen_by_default: options.is_chosen_by_default()?,
        })
    }

    /// Identifies the database.
    #[must_use]
    pub fn target(&self) -> &TargetId {
        &self.target
    }

    /// Room for a batch of thousands of orders, to be held as long as it is worked on. None if as many are worked on for the
    /// namespace as there may be.
    #[must_use]
    pub fn large_batch(&self) -> Option<OwnedSemaphorePermit> {
        self.pool.guard.as_ref().and_then(Guard::large_batch)
    }

    /// Whether nobody has named the database.
    pub(super) fn is_chosen_by_default(&self) -> bool {
        self.is_chosen_by_default
    }

    /// Closes the connections, unless another store shares them, for a program that ends: what the driver does in the
    /// background would fail noisily when the runtime ends under it.
    pub async fn shutdown(self) {
        let Self { pool, .. } = self;
        let Some(pool) = Arc::into_inner(pool) else { return };
        // It waits for cursors, none of which is open; but a program must end.
        if timeout(SHUTDOWN_TIMEOUT, pool.client.clone().shutdown()).await.is_err() {
            tracing::debug!("the connections to the database are not closed in time");
        }
    }

    /// Drops the whole database, for tests.
    ///
    /// # Errors
    /// When the server refuses or cannot be reached.
    #[doc(hidden)]
    pub async fn drop_database(&self) -> Result<(), StoreError> {
        retry::transient("dropping the database", || async { self.database.drop().await }).await
    }

    /// A session for the relay: to take its lease, to read what is pending, and to mark it as published.
    pub(super) async fn relay_session(&self) -> DriverResult<CausalSession> {
        self.relay_session.session(self.database.client()).await
    }

    pub(super) fn orders(&self) -> Collection<Document> {
        self.database.collection(ORDERS)
    }

    /// Orders as raw BSON, so that a malformed document does not fail the whole batch.
    pub(super) fn raw_orders(&self) -> Collection<RawDocumentBuf> {
        self.database.collection(ORDERS)
    }

    /// Tickets as raw BSON, for the same reason.
    pub(super) fn raw_tickets(&self) -> Collection<RawDocumentBuf> {
        self.database.collection(TICKETS)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.target).finish()
    }
}
