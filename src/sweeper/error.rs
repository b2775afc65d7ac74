//! Why the sweeper ends without having done its work.

use thiserror::Error;

use crate::{runtime::RunError, store::StoreError};

/// Why the sweeper ended without having done what it was to do.
#[derive(Debug, Error)]
pub enum SweeperError {
    /// The process could not start, or go on.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The connection string, or the database's name, is not one.
    #[error("--uri and --database: {0}")]
    Target(#[source] StoreError),
    /// The OrdersServices cannot be listed.
    #[error("cannot list the OrdersServices{0}: {1}")]
    List(String, #[source] kube::Error),
    /// Not all databases could be swept.
    #[error("{failed} of {all} databases could not be swept; what is due there is still due")]
    Incomplete {
        /// How many could not.
        failed: usize,
        /// Of how many.
        all: usize,
    },
}

impl SweeperError {
    /// The exit code: 2 for what is wrong on the command line, else 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Target(_) => 2,
            Self::Run(_) | Self::List(..) | Self::Incomplete { .. } => 1,
        }
    }
}
