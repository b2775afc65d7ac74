//! The orders of which something is to be told, and that it has been told.
//!
//! Neighbours keep one order for each ticket, so the orders of a ticket are told one after the other: what is to be told of
//! those that are over comes before what is to be told of the active one. The unique index makes that possible without
//! clocks: an order is made only after the one before it is cancelled. So whoever sees that an order is to be told of, and
//! then reads what else is to be told of its ticket, sees all that comes before it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::{Duration, Instant},
};

use futures::TryStreamExt;
use jiff::Timestamp;
use mongodb::{
    Collection,
    bson::{Bson, Document, RawDocument, RawDocumentBuf, doc, oid::ObjectId},
    options::Hint,
};

use super::{
    answer::at_most,
    cast,
    database::Store,
    document::{self, ORDERS, object_id, statuses, timestamp, to_order},
    error::StoreError,
    outbox::{AGAIN, CREATED, FIRST_REFUSED, OUTBOX, REFUSED, REFUSED_SINCE, SINCE, UPDATED},
    own_indexes::{is_untold, untold_keys},
    retell::least_version,
    retry,
    settle::{PAYMENT_ID, payment_of},
};
use crate::order::{Order, OrderId, OrderStatus, Refusal, TicketId, Version};

const LOOKING: &str = "looking for changes of orders that are to be told";
const CLEARING: &str = "noting which changes of orders have been told";

/// How many times as many orders are read of the tickets of a batch as of the batch itself.
const PER_TICKETS: u32 = 4;

/// How many orders one command marks as told.
const PER_COMMAND: usize = 1000;

/// Where the note of an order goes that cannot be told of, since its document cannot be read.
const SET_ASIDE: &str = "outboxUnreadable";

/// An order of which something is to be told.
#[derive(Clone, Debug, PartialEq)]
pub struct UntoldOrder {
    /// The order as it is now.
    pub order: Order,
    /// The ticket that it holds or held.
    pub ticket: TicketId,
    /// The payment that it was completed by, if it says so.
    pub payment: Option<String>,
    /// What is to be told, by version.
    pub changes: Vec<Change>,
    /// Payments that were refused.
    pub refused: Vec<RefusedPayment>,
    /// The time of the oldest of these changes, or a little earlier, by the database's clock.
    pub since: Option<Timestamp>,
    /// If it was told before and is told again: a mark of that.
    pub again: Option<String>,
}

/// A payment that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedPayment {
    /// The payment.
    pub payment: String,
    /// Why.
    pub reason: Refusal,
    /// When, or a little earlier, by the database's clock.
    pub since: Option<Timestamp>,
}

/// One change that is to be told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// The version that it made.
    pub version: Version,
    /// What it was.
    pub kind: ChangeKind,
}

/// What is told of an order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ChangeKind {
    /// It was made.
    Created {
        /// The price of its ticket then.
        price: f64,
    },
    /// Its payment has begun.
    Updated,
    /// It was cancelled, or has expired.
    Cancelled,
    /// It was paid for.
    Completed,
}

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

/// An order of which everything up to a version has been told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The order.
    pub id: OrderId,
    /// The version.
    pub version: Version,
    /// The mark, if it was told again.
    pub again: Option<String>,
}

impl UntoldOrder {
    /// The time of the oldest thing that is to be told.
    fn oldest(&self) -> Option<Timestamp> {
        self.refused.iter().map(|refused| refused.since).chain([self.since]).flatten().min()
    }

    fn is_being_made_known(&self) -> bool {
        self.price().is_some()
    }

    /// The price with which its making is told.
    fn price(&self) -> Option<f64> {
        self.changes.iter().find_map(|change| match change.kind {
            ChangeKind::Created { price } => Some(price),
            ChangeKind::Updated | ChangeKind::Cancelled | ChangeKind::Completed => None,
        })
    }

    /// Whether neighbours that hear of it again forget which order holds its ticket.
    fn is_over_and_told_again(&self) -> bool {
        self.order.status == OrderStatus::Cancelled && self.again.is_some()
    }
}

