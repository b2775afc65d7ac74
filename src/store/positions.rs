//! The position of each order in the pages of its user's list.
//!
//! Orders cannot be paged through by their ids: an order with a smaller id than another may be stored after it, since
//! several processes make ids, by clocks that differ, and an insert may take its time. Who had seen the other one would
//! never see it. So the order in which orders are shown is itself stored: the first page that can show an order gives it
//! the next position of its user, 1, 2, 3 and so on, and pages are read by position.
//!
//! What is promised: whoever follows the links of pages to the last one, and later asks for what is after the last order
//! seen, sees each order once, if it was acknowledged before the last request. No clock, no other process and no time that
//! a request takes on its way can change that. It follows from:
//!
//! 1. *An order gets one position.* The write has the condition that it has none.
//! 2. *No two orders of a user have the same one.* That is a unique index.
//! 3. *Positions have no gaps*: p is given only when 1 to p - 1 are. A process begins after a position `l` with orders `o1`,
//!    `o2` and so on, none of which has one up to `l`. It gives them `l + 1`, `l + 2` and so on, one after the other, and stops
//!    at the first that is taken. It reaches the k-th only if each of the k - 1 before either got its position or had got
//!    another meanwhile; so k - 1 positions after `l` are given, and as there were no gaps until now, these are `l + 1` to
//!    `l + k - 1` at least. A command that arrives late, or twice, fills no gap, as there is none.
//! 4. *A page is whole*: it reads the last position `l` first, and then only positions up to `l`, all of which are given. What
//!    gets a position meanwhile is after `l`, and so on a later page.
//! 5. *A last page is the last*: it has found that no order is without a position, and that `l` is still the last one.
//!
//! Most users have few orders. Then one query reads all of them, and what it finds is as good as the steps above if the
//! positions are 1 to `l` without a gap: each of these belongs to one order, so an order that was read without a position has
//! none up to `l`, whatever happened while the query ran.
//!
//! Orders are never deleted. If somebody does delete some, 3 may fail for the orders that get a position at that moment.

use mongodb::{
    Collection,
    bson::{Bson, Document, RawDocument, RawDocumentBuf, doc},
    options::Hint,
};

use super::{
    answer::at_most,
    code,
    database::Store,
    document::{ORDERS, object_id, owned_by, statuses},
    driver_error::{is_duplicate, is_transient_code},
    error::StoreError,
    page_query::{LISTING, Listing},
    retry::{self, ROUNDS},
};
use crate::order::{OrderId, OrderStatus, UserId};

/// The field of an order that has a position: in the list of which user, and which. The user is a copy, because `userId`
/// may have another type.
const PLACE: &str = "listPlace";
const USER: &str = "listPlace.user";
const POSITION: &str = "listPlace.position";

/// Users with up to so many orders have few.
const FEW: u32 = 100;

/// How many orders are read to get their positions, at least.
const CHUNK: u32 = 100;

/// How many of those that count as seen are read at a time.
const MAX_SEEN: u32 = 1000;

/// How many orders get their positions by one command. What some servers do with it is undone if it is not finished in
/// time, so that one for many orders might never come to its end.
const PER_COMMAND: usize = 100;

/// The keys of the index that makes positions unique.
pub(super) fn keys() -> Document {
    doc! { USER: 1, POSITION: 1 }
}

/// The orders that have a position: the filter of that index.
pub(super) fn is_placed() -> Document {
    doc! { POSITION: { "$exists": true } }
}

/// Where a page begins.
struct Start {
    /// After this position.
    position: i64,
    /// Only orders after this one by id.
    id: Option<OrderId>,
}

impl Store {
    /// The first `limit` orders of `listing`, by position.
    pub(super) async fn find_as_shown(
        &self,
        listing: &Listing,
        limit: u32,
    ) -> Result<Vec<RawDocumentBuf>, StoreError> {
        if let Some(found) = self.find_among_few(listing, limit).await? {
            return Ok(found);
        }
        let start = self.start(listing).await?;
        let mut attempt = 1;
        loop {
            let last = self.last_position(&listing.user).await?;
            let found = self.between(listing, &start, last, limit).await?;
            if found.len() >= usize::try_from(limit).unwrap_or(usize::MAX) {
                return Ok(found);
            }
            let new = self.without_position(listing_filter(listing), limit.max(CHUNK)).await?;
            if new.is_empty() && self.last_position(&listing.user).await? == last {
                return Ok(found);
            }
            if !self.give_positions(&listing.user, last, &new).await? {
                // Another request for the same list was first.
                retry::backoff(attempt).await;
                attempt += 1;
            }
        }
    }

