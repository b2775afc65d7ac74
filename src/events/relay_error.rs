//! Why a relay ends, and another attempt follows.

use thiserror::Error;

use super::broker::BrokerError;
use crate::store::StoreError;

/// Why a relay has ended.
#[derive(Debug, Error)]
pub(super) enum RelayError {
    #[error(transparent)]
    Broker(BrokerError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("an event cannot be written: {0}")]
    Json(#[from] serde_json::Error),
    #[error(
        "another pod may be publishing by now: the lease was not renewed in time, or the broker has refused an event"
    )]
    LeaseLost,
}

impl From<BrokerError> for RelayError {
    fn from(error: BrokerError) -> Self {
        match error {
            BrokerError::Superseded => Self::LeaseLost,
            error => Self::Broker(error),
        }
    }
}

impl RelayError {
    /// One word for it.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Broker(error) => error.reason(),
            Self::Store(error) => error.reason(),
            Self::Json(_) => "MalformedEvent",
            Self::LeaseLost => "LeaseLost",
        }
    }
}