impl Store {
    /// About `limit` orders of which something is to be told, as a majority of the servers has them, with all that is to
    /// be told of their tickets before.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn untold(&self, limit: u32) -> Result<Untold, StoreError> {
        let found = self.find_untold(is_untold(), untold_keys(), None, limit).await?;
        let is_full = found.len() as u64 >= u64::from(limit);
        self.with_their_tickets(found, limit, is_full, between).await
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

    /// The orders that hold the tickets of those that are over and told of again. Neighbours keep one order for each ticket,
    /// so these are told again after them, whether they are noted or not: whoever notes may be interrupted in between.
    async fn holders_after(
        &self,
        orders: &[UntoldOrder],
    ) -> Result<HashMap<TicketId, UntoldOrder>, StoreError> {
        let over = orders.iter().filter(|untold| untold.is_over_and_told_again());
        let over: HashMap<_, _> =
            over.filter_map(|untold| Some((untold.ticket, (untold.price()?, untold.since)))).collect();
        if over.is_empty() {
            return Ok(HashMap::new());
        }
        let ids: Vec<_> = over.keys().map(|ticket| object_id(ticket.bytes())).collect();
        let found = self.orders_that_hold(&self.acknowledged_orders(), &ids, LOOKING).await?;
        // This look may have been at another state than those before it.
        let ended = orders.iter().filter(|untold| untold.order.status == OrderStatus::Cancelled);
        let ended: HashSet<_> = ended.map(|untold| untold.order.id).collect();
        let active = orders.iter().filter(|untold| untold.order.status != OrderStatus::Cancelled);
        let active: HashMap<_, _> = active.map(|untold| (untold.ticket, untold.order.id)).collect();
        let holder = |document: &RawDocumentBuf| {
            let order = to_order(document).ok().filter(|order| !ended.contains(&order.id))?;
            let ticket = order.ticket?;
            // Where another one was active, this one was made since: its making is told after the end of the other.
            if active.get(&ticket).is_some_and(|id| *id != order.id) {
                return None;
            }
            let (price, since) = over.get(&ticket)?;
            let price = to_untold(document).ok().and_then(|untold| untold.price()).unwrap_or(*price);
            Some((ticket, holder(order, ticket, payment_of(document), price, *since)))
        };
        Ok(found.iter().filter_map(holder).collect())
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
        retry::transient(CLEARING, || async {
            orders.update_one(filter.clone(), update.clone()).session(self.telling().await?.get()).await
        })
        .await
        .map(drop)
    }

    /// Notes what has been told; what has changed since is still to be told.
    ///
    /// # Errors
    /// When the database fails. Some of it may be noted then; calling again is safe.
    pub async fn note_told(&self, told: &[Told]) -> Result<(), StoreError> {
        let mut by_version = BTreeMap::<(Version, Option<&str>), Vec<ObjectId>>::new();
        for told in told {
            let key = (told.version, told.again.as_deref());
            by_version.entry(key).or_default().push(object_id(told.id.bytes()));
        }
        // The end of an order before the making of the next: if this is interrupted, the end alone must not be told again.
        for ((version, again), ids) in by_version.into_iter().rev() {
            for ids in ids.chunks(PER_COMMAND) {
                self.note_told_at(version, again, ids).await?;
            }
        }
        Ok(())
    }

    async fn note_told_at(
        &self,
        version: Version,
        again: Option<&str>,
        ids: &[ObjectId],
    ) -> Result<(), StoreError> {
        let told = document::version(version);
        // An order without a version reads as one with 0.
        let as_read = if version == Version(0) {
            Bson::from(doc! { "$in": [told.clone(), Bson::Null] })
        } else {
            told.clone()
        };
        // What was noted again meanwhile is still to be told.
        let again = again.map_or(Bson::from(doc! { "$exists": false }), Bson::from);
        let unchanged = |has_refused: bool| {
            doc! {
                "_id": { "$in": ids }, "version": as_read.clone(), FIRST_REFUSED: { "$exists": has_refused },
                AGAIN: again.clone(),
            }
        };
        let all = self.update_told(unchanged(false), doc! { OUTBOX: "" }).await?;
        if all >= ids.len() as u64 {
            return Ok(());
        }
        self.update_told(unchanged(true), doc! { SINCE: "", CREATED: "", UPDATED: "" }).await?;
        let changed = doc! {
            "_id": { "$in": ids }, "version": { "$gt": told }, OUTBOX: { "$exists": true }, AGAIN: again,
        };
        // Whatever begins with 0 is the making; the beginning of the payment comes after it.
        let mut fields = doc! { CREATED: "" };
        if version > Version(0) {
            fields.insert(UPDATED, "");
        }
        self.update_told(changed, fields).await.map(drop)
    }

