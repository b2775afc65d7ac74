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
        /// What is wrong nevertheless: an index is missing, or the last connection string is not usable and the one
        /// before it still is.
        problem: Option<DatabaseProblem>,
        /// Options of the connection string that have no effect.
        ignored_options: Option<String>,
        /// Whether expired orders have been waiting for long.
        is_behind: bool,
    },
    /// Not swept, because the database cannot be used.
    Failing(DatabaseProblem),
}

impl TargetHealth {
    /// As a resource reports it whose own connection string has a `problem`, or options without effect.
    pub fn reported(self, own_problem: Option<&DatabaseProblem>, warnings: &[String]) -> Self {
        match self {
            Self::Swept { problem, is_behind, .. } => Self::Swept {
                problem: own_problem.cloned().or(problem),
                ignored_options: (!warnings.is_empty()).then(|| warnings.join("; ")),
                is_behind,
            },
            other => other,
        }
    }
}

/// What is wrong with a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseProblem {
    /// The reason of the condition.
    pub reason: Reason,
    /// What is wrong, and what to do about it; none of a server's words, which the log has.
    pub message: String,
}

impl From<&StoreError> for DatabaseProblem {
    fn from(error: &StoreError) -> Self {
        Self { reason: reason_of(error), message: error.remedy() }
    }
}

/// The reason of conditions, events and metrics for an error of the store.
pub fn reason_of(error: &StoreError) -> Reason {
    reason(error.category())
}

fn reason(category: ErrorCategory) -> Reason {
    match category {
        ErrorCategory::InvalidDatabaseUri => Reason::InvalidDatabaseUri,
        ErrorCategory::UnsafeDatabaseUri => Reason::UnsafeDatabaseUri,
        ErrorCategory::DatabaseUnreachable => Reason::DatabaseUnreachable,
        ErrorCategory::DatabaseTLSFailed => Reason::DatabaseTLSFailed,
        ErrorCategory::DatabaseTooSlow => Reason::DatabaseTooSlow,
        ErrorCategory::AuthenticationFailed => Reason::AuthenticationFailed,
        ErrorCategory::DuplicateActiveOrders => Reason::DuplicateActiveOrders,
        ErrorCategory::UnsupportedServer => Reason::UnsupportedServer,
        ErrorCategory::IndexConflict => Reason::IndexConflict,
        ErrorCategory::OrdersElsewhere => Reason::OrdersElsewhere,
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
