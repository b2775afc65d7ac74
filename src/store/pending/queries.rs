//! Finds pending orders, with everything that must be published before them.
//!
//! Consumers keep one order for each ticket, so the orders of a ticket are published one after the other: those that are
//! over before the active one. The unique index makes that possible without clocks: an order is created only after the one
//! before it is cancelled. So a reader that sees a pending order, and then reads what else is pending of its ticket, sees
//! everything that comes before it.

use std::collections::{BTreeSet, HashMap, HashSet};

use mongodb::{
    Collection,
    bson::{Bson, Document, RawDocumentBuf, doc},
    options::Hint,
};

use super::order::{PendingOrder, needed, to_pending};
use crate::{
    order::{OrderId, OrderStatus, TicketId},
    store::{
        answer::at_most,
        database::Store,
        document::{ORDERS, object_id, statuses},
        error::StoreError,
        outbox::{CREATED, OUTBOX},
        own_indexes::{is_pending, pending_keys},
        retry,
    },
};

pub(super) const LOOKING: &str = "looking for pending orders";
const SETTING_ASIDE: &str = "setting aside an outbox that cannot be read";

/// How many times as many orders are read of the tickets of a batch as of the batch itself.
const PER_TICKETS: u32 = 4;

/// Where an outbox goes that cannot be published, since the order's document cannot be read.
const SET_ASIDE: &str = "outboxUnreadable";

/// What [`Store::pending_after`] and its like have found.
#[derive(Debug, Default)]
pub struct Pending {
    /// In any order.
    pub orders: Vec<PendingOrder>,
    /// The orders that hold the tickets of those that are over and published again, each with all that is published of such
    /// an order, whether it is pending or was published before.
    pub holders: HashMap<TicketId, PendingOrder>,
    /// Whether there may be more.
    pub is_full: bool,
}