    /// Notes that the refusal of `payment` by the order `id` has been told.
    ///
    /// # Errors
    /// As [`Store::note_told`].
    pub async fn note_refusal_told(&self, id: OrderId, payment: &str) -> Result<(), StoreError> {
        let id = object_id(id.bytes());
        let without = doc! { "$pull": { REFUSED: { "payment": payment } } };
        self.update_untold(doc! { "_id": id, REFUSED: { "$exists": true } }, without).await?;
        // If this is interrupted here, there is nothing left to tell of the order, which is noted as told then.
        let mut nothing = doc! { "_id": id, OUTBOX: { "$exists": true } };
        nothing.extend(
            [SINCE, CREATED, UPDATED, FIRST_REFUSED]
                .map(|field| (field.to_owned(), doc! { "$exists": false }.into())),
        );
        self.update_told(nothing, doc! { OUTBOX: "" }).await.map(drop)
    }

    async fn update_told(&self, filter: Document, fields: Document) -> Result<u64, StoreError> {
        self.update_untold(filter, doc! { "$unset": fields }).await
    }

    async fn update_untold(&self, filter: Document, update: Document) -> Result<u64, StoreError> {
        let orders = self.orders();
        let result = retry::patiently(CLEARING, || async {
            retry::transient(CLEARING, || async {
                orders.update_many(filter.clone(), update.clone()).session(self.telling().await?.get()).await
            })
            .await
        })
        .await?;
        Ok(result.matched_count)
    }

    /// How many orders there are of which something is to be told, up to `limit`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn count_untold(&self, limit: u64) -> Result<u64, StoreError> {
        let orders = self.orders();
        retry::transient(LOOKING, || async {
            orders.count_documents(is_untold()).hint(Hint::Keys(untold_keys())).limit(limit).await
        })
        .await
    }

    /// How long ago the oldest change was made that is to be told, or a little longer; none if nothing is to be told.
    ///
    /// It reads all that is to be told, and there may be millions while the broker is away: whoever has to go on soon does not
    /// wait for it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn oldest_untold(&self) -> Result<Option<Duration>, StoreError> {
        let mut oldest: Option<Timestamp> = None;
        // A change and a refusal have a time each.
        for field in [SINCE, REFUSED_SINCE] {
            if let Some(document) = self.find_oldest(field).await? {
                let since = to_untold(&document).ok().and_then(|untold| untold.oldest());
                let since = since.unwrap_or(Timestamp::MIN);
                oldest = Some(oldest.map_or(since, |known| known.min(since)));
            }
        }
        let Some(oldest) = oldest else { return Ok(None) };
        let now = self.clock().await?.not_passed(Instant::now());
        Ok(Some(Duration::try_from(now.duration_since(oldest)).unwrap_or_default()))
    }

    async fn find_oldest(&self, field: &'static str) -> Result<Option<RawDocumentBuf>, StoreError> {
        let (orders, mut filter) = (self.acknowledged_orders(), is_untold());
        filter.insert(field, doc! { "$exists": true });
        retry::slow(LOOKING, || async {
            let find = orders.find_one(filter.clone()).sort(doc! { field: 1 });
            find.hint(Hint::Keys(untold_keys())).session(self.telling().await?.get()).await
        })
        .await
    }

    /// Orders as a majority has them: nothing is told that a failover could take back.
    fn acknowledged_orders(&self) -> Collection<RawDocumentBuf> {
        self.acknowledged(ORDERS)
    }

    /// The documents in `orders` that hold these tickets.
    pub(super) async fn orders_that_hold(
        &self,
        orders: &Collection<RawDocumentBuf>,
        tickets: &[ObjectId],
        doing: &'static str,
    ) -> Result<Vec<RawDocumentBuf>, StoreError> {
        let filter =
            doc! { "ticket": { "$in": tickets }, "status": { "$in": statuses(&OrderStatus::ACTIVE) } };
        retry::patiently(doing, || async {
            retry::transient(doing, || async {
                let mut session = self.telling().await?;
                let mut found = orders.find(filter.clone()).session(session.get()).await?;
                found.stream(session.get()).try_collect().await
            })
            .await
        })
        .await
    }
}