    /// The same for a user with few orders, whose order `listing.after` has a position; otherwise none.
    async fn find_among_few(
        &self,
        listing: &Listing,
        limit: u32,
    ) -> Result<Option<Vec<RawDocumentBuf>>, StoreError> {
        let user = &listing.user;
        for attempt in 1..=ROUNDS {
            let all = self.few_orders.find(self.placed_orders(), user.clone(), FEW + 1).await?;
            if all.len() > FEW as usize {
                return Ok(None);
            }
            let Some(few) = Few::read(all, user) else {
                retry::backoff(attempt).await;
                continue;
            };
            let Some(start) = few.start(listing.after) else { return Ok(None) };
            if few.new.is_empty() {
                return Ok(Some(few.after(start, &listing.statuses, limit)));
            }
            if !self.give_positions(user, few.last(), &few.new).await? {
                retry::backoff(attempt).await;
            }
        }
        Ok(None)
    }

    /// Where the page after `listing.after` begins.
    ///
    /// That order has a position if a page has shown it. Otherwise its id comes from elsewhere, such as the answer to its
    /// reservation: then all orders up to it by id count as seen. They get their positions now, so that they are not
    /// taken for new ones later.
    async fn start(&self, listing: &Listing) -> Result<Start, StoreError> {
        let Some(id) = listing.after else { return Ok(Start { position: 0, id: None }) };
        let order = self.order_loader.one(object_id(id.bytes())).await?;
        let position = order.as_deref().and_then(|order| position_for(order, &listing.user));
        if let Some(position) = position {
            return Ok(Start { position, id: None });
        }
        let mut last = self.last_position(&listing.user).await?;
        for attempt in 1.. {
            let mut seen = doc! { "userId": owned_by(&listing.user) };
            seen.insert("_id", doc! { "$gte": object_id([0; 12]), "$lte": object_id(id.bytes()) });
            let seen = self.without_position(seen, MAX_SEEN).await?;
            if seen.is_empty() {
                break;
            }
            if self.give_positions(&listing.user, last, &seen).await? {
                last += i64::try_from(seen.len()).unwrap_or(i64::MAX);
            } else {
                retry::backoff(attempt).await;
                last = self.last_position(&listing.user).await?;
            }
        }
        Ok(Start { position: 0, id: Some(id) })
    }

    /// The last position of a user's list; 0 if none is given.
    async fn last_position(&self, user: &UserId) -> Result<i64, StoreError> {
        let orders = self.placed_orders();
        let found = retry::transient(LISTING, || async {
            let find = orders.find_one(doc! { USER: user.as_str(), POSITION: { "$gt": 0 } });
            find.sort(doc! { POSITION: -1 }).projection(doc! { PLACE: 1 }).hint(Hint::Keys(keys())).await
        })
        .await?;
        Ok(found.as_deref().and_then(position).unwrap_or_default())
    }

    /// The orders of `listing` after `start`, up to the position `last`.
    async fn between(
        &self,
        listing: &Listing,
        start: &Start,
        last: i64,
        limit: u32,
    ) -> Result<Vec<RawDocumentBuf>, StoreError> {
        if last <= start.position {
            return Ok(Vec::new());
        }
        let orders = self.placed_orders();
        let mut filter = listing_filter(listing);
        filter.insert(USER, listing.user.as_str());
        filter.insert(POSITION, doc! { "$gt": start.position, "$lte": last });
        if let Some(id) = start.id {
            filter.insert("_id", doc! { "$gt": object_id(id.bytes()) });
        }
        retry::transient(LISTING, || async {
            let find = orders.find(filter.clone()).sort(doc! { POSITION: 1 }).hint(Hint::Keys(keys()));
            at_most(limit, find.limit(i64::from(limit)).batch_size(limit).await?).await
        })
        .await
    }

