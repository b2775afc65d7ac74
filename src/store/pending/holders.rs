//! Which orders hold tickets, and what is published of them after the former orders of these tickets.

use std::collections::{HashMap, HashSet};

use futures::TryStreamExt;
use jiff::Timestamp;
use mongodb::{
    Collection,
    bson::{RawDocumentBuf, doc, oid::ObjectId},
};

use super::{
    order::{Change, ChangeKind, PendingOrder, to_pending},
    queries::LOOKING,
};
use crate::{
    order::{Order, OrderStatus, TicketId, Version},
    store::{
        database::Store,
        document::{object_id, statuses, to_order},
        error::StoreError,
        republish::least_version,
        retry,
        settle::payment_of,
    },
};

impl Store {
    /// The orders that hold the tickets of those that are over and published again. Consumers keep one order for each
    /// ticket, so these are published again after them, whether they are pending or not: the command that puts them in the
    /// outbox may be interrupted in between.
    pub(super) async fn holders_after(
        &self,
        orders: &[PendingOrder],
    ) -> Result<HashMap<TicketId, PendingOrder>, StoreError> {
        let over = orders.iter().filter(|pending| pending.is_over_and_republished());
        let over: HashMap<_, _> =
            over.filter_map(|pending| Some((pending.ticket, (pending.price()?, pending.since)))).collect();
        if over.is_empty() {
            return Ok(HashMap::new());
        }
        let ids: Vec<_> = over.keys().map(|ticket| object_id(ticket.bytes())).collect();
        let found = self.orders_that_hold(&self.acknowledged_orders(), &ids, LOOKING).await?;
        // This query may have seen another state than those before it.
        let ended = orders.iter().filter(|pending| pending.order.status == OrderStatus::Cancelled);
        let ended: HashSet<_> = ended.map(|pending| pending.order.id).collect();
        let active = orders.iter().filter(|pending| pending.order.status != OrderStatus::Cancelled);
        let active: HashMap<_, _> = active.map(|pending| (pending.ticket, pending.order.id)).collect();
        let holder = |document: &RawDocumentBuf| {
            let order = to_order(document).ok().filter(|order| !ended.contains(&order.id))?;
            let ticket = order.ticket?;
            // Where another one was active, this one was created since: its creation is published after the end of the other.
            if active.get(&ticket).is_some_and(|id| *id != order.id) {
                return None;
            }
            let (price, since) = over.get(&ticket)?;
            let price = to_pending(document).ok().and_then(|pending| pending.price()).unwrap_or(*price);
            Some((ticket, holder(order, ticket, payment_of(document), price, *since)))
        };
        Ok(found.iter().filter_map(holder).collect())
    }

    /// The documents in `orders` that hold these tickets.
    pub(in crate::store) async fn orders_that_hold(
        &self,
        orders: &Collection<RawDocumentBuf>,
        tickets: &[ObjectId],
        doing: &'static str,
    ) -> Result<Vec<RawDocumentBuf>, StoreError> {
        let filter =
            doc! { "ticket": { "$in": tickets }, "status": { "$in": statuses(&OrderStatus::ACTIVE) } };
        retry::patiently_transient(doing, || async {
            let mut session = self.relay_session().await?;
            let mut found = orders.find(filter.clone()).session(session.get()).await?;
            found.stream(session.get()).try_collect().await
        })
        .await
    }
}

/// An order that holds its ticket, with all that is published of such an order.
fn holder(
    order: Order,
    ticket: TicketId,
    payment: Option<String>,
    price: f64,
    since: Option<Timestamp>,
) -> PendingOrder {
    let is_complete = order.status == OrderStatus::Complete;
    // Where others have stored a lower one, its end would have the id of its creation.
    let version = Version(order.version.0.max(least_version(order.status)));
    let mut changes = vec![Change { version: Version(0), kind: ChangeKind::Created { price } }];
    let begun = Version(version.0.saturating_sub(u32::from(is_complete)));
    if begun > Version(0) {
        changes.push(Change { version: begun, kind: ChangeKind::Updated });
    }
    if is_complete {
        changes.push(Change { version, kind: ChangeKind::Completed });
    }
    PendingOrder { order, ticket, payment, changes, refused: Vec::new(), since, again: None }
}
