//! Reads that see what this process has written before, whichever server answers.
//!
//! What a majority has is read at the primary, as far as it knows. One that has just been elected may know of an older state than
//! what the one before it has acknowledged: whoever asks it at that moment finds again what it has cleared. So the reads and the
//! writes that belong together are made in sessions that carry on the time of the last answer, and the server waits with its
//! answer until it is as far as that. A server without such times, such as one that is alone, answers at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mongodb::{Client, ClientSession, bson::Timestamp, error::Result as DriverResult};

/// How far the answers were. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Causal(Arc<Mutex<Option<Timestamp>>>);

impl Causal {
    /// A session for one command: what it reads is not older than what any session before it has seen or written.
    pub(super) async fn session(&self, client: &Client) -> DriverResult<CausalSession> {
        let mut session = client.start_session().causal_consistency(true).await?;
        let reached = *self.reached();
        if let Some(reached) = reached {
            session.advance_operation_time(reached);
        }
        Ok(CausalSession { session, causal: self.clone() })
    }

    fn reached(&self) -> MutexGuard<'_, Option<Timestamp>> {
        // No code panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session; once it is dropped, the next ones begin where it was.
pub(super) struct CausalSession {
    session: ClientSession,
    causal: Causal,
}

impl CausalSession {
    /// For the driver.
    pub(super) fn get(&mut self) -> &mut ClientSession {
        &mut self.session
    }
}

impl Drop for CausalSession {
    fn drop(&mut self) {
        let (seen, mut reached) = (self.session.operation_time(), self.causal.reached());
        *reached = seen.max(*reached);
    }
}
