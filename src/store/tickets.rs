//! The local copies of tickets.
//!
//! A ticket is written only over an older version, so events and imports may arrive twice, late, or in any order.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use mongodb::bson::{Document, RawDocumentBuf, doc};

use super::{
    answer::{at_most, on_one_line},
    code,
    database::Store,
    document::{self, TICKETS, number, object_id, skip_malformed, ticket_version, to_ticket},
    driver_error::is_transient_code,
    error::StoreError,
    retry,
};
use crate::order::{Ticket, TicketId, Version};

/// The result of [`Store::upsert_tickets`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Upserted {
    /// Tickets that were not stored before, or only in an older version.
    pub written: u64,
    /// Tickets that were stored already, in the same or a newer version.
    pub unchanged: u64,
}

const READING: &str = "reading tickets";
const WRITING: &str = "writing tickets";

/// How often the server may say that a ticket is there which is not there, nor another version of it: another unique index
/// refuses it.
const MAX_DUPLICATES: u32 = 5;

impl Store {
    /// One ticket; `None` when it is not stored.
    ///
    /// # Errors
    /// When its document is malformed, or the database fails.
    pub async fn ticket(&self, id: TicketId) -> Result<Option<Ticket>, StoreError> {
        self.raw_ticket(id).await?.map(|document| to_ticket(&document)).transpose()
    }

    pub(super) async fn raw_ticket(&self, id: TicketId) -> Result<Option<Arc<RawDocumentBuf>>, StoreError> {
        self.ticket_loader.one(object_id(id.bytes())).await
    }

    /// The tickets with these ids that are stored. Malformed ones are logged and left out.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn tickets(&self, ids: &BTreeSet<TicketId>) -> Result<HashMap<TicketId, Ticket>, StoreError> {
        let ids: Vec<_> = ids.iter().map(|id| object_id(id.bytes())).collect();
        let found = retry::patiently(READING, || self.ticket_loader.many(ids.clone())).await?;
        let tickets = found.into_iter().flatten().filter_map(|found| skip_malformed(to_ticket(&found)));
        Ok(tickets.map(|ticket| (ticket.id, ticket)).collect())
    }

    /// Writes each of `tickets` unless the same or a newer version is stored.
    ///
    /// Versions never decrease, so a ticket that a majority of the servers has as current needs no write. A missing ticket is
    /// inserted, and an older one updated on the condition that it still is older. A ticket that another process inserts at
    /// the same time, or that only the primary has, is examined again.
    ///
    /// # Errors
    /// When the database fails. Some tickets may have been written then; calling again is safe.
    pub async fn upsert_tickets(&self, tickets: &[Ticket]) -> Result<Upserted, StoreError> {
        retry::patiently(WRITING, || async {
            let mut total = Upserted::default();
            let mut remaining: Vec<&Ticket> = tickets.iter().collect();
            let mut duplicates = 0;
            for attempt in 1.. {
                let stored = self.versions(&remaining).await?;
                let (missing, present): (Vec<_>, Vec<_>) =
                    remaining.into_iter().partition(|ticket| !stored.contains_key(&ticket.id));
                let (older, current): (Vec<_>, Vec<_>) = present.into_iter().partition(|ticket| {
                    stored.get(&ticket.id).is_some_and(|version| *version < Some(ticket.version))
                });
                let inserted = self.write(&missing, &Statement::Insert).await?;
                let updated = self.write(&older, &Statement::Update).await?;
                total.written += inserted.written + updated.written;
                // An update that matched nothing found a ticket that another process has brought up to date meanwhile, and was
                // acknowledged like any other.
                let unmatched = ((older.len() - updated.retry.len()) as u64).saturating_sub(updated.written);
                total.unchanged += current.len() as u64 + unmatched;
                if let Some(detail) = inserted.duplicate.or(updated.duplicate) {
                    duplicates += 1;
                    if duplicates > MAX_DUPLICATES {
                        return Err(StoreError::Failed { doing: WRITING, detail });
                    }
                }
                remaining = inserted.retry;
                remaining.extend(updated.retry);
                if remaining.is_empty() {
                    break;
                }
                retry::backoff(attempt).await;
            }
            Ok(total)
        })
        .await
    }

    /// The stored versions of those `tickets` that are stored, as a majority of the servers has them: what the primary alone
    /// has, perhaps by an attempt before this one, may be taken back. `None`, for a document without a version, is older
    /// than any version.
    async fn versions(&self, tickets: &[&Ticket]) -> Result<HashMap<TicketId, Option<Version>>, StoreError> {
        if tickets.is_empty() {
            return Ok(HashMap::new());
        }
        let ids: Vec<_> = tickets.iter().map(|ticket| object_id(ticket.id.bytes())).collect();
        let batch = u32::try_from(ids.len()).unwrap_or(u32::MAX);
        let collection = self.acknowledged::<RawDocumentBuf>(TICKETS);
        let found: Vec<RawDocumentBuf> = retry::transient("reading tickets' versions", || async {
            let find = collection.find(doc! { "_id": { "$in": &ids } }).projection(doc! { "version": 1 });
            at_most(batch, find.batch_size(batch).await?).await
        })
        .await?;
        Ok(found.iter().filter_map(|document| ticket_version(document)).collect())
    }

    /// One command for all of `tickets`. The driver's bulk write needs a server command that FerretDB does not have.
    async fn write<'t>(
        &self,
        tickets: &[&'t Ticket],
        statement: &Statement,
    ) -> Result<Written<'t>, StoreError> {
        if tickets.is_empty() {
            return Ok(Written::default());
        }
        let command = statement.command(tickets);
        let reply =
            retry::transient(WRITING, || async { self.database.run_command(command.clone()).await }).await?;
        let WriteReply { written, retry, duplicate } = WriteReply::parse(&reply)?;
        let retry = retry.iter().filter_map(|index| tickets.get(*index).copied()).collect();
        Ok(Written { written, retry, duplicate })
    }
}

