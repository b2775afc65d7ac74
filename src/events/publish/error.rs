//! Why the command stopped, and the exit codes.

use thiserror::Error;

use crate::store::StoreError;

/// Why the command stopped.
#[derive(Debug, Error)]
pub enum PublishError {
    /// Nobody would publish.
    #[error(
        "events are off for this database: it has no index untold_orders, which the pods make that have NATS_URL"
    )]
    EventsAreOff,
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl PublishError {
    /// The exit code.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::EventsAreOff => 2,
            Self::Store(error) if error.is_misconfigured() => 2,
            Self::Store(_) => 1,
        }
    }
}
