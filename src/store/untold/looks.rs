//! Looks for what is to be told, with all that comes before it.
//!
//! Neighbours keep one order for each ticket, so the orders of a ticket are told one after the other: what is to be told of
//! those that are over comes before what is to be told of the active one. The unique index makes that possible without
//! clocks: an order is made only after the one before it is cancelled. So whoever sees that an order is to be told of, and
//! then reads what else is to be told of its ticket, sees all that comes before it.

use std::collections::{BTreeSet, HashMap, HashSet};

use mongodb::{
    Collection,
    bson::{Bson, Document, RawDocumentBuf, doc},
    options::Hint,
};

use super::order::{UntoldOrder, needed, to_untold};
use crate::{
    order::{OrderId, OrderStatus, TicketId},
    store::{
        answer::at_most,
        database::Store,
        document::{ORDERS, object_id, statuses},
        error::StoreError,
        outbox::{CREATED, OUTBOX},
        own_indexes::{is_untold, untold_keys},
        retry,
    },
};

pub(super) const LOOKING: &str = "looking for changes of orders that are to be told";
const SETTING_ASIDE: &str = "setting aside a change of an order that cannot be told";

/// How many times as many orders are read of the tickets of a batch as of the batch itself.
const PER_TICKETS: u32 = 4;

/// Where the note of an order goes that cannot be told of, since its document cannot be read.
const SET_ASIDE: &str = "outboxUnreadable";

/// What [`Store::untold`] has found.
#[derive(Debug, Default)]
pub struct Untold {
    /// In any order.
    pub orders: Vec<UntoldOrder>,
    /// The orders that hold the tickets of those that are over and told of again, each with all that is told of such an
    /// order, whether it is to be told or was told before.
    pub holders: HashMap<TicketId, UntoldOrder>,
    /// Whether there may be more.
    pub is_full: bool,
}

impl Store {
    /// About `limit` orders of which something is to be told, as a majority of the servers has them, with all that is to
    /// be told of their tickets before.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn untold(&self, limit: u32) -> Result<Untold, StoreError> {
        Ok(self.untold_after(None, limit).await?.0)
    }

    /// The same of tickets after `after`; and the ticket from which to go on, unless there is nothing more. What is to be told of
    /// tickets up to there and was not found, whoever begins anew finds.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn untold_after(
        &self,
        after: Option<TicketId>,
        limit: u32,
    ) -> Result<(Untold, Option<TicketId>), StoreError> {
        let found = self.find_untold(of_tickets_after(after), untold_keys(), None, limit).await?;
        let is_full = found.len() as u64 >= u64::from(limit);
        let next = if is_full { found.iter().filter_map(ticket_of).max() } else { None };
        Ok((self.with_their_tickets(found, limit, is_full, between).await?, next))
    }

    /// The same of those of some orders of which something is to be told.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn untold_of_orders(&self, ids: &[OrderId]) -> Result<Untold, StoreError> {
        let limit = u32::try_from(ids.len()).unwrap_or(u32::MAX);
        let ids: Vec<_> = ids.iter().map(|id| object_id(id.bytes())).collect();
        let mut filter = is_untold();
        filter.insert("_id", doc! { "$in": ids });
        let found = self.find_untold(filter, doc! { "_id": 1 }, None, limit).await?;
        self.with_their_tickets(found, limit, false, each).await
    }

    /// Whether something is to be told.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn has_untold(&self) -> Result<bool, StoreError> {
        Ok(!self.find_untold(is_untold(), untold_keys(), None, 1).await?.is_empty())
    }

    pub(super) async fn with_their_tickets(
        &self,
        found: Vec<RawDocumentBuf>,
        limit: u32,
        is_full: bool,
        these: fn(&BTreeSet<TicketId>) -> Document,
    ) -> Result<Untold, StoreError> {
        let first = self.readable(found).await?;
        let tickets: BTreeSet<_> =
            first.iter().filter(|untold| untold.is_being_made_known()).map(|untold| untold.ticket).collect();
        // Of a ticket that is told of again, all is needed to find out who holds it.
        let is_again = first.iter().any(UntoldOrder::is_over_and_told_again);
        let before = self.told_before(&tickets, these, is_again, limit.saturating_mul(PER_TICKETS)).await?;
        let orders = complete(first, before, &tickets);
        let holders = self.holders_after(&orders).await?;
        Ok(Untold { orders, holders, is_full })
    }

    /// What is to be told of these tickets before the making of the orders that hold them: the orders that are over, and where
    /// `with_holders` is set, all.
    async fn told_before(
        &self,
        tickets: &BTreeSet<TicketId>,
        these: fn(&BTreeSet<TicketId>) -> Document,
        with_holders: bool,
        limit: u32,
    ) -> Result<OfTickets, StoreError> {
        if tickets.is_empty() {
            return Ok(OfTickets::default());
        }
        let mut filter = is_untold();
        filter.insert("ticket", these(tickets));
        if !with_holders {
            filter.insert("status", doc! { "$nin": statuses(&OrderStatus::ACTIVE) });
        }
        let found = self.find_untold(filter.clone(), untold_keys(), None, limit).await?;
        if (found.len() as u64) < u64::from(limit) {
            return Ok(OfTickets { orders: self.readable(found).await?, is_cut: false });
        }
        // One of each ticket at most: its making has been told, and its end has not.
        filter.insert(CREATED, doc! { "$exists": false });
        let mut orders = self.readable(found).await?;
        let over = self.readable(self.find_untold(filter, untold_keys(), None, limit).await?).await?;
        let known: HashSet<_> = over.iter().map(|untold| untold.order.id).collect();
        orders.retain(|untold| !known.contains(&untold.order.id));
        orders.extend(over);
        Ok(OfTickets { orders, is_cut: true })
    }

    pub(super) async fn find_untold(
        &self,
        filter: Document,
        index: Document,
        sort: Option<Document>,
        limit: u32,
    ) -> Result<Vec<RawDocumentBuf>, StoreError> {
        let orders = self.acknowledged_orders();
        retry::patiently(LOOKING, || async {
            retry::transient(LOOKING, || async {
                let mut session = self.telling().await?;
                let find = orders.find(filter.clone()).projection(needed()).hint(Hint::Keys(index.clone()));
                let mut find = find.limit(i64::from(limit)).batch_size(limit);
                if let Some(sort) = &sort {
                    find = find.sort(sort.clone());
                }
                let mut found = find.session(session.get()).await?;
                at_most(limit, found.stream(session.get())).await
            })
            .await
        })
        .await
    }

    /// The orders that can be told of. What cannot be read is taken out, so that it delays no other.
    async fn readable(&self, found: Vec<RawDocumentBuf>) -> Result<Vec<UntoldOrder>, StoreError> {
        let mut orders = Vec::new();
        for document in found {
            match to_untold(&document) {
                Ok(untold) => orders.push(untold),
                Err(error) => self.set_aside(&document, &error).await?,
            }
        }
        Ok(orders)
    }

    async fn set_aside(&self, document: &RawDocumentBuf, error: &StoreError) -> Result<(), StoreError> {
        tracing::error!(%error, field = SET_ASIDE, "a change of an order cannot be told; it is set aside");
        let Ok(Some(id)) = document.get("_id") else { return Ok(()) };
        let Ok(id) = Bson::try_from(id) else { return Ok(()) };
        let orders = self.orders();
        let (filter, update) = (doc! { "_id": id }, doc! { "$rename": { OUTBOX: SET_ASIDE } });
        retry::transient(SETTING_ASIDE, || async {
            orders.update_one(filter.clone(), update.clone()).session(self.telling().await?.get()).await
        })
        .await
        .map(drop)
    }

    /// Orders as a majority has them: nothing is told that a failover could take back.
    pub(super) fn acknowledged_orders(&self) -> Collection<RawDocumentBuf> {
        self.acknowledged(ORDERS)
    }
}