/// An order with all that is told of one that holds its ticket.
fn holder(
    order: Order,
    ticket: TicketId,
    payment: Option<String>,
    price: f64,
    since: Option<Timestamp>,
) -> UntoldOrder {
    let is_complete = order.status == OrderStatus::Complete;
    // Where others have stored a lower one, its end would have the id of its making.
    let version = Version(order.version.0.max(least_version(order.status)));
    let mut changes = vec![Change { version: Version(0), kind: ChangeKind::Created { price } }];
    let begun = Version(version.0.saturating_sub(u32::from(is_complete)));
    if begun > Version(0) {
        changes.push(Change { version: begun, kind: ChangeKind::Updated });
    }
    if is_complete {
        changes.push(Change { version, kind: ChangeKind::Completed });
    }
    UntoldOrder { order, ticket, payment, changes, refused: Vec::new(), since, again: None }
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

/// The fields that are read. Others may have put in more.
fn needed() -> Document {
    ["userId", "status", "version", "expiresAt", "ticket", OUTBOX, PAYMENT_ID]
        .into_iter()
        .map(|field| (field.to_owned(), Bson::Int32(1)))
        .collect()
}

/// Parses an order of which something is to be told.
fn to_untold(document: &RawDocumentBuf) -> Result<UntoldOrder, StoreError> {
    let order = to_order(document)?;
    let malformed = |detail: &str| StoreError::Malformed {
        collection: ORDERS,
        id: document::id(document),
        detail: detail.to_owned(),
    };
    let ticket = order.ticket.ok_or_else(|| malformed("ticket: it is not an ObjectId"))?;
    let outbox = document.get_document(OUTBOX).map_err(|_| malformed("outbox: it is not a document"))?;
    let field = |path: &str| {
        let name = path.rsplit('.').next().unwrap_or(path);
        outbox.get(name).ok().flatten()
    };
    let mut changes = Vec::new();
    if let Some(price) = field(CREATED) {
        let price = cast::price(price).ok_or_else(|| malformed("outbox.created: it is not a price"))?;
        changes.push(Change { version: Version(0), kind: ChangeKind::Created { price } });
    }
    let since = field(SINCE);
    let last = match order.status {
        // Only refusals are to be told.
        _ if since.is_none() => None,
        OrderStatus::Cancelled => Some(ChangeKind::Cancelled),
        OrderStatus::Complete => Some(ChangeKind::Completed),
        OrderStatus::Created | OrderStatus::AwaitingPayment => None,
    };
    if field(UPDATED).is_some() {
        let since = u32::from(last.is_some());
        let version = Version(order.version.0.saturating_sub(since));
        changes.push(Change { version, kind: ChangeKind::Updated });
    }
    changes.extend(last.map(|kind| Change { version: order.version, kind }));
    let since = since.and_then(|since| since.as_datetime()).and_then(timestamp);
    let mut refused = Vec::new();
    if let Some(list) = field(REFUSED) {
        let list = list.as_array().ok_or_else(|| malformed("outbox.refused: it is not a list"))?;
        for entry in list {
            let entry = entry.ok().and_then(|entry| entry.as_document().and_then(to_refused));
            refused.push(entry.ok_or_else(|| malformed("outbox.refused: it has an entry that is none"))?);
        }
    }
    let payment = payment_of(document);
    let again = field(AGAIN).and_then(|again| again.as_str()).map(str::to_owned);
    Ok(UntoldOrder { order, ticket, payment, changes, refused, since, again })
}

fn to_refused(entry: &RawDocument) -> Option<RefusedPayment> {
    Some(RefusedPayment {
        payment: entry.get_str("payment").ok()?.to_owned(),
        reason: Refusal::parse(entry.get_str("reason").ok()?)?,
        since: entry.get_datetime("since").ok().and_then(timestamp),
    })
}

#[cfg(test)]
mod tests {
    use mongodb::bson::DateTime;

    use super::*;

    fn stored(id: u8, ticket: u8, status: &str, version: i32, outbox: Document) -> RawDocumentBuf {
        let order = doc! {
            "_id": object_id([id; 12]), "userId": "u1", "status": status, "version": version,
            "expiresAt": DateTime::from_millis(5), "ticket": object_id([ticket; 12]), "outbox": outbox,
        };
        RawDocumentBuf::try_from(&order).unwrap()
    }

    fn untold(id: u8, ticket: u8, status: &str, outbox: Document) -> UntoldOrder {
        to_untold(&stored(id, ticket, status, i32::from(status != "created"), outbox)).unwrap()
    }

    #[test]
    fn what_is_to_be_told_follows_from_status_version_and_note() {
        let since = || DateTime::from_millis(7);
        let changes = |status, version, outbox| {
            let untold = to_untold(&stored(1, 2, status, version, outbox)).unwrap();
            assert_eq!(untold.since.map(Timestamp::as_millisecond), Some(7));
            untold.changes.into_iter().map(|change| (change.version.0, change.kind)).collect::<Vec<_>>()
        };
        let (created, updated, cancelled, completed) = (
            ChangeKind::Created { price: 20.0 },
            ChangeKind::Updated,
            ChangeKind::Cancelled,
            ChangeKind::Completed,
        );
        assert_eq!(changes("created", 0, doc! { "since": since(), "created": 20 }), [(0, created)]);
        assert_eq!(changes("cancelled", 1, doc! { "since": since() }), [(1, cancelled)]);
        assert_eq!(changes("complete", 5, doc! { "since": since() }), [(5, completed)]);
        assert_eq!(
            changes("cancelled", 1, doc! { "since": since(), "created": 20.0 }),
            [(0, created), (1, cancelled)]
        );
        assert_eq!(
            changes("complete", 2, doc! { "since": since(), "created": 20, "updated": true }),
            [(0, created), (1, updated), (2, completed)]
        );
        assert_eq!(
            changes("awaiting:payment", 1, doc! { "since": since(), "updated": true }),
            [(1, updated)]
        );
    }

    #[test]
    fn a_refusal_alone_is_no_change() {
        let entry = doc! { "payment": "p1", "reason": "too-late", "since": DateTime::from_millis(9) };
        let order = untold(1, 2, "cancelled", doc! { "refused": [entry] });
        assert_eq!((order.changes, order.since), (Vec::new(), None));
        let since = Timestamp::from_millisecond(9).ok();
        let refused = RefusedPayment { payment: "p1".into(), reason: Refusal::TooLate, since };
        assert_eq!(order.refused, [refused]);
        for spoilt in [doc! { "refused": 1 }, doc! { "refused": [{ "payment": "p1", "reason": "whim" }] }] {
            assert!(to_untold(&stored(1, 2, "cancelled", 1, spoilt)).is_err());
        }
    }

    #[test]
    fn what_cannot_be_told_is_an_error_that_names_the_order() {
        for document in [
            stored(1, 2, "paid", 1, doc! {}),
            stored(1, 2, "created", 0, doc! { "created": "cheap" }),
            RawDocumentBuf::try_from(&doc! {
                "_id": object_id([1; 12]), "userId": "u", "status": "cancelled", "version": 1, "outbox": {},
            })
            .unwrap(),
        ] {
            let error = to_untold(&document).unwrap_err().to_string();
            assert!(error.contains("010101010101010101010101"), "{error}");
        }
    }

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
