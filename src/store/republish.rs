//! Puts what consumers have lost in the outbox again, for the relay to publish it again.
//!
//! A consumer keeps one order for each ticket, so the one that holds it must come last. All orders of a ticket are put in
//! the outbox together, those that are over first; then whatever order was created meanwhile. Each gets a mark, so that
//! neither the broker nor the relay takes its events for those that they know.

use std::collections::{BTreeMap, HashMap, HashSet};

use futures::TryStreamExt;
use jiff::{SignedDuration, Timestamp};
use mongodb::{
    bson::{Bson, Document, RawDocumentBuf, doc, oid::ObjectId},
    options::Hint,
};

use super::{
    database::Store,
    document::{self, ORDERS, date, number, object_id, statuses, timestamp, to_order, to_ticket},
    error::StoreError,
    outbox::{AGAIN, CREATED, FIRST_REFUSED, REFUSED, SINCE, UPDATED},
    own_indexes::{is_pending, pending_keys},
    retry,
    settle::refused,
    tickets::WriteReply,
};
use crate::order::{OrderStatus, Refusal, ReservationWindow, TicketId, Version};

const LOOKING: &str = "looking for what is to be published again";
const REQUEUEING: &str = "putting orders in the outbox again";

/// The document that says how far an interrupted run has come.
const PROGRESS: &str = "publish";

/// How many orders are read at once.
const PAGE: u32 = 1000;

/// How many statements one command has.
const PER_COMMAND: usize = 500;

/// How much a pod's clock may be wrong, by which the ids of orders are made.
const CLOCKS: SignedDuration = SignedDuration::from_hours(24);

/// How often to look for orders that were created meanwhile.
const ROUNDS: usize = 20;

/// An order that is to be published again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostOrder {
    id: ObjectId,
    /// Its status when it was read.
    pub status: OrderStatus,
    /// Its version then.
    pub version: u32,
    /// The payments that it has refused.
    pub refused: Vec<String>,
}

impl LostOrder {
    /// Whether the beginning of its payment is to be published too.
    #[must_use]
    pub fn had_begun(&self) -> bool {
        self.version > u32::from(self.is_cancelled() || self.is_complete())
    }

    /// Whether it is cancelled, which is to be published too.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.status == OrderStatus::Cancelled
    }

    /// Whether it is complete, which is to be published too.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.status == OrderStatus::Complete
    }
}

/// The orders that are to be published again, by ticket.
pub type LostTickets = BTreeMap<TicketId, Vec<LostOrder>>;

/// What [`Store::requeue`] has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requeued {
    /// Orders that were put in the outbox again.
    pub orders: u64,
    /// Orders that were not, since there is no copy of their ticket that says its price.
    pub without_price: u64,
}

