//! Why the command stopped, and the exit codes.

use thiserror::Error;

use crate::store::StoreError;

/// Why the command stopped.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl IdentityError {
    /// The exit code.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Store(error) if error.is_misconfigured() => 2,
            Self::Store(_) => 1,
        }
    }
}
