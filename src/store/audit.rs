//! What in a database would surprise this program: for `orders check`. Only [`Store::cancel_duplicate`] changes anything.

use futures::TryStreamExt;
use mongodb::{
    Collection,
    bson::{Bson, Document, RawDocumentBuf, doc, raw::RawBsonRef},
};

use super::{
    answer::{at_most, on_one_line},
    connect::majority,
    database::Store,
    document::{self, ORDERS, statuses, to_order, to_ticket},
    error::StoreError,
    index_definition::Definition,
    indexes::name_of,
    own_indexes::{outbox_index, own_indexes},
    retry,
};
use crate::order::{OrderStatus, Transition};

const CHECKING: &str = "checking the database";

/// How many documents are read at a time.
const BATCH: u32 = 1000;

/// How many tickets with duplicates are looked at, the same in every run until they are fixed.
const MAX_GROUPS: u32 = 100_000;

/// An active order among several that hold the same ticket.
#[derive(Clone, Debug, PartialEq)]
pub struct Holder {
    id: Bson,
    status: OrderStatus,
}

impl Holder {
    /// Its `_id`, for a message.
    #[must_use]
    pub fn id(&self) -> String {
        text(&self.id)
    }

    /// Its status.
    #[must_use]
    pub fn status(&self) -> OrderStatus {
        self.status
    }
}

/// A ticket that more than one active order holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Duplicate {
    ticket: Bson,
    /// Its orders: those that are paid for, then the others, each oldest first.
    pub holders: Vec<Holder>,
    /// Whether it may have more of them.
    is_cut: bool,
}

impl Duplicate {
    /// The id of the ticket, for a message.
    #[must_use]
    pub fn ticket(&self) -> String {
        text(&self.ticket)
    }

    /// The order to keep: the oldest that is paid for, else the oldest.
    #[must_use]
    pub fn kept(&self) -> Option<&Holder> {
        self.holders.iter().find(|holder| holder.status.is_final()).or(self.holders.first())
    }

    /// The orders to cancel: all others that are not paid for.
    pub fn cancelled(&self) -> impl Iterator<Item = &Holder> {
        self.holders.iter().filter(|holder| holder.status.is_open() && self.kept() != Some(holder))
    }

    /// Whether it has more orders than are looked at, or perhaps has.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// How many orders would still hold the ticket: more than one if it was paid for twice, or has more than are looked at.
    #[must_use]
    pub fn left(&self) -> usize {
        self.holders.len() - self.cancelled().count() + usize::from(self.is_cut)
    }
}

/// An index on the orders that this program has not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignIndex {
    /// Its name.
    pub name: String,
    /// Whether it may refuse orders.
    pub is_unique: bool,
}

