//! The local replicas of tickets.
//!
//! Versions only go up: a record is written only over an older one, so that events and imports may
//! come twice, late, or in any order.

use std::collections::HashMap;

use futures::TryStreamExt;
use mongodb::bson::{Document, RawDocumentBuf, doc};

use super::{
    code,
    database::Store,
    document::{self, TICKETS, number, object_id, ticket_version, to_ticket},
    error::{StoreError, is_transient_answer},
    retry,
};
use crate::order::{Ticket, TicketId, Version};

/// What became of a number of tickets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Upserted {
    /// Written: new here, or newer than what was here.
    pub written: u64,
    /// Left alone: the same version, or a newer one, is here.
    pub unchanged: u64,
}

const WRITING: &str = "writing tickets";

impl Store {
    /// One ticket; `None` when it is not known here.
    ///
    /// # Errors
    /// When its record cannot be read, or the database fails.
    pub async fn ticket(&self, id: TicketId) -> Result<Option<Ticket>, StoreError> {
        self.raw_ticket(id).await?.map(|document| to_ticket(&document)).transpose()
    }

    pub(super) async fn raw_ticket(&self, id: TicketId) -> Result<Option<RawDocumentBuf>, StoreError> {
        self.tickets_by_id.one(object_id(id.bytes())).await
    }

    /// Writes each of `tickets` unless the same or a newer version of it is here.
    ///
    /// Versions only go up, so what is read as new enough needs no write. What is not here is inserted,
    /// and what is older updated on the condition that it still is. A ticket that has come this very
    /// moment, by another hand, is looked at again.
    ///
    /// # Errors
    /// When the database fails; some of the tickets may have been written then, which does no harm.
    pub async fn upsert_tickets(&self, tickets: &[Ticket]) -> Result<Upserted, StoreError> {
        retry::within(retry::DEADLINE, WRITING, async {
            let mut total = Upserted::default();
            let mut left: Vec<&Ticket> = tickets.iter().collect();
            for attempt in 1.. {
                let known = self.versions(&left).await?;
                let (new, here): (Vec<_>, Vec<_>) =
                    left.into_iter().partition(|ticket| !known.contains_key(&ticket.id));
                let (older, current): (Vec<_>, Vec<_>) = here.into_iter().partition(|ticket| {
                    known.get(&ticket.id).is_some_and(|here| *here < Some(ticket.version))
                });
                let inserted = self.write(&new, &Statement::Insert).await?;
                let updated = self.write(&older, &Statement::Update).await?;
                total.written += inserted.written + updated.written;
                // What an update did not find any more has become as new meanwhile.
                let gone = ((older.len() - updated.again.len()) as u64).saturating_sub(updated.written);
                total.unchanged += current.len() as u64 + gone;
                left = inserted.again;
                left.extend(updated.again);
                if left.is_empty() {
                    break;
                }
                retry::pause(attempt).await;
            }
            Ok(total)
        })
        .await
    }

    /// Those of `tickets` that are here, with their versions; one that has none is older than any.
    async fn versions(&self, tickets: &[&Ticket]) -> Result<HashMap<TicketId, Option<Version>>, StoreError> {
        if tickets.is_empty() {
            return Ok(HashMap::new());
        }
        let ids: Vec<_> = tickets.iter().map(|ticket| object_id(ticket.id.bytes())).collect();
        let batch = u32::try_from(ids.len()).unwrap_or(u32::MAX);
        let collection = self.raw_tickets();
        let found: Vec<RawDocumentBuf> = retry::transient("reading tickets' versions", || async {
            let find = collection.find(doc! { "_id": { "$in": &ids } }).projection(doc! { "version": 1 });
            find.batch_size(batch).await?.try_collect().await
        })
        .await?;
        Ok(found.iter().filter_map(|document| ticket_version(document)).collect())
    }

    /// One command for all of `tickets`. The driver's own bulk writes need a server command that
    /// FerretDB does not have.
    async fn write<'t>(
        &self,
        tickets: &[&'t Ticket],
        statement: &Statement,
    ) -> Result<Written<'t>, StoreError> {
        if tickets.is_empty() {
            return Ok(Written::default());
        }
        let command = statement.of(tickets);
        let answer =
            retry::transient(WRITING, || async { self.database.run_command(command.clone()).await }).await?;
        let reply = Reply::read(&answer)?;
        let again = reply.again.iter().filter_map(|index| tickets.get(*index).copied()).collect();
        Ok(Written { written: reply.written, again })
    }
}

/// What a command did.
#[derive(Default)]
struct Written<'t> {
    written: u64,
    /// Those that are to be looked at again.
    again: Vec<&'t Ticket>,
}

enum Statement {
    Insert,
    /// Where an older version is.
    Update,
}

impl Statement {
    fn of(&self, tickets: &[&Ticket]) -> Document {
        let (verb, list, statement): (_, _, fn(&Ticket) -> Document) = match self {
            Self::Insert => ("insert", "documents", new),
            Self::Update => ("update", "updates", renewed),
        };
        let statements: Vec<Document> = tickets.iter().map(|ticket| statement(ticket)).collect();
        doc! { verb: TICKETS, list: statements, "ordered": false, "writeConcern": { "w": "majority" } }
    }
}

fn new(ticket: &Ticket) -> Document {
    let mut document = doc! { "_id": object_id(ticket.id.bytes()) };
    document.extend(fields(ticket));
    document
}

fn renewed(ticket: &Ticket) -> Document {
    // "not at least", rather than "less than", so that a record without a version is older too.
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

/// What the server answered to the statements of one command.
#[derive(Debug, Default)]
struct Reply {
    written: u64,
    /// The statements to look at again, by their index.
    again: Vec<usize>,
}

impl Reply {
    fn read(answer: &Document) -> Result<Self, StoreError> {
        let mut reply = Self { written: count(answer, "n"), ..Self::default() };
        for error in answer.get_array("writeErrors").into_iter().flatten().filter_map(|e| e.as_document()) {
            let code = i32::try_from(count(error, "code")).unwrap_or_default();
            let message = error.get_str("errmsg").unwrap_or_default();
            if code != code::DUPLICATE_KEY && !is_transient_answer(code, message) {
                let detail = format!("{message} (code {code})");
                return Err(StoreError::Failed { doing: WRITING, detail });
            }
            reply.again.push(usize::try_from(count(error, "index")).unwrap_or(usize::MAX));
        }
        Ok(reply)
    }
}

/// A whole number of an answer, in whichever type the server writes it; 0 when it is not there.
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
    fn a_duplicate_and_a_deadlock_mean_to_look_again() {
        let reply = Reply::read(&doc! {
            "ok": 1.0, "n": 3_i64,
            "writeErrors": [
                { "index": 1, "code": 11000, "errmsg": "duplicate key" },
                { "index": 4, "code": 1, "errmsg": "deadlock detected" },
                { "index": 5, "code": 112, "errmsg": "write conflict" },
            ],
        })
        .unwrap();
        assert_eq!((reply.written, reply.again), (3, vec![1, 4, 5]));
    }

    #[test]
    fn any_other_error_is_one() {
        let answer = doc! { "n": 0, "writeErrors": [{ "index": 0, "code": 14, "errmsg": "type mismatch" }] };
        assert!(Reply::read(&answer).unwrap_err().to_string().contains("type mismatch"));
    }
}
