//! Reads the active orders that hold tickets; concurrent reads share queries.
//!
//! A query names the unique index, so it fails at once if the index is missing or still being built. Where the whole
//! collection is missing it finds nothing and succeeds, and an insert would make the collection without any index; so now and
//! then a reservation also asks whether the collection is there.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use futures::try_join;
use mongodb::{
    Collection, Database,
    bson::{Bson, RawDocumentBuf, doc, oid::ObjectId},
};

use super::{
    batcher::Batcher,
    by_ids::{by_id, one_of_each},
    code,
    document::ORDERS,
    driver_error::server_code,
    error::StoreError,
    known_holders::{KnownHolders, WorthAsking},
    retry,
    ticket_index::{TicketIndex, active_order},
};

/// The order that holds the ticket of one call.
type Holder = Result<Option<RawDocumentBuf>, StoreError>;

/// Whether the collection is there.
type IsThere = Result<(), StoreError>;

const LOOKING: &str = "looking for the order that holds a ticket";

/// Finds the active orders of tickets. Clones share their queries.
#[derive(Clone)]
pub(super) struct Holders {
    database: Database,
    orders: Collection<RawDocumentBuf>,
    index: TicketIndex,
    batcher: Batcher<ObjectId, Holder>,
    looks: Batcher<(), IsThere>,
    known: Arc<Mutex<KnownHolders>>,
}

impl Holders {
    pub(super) fn new(database: Database, index: TicketIndex) -> Self {
        let (orders, known) = (database.collection(ORDERS), Arc::default());
        let (batcher, looks) = (Batcher::new(LOOKING), Batcher::new(LOOKING));
        Self { database, orders, index, batcher, looks, known }
    }

    /// The active order that holds `ticket`.
    pub(super) async fn of(&self, ticket: ObjectId) -> Holder {
        let (orders, index) = (self.orders.clone(), self.index.clone());
        let send = move |tickets| find(orders.clone(), index.clone(), tickets);
        let holder = self.batcher.call(ticket, 1, send).await??;
        self.known().answered(ticket, holder.is_some());
        Ok(holder)
    }

    /// The same before an insert, which decides: `None` also where it is not worth asking.
    ///
    /// # Errors
    /// [`StoreError::MissingIndex`] also when there is no collection.
    pub(super) async fn before_insert(&self, ticket: ObjectId) -> Holder {
        let asked = Instant::now();
        let worth_asking = self.known().worth_asking(ticket, asked);
        match worth_asking {
            WorthAsking::Nothing => Ok(None),
            WorthAsking::Holder => self.of(ticket).await,
            WorthAsking::HolderAndIndex => {
                let (holder, ()) = try_join!(self.of(ticket), self.look_for_collection())?;
                self.known().index_seen(asked);
                Ok(holder)
            }
        }
    }

    async fn look_for_collection(&self) -> IsThere {
        let database = self.database.clone();
        let send = move |calls: Vec<()>| look(database.clone(), calls.len());
        self.looks.call((), 1, send).await?
    }

    /// Remembers that an order holds `ticket`, so that whoever wants it next asks first.
    pub(super) fn hold(&self, ticket: ObjectId) {
        self.known().hold(ticket);
    }

    fn known(&self) -> MutexGuard<'_, KnownHolders> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One look for so many calls.
async fn look(database: Database, calls: usize) -> Vec<IsThere> {
    let looked = retry::transient(LOOKING, || async {
        match database.run_command(doc! { "listIndexes": ORDERS }).await {
            Err(error) if server_code(&error) == Some(code::NAMESPACE_NOT_FOUND) => Ok(false),
            listed => listed.map(|_| true),
        }
    })
    .await;
    let is_there = looked.and_then(|is_there| {
        let detail = || format!("there is no collection {ORDERS}");
        if is_there { Ok(()) } else { Err(StoreError::MissingIndex { doing: LOOKING, detail: detail() }) }
    });
    vec![is_there; calls]
}

/// One query for all of `tickets`.
async fn find(orders: Collection<RawDocumentBuf>, index: TicketIndex, tickets: Vec<ObjectId>) -> Vec<Holder> {
    match one_of_each(LOOKING, &orders, &tickets, active_order::<Bson>, || Some(index.hint())).await {
        Ok(found) => {
            let by_ticket = by_id(found, "ticket");
            tickets.iter().map(|ticket| Ok(by_ticket.get(ticket).cloned())).collect()
        }
        Err(error) => vec![Err(error); tickets.len()],
    }
}