impl Store {
    /// About `limit` pending orders of tickets after `after`, as a majority of the servers has them, with everything of their
    /// tickets that must be published before them; and the ticket from which to go on, unless there is nothing more. Pending
    /// orders of tickets up to there that were not found are found by the next pass from the first ticket.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn pending_after(
        &self,
        after: Option<TicketId>,
        limit: u32,
    ) -> Result<(Pending, Option<TicketId>), StoreError> {
        let found = self.find_pending(of_tickets_after(after), pending_keys(), None, limit).await?;
        let is_full = found.len() as u64 >= u64::from(limit);
        let next = if is_full { found.iter().filter_map(ticket_of).max() } else { None };
        Ok((self.with_their_tickets(found, limit, is_full, between).await?, next))
    }

    /// The same for those of some orders that are pending.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn pending_of_orders(&self, ids: &[OrderId]) -> Result<Pending, StoreError> {
        let limit = u32::try_from(ids.len()).unwrap_or(u32::MAX);
        let ids: Vec<_> = ids.iter().map(|id| object_id(id.bytes())).collect();
        let mut filter = is_pending();
        filter.insert("_id", doc! { "$in": ids });
        let found = self.find_pending(filter, doc! { "_id": 1 }, None, limit).await?;
        self.with_their_tickets(found, limit, false, each).await
    }

    /// Whether anything is pending.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn has_pending(&self) -> Result<bool, StoreError> {
        Ok(!self.find_pending(is_pending(), pending_keys(), None, 1).await?.is_empty())
    }

    pub(super) async fn with_their_tickets(
        &self,
        found: Vec<RawDocumentBuf>,
        limit: u32,
        is_full: bool,
        these: fn(&BTreeSet<TicketId>) -> Document,
    ) -> Result<Pending, StoreError> {
        let first = self.readable(found).await?;
        let tickets: BTreeSet<_> = first
            .iter()
            .filter(|pending| pending.is_creation_pending())
            .map(|pending| pending.ticket)
            .collect();
        // Of a ticket that is published again, all orders are needed to find out which one holds it.
        let is_again = first.iter().any(PendingOrder::is_over_and_republished);
        let before =
            self.pending_before(&tickets, these, is_again, limit.saturating_mul(PER_TICKETS)).await?;
        let orders = complete(first, before, &tickets);
        let holders = self.holders_after(&orders).await?;
        Ok(Pending { orders, holders, is_full })
    }

    /// What is pending of these tickets before the creation of the orders that hold them: the orders that are over, and
    /// where `with_holders` is set, all.
    async fn pending_before(
        &self,
        tickets: &BTreeSet<TicketId>,
        these: fn(&BTreeSet<TicketId>) -> Document,
        with_holders: bool,
        limit: u32,
    ) -> Result<OfTickets, StoreError> {
        if tickets.is_empty() {
            return Ok(OfTickets::default());
        }
        let mut filter = is_pending();
        filter.insert("ticket", these(tickets));
        if !with_holders {
            filter.insert("status", doc! { "$nin": statuses(&OrderStatus::ACTIVE) });
        }
        let found = self.find_pending(filter.clone(), pending_keys(), None, limit).await?;
        if (found.len() as u64) < u64::from(limit) {
            return Ok(OfTickets { orders: self.readable(found).await?, is_cut: false });
        }
        // At most one of each ticket: its creation is published, and its end is not.
        filter.insert(CREATED, doc! { "$exists": false });
        let mut orders = self.readable(found).await?;
        let over = self.readable(self.find_pending(filter, pending_keys(), None, limit).await?).await?;
        let known: HashSet<_> = over.iter().map(|pending| pending.order.id).collect();
        orders.retain(|pending| !known.contains(&pending.order.id));
        orders.extend(over);
        Ok(OfTickets { orders, is_cut: true })
    }

    pub(super) async fn find_pending(
        &self,
        filter: Document,
        index: Document,
        sort: Option<Document>,
        limit: u32,
    ) -> Result<Vec<RawDocumentBuf>, StoreError> {
        let orders = self.acknowledged_orders();
        retry::patiently_transient(LOOKING, || async {
            let mut session = self.relay_session().await?;
            let find = orders.find(filter.clone()).projection(needed()).hint(Hint::Keys(index.clone()));
            let mut find = find.limit(i64::from(limit)).batch_size(limit);
            if let Some(sort) = &sort {
                find = find.sort(sort.clone());
            }
            let mut found = find.session(session.get()).await?;
            at_most(limit, found.stream(session.get())).await
        })
        .await
    }

    /// The orders that can be published. What cannot be read is set aside, so that it delays no other.
    async fn readable(&self, found: Vec<RawDocumentBuf>) -> Result<Vec<PendingOrder>, StoreError> {
        let mut orders = Vec::new();
        for document in found {
            match to_pending(&document) {
                Ok(pending) => orders.push(pending),
                Err(error) => self.set_aside(&document, &error).await?,
            }
        }
        Ok(orders)
    }

    async fn set_aside(&self, document: &RawDocumentBuf, error: &StoreError) -> Result<(), StoreError> {
        tracing::error!(%error, field = SET_ASIDE, "the outbox of an order cannot be read; it is set aside");
        let Ok(Some(id)) = document.get("_id") else { return Ok(()) };
        let Ok(id) = Bson::try_from(id) else { return Ok(()) };
        let orders = self.orders();
        let (filter, update) = (doc! { "_id": id }, doc! { "$rename": { OUTBOX: SET_ASIDE } });
        retry::transient(SETTING_ASIDE, || async {
            orders.update_one(filter.clone(), update.clone()).session(self.relay_session().await?.get()).await
        })
        .await
        .map(drop)
    }

    /// Orders as a majority has them: nothing is published that a failover could roll back.
    pub(super) fn acknowledged_orders(&self) -> Collection<RawDocumentBuf> {
        self.acknowledged(ORDERS)
    }
}

/// The condition for pending orders of tickets after this one.
pub(super) fn of_tickets_after(after: Option<TicketId>) -> Document {
    let mut filter = is_pending();
    if let Some(after) = after {
        filter.insert("ticket", doc! { "$gt": object_id(after.bytes()) });
    }
    filter
}

pub(super) fn ticket_of(order: &RawDocumentBuf) -> Option<TicketId> {
    order.get_object_id("ticket").ok().map(|id| TicketId::from_bytes(id.bytes()))
}

