//! Why a check stopped, and the exit codes.

use thiserror::Error;

use crate::store::StoreError;

/// Why a check stopped.
#[derive(Debug, Error)]
pub enum CheckError {
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CheckError {
    /// The exit code: 2 for a mistake on the command line or in the environment, 1 for everything else.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Store(error) if error.is_misconfigured() => 2,
            Self::Store(_) => 1,
        }
    }
}
