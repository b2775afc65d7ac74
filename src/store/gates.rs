//! Keeps the buyers of one process apart.

use tokio::sync::Mutex;

use crate::order::TicketId;

/// Keeps the buyers of one process from racing one another at the database, where each race for a
/// ticket costs a retry. It guarantees nothing: other processes race all the same, and the unique
/// index decides.
pub(super) struct Gates([Mutex<()>; GATES]);

/// Tickets share a gate by chance only; it costs them one read.
const GATES: usize = 256;

impl Default for Gates {
    fn default() -> Self {
        Self([const { Mutex::const_new(()) }; GATES])
    }
}

impl Gates {
    pub(super) fn of(&self, ticket: TicketId) -> &Mutex<()> {
        // The last byte of an ObjectId counts.
        let [.., last] = ticket.bytes();
        &self.0[usize::from(last) % GATES]
    }
}
