//! Tickets that are gone: their copies go, and a late event does not bring them back.
//!
//! What is gone is remembered in a collection of its own, since whoever reads the copies, the Node.js service too, takes
//! each for a ticket that is on sale. So there are two writes, in an order by which the end is the same whatever comes
//! between them: whoever deletes first remembers, and whoever writes a copy looks again afterwards.

use std::{collections::HashMap, time::Duration};

use mongodb::{
    Collection, IndexModel,
    bson::{Document, doc, oid::ObjectId},
    options::IndexOptions,
};

use super::{
    answer::at_most, database::Store, document::object_id, error::StoreError, retry, tickets::Upserted,
};
use crate::order::{Ticket, TicketId, Version};

const DELETED_TICKETS: &str = "deletedTickets";

/// How long they are remembered: longer than a stream keeps events.
const REMEMBERED: Duration = Duration::from_secs(400 * 86_400);

const DELETING: &str = "deleting the copies of tickets";
const LOOKING: &str = "looking for tickets that are gone";

/// A ticket that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeletedTicket {
    /// The ticket.
    pub id: TicketId,
    /// The version at which it went; a newer one brings it back. Without a version nothing does.
    pub version: Option<Version>,
}

impl DeletedTicket {
    /// As it is stored: a number, so that the larger one counts.
    fn up_to(&self) -> f64 {
        self.version.map_or(f64::INFINITY, |version| f64::from(version.0))
    }
}

impl Store {
    /// Deletes the copy of a ticket, and remembers that it is gone. Whether there was a copy.
    ///
    /// # Errors
    /// When the database fails. Calling again is safe.
    pub async fn delete_ticket(&self, deleted: &DeletedTicket) -> Result<bool, StoreError> {
        let gone = self.deleted_tickets();
        let (filter, update) = (
            doc! { "_id": object_id(deleted.id.bytes()) },
            doc! { "$max": { "version": deleted.up_to() }, "$currentDate": { "at": true } },
        );
        retry::patiently(DELETING, || async {
            retry::transient(DELETING, || async {
                gone.update_one(filter.clone(), update.clone()).upsert(true).await
            })
            .await?;
            self.delete_copies(&HashMap::from([(deleted.id, deleted.up_to())])).await.map(|count| count > 0)
        })
        .await
    }

    /// Writes each of `tickets`, as [`Store::upsert_tickets`] does, but not those that are gone.
    ///
    /// # Errors
    /// As [`Store::upsert_tickets`].
    pub async fn upsert_tickets_unless_deleted(&self, tickets: &[Ticket]) -> Result<Upserted, StoreError> {
        let gone = self.gone(tickets).await?;
        // Whoever wrote such a copy may have been killed before it looked again.
        self.delete_copies(&gone).await?;
        let is_there = |ticket: &&Ticket| !gone.contains_key(&ticket.id);
        let there: Vec<_> = tickets.iter().filter(is_there).cloned().collect();
        let mut written = self.upsert_tickets(&there).await?;
        written.unchanged += gone.len() as u64;
        self.delete_copies(&self.gone(&there).await?).await?;
        Ok(written)
    }

    /// Makes the index by which the database forgets them.
    ///
    /// # Errors
    /// When the database fails, or does not know such indexes.
    pub async fn ensure_deleted_tickets(&self) -> Result<(), StoreError> {
        let options = IndexOptions::builder()
            .name("remembered_for_a_while".to_owned())
            .expire_after(REMEMBERED)
            .build();
        let index = IndexModel::builder().keys(doc! { "at": 1 }).options(options).build();
        let gone = self.deleted_tickets();
        retry::transient(DELETING, || async { gone.create_index(index.clone()).await }).await.map(drop)
    }

    /// Those of `tickets` that are gone, each with the version up to which it is.
    async fn gone(&self, tickets: &[Ticket]) -> Result<HashMap<TicketId, f64>, StoreError> {
        if tickets.is_empty() {
            return Ok(HashMap::new());
        }
        let ids: Vec<_> = tickets.iter().map(|ticket| object_id(ticket.id.bytes())).collect();
        let (gone, most) = (self.deleted_tickets(), u32::try_from(ids.len()).unwrap_or(u32::MAX));
        let found: Vec<Document> = retry::patiently_transient(LOOKING, || async {
            at_most(most, gone.find(doc! { "_id": { "$in": &ids } }).batch_size(most).await?).await
        })
        .await?;
        let up_to: HashMap<ObjectId, f64> = found.iter().filter_map(up_to).collect();
        let gone = tickets.iter().filter_map(|ticket| {
            let up_to = *up_to.get(&object_id(ticket.id.bytes()))?;
            (f64::from(ticket.version.0) <= up_to).then_some((ticket.id, up_to))
        });
        Ok(gone.collect())
    }

    /// Deletes copies, unless they are newer than the version with which their ticket went.
    async fn delete_copies(&self, gone: &HashMap<TicketId, f64>) -> Result<u64, StoreError> {
        let mut count = 0;
        for (id, up_to) in gone {
            let mut filter = doc! { "_id": object_id(id.bytes()) };
            if up_to.is_finite() {
                filter.insert("version", doc! { "$not": { "$gt": *up_to } });
            }
            let tickets = self.raw_tickets();
            let deleted =
                retry::transient(DELETING, || async { tickets.delete_one(filter.clone()).await }).await?;
            count += deleted.deleted_count;
        }
        Ok(count)
    }

    fn deleted_tickets(&self) -> Collection<Document> {
        self.database.collection(DELETED_TICKETS)
    }
}

fn up_to(document: &Document) -> Option<(ObjectId, f64)> {
    let version = document.get("version")?;
    let version = version.as_f64().or_else(|| version.as_i32().map(f64::from))?;
    Some((document.get_object_id("_id").ok()?, version))
}