/// The result of one command.
#[derive(Default)]
struct Written<'t> {
    written: u64,
    /// Tickets to examine again.
    retry: Vec<&'t Ticket>,
    /// What the server says of one whose key another document has.
    duplicate: Option<String>,
}

enum Statement {
    Insert,
    /// Matches older versions only.
    Update,
}

impl Statement {
    fn command(&self, tickets: &[&Ticket]) -> Document {
        let (verb, list, statement): (_, _, fn(&Ticket) -> Document) = match self {
            Self::Insert => ("insert", "documents", insert_statement),
            Self::Update => ("update", "updates", update_statement),
        };
        let statements: Vec<Document> = tickets.iter().map(|ticket| statement(ticket)).collect();
        doc! { verb: TICKETS, list: statements, "ordered": false, "writeConcern": { "w": "majority" } }
    }
}

fn insert_statement(ticket: &Ticket) -> Document {
    let mut document = doc! { "_id": object_id(ticket.id.bytes()) };
    document.extend(fields(ticket));
    document
}

fn update_statement(ticket: &Ticket) -> Document {
    // `$not $gte` and not `$lt`, so that it also matches a document without a version.
    let older = doc! { "$not": { "$gte": document::version(ticket.version) } };
    doc! {
        "q": { "_id": object_id(ticket.id.bytes()), "version": older },
        "u": { "$set": fields(ticket) },
    }
}

fn fields(ticket: &Ticket) -> Document {
    doc! {
        "title": &ticket.title,
        "price": number(ticket.price),
        "version": document::version(ticket.version),
    }
}

/// The server's reply to a command with several statements.
#[derive(Debug, Default)]
pub(super) struct WriteReply {
    written: u64,
    /// The indexes of the statements whose tickets are to be examined again.
    pub(super) retry: Vec<usize>,
    /// What the server says of one whose key another document has.
    duplicate: Option<String>,
}

impl WriteReply {
    pub(super) fn parse(document: &Document) -> Result<Self, StoreError> {
        if let Ok(concern) = document.get_document("writeConcernError") {
            // They are written, and may still be rolled back.
            let detail = concern.get_str("errmsg").unwrap_or("no majority has acknowledged them").to_owned();
            return Err(StoreError::Unavailable { doing: WRITING, detail });
        }
        let mut reply = Self { written: count(document, "n"), ..Self::default() };
        for error in document.get_array("writeErrors").into_iter().flatten().filter_map(|e| e.as_document()) {
            let code = i32::try_from(count(error, "code")).unwrap_or_default();
            let message = error.get_str("errmsg").unwrap_or_default();
            if code != code::DUPLICATE_KEY && !is_transient_code(code, message) {
                let detail = format!("{message} (code {code})");
                return Err(StoreError::Failed { doing: WRITING, detail });
            }
            if code == code::DUPLICATE_KEY {
                reply.duplicate = Some(on_one_line(message));
            }
            reply.retry.push(usize::try_from(count(error, "index")).unwrap_or(usize::MAX));
        }
        Ok(reply)
    }
}

/// A whole number of a reply, in whichever numeric type the server uses; 0 if it is missing.
fn count(document: &Document, field: &str) -> u64 {
    let number = document.get(field);
    number
        .and_then(|n| n.as_i64().or_else(|| n.as_i32().map(i64::from)))
        .and_then(|n| u64::try_from(n).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duplicate_key_and_a_write_conflict_are_examined_again() {
        let reply = WriteReply::parse(&doc! {
            "ok": 1.0, "n": 3_i64,
            "writeErrors": [
                { "index": 1, "code": 11000, "errmsg": "duplicate key" },
                { "index": 4, "code": 1, "errmsg": "deadlock detected" },
                { "index": 5, "code": 112, "errmsg": "write conflict" },
            ],
        })
        .unwrap();
        assert_eq!((reply.written, reply.retry), (3, vec![1, 4, 5]));
        assert_eq!(reply.duplicate.as_deref(), Some("duplicate key"));
    }

    #[test]
    fn what_no_majority_has_acknowledged_is_not_written() {
        let concern = doc! { "code": 64, "errmsg": "waiting for replication timed out" };
        let reply = WriteReply::parse(&doc! { "ok": 1.0, "n": 3, "writeConcernError": concern });
        assert!(matches!(reply, Err(StoreError::Unavailable { .. })), "{reply:?}");
    }

    #[test]
    fn any_other_write_error_is_returned() {
        let reply = doc! { "n": 0, "writeErrors": [{ "index": 0, "code": 14, "errmsg": "type mismatch" }] };
        assert!(WriteReply::parse(&reply).unwrap_err().to_string().contains("type mismatch"));
    }
}