/// The condition for orders of tickets after this one of which something is to be told.
pub(super) fn of_tickets_after(after: Option<TicketId>) -> Document {
    let mut filter = is_untold();
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

/// What is to be told of the tickets of a batch before the orders that hold them, which was read after the batch.
#[derive(Default)]
struct OfTickets {
    orders: Vec<UntoldOrder>,
    /// Whether there are more.
    is_cut: bool,
}

/// The orders of a batch, with all that is to be told of their `tickets` before them; without those for which that is
/// not known.
///
/// The second look has whatever the first one could see, since both are in one causally consistent session: where an order has been
/// read that holds a ticket, the end of the one before it is seen by then, or has been told.
fn complete(first: Vec<UntoldOrder>, second: OfTickets, tickets: &BTreeSet<TicketId>) -> Vec<UntoldOrder> {
    let in_first: HashSet<_> = first.iter().map(|untold| untold.order.id).collect();
    let in_second: HashSet<_> = second.orders.iter().map(|untold| untold.order.id).collect();
    let mut orders: HashMap<_, _> = first.into_iter().map(|untold| (untold.order.id, untold)).collect();
    orders.extend(second.orders.into_iter().map(|untold| (untold.order.id, untold)));
    let may_be_told = |untold: &UntoldOrder| {
        // One whose making is known comes before the active one.
        !untold.is_being_made_known()
            // One that is over comes before the active one.
            || untold.order.status == OrderStatus::Cancelled && in_second.contains(&untold.order.id)
            // The one before one that only the second look has found may have been read before it was cancelled.
            || in_first.contains(&untold.order.id) && tickets.contains(&untold.ticket) && !second.is_cut
    };
    orders.into_values().filter(may_be_told).collect()
}

#[cfg(test)]
mod tests {
    use mongodb::bson::DateTime;

    use super::{super::order::tests::untold, *};

    #[test]
    fn an_order_is_made_known_only_when_all_that_comes_before_it_is_known() {
        let since = || DateTime::from_millis(7);
        let new = |id| untold(id, 9, "created", doc! { "since": since(), "created": 20 });
        let ended = |id| untold(id, 9, "cancelled", doc! { "since": since() });
        let brief = |id| untold(id, 9, "cancelled", doc! { "since": since(), "created": 20 });
        let tickets = BTreeSet::from([TicketId::from_bytes([9; 12])]);
        let told = |first: Vec<UntoldOrder>, second: Vec<UntoldOrder>, is_cut| {
            let second = OfTickets { orders: second, is_cut };
            let mut ids: Vec<_> = complete(first, second, &tickets)
                .into_iter()
                .map(|untold| untold.order.id.bytes()[0])
                .collect();
            ids.sort_unstable();
            ids
        };
        assert_eq!(told(vec![new(3)], vec![ended(1), brief(2)], false), [1, 2, 3]);
        assert_eq!(told(vec![new(3)], vec![ended(1), brief(2), new(3)], false), [1, 2, 3]);
        assert_eq!(told(vec![brief(2), new(3)], vec![brief(2)], false), [2, 3]);
        // It was made after the first look, and the one before it may have been read while it was open.
        assert_eq!(told(vec![new(3)], vec![new(3), new(4)], false), [3]);
        // There may be more before it.
        assert_eq!(told(vec![new(3)], vec![ended(1), brief(2), new(3)], true), [1, 2]);
        // The second look is the newer one.
        assert_eq!(
            complete(vec![new(3)], OfTickets { orders: vec![brief(3)], is_cut: false }, &tickets),
            [brief(3)]
        );
    }
}