impl Store {
    /// Orders that could still change at `since`, or were made since: those of the first tickets after `after`, about `most`
    /// of them. Whether these are the last.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn lost_since(
        &self,
        since: Timestamp,
        after: Option<TicketId>,
        most: usize,
    ) -> Result<(LostTickets, bool), StoreError> {
        let (mut tickets, mut count) = (LostTickets::new(), 0);
        let (mut last, mut end) = (made_at_the_earliest(since), None::<TicketId>);
        loop {
            let mut filter = could_change(since);
            filter.insert("_id", doc! { "$gt": last });
            let bounds = [("$gt", after), ("$lt", end)].into_iter();
            let bounds = bounds.filter_map(|(bound, ticket)| {
                Some((bound.to_owned(), Bson::from(object_id(ticket?.bytes()))))
            });
            let mut bounds: Document = bounds.collect();
            bounds.insert("$type", "objectId");
            filter.insert("ticket", bounds);
            let page = self.lost_page(filter).await?;
            let is_last_page = page.len() < PAGE as usize;
            for document in page {
                if let Ok(id) = document.get_object_id("_id") {
                    last = id;
                }
                let Some((ticket, order)) = lost(&document) else { continue };
                if end.is_none_or(|end| ticket < end) {
                    tickets.entry(ticket).or_default().push(order);
                    count += 1;
                }
                // The tickets that do not fit are left to the next call.
                while count > most && tickets.len() > 1 {
                    let Some((ticket, orders)) = tickets.pop_last() else { break };
                    count -= orders.len();
                    end = Some(ticket);
                }
            }
            if is_last_page {
                return Ok((tickets, end.is_none()));
            }
        }
    }

    /// Puts these orders in the outbox again, with the mark `again`.
    ///
    /// # Errors
    /// When the database fails. Some may be in the outbox then; calling again is safe.
    pub async fn requeue(&self, tickets: &LostTickets, again: &str) -> Result<Requeued, StoreError> {
        let ids: Vec<_> = tickets.keys().map(|ticket| object_id(ticket.bytes())).collect();
        let prices = self.prices(&ids).await?;
        let (now, mut done) = (self.reached().await?, Requeued::default());
        let (mut known, mut statements) = (HashSet::new(), Vec::new());
        for (ticket, orders) in tickets {
            let Some(price) = prices.get(ticket) else {
                done.without_price += orders.len() as u64;
                continue;
            };
            let mut orders: Vec<_> = orders.iter().collect();
            orders.sort_by_key(|order| (OrderStatus::ACTIVE.contains(&order.status), order.id));
            for order in orders {
                known.insert(order.id);
                statements.extend(outbox_statements(order, *price, again, now));
            }
        }
        self.update_in_order(statements).await?;
        // The order that holds the ticket must be published after all others.
        for _ in 0..ROUNDS {
            let mut statements = Vec::new();
            for (ticket, order) in self.active_orders_of(&ids).await? {
                if let Some(price) = prices.get(&ticket)
                    && known.insert(order.id)
                {
                    statements.extend(outbox_statements(&order, *price, again, now));
                }
            }
            if statements.is_empty() {
                break;
            }
            self.update_in_order(statements).await?;
        }
        done.orders = known.len() as u64;
        self.outbox.written();
        Ok(done)
    }

    /// How many of the orders with the mark `again` are still pending, up to `limit`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn count_requeued(&self, again: &str, limit: u64) -> Result<u64, StoreError> {
        let (orders, mut filter) = (self.orders(), is_pending());
        filter.insert(AGAIN, again);
        retry::transient(LOOKING, || async {
            orders.count_documents(filter.clone()).hint(Hint::Keys(pending_keys())).limit(limit).await
        })
        .await
    }

    /// The ticket up to which an interrupted run for the same `since` put everything in the outbox.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn requeued_up_to(&self, since: Timestamp) -> Result<Option<TicketId>, StoreError> {
        let relays = self.relay_leases();
        let found =
            retry::transient(LOOKING, || async { relays.find_one(doc! { "_id": PROGRESS }).await }).await?;
        let found = found
            .filter(|found| found.get_datetime("since").ok().and_then(|at| timestamp(*at)) == Some(since));
        Ok(found
            .and_then(|found| found.get_object_id("after").ok())
            .map(|id| TicketId::from_bytes(id.bytes())))
    }

    /// Keeps how far a run has come; none once it is at its end.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn keep_requeued_up_to(
        &self,
        since: Timestamp,
        after: Option<TicketId>,
    ) -> Result<(), StoreError> {
        let (relays, filter) = (self.relay_leases(), doc! { "_id": PROGRESS });
        let Some(after) = after else {
            return retry::transient(REQUEUEING, || async { relays.delete_one(filter.clone()).await })
                .await
                .map(drop);
        };
        let update = doc! { "$set": { "since": date(since), "after": object_id(after.bytes()) } };
        retry::transient(REQUEUEING, || async {
            relays.update_one(filter.clone(), update.clone()).upsert(true).await
        })
        .await
        .map(drop)
    }

    async fn lost_page(&self, filter: Document) -> Result<Vec<RawDocumentBuf>, StoreError> {
        let orders = self.raw_orders();
        retry::patiently_transient(LOOKING, || async {
            let find = orders.find(filter.clone()).sort(doc! { "_id": 1 });
            find.limit(i64::from(PAGE)).batch_size(PAGE).await?.try_collect().await
        })
        .await
    }

    async fn prices(&self, ids: &[ObjectId]) -> Result<HashMap<TicketId, f64>, StoreError> {
        let tickets = self.raw_tickets();
        let found: Vec<RawDocumentBuf> = retry::patiently_transient(LOOKING, || async {
            tickets.find(doc! { "_id": { "$in": ids } }).await?.try_collect().await
        })
        .await?;
        let tickets = found.iter().filter_map(|document| to_ticket(document).ok());
        Ok(tickets.map(|ticket| (ticket.id, ticket.price)).collect())
    }

    /// The orders that hold these tickets.
    async fn active_orders_of(&self, tickets: &[ObjectId]) -> Result<Vec<(TicketId, LostOrder)>, StoreError> {
        let found = self.orders_that_hold(&self.raw_orders(), tickets, LOOKING).await?;
        Ok(found.iter().filter_map(lost).collect())
    }

    /// Carries out statements, one after the other.
    async fn update_in_order(&self, statements: Vec<Document>) -> Result<(), StoreError> {
        for mut left in statements.chunks(PER_COMMAND) {
            let mut attempt = 1;
            while !left.is_empty() {
                let command = doc! {
                    "update": ORDERS, "updates": left.to_vec(), "ordered": true, "writeConcern": { "w": "majority" },
                };
                let reply = retry::patiently_transient(REQUEUEING, || async {
                    self.database.run_command(command.clone()).await
                })
                .await?;
                // It stops at the first that is in conflict with another write.
                let Some(from) = WriteReply::parse(&reply)?.retry.into_iter().min() else { break };
                left = left.get(from..).unwrap_or_default();
                retry::backoff(attempt).await;
                attempt += 1;
            }
        }
        Ok(())
    }
}