    /// The ids of orders that match `filter` and have no position, oldest first. Only ObjectIds: an order with an id of
    /// another type cannot be shown.
    async fn without_position(&self, mut filter: Document, limit: u32) -> Result<Vec<Bson>, StoreError> {
        filter.insert(PLACE, doc! { "$exists": false });
        if !filter.contains_key("_id") {
            filter.insert("_id", doc! { "$gte": object_id([0; 12]) });
        }
        let orders = self.raw_orders();
        let found: Vec<RawDocumentBuf> = retry::transient(LISTING, || async {
            let find = orders.find(filter.clone()).sort(doc! { "_id": 1 }).projection(doc! { "_id": 1 });
            let find = find.hint(Hint::Keys(super::document::user_orders_keys()));
            at_most(limit, find.limit(i64::from(limit)).batch_size(limit).await?).await
        })
        .await?;
        Ok(found.iter().filter_map(|order| order.get_object_id("_id").ok()).map(Bson::ObjectId).collect())
    }

    /// Gives each of `orders` that has no position the next one after `last`, in this order. Returns whether none of these
    /// positions was taken; at the first that is, it stops.
    async fn give_positions(&self, user: &UserId, last: i64, orders: &[Bson]) -> Result<bool, StoreError> {
        let numbered: Vec<_> = (last + 1..).zip(orders).collect();
        for some in numbered.chunks(PER_COMMAND) {
            if !self.give(user, some).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn give(&self, user: &UserId, orders: &[(i64, &Bson)]) -> Result<bool, StoreError> {
        let give = |(position, id): &(i64, &Bson)| {
            doc! {
                "q": { "_id": id, PLACE: { "$exists": false } },
                "u": { "$set": { PLACE: { "user": user.as_str(), "position": position } } },
            }
        };
        let updates: Vec<Document> = orders.iter().map(give).collect();
        let command = doc! { "update": ORDERS, "updates": updates, "ordered": true, "writeConcern": { "w": "majority" } };
        let reply = retry::transient(LISTING, || async {
            match self.database.run_command(command.clone()).await {
                // Some servers say so for the whole command.
                Err(error) if is_duplicate(&error) => Ok(None),
                reply => reply.map(Some),
            }
        })
        .await?;
        reply.map_or(Ok(false), |reply| is_given(&reply))
    }

    /// Orders as a majority has them: a position that a failover could take back must not be shown.
    fn placed_orders(&self) -> Collection<RawDocumentBuf> {
        self.acknowledged(ORDERS)
    }
}

/// All orders of a user who has few.
struct Few {
    /// Those with the positions 1, 2, 3 and so on.
    placed: Vec<RawDocumentBuf>,
    /// The ids of the others, oldest first.
    new: Vec<Bson>,
}

impl Few {
    /// Sorts the orders of `user`, oldest first, by position; none if positions are missing.
    fn read(all: Vec<RawDocumentBuf>, user: &UserId) -> Option<Self> {
        let (mut placed, mut new) = (Vec::new(), Vec::new());
        for order in all {
            let Ok(id) = order.get_object_id("_id") else { continue };
            match position_for(&order, user) {
                Some(position) => placed.push((position, order)),
                None => new.push(Bson::ObjectId(id)),
            }
        }
        placed.sort_by_key(|(position, _)| *position);
        let is_whole = (1..).zip(&placed).all(|(wanted, (position, _))| wanted == *position);
        is_whole.then(|| Self { placed: placed.into_iter().map(|(_, order)| order).collect(), new })
    }

    /// The last position; 0 if none is given.
    fn last(&self) -> i64 {
        i64::try_from(self.placed.len()).unwrap_or(i64::MAX)
    }

    /// How many of the orders come before the page after this one; none if it has no position.
    fn start(&self, after: Option<OrderId>) -> Option<usize> {
        let Some(after) = after else { return Some(0) };
        let is_it =
            |order: &RawDocumentBuf| order.get_object_id("_id").is_ok_and(|id| id.bytes() == after.bytes());
        self.placed.iter().position(is_it).map(|index| index + 1)
    }

    /// The first `limit` orders from there on with one of these statuses.
    fn after(self, start: usize, statuses: &[OrderStatus], limit: u32) -> Vec<RawDocumentBuf> {
        let is_wanted = |order: &RawDocumentBuf| {
            let status = order.get_str("status").unwrap_or_default();
            statuses.is_empty() || statuses.iter().any(|wanted| wanted.as_str() == status)
        };
        self.placed.into_iter().skip(start).filter(is_wanted).take(limit as usize).collect()
    }
}

/// Whether no statement of a command failed; an error unless it failed because a position is taken.
fn is_given(reply: &Document) -> Result<bool, StoreError> {
    let failed = |error: &Document, kind: &str| {
        let code = match error.get("code") {
            Some(Bson::Int32(code)) => *code,
            Some(Bson::Int64(code)) => i32::try_from(*code).unwrap_or_default(),
            _ => 0,
        };
        let message = error.get_str("errmsg").unwrap_or_default();
        let detail = format!("{kind}: {message} (code {code})");
        match code {
            code::DUPLICATE_KEY => None,
            code if is_transient_code(code, message) => None,
            _ => Some(StoreError::Failed { doing: LISTING, detail }),
        }
    };
    if let Ok(concern) = reply.get_document("writeConcernError") {
        return failed(concern, "write concern").map_or(Ok(false), Err);
    }
    let Some(error) = reply.get_array("writeErrors").ok().and_then(|errors| errors.first()?.as_document())
    else {
        return Ok(true);
    };
    failed(error, "write").map_or(Ok(false), Err)
}

/// The condition for the orders of `listing`, wherever it begins.
fn listing_filter(listing: &Listing) -> Document {
    let mut filter = doc! { "userId": owned_by(&listing.user) };
    if !listing.statuses.is_empty() {
        filter.insert("status", doc! { "$in": statuses(&listing.statuses) });
    }
    filter
}

fn position(order: &RawDocument) -> Option<i64> {
    let position = order.get_document(PLACE).ok()?.get("position").ok()??;
    position.as_i64().or(position.as_i32().map(i64::from))
}

/// The position of an order in the list of `user`.
fn position_for(order: &RawDocument, user: &UserId) -> Option<i64> {
    let is_theirs = order.get_document(PLACE).ok()?.get_str("user").is_ok_and(|of| of == user.as_str());
    if is_theirs { position(order) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_orders_are_sorted_by_position_and_a_gap_is_noticed() {
        let user = UserId::new("u1").unwrap();
        let id = |number: u8| Bson::ObjectId(object_id([number; 12]));
        let read = |positions: &[Option<i64>]| {
            let order = |(number, position): (u8, &Option<i64>)| {
                let mut order =
                    doc! { "_id": id(number), "status": if number == 2 { "complete" } else { "created" } };
                if let Some(position) = position {
                    order.insert(PLACE, doc! { "user": "u1", "position": position });
                }
                RawDocumentBuf::try_from(&order).unwrap()
            };
            Few::read((1..).zip(positions).map(order).collect(), &user)
        };
        let ids = |orders: Vec<RawDocumentBuf>| -> Vec<_> {
            orders.iter().map(|order| order.get_object_id("_id").unwrap().bytes()[0]).collect()
        };
        let few = read(&[Some(2), Some(3), None, Some(1)]).unwrap();
        assert_eq!((few.last(), &few.new), (3, &vec![id(3)]));
        let after = OrderId::from_bytes([1; 12]);
        assert_eq!((few.start(None), few.start(Some(after))), (Some(0), Some(2)));
        assert_eq!(few.start(Some(OrderId::from_bytes([3; 12]))), None, "it has no position");
        assert_eq!(ids(few.after(0, &[], 2)), [4, 1]);
        let few = read(&[Some(2), Some(3), None, Some(1)]).unwrap();
        assert_eq!(ids(few.after(1, &[OrderStatus::Complete, OrderStatus::Cancelled], 9)), [2]);
        for gap in [vec![Some(2)], vec![Some(1), Some(3), None], vec![Some(1), Some(1)]] {
            assert!(read(&gap).is_none(), "{gap:?}");
        }
        assert_eq!(read(&[]).unwrap().last(), 0);
    }

    #[test]
    fn a_position_that_is_taken_is_no_error_and_anything_else_is() {
        assert!(is_given(&doc! { "n": 2, "ok": 1.0 }).unwrap());
        for taken in [doc! { "code": 11000, "errmsg": "duplicate" }, doc! { "code": 112_i64 }] {
            assert!(!is_given(&doc! { "n": 1, "writeErrors": [taken] }).unwrap());
        }
        assert!(!is_given(&doc! { "writeConcernError": { "code": 64 } }).unwrap());
        let error = is_given(&doc! { "writeErrors": [{ "code": 14, "errmsg": "of another type" }] });
        assert!(error.unwrap_err().to_string().contains("of another type (code 14)"));
    }
}
