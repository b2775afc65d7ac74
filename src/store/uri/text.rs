//! Errors without values.

use crate::store::error::StoreError;

pub(super) fn invalid(message: impl Into<String>) -> StoreError {
    StoreError::InvalidUri(message.into())
}