impl Store {
    /// The tickets that more than one active order holds.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn duplicates(&self) -> Result<Vec<Duplicate>, StoreError> {
        let active = doc! { "status": { "$in": statuses(&OrderStatus::ACTIVE) }, "ticket": { "$ne": null } };
        let pipeline = vec![
            doc! { "$match": active },
            doc! { "$group": { "_id": "$ticket", "orders": { "$sum": 1 } } },
            doc! { "$match": { "orders": { "$gt": 1 } } },
            doc! { "$sort": { "_id": 1 } },
        ];
        let orders = self.orders();
        let groups: Vec<Document> = retry::slow(CHECKING, || async {
            at_most(MAX_GROUPS, orders.aggregate(pipeline.clone()).await?).await
        })
        .await?;
        let mut duplicates = Vec::new();
        for ticket in groups.into_iter().filter_map(|mut group| group.remove("_id")) {
            // However many there are, what is paid for is among those that are looked at. It is asked for last: an order
            // that is paid for between the two is then seen as paid for.
            let open = self.holders_of(&ticket, &OrderStatus::OPEN).await?;
            let mut holders = self.holders_of(&ticket, &[OrderStatus::Complete]).await?;
            let is_cut = [&open, &holders].into_iter().any(|found| found.len() as u64 >= u64::from(BATCH));
            let is_open = |holder: &Holder| !holders.iter().any(|paid| paid.id == holder.id);
            let open: Vec<_> = open.into_iter().filter(is_open).collect();
            holders.extend(open);
            // One may have been cancelled meanwhile.
            if holders.len() > 1 {
                duplicates.push(Duplicate { ticket, holders, is_cut });
            }
        }
        Ok(duplicates)
    }

    /// The oldest orders that hold `ticket` in one of `among`.
    async fn holders_of(&self, ticket: &Bson, among: &[OrderStatus]) -> Result<Vec<Holder>, StoreError> {
        let (orders, of_ticket) =
            (self.orders(), doc! { "ticket": ticket, "status": { "$in": statuses(among) } });
        let found: Vec<Document> = retry::slow(CHECKING, || async {
            let find = orders.find(of_ticket.clone()).sort(doc! { "_id": 1 }).limit(i64::from(BATCH));
            at_most(BATCH, find.projection(doc! { "status": 1 }).await?).await
        })
        .await?;
        let holder = |order: Document| {
            let status = order.get_str("status").ok()?.parse().ok()?;
            Some(Holder { id: order.get("_id")?.clone(), status })
        };
        Ok(found.into_iter().filter_map(holder).collect())
    }

    /// Cancels `holder` if it is open and the order to keep still holds the ticket. Returns whether it is cancelled.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn cancel_duplicate(&self, of: &Duplicate, holder: &Holder) -> Result<bool, StoreError> {
        let Some(kept) = of.kept() else { return Ok(false) };
        let orders = self.orders();
        let active = doc! {
            "_id": &kept.id, "ticket": &of.ticket, "status": { "$in": statuses(&OrderStatus::ACTIVE) },
        };
        let is_kept = retry::transient(CHECKING, || async { orders.find_one(active.clone()).await }).await?;
        if is_kept.is_none() {
            return Ok(false);
        }
        let open = doc! {
            "_id": &holder.id, "ticket": &of.ticket, "status": { "$in": statuses(Transition::Cancel.from()) },
        };
        self.look_for_events().await?;
        let transition = self.transition_with_entry(Transition::Cancel).await?;
        let cancelled = retry::transient(CHECKING, || async {
            let update = orders.update_one(open.clone(), transition.clone());
            update.write_concern(majority()).await
        })
        .await?;
        if cancelled.matched_count > 0 {
            return Ok(true);
        }
        // Perhaps by the same write, whose reply was lost.
        let done = doc! { "_id": &holder.id, "status": OrderStatus::Cancelled.as_str() };
        let is_done = retry::transient(CHECKING, || async { orders.find_one(done.clone()).await }).await?;
        Ok(is_done.is_some())
    }

    /// Reads every order and every ticket, and calls `found` with the problem of each that cannot be read, or that does
    /// not hold its ticket though it is active.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn read_all(&self, mut found: impl FnMut(String)) -> Result<(), StoreError> {
        each(self.raw_orders(), |order| match to_order(order) {
            Err(error) => found(error.to_string()),
            Ok(_) => match order.get("ticket").ok().flatten() {
                None | Some(RawBsonRef::Null | RawBsonRef::ObjectId(_)) => {}
                Some(_) => found(format!(
                    "the document {} in {ORDERS} does not hold its ticket: ticket: it is not an ObjectId",
                    document::id(order)
                )),
            },
        })
        .await?;
        each(self.raw_tickets(), |ticket| {
            if let Err(error) = to_ticket(ticket) {
                found(error.to_string());
            }
        })
        .await
    }

    /// The indexes on the orders that this program has not made.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn foreign_indexes(&self) -> Result<Vec<ForeignIndex>, StoreError> {
        let ours = own_indexes().into_iter().chain([outbox_index()]);
        let ours: Vec<_> = ours.map(|index| index.description()).collect();
        let existing = self.existing_indexes().await?;
        let is_foreign = |index: &&Document| {
            let definition = Definition::of(index);
            !definition.is_of_ids() && !ours.iter().any(|ours| Definition::of(ours) == definition)
        };
        let foreign = existing.iter().filter(is_foreign).map(|index| ForeignIndex {
            name: on_one_line(name_of(index)),
            is_unique: Definition::of(index).is_unique(),
        });
        Ok(foreign.collect())
    }
}

/// Calls `visit` with every document of a collection.
async fn each(
    collection: Collection<RawDocumentBuf>,
    mut visit: impl FnMut(&RawDocumentBuf),
) -> Result<(), StoreError> {
    let mut documents =
        retry::transient(CHECKING, || async { collection.find(doc! {}).batch_size(BATCH).await }).await?;
    while let Some(document) = retry::once(CHECKING, async { documents.try_next().await }).await? {
        visit(&document);
    }
    Ok(())
}

/// A value as a message shows it.
fn text(value: &Bson) -> String {
    match value {
        Bson::ObjectId(id) => id.to_hex(),
        other => other.to_string().chars().take(80).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn duplicate(statuses: &[OrderStatus]) -> Duplicate {
        let holder = |(id, status): (i32, &OrderStatus)| Holder { id: Bson::Int32(id), status: *status };
        let holders = (1..).zip(statuses).map(holder).collect();
        Duplicate { ticket: Bson::Int32(0), holders, is_cut: false }
    }

    #[test]
    fn the_oldest_is_kept_unless_another_is_paid_for_and_what_is_paid_for_is_never_cancelled() {
        use OrderStatus::{AwaitingPayment, Complete, Created};
        for (statuses, kept, cancelled, left) in [
            (vec![Created, Created], "1", vec!["2"], 1),
            (vec![Created, AwaitingPayment, Created], "1", vec!["2", "3"], 1),
            (vec![Created, Complete, AwaitingPayment], "2", vec!["1", "3"], 1),
            (vec![Complete, Created, Complete], "1", vec!["2"], 2),
        ] {
            let duplicate = duplicate(&statuses);
            assert_eq!(duplicate.kept().unwrap().id(), kept, "{statuses:?}");
            assert_eq!(duplicate.cancelled().map(Holder::id).collect::<Vec<_>>(), cancelled, "{statuses:?}");
            assert_eq!(duplicate.left(), left, "{statuses:?}");
            let cut = Duplicate { is_cut: true, ..duplicate };
            assert_eq!(cut.left(), left + 1, "not all of them are looked at");
        }
    }
}
