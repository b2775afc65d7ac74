//! The health of a target, as the conditions of its resources report it.

use crate::{
    crd::Reason,
    store::{ErrorCategory, StoreError},
};

/// The health of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetHealth {
    /// Not tried yet.
    Unknown,
    /// Not swept, because a resource says so.
    Suspended,
    /// Swept.
    Swept {
        /// Why an index is missing.
        missing_index: Option<DatabaseProblem>,
        /// Whether expired orders have been waiting for long.
        is_behind: bool,
    },
    /// Not swept, because the database cannot be used.
    Failing(DatabaseProblem),
}

/// What is wrong with a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseProblem {
    /// The reason of the condition.
    pub reason: Reason,
    /// What is wrong, and what to do about it.
    pub message: String,
}

impl From<&StoreError> for DatabaseProblem {
    fn from(error: &StoreError) -> Self {
        Self { reason: reason_of(error), message: error.to_string() }
    }
}

/// The reason of conditions, events and metrics for an error of the store.
pub fn reason_of(error: &StoreError) -> Reason {
    reason(error.category())
}

fn reason(category: ErrorCategory) -> Reason {
    match category {
        ErrorCategory::InvalidDatabaseUri => Reason::InvalidDatabaseUri,
        ErrorCategory::DatabaseUnreachable => Reason::DatabaseUnreachable,
        ErrorCategory::AuthenticationFailed => Reason::AuthenticationFailed,
        ErrorCategory::DuplicateActiveOrders => Reason::DuplicateActiveOrders,
        ErrorCategory::UnsupportedServer => Reason::UnsupportedServer,
        ErrorCategory::IndexConflict => Reason::IndexConflict,
        ErrorCategory::MalformedDocument => Reason::MalformedDocument,
        ErrorCategory::DatabaseFailed => Reason::DatabaseFailed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_category_of_the_store_has_the_same_name_in_logs_as_in_conditions() {
        for category in ErrorCategory::ALL {
            assert_eq!(reason(category).as_str(), category.as_str());
        }
    }
}
