//! What the sweeper writes to a resource's status: pure functions, which return nothing if nothing has changed.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

use super::health::{TargetHealth, WithoutDueTime};
use crate::crd::{ConditionType, ExpiryStatus, NewCondition, Reason, find_condition, is_true, set_condition};

/// The conditions for `health`; none if the resource has them already, or while the health is unknown and they are about
/// the same database.
pub fn conditions(
    health: &TargetHealth,
    is_other_database: bool,
    overdue_seconds: u64,
    old: &[Condition],
    generation: Option<i64>,
    now: Timestamp,
) -> Option<Vec<Condition>> {
    let pending = "the connection string has changed; its database has not been reached yet";
    let reached = "the database is reachable, and its indexes are in place";
    let in_time = "expired orders are moved to cancelled in time";
    let late = format!(
        "orders expire faster than they can be cancelled: the oldest was overdue by {overdue_seconds} s when this was \
         written; give the database more resources, or raise spec.expiration.maxPerSecond if it is set"
    );
    let never;
    // DatabaseReady, then Sweeping: status, reason, message.
    let (database, sweeping) = match health {
        TargetHealth::Unknown if !is_other_database => return None,
        TargetHealth::Unknown => {
            let pending = (false, Reason::DatabasePending, pending);
            (Some(pending), pending)
        }
        TargetHealth::Suspended => (
            None,
            (false, Reason::Suspended, "spec.expiration.suspend is true: expired orders stay as they are"),
        ),
        TargetHealth::Swept { problem, ignored_options, without_due_time, is_behind } => {
            let database = match (problem, ignored_options) {
                (Some(problem), _) => (false, problem.reason, problem.message.as_str()),
                (None, Some(options)) => (true, Reason::DatabaseOptionIgnored, options.as_str()),
                (None, None) => (true, Reason::AsExpected, reached),
            };
            never = without_due_time.as_ref().map(WithoutDueTime::message);
            let sweeping = match &never {
                _ if *is_behind => (false, Reason::FallingBehind, late.as_str()),
                Some(never) => (true, Reason::OrdersWithoutDueTime, never.as_str()),
                None => (true, Reason::AsExpected, in_time),
            };
            (Some(database), sweeping)
        }
        TargetHealth::Failing(problem) => {
            let failing = (false, problem.reason, problem.message.as_str());
            (Some(failing), failing)
        }
    };
    let mut new = Vec::new();
    let wanted = [(ConditionType::DatabaseReady, database), (ConditionType::Sweeping, Some(sweeping))];
    for (kind, state) in wanted {
        // While the database is not used nothing is known of it, so there is no condition about it.
        if let Some((status, reason, message)) = state {
            let (reason, message) = (reason.as_str().to_owned(), message.to_owned());
            let condition = NewCondition { kind, status, reason, message, generation };
            set_condition(&mut new, old, condition, now);
        }
    }
    let is_there = |kind: ConditionType| find_condition(old, kind).is_some();
    let as_many = wanted.iter().all(|(kind, state)| state.is_some() == is_there(*kind));
    (!as_many || !new.iter().all(|condition| is_written(condition, old))).then_some(new)
}

/// Whether the resource has a condition already that says the same, about the same generation.
pub fn is_written(condition: &Condition, old: &[Condition]) -> bool {
    // The delay in this message changes all the time.
    let has_figures = condition.reason == Reason::FallingBehind.as_str();
    old.iter().any(|old| {
        (&old.type_, &old.status, &old.reason) == (&condition.type_, &condition.status, &condition.reason)
            && old.observed_generation == condition.observed_generation
            && (has_figures || old.message == condition.message)
    })
}

/// The new `status.expiry`, if `expired` orders were cancelled since `old` was written; none if its figures are the
/// same.
pub fn expiry(
    old: Option<&ExpiryStatus>,
    expired: u64,
    overdue_seconds: u64,
    now: Timestamp,
) -> Option<ExpiryStatus> {
    let total = old.and_then(|old| old.expired_total).unwrap_or(0);
    let new = ExpiryStatus {
        last_sweep_time: Some(Time(now)),
        oldest_overdue_seconds: i64::try_from(overdue_seconds).ok(),
        expired_total: Some(total.saturating_add_unsigned(expired)),
    };
    let same = old.is_some_and(|old| {
        (old.oldest_overdue_seconds, old.expired_total) == (new.oldest_overdue_seconds, new.expired_total)
    });
    (!same).then_some(new)
}

/// A change of a condition, which becomes an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Whether the event is a warning.
    pub is_warning: bool,
    /// The reason of the event: that of the condition, or the condition's type if it has become true.
    pub reason: String,
    /// The message of the condition.
    pub note: String,
}