/// All tickets from the first of these to the last. Those of a page of the index are next to each other in it, and to read a range
/// costs a fraction of looking each of them up.
pub(super) fn between(tickets: &BTreeSet<TicketId>) -> Document {
    let end = |ticket: Option<&TicketId>| ticket.map(|ticket| object_id(ticket.bytes()));
    doc! { "$gte": end(tickets.first()), "$lte": end(tickets.last()) }
}

/// These tickets, which may be anywhere in the index.
pub(super) fn each(tickets: &BTreeSet<TicketId>) -> Document {
    let ids: Vec<_> = tickets.iter().map(|ticket| object_id(ticket.bytes())).collect();
    doc! { "$in": ids }
}

/// What is pending of the tickets of a batch before the orders that hold them, read after the batch.
#[derive(Default)]
struct OfTickets {
    orders: Vec<PendingOrder>,
    /// Whether there are more.
    is_cut: bool,
}

/// The orders of a batch, with everything of their `tickets` that must be published before them; without those for which
/// that is not known.
///
/// The second query sees whatever the first one could see, since both are in one causally consistent session: where an order
/// was read that holds a ticket, the end of the one before it is seen by then, or is already published.
fn complete(first: Vec<PendingOrder>, second: OfTickets, tickets: &BTreeSet<TicketId>) -> Vec<PendingOrder> {
    let in_first: HashSet<_> = first.iter().map(|pending| pending.order.id).collect();
    let in_second: HashSet<_> = second.orders.iter().map(|pending| pending.order.id).collect();
    let mut orders: HashMap<_, _> = first.into_iter().map(|pending| (pending.order.id, pending)).collect();
    orders.extend(second.orders.into_iter().map(|pending| (pending.order.id, pending)));
    let may_be_published = |pending: &PendingOrder| {
        // One whose creation is published comes before the active one.
        !pending.is_creation_pending()
            // One that is over comes before the active one.
            || pending.order.status == OrderStatus::Cancelled && in_second.contains(&pending.order.id)
            // The one before one that only the second query has found may have been read before it was cancelled.
            || in_first.contains(&pending.order.id) && tickets.contains(&pending.ticket) && !second.is_cut
    };
    orders.into_values().filter(may_be_published).collect()
}

#[cfg(test)]
mod tests {
    use mongodb::bson::DateTime;

    use super::{super::order::tests::pending, *};

    #[test]
    fn an_order_is_made_known_only_when_all_that_comes_before_it_is_known() {
        let since = || DateTime::from_millis(7);
        let new = |id| pending(id, 9, "created", doc! { "since": since(), "created": 20 });
        let ended = |id| pending(id, 9, "cancelled", doc! { "since": since() });
        let brief = |id| pending(id, 9, "cancelled", doc! { "since": since(), "created": 20 });
        let tickets = BTreeSet::from([TicketId::from_bytes([9; 12])]);
        let publishable = |first: Vec<PendingOrder>, second: Vec<PendingOrder>, is_cut| {
            let second = OfTickets { orders: second, is_cut };
            let mut ids: Vec<_> = complete(first, second, &tickets)
                .into_iter()
                .map(|pending| pending.order.id.bytes()[0])
                .collect();
            ids.sort_unstable();
            ids
        };
        assert_eq!(publishable(vec![new(3)], vec![ended(1), brief(2)], false), [1, 2, 3]);
        assert_eq!(publishable(vec![new(3)], vec![ended(1), brief(2), new(3)], false), [1, 2, 3]);
        assert_eq!(publishable(vec![brief(2), new(3)], vec![brief(2)], false), [2, 3]);
        // It was created after the first query, and the one before it may have been read while it was open.
        assert_eq!(publishable(vec![new(3)], vec![new(3), new(4)], false), [3]);
        // There may be more before it.
        assert_eq!(publishable(vec![new(3)], vec![ended(1), brief(2), new(3)], true), [1, 2]);
        // The second query is the newer one.
        assert_eq!(
            complete(vec![new(3)], OfTickets { orders: vec![brief(3)], is_cut: false }, &tickets),
            [brief(3)]
        );
    }
}
