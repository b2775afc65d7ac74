//! Why the sweeper ends without having done its work.

use thiserror::Error;

use crate::{runtime::RunError, store::StoreError};

/// Why the sweeper ended without having done its work.
#[derive(Debug, Error)]
pub enum SweeperError {
    /// The process could not start, or not go on.
    #[error(transparent)]
    Run(#[from] RunError),
    /// `--uri` or `--database` is invalid.
    #[error("--uri and --database: {0}")]
    Target(#[source] StoreError),
    /// The OrdersServices cannot be listed.
    #[error("cannot list the OrdersServices{0}: {1}")]
    List(String, #[source] kube::Error),
    /// The API server does not answer.
    #[error("cannot list the OrdersServices{0}: no answer within {1} s")]
    ListTimeout(String, u64),
    /// There is no such OrdersService.
    #[error("there is no OrdersService {0}: `kubectl get ordersservices -A` lists all")]
    NoSuchService(String),
    /// It does not match the schema.
    #[error("OrdersService {0} does not match the schema of this version: a field {1}; correct it")]
    Unreadable(String, String),
    /// It goes, so there is nothing to be swept for it.
    #[error("OrdersService {0} is being deleted, and so its database is left alone")]
    BeingDeleted(String),
    /// Some databases could not be swept.
    #[error("{failed} of {all} databases could not be swept; what is due there is still due")]
    Incomplete {
        /// How many could not be swept.
        failed: usize,
        /// How many there are.
        all: usize,
    },
}

impl SweeperError {
    /// The exit code: 2 for a wrong command line, else 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Target(_) => 2,
            Self::Run(_)
            | Self::List(..)
            | Self::ListTimeout(..)
            | Self::NoSuchService(_)
            | Self::Unreadable(..)
            | Self::BeingDeleted(_)
            | Self::Incomplete { .. } => 1,
        }
    }
}
