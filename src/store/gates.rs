//! Serialises the inserts of one process for the same ticket.

use tokio::sync::Mutex;

use crate::order::TicketId;

/// Mutexes by ticket. They save retries of conflicting inserts and guarantee nothing: inserts of other processes
/// conflict all the same, and the unique index decides.
pub(super) struct Gates([Mutex<()>; GATES]);

/// Tickets that share a gate by chance cost each other one read.
const GATES: usize = 256;

impl Default for Gates {
    fn default() -> Self {
        Self([const { Mutex::const_new(()) }; GATES])
    }
}

impl Gates {
    pub(super) fn of(&self, ticket: TicketId) -> &Mutex<()> {
        // The last byte of an ObjectId is part of its counter, so it spreads evenly.
        let [.., last] = ticket.bytes();
        &self.0[usize::from(last) % GATES]
    }
}