/// The changes between two states of the conditions. A condition that is true from the start is not one.
pub fn transitions(old: &[Condition], new: &[Condition]) -> Vec<Transition> {
    let mut transitions: Vec<Transition> = Vec::new();
    for condition in new {
        let before = old.iter().find(|old| old.type_ == condition.type_);
        let was_true = before.is_none_or(is_true);
        let reason = match (was_true, is_true(condition)) {
            (true, true) => continue,
            (false, true) => condition.type_.clone(),
            (_, false) if before.is_some_and(|before| before.reason == condition.reason) => continue,
            (_, false) => condition.reason.clone(),
        };
        let is_warning = is_failure(condition);
        // If the database is unavailable, both conditions have that reason, but one event is enough.
        if transitions.iter().all(|other| other.reason != reason) {
            transitions.push(Transition { is_warning, reason, note: condition.message.clone() });
        }
    }
    transitions
}

/// Whether it is not true, and nobody wants it so.
pub fn is_failure(condition: &Condition) -> bool {
    let intended = [Reason::Suspended, Reason::DatabasePending];
    !is_true(condition) && intended.iter().all(|reason| condition.reason != reason.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweeper::health::DatabaseProblem;

    const WELL: TargetHealth = TargetHealth::WELL;
    const BEHIND: TargetHealth =
        TargetHealth::Swept { problem: None, ignored_options: None, without_due_time: None, is_behind: true };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// The conditions where the database is the same.
    fn written(
        health: &TargetHealth,
        overdue: u64,
        old: &[Condition],
        generation: Option<i64>,
        now: Timestamp,
    ) -> Option<Vec<Condition>> {
        conditions(health, false, overdue, old, generation, now)
    }

    fn summary(conditions: &[Condition]) -> Vec<(&str, &str, &str)> {
        conditions.iter().map(|c| (c.type_.as_str(), c.status.as_str(), c.reason.as_str())).collect()
    }

    fn reasons(old: &[Condition], new: &[Condition]) -> Vec<(bool, String)> {
        transitions(old, new).into_iter().map(|change| (change.is_warning, change.reason)).collect()
    }

    #[test]
    fn an_unchanged_state_is_not_written_and_a_change_keeps_the_other_transition_times() {
        assert_eq!(conditions(&TargetHealth::Unknown, false, 0, &[], Some(1), at(1)), None);
        let well = written(&WELL, 0, &[], Some(1), at(1)).unwrap();
        assert_eq!(
            summary(&well),
            [("DatabaseReady", "True", "AsExpected"), ("Sweeping", "True", "AsExpected")]
        );
        assert_eq!(written(&WELL, 0, &well, Some(1), at(2)), None);
        let again = written(&WELL, 0, &well, Some(2), at(2)).unwrap();
        assert!(again.iter().all(|condition| condition.observed_generation == Some(2)));
        assert_eq!(again[0].last_transition_time, well[0].last_transition_time);

        let problem = DatabaseProblem { reason: Reason::DuplicateActiveOrders, message: "two".into() };
        let missing = WELL.reported(Some(&problem), &[]);
        let missing = written(&missing, 0, &well, Some(1), at(3)).unwrap();
        assert_eq!(
            summary(&missing),
            [("DatabaseReady", "False", "DuplicateActiveOrders"), ("Sweeping", "True", "AsExpected")]
        );
        assert_eq!(missing[0].last_transition_time.0, at(3));
        assert_eq!(missing[1].last_transition_time.0, at(1));

        let failing = written(&TargetHealth::Failing(problem), 0, &missing, Some(1), at(4)).unwrap();
        assert_eq!(failing[0].last_transition_time.0, at(3));
        let suspended = written(&TargetHealth::Suspended, 0, &failing, Some(1), at(5)).unwrap();
        assert_eq!(
            summary(&suspended),
            [("Sweeping", "False", "Suspended")],
            "nothing is known of the database"
        );
        assert_eq!(written(&TargetHealth::Suspended, 0, &suspended, Some(1), at(6)), None);
    }

    #[test]
    fn what_is_said_is_about_this_database_and_not_about_a_former_one() {
        let failing = |message: &str| {
            let message = message.to_owned();
            TargetHealth::Failing(DatabaseProblem { reason: Reason::InvalidDatabaseUri, message })
        };
        let old = written(&failing("Secret \"a\" has no URI"), 0, &[], Some(1), at(1)).unwrap();
        let new = written(&failing("Secret \"b\" has no URI"), 0, &old, Some(1), at(2)).unwrap();
        assert!(new[0].message.contains("\"b\""), "{new:?}");
        let unknown = |old: &[Condition]| conditions(&TargetHealth::Unknown, true, 0, old, Some(1), at(3));
        let pending = unknown(&new).unwrap();
        assert_eq!(
            summary(&pending),
            [("DatabaseReady", "False", "DatabasePending"), ("Sweeping", "False", "DatabasePending")]
        );
        assert_eq!(unknown(&pending), None);
    }

    #[test]
    fn options_without_effect_are_a_warning_that_is_written_again_when_they_change() {
        let with = |options: &str| WELL.reported(None, &[options.into()]);
        let well = written(&with("w"), 0, &[], Some(1), at(1)).unwrap();
        assert_eq!(summary(&well)[0], ("DatabaseReady", "True", "DatabaseOptionIgnored"));
        assert_eq!(written(&with("w"), 0, &well, Some(1), at(2)), None);
        let other = written(&with("journal"), 0, &well, Some(1), at(2)).unwrap();
        assert_eq!((other[0].message.as_str(), other[0].last_transition_time.0), ("journal", at(1)));
        assert!(transitions(&well, &other).is_empty());
    }

    #[test]
    fn orders_without_a_due_time_are_a_warning_that_is_written_again_when_their_number_changes() {
        let with = |count, is_behind| {
            let without_due_time = Some(WithoutDueTime { count, examples: Vec::new() });
            TargetHealth::Swept { problem: None, ignored_options: None, without_due_time, is_behind }
        };
        let warned = written(&with(2, false), 0, &[], Some(1), at(1)).unwrap();
        assert_eq!(summary(&warned)[1], ("Sweeping", "True", "OrdersWithoutDueTime"));
        assert!(warned[1].message.contains("2 open orders"), "{}", warned[1].message);
        assert_eq!(written(&with(2, false), 0, &warned, Some(1), at(2)), None);
        let more = written(&with(3, false), 0, &warned, Some(1), at(2)).unwrap();
        assert_eq!(more[1].last_transition_time.0, at(1));
        assert!(transitions(&warned, &more).is_empty());
        let behind = written(&with(3, true), 1, &more, Some(1), at(3)).unwrap();
        assert_eq!(summary(&behind)[1], ("Sweeping", "False", "FallingBehind"));
        assert_eq!(summary(&written(&WELL, 0, &more, Some(1), at(3)).unwrap())[1].2, "AsExpected");
    }

    #[test]
    fn falling_behind_is_written_with_the_delay_and_not_again_when_it_grows() {
        let well = written(&WELL, 0, &[], Some(1), at(1)).unwrap();
        let behind = written(&BEHIND, 47, &well, Some(1), at(2)).unwrap();
        assert_eq!(summary(&behind)[1], ("Sweeping", "False", "FallingBehind"));
        assert!(behind[1].message.contains("47 s"), "{}", behind[1].message);
        assert_eq!(written(&BEHIND, 300, &behind, Some(1), at(3)), None);
    }

    #[test]
    fn each_change_is_one_event_and_a_condition_that_is_true_from_the_start_is_none() {
        let well = written(&WELL, 0, &[], Some(1), at(1)).unwrap();
        assert!(reasons(&[], &well).is_empty());
        let problem = DatabaseProblem { reason: Reason::DatabaseUnreachable, message: "away".into() };
        let failing = written(&TargetHealth::Failing(problem), 0, &well, Some(1), at(2)).unwrap();
        assert_eq!(reasons(&well, &failing), [(true, "DatabaseUnreachable".into())]);
        assert_eq!(reasons(&[], &failing), [(true, "DatabaseUnreachable".into())]);
        assert!(reasons(&failing, &failing).is_empty());
        let behind = written(&BEHIND, 20, &failing, Some(1), at(3)).unwrap();
        assert_eq!(
            reasons(&failing, &behind),
            [(false, "DatabaseReady".into()), (true, "FallingBehind".into())]
        );
        assert_eq!(reasons(&behind, &well), [(false, "Sweeping".into())]);
        let suspended = written(&TargetHealth::Suspended, 0, &well, Some(1), at(4)).unwrap();
        assert_eq!(reasons(&well, &suspended), [(false, "Suspended".into())]);
    }

    #[test]
    fn the_expiry_is_written_first_and_then_when_its_figures_change() {
        let first = expiry(None, 0, 0, at(1)).unwrap();
        assert_eq!((first.expired_total, first.oldest_overdue_seconds), (Some(0), Some(0)));
        assert_eq!(expiry(Some(&first), 0, 0, at(90)), None);
        let second = expiry(Some(&first), 5, 0, at(90)).unwrap();
        assert_eq!((second.expired_total, second.last_sweep_time.clone()), (Some(5), Some(Time(at(90)))));
        assert_eq!(expiry(Some(&second), 0, 3, at(91)).unwrap().oldest_overdue_seconds, Some(3));
        assert_eq!(expiry(Some(&second), 7, 0, at(91)).unwrap().expired_total, Some(12));
    }
}