/// The condition for orders that were made since, or whose time was not over then.
fn could_change(since: Timestamp) -> Document {
    let made = object_id_at(since);
    doc! { "$or": [
        { "expiresAt": { "$gte": date(since) } },
        { "expiresAt": { "$not": { "$type": "date" } }, "_id": { "$gte": made } },
    ] }
}

/// The least id of an order that could still change at `since`.
fn made_at_the_earliest(since: Timestamp) -> ObjectId {
    let longest = SignedDuration::from_secs(i64::from(ReservationWindow::MAX_SECONDS));
    object_id_at(since.saturating_sub(longest + CLOCKS).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// The least id that is made at this time.
fn object_id_at(at: Timestamp) -> ObjectId {
    let seconds = u32::try_from(at.as_second().max(0)).unwrap_or(u32::MAX);
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&seconds.to_be_bytes());
    ObjectId::from_bytes(bytes)
}

/// An order that can be published.
fn lost(document: &RawDocumentBuf) -> Option<(TicketId, LostOrder)> {
    let order = to_order(document).ok()?;
    let refused = refused(document).map(str::to_owned).collect();
    let lost = LostOrder {
        id: object_id(order.id.bytes()),
        status: order.status,
        version: order.version.0.max(least_version(order.status)),
        refused,
    };
    Some((order.ticket?, lost))
}

/// The least version that an order has with this status: each change adds 1. Others may have stored it with less, or with none.
pub(super) fn least_version(status: OrderStatus) -> u32 {
    u32::from(status != OrderStatus::Created)
}

/// The condition for orders whose payment had begun, or for all others. It follows from version and status.
fn where_had_begun(is_meant: bool) -> Vec<Document> {
    let of = |status: &[OrderStatus], up_to: u32| {
        let more = doc! { "$gt": document::version(Version(up_to)) };
        // `$not`, so that it also matches a document without a version.
        let version = if is_meant {
            more
        } else {
            doc! { "$not": more }
        };
        doc! { "status": { "$in": statuses(status) }, "version": version }
    };
    vec![of(&OrderStatus::OPEN, 0), of(&[OrderStatus::Cancelled, OrderStatus::Complete], 1)]
}

/// The statements that put one order in the outbox again, to be carried out one after the other.
///
/// It may have changed since it was read, and what has become of it been published. So whether the beginning of its payment is to be
/// published too, each statement decides as the order is then. Payments begin between the two as well, and never the other way
/// round: what the first does not match since its payment has begun, the second does.
fn outbox_statements(order: &LostOrder, price: f64, again: &str, now: Timestamp) -> Vec<Document> {
    let entry = |has_begun: bool| {
        let mut set = doc! { CREATED: number(price), AGAIN: again };
        if has_begun {
            set.insert(UPDATED, true);
        }
        doc! {
            "q": { "_id": order.id, CREATED: { "$exists": false }, "$or": where_had_begun(has_begun) },
            "u": { "$set": set, "$min": { SINCE: date(now) } },
        }
    };
    let changed = [OrderStatus::AwaitingPayment, OrderStatus::Complete, OrderStatus::Cancelled];
    let too_low = [doc! { "version": { "$exists": false } }, doc! { "version": { "$lt": 1 } }];
    let mut statements = vec![
        // Of an order without a version, what it became would have the id of its making, and the broker would take it for that.
        doc! {
            "q": { "_id": order.id, "status": { "$in": statuses(&changed) }, "$or": too_low.to_vec() },
            "u": { "$max": { "version": document::version(Version(1)) } },
        },
        entry(false),
        entry(true),
        // Its making is still pending, or is published at this moment and not marked yet: then another order of its ticket, which is
        // published again, would come after it.
        doc! {
            "q": { "_id": order.id, CREATED: { "$exists": true }, AGAIN: { "$ne": again } },
            "u": { "$set": { AGAIN: again } },
        },
    ];
    if !order.refused.is_empty() {
        let reason = match order.status {
            OrderStatus::Cancelled => Refusal::OrderCancelled,
            OrderStatus::Complete => Refusal::AlreadyPaid,
            OrderStatus::Created | OrderStatus::AwaitingPayment => Refusal::TooLate,
        };
        let entry = |payment: &String| {
            Bson::from(doc! { "payment": payment, "reason": reason.as_str(), "since": date(now) })
        };
        let refused: Vec<_> = order.refused.iter().map(entry).collect();
        statements.push(doc! {
            "q": { "_id": order.id, FIRST_REFUSED: { "$exists": false } },
            "u": { "$set": { REFUSED: refused, AGAIN: again } },
        });
    }
    statements
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(status: OrderStatus, version: u32) -> LostOrder {
        LostOrder { id: ObjectId::from_bytes([1; 12]), status, version, refused: Vec::new() }
    }

    #[test]
    fn whether_a_payment_had_begun_follows_from_status_and_version() {
        for (status, version, had_begun) in [
            (OrderStatus::Created, 0, false),
            (OrderStatus::Cancelled, 1, false),
            (OrderStatus::Complete, 1, false),
            (OrderStatus::AwaitingPayment, 1, true),
            (OrderStatus::Complete, 2, true),
            (OrderStatus::Cancelled, 2, true),
        ] {
            assert_eq!(order(status, version).had_begun(), had_begun, "{status:?} {version}");
        }
    }

    #[test]
    fn an_order_is_noted_once_and_its_refusals_apart() {
        let now = Timestamp::from_second(5).unwrap();
        let mut paid = order(OrderStatus::Complete, 2);
        assert_eq!(outbox_statements(&paid, 20.0, "x", now).len(), 4);
        paid.refused = vec!["p1".into()];
        let statements = outbox_statements(&paid, 20.0, "x", now);
        assert_eq!(statements[0].get_document("u").unwrap(), &doc! { "$max": { "version": 1 } });
        let mut set = doc! { "outbox.created": number(20.0), "outbox.again": "x" };
        for statement in &statements[1..3] {
            let wanted = doc! { "$set": set.clone(), "$min": { "outbox.since": date(now) } };
            assert_eq!(statement.get_document("u").unwrap(), &wanted);
            set.insert("outbox.updated", true);
        }
        let in_flight =
            doc! { "_id": paid.id, "outbox.created": { "$exists": true }, "outbox.again": { "$ne": "x" } };
        assert_eq!(statements[3].get_document("q").unwrap(), &in_flight);
        assert!(statements[4].to_string().contains("already-paid"));
    }

    #[test]
    fn ids_are_made_of_the_time() {
        let at = Timestamp::from_second(1_795_368_564).unwrap();
        assert_eq!(object_id_at(at).timestamp().timestamp_millis(), 1_795_368_564_000);
        let earliest = made_at_the_earliest(at).timestamp().timestamp_millis();
        assert_eq!(earliest, (1_795_368_564 - 604_800 - 86_400) * 1000);
        assert_eq!(object_id_at(Timestamp::MIN).bytes(), [0; 12]);
    }
}
