//! The health of a target, as the conditions of its resources report it.

use crate::{
    crd::Reason,
    order::OrderId,
    store::{ErrorCategory, StoreError, database_at},
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
        /// Orders that never expire.
        without_due_time: Option<WithoutDueTime>,
        /// Whether expired orders have been waiting for long.
        is_behind: bool,
    },
    /// Not swept, because the database cannot be used.
    Failing(DatabaseProblem),
}

#[cfg(test)]
impl TargetHealth {
    /// All is well.
    pub const WELL: Self =
        Self::Swept { problem: None, ignored_options: None, without_due_time: None, is_behind: false };
}

impl TargetHealth {
    /// As a resource reports it that has options without effect, or whose own connection string, since this target was made
    /// of it, has a problem.
    pub fn reported(self, own_problem: Option<&DatabaseProblem>, warnings: &[String]) -> Self {
        match self {
            Self::Swept { problem, without_due_time, is_behind, .. } => Self::Swept {
                // A Secret that cannot be read is no refusal: the pods that run have what it was.
                problem: own_problem
                    .filter(|own| own.reason != Reason::DatabaseUnreachable)
                    .cloned()
                    .or(problem),
                ignored_options: (!warnings.is_empty()).then(|| warnings.join("; ")),
                without_due_time,
                is_behind,
            },
            // As long as it lasts, whatever is mended at the database of before changes nothing for the better.
            Self::Failing(problem) => Self::Failing(own_problem.cloned().unwrap_or(problem)),
            other => other,
        }
    }
}

/// Open orders that never become due, since their `expiresAt` is missing or no date.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WithoutDueTime {
    /// How many they are; no more are counted than [`WithoutDueTime::LIMIT`].
    pub count: u64,
    /// The ids of some of them.
    pub examples: Vec<String>,
}

impl WithoutDueTime {
    /// Up to how many are counted.
    pub const LIMIT: u32 = 1000;

    /// What it means, and what to do about it.
    pub fn message(&self) -> String {
        let Self { count, examples } = self;
        let (count, more) = (count, if *count >= Self::LIMIT.into() { " or more" } else { "" });
        // An id that is not an ObjectId may be any text.
        let ids: Vec<_> =
            examples.iter().filter(|id| id.parse::<OrderId>().is_ok()).map(String::as_str).collect();
        let which = if ids.is_empty() { String::new() } else { format!(" (such as {})", ids.join(", ")) };
        format!(
            "in the database {count}{more} open orders{which} have no due time, since their expiresAt is missing \
             or not a date: they hold their tickets forever; cancel them, or set expiresAt to a date \
             (`orders-operator orders check` lists them; they are counted every five minutes)"
        )
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

impl DatabaseProblem {
    /// An error of the database at these hosts.
    pub fn at(hosts: &[String], error: &StoreError) -> Self {
        Self { reason: reason_of(error), message: error.remedy_at(hosts) }
    }
}

impl DatabaseProblem {
    /// That the sweep of the database at these hosts has begun, and that nothing is known of it although that was long ago.
    pub fn pending_at(hosts: &[String]) -> Self {
        let message = format!(
            "the sweeper has begun with {}, and nothing has been swept there yet: an index is being made, which takes minutes \
             where there are millions of orders, or the database does not acknowledge writes, as when most servers of its \
             replica set are away; its log says which",
            database_at(hosts)
        );
        Self { reason: Reason::DatabasePending, message }
    }
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
    fn orders_without_a_due_time_are_counted_and_named_by_ids_in_which_nothing_else_hides() {
        let of = |count, examples: &[&str]| {
            let examples = examples.iter().map(|id| (*id).to_owned()).collect();
            WithoutDueTime { count, examples }.message()
        };
        let message = of(2, &["65f0c1d2a3b4c5d6e7f80911", "\"hunter2\""]);
        assert!(message.contains("2 open orders (such as 65f0c1d2a3b4c5d6e7f80911) have"), "{message}");
        assert!(of(1000, &["hunter2"]).contains("1000 or more open orders have"));
    }

    #[test]
    fn what_is_wrong_with_the_string_of_now_is_told_first_where_the_database_of_the_former_one_is_away() {
        let problem = |reason, message: &str| DatabaseProblem { reason, message: message.to_owned() };
        let away = problem(Reason::DatabaseUnreachable, "the former one is away");
        let refused = problem(Reason::InvalidDatabaseUri, "no string");
        // Of this the pods that run know nothing yet: as long as all is well, it is none of the database's.
        let missing = problem(Reason::DatabaseUnreachable, "there is no such key");
        let failing = TargetHealth::Failing(away);
        assert_eq!(failing.clone().reported(None, &[]), failing);
        for own in [&refused, &missing] {
            assert_eq!(failing.clone().reported(Some(own), &[]), TargetHealth::Failing(own.clone()));
        }
        let well = |problem| TargetHealth::Swept {
            problem,
            ignored_options: None,
            without_due_time: None,
            is_behind: false,
        };
        assert_eq!(well(None).reported(Some(&refused), &[]), well(Some(refused)));
        assert_eq!(well(None).reported(Some(&missing), &[]), well(None));
    }

    #[test]
    fn a_category_of_the_store_has_the_same_name_in_logs_as_in_conditions() {
        for category in ErrorCategory::ALL {
            assert_eq!(reason(category).as_str(), category.as_str());
        }
    }
}
