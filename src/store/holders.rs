//! Reads the active orders that hold tickets; concurrent reads share queries.
//!
//! A query names the unique index, so it fails at once if the index is missing or still being built.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use mongodb::{
    Collection,
    bson::{Bson, RawDocumentBuf, doc, oid::ObjectId},
};

use super::{
    answer::at_most,
    batcher::Batcher,
    error::StoreError,
    known_holders::KnownHolders,
    retry,
    ticket_index::{TicketIndex, active_order},
};

/// The order that holds the ticket of one call.
type Holder = Result<Option<RawDocumentBuf>, StoreError>;

const LOOKING: &str = "looking for the order that holds a ticket";

/// Finds the active orders of tickets. Clones share their queries.
#[derive(Clone)]
pub(super) struct Holders {
    orders: Collection<RawDocumentBuf>,
    index: TicketIndex,
    batcher: Batcher<ObjectId, Holder>,
    known: Arc<Mutex<KnownHolders>>,
}

impl Holders {
    pub(super) fn new(orders: Collection<RawDocumentBuf>, index: TicketIndex) -> Self {
        Self { orders, index, batcher: Batcher::new(LOOKING), known: Arc::default() }
    }

    /// The active order that holds `ticket`.
    pub(super) async fn of(&self, ticket: ObjectId) -> Holder {
        let (orders, index, asked) = (self.orders.clone(), self.index.clone(), Instant::now());
        let send = move |tickets| find(orders.clone(), index.clone(), tickets);
        let holder = self.batcher.call(ticket, 1, send).await??;
        self.known().answered(ticket, holder.is_some(), asked);
        Ok(holder)
    }

    /// The same before an insert, which decides: `None` also where it is not worth asking.
    pub(super) async fn before_insert(&self, ticket: ObjectId) -> Holder {
        let is_worth_asking = self.known().is_worth_asking(ticket, Instant::now());
        if is_worth_asking { self.of(ticket).await } else { Ok(None) }
    }

    /// Remembers that an order holds `ticket`, so that whoever wants it next asks first.
    pub(super) fn hold(&self, ticket: ObjectId) {
        self.known().hold(ticket);
    }

    fn known(&self) -> MutexGuard<'_, KnownHolders> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One query for all of `tickets`.
async fn find(orders: Collection<RawDocumentBuf>, index: TicketIndex, tickets: Vec<ObjectId>) -> Vec<Holder> {
    let found: Result<Vec<RawDocumentBuf>, _> = retry::transient(LOOKING, || async {
        match &tickets[..] {
            [ticket] => {
                let found = orders.find_one(active_order(*ticket)).hint(index.hint()).await?;
                Ok(found.into_iter().collect())
            }
            tickets => {
                let count = u32::try_from(tickets.len()).unwrap_or(u32::MAX);
                let among = doc! { "$in": tickets };
                let find = orders.find(active_order(Bson::Document(among))).hint(index.hint());
                at_most(count, find.limit(i64::from(count)).batch_size(count).await?).await
            }
        }
    })
    .await;
    match found {
        Ok(found) => {
            let with_ticket = |order: RawDocumentBuf| Some((order.get_object_id("ticket").ok()?, order));
            let by_ticket: HashMap<_, _> = found.into_iter().filter_map(with_ticket).collect();
            tickets.iter().map(|ticket| Ok(by_ticket.get(ticket).cloned())).collect()
        }
        Err(error) => vec![Err(error); tickets.len()],
    }
}
