//! The conditions `Ready`, and of a resource that is not, whether that stays so (`Stalled`) or is worked on (`Reconciling`).

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};

use crate::{
    controller::children::rollout::Rollout,
    crd::{ConditionType, NewCondition, Reason, find_condition, has_any_of, is_true, set_condition},
};

/// Sets these conditions, as they follow from the other `conditions` of the controller and from those on the object, which
/// has also the sweeper's; `rollout` is how far the Deployment is, as far as that is known.
pub(super) fn set(
    conditions: &mut Vec<Condition>,
    on_object: &[Condition],
    generation: Option<i64>,
    awaits_sweeper: bool,
    rollout: Option<&Rollout>,
    now: Timestamp,
) {
    let (is_ready, reason, message) = readiness(conditions, on_object, generation, awaits_sweeper);
    let ready = NewCondition { kind: ConditionType::Ready, status: is_ready, reason, message, generation };
    if !is_ready {
        let kind = if is_stalled(&ready.reason, conditions, rollout) {
            ConditionType::Stalled
        } else {
            ConditionType::Reconciling
        };
        let progress = NewCondition { kind, status: true, ..ready.clone() };
        set_condition(conditions, on_object, progress, now);
    }
    set_condition(conditions, on_object, ready, now);
}

/// `Ready`: status, reason and message of the first condition that is false, the controller's before the sweeper's; but
/// pods that only wait are the consequence of a database that is not ready, so that is told first. What the sweeper says of
/// a former generation does not count; it is waited for, as its first words are. If all are true, those that warn are told.
fn readiness(
    ours: &[Condition],
    on_object: &[Condition],
    generation: Option<i64>,
    awaits_sweeper: bool,
) -> (bool, String, String) {
    let [_, order @ ..] = ConditionType::CONTROLLER;
    let own = order.iter().filter_map(|kind| find_condition(ours, *kind));
    let others = ConditionType::SWEEPER.iter().filter_map(|kind| find_condition(on_object, *kind));
    let is_former =
        |condition: &&Condition| condition.observed_generation.is_some_and(|of| Some(of) < generation);
    let (former, current): (Vec<_>, Vec<_>) = others.partition(is_former);
    let all: Vec<_> = own.chain(current).collect();
    let mut failing = all.iter().filter(|condition| !is_true(condition)).peekable();
    if let Some(first) = failing.peek().copied() {
        let waits =
            [Reason::MinimumReplicasUnavailable, Reason::RolloutInProgress, Reason::ProgressDeadlineExceeded];
        let is_consequence = has_any_of(first, &waits);
        let database = failing.find(|condition| condition.type_ == ConditionType::DatabaseReady.as_str());
        let cause = database.filter(|_| is_consequence).unwrap_or(first);
        return (false, cause.reason.clone(), cause.message.clone());
    }
    let reported = former.iter().filter_map(|condition| condition.observed_generation).min();
    let awaited = match reported {
        Some(of) => Some(format!("has not reported on this generation yet (last: {of})")),
        None if !awaits_sweeper => None,
        None => find_condition(on_object, ConditionType::Sweeping)
            .is_none()
            .then(|| "has not reported on this resource yet".to_owned()),
    };
    if let Some(awaited) = awaited {
        let message = format!("the sweeper {awaited}: if this persists, check that a sweeper is running");
        return (false, Reason::AwaitingSweeper.as_str().into(), message);
    }
    let warnings: Vec<_> =
        all.into_iter().filter(|condition| condition.reason != Reason::AsExpected.as_str()).collect();
    match warnings.first() {
        None => (true, Reason::AsExpected.as_str().into(), "everything is in place".into()),
        Some(first) => {
            let messages: Vec<_> = warnings.iter().map(|warning| warning.message.as_str()).collect();
            (true, first.reason.clone(), messages.join("; "))
        }
    }
}

/// Whether what is not ready for this reason stays so until someone changes something: the spec is not valid, something is
/// suspended, or the pods of a rollout that has passed its deadline cannot run. Pods that wait for a database go on by
/// themselves.
fn is_stalled(reason: &str, conditions: &[Condition], rollout: Option<&Rollout>) -> bool {
    let failing = |kind| find_condition(conditions, kind).filter(|condition| !is_true(condition));
    let is_past_deadline = rollout.is_some_and(|rollout| rollout.stalled.is_some());
    failing(ConditionType::Valid).is_some()
        || reason == Reason::Suspended.as_str()
        || is_past_deadline && failing(ConditionType::Available).is_some_and(|of| of.reason == reason)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        controller::{
            fixture::service,
            problem::Problem,
            reconcile::{
                apply::Applied,
                dereference::Dereferenced,
                status::{
                    Author, compute,
                    fixture::{at, available, completed, deployment, ready},
                    update::is_current,
                },
                validate::validate,
            },
        },
        crd::OrdersServiceStatus,
    };

    #[test]
    fn ready_follows_the_first_failing_condition_and_its_time_moves_only_with_its_status() {
        let mut service = service(json!({}));
        let found = Dereferenced::default();
        let valid = validate(&service, &found, Some("i")).unwrap();
        let mut step = |applied: &Applied, second| {
            let status = compute(&service, &completed(&valid, applied), None, Author::ALONE, at(second));
            service.status = Some(status.clone());
            status
        };
        assert_eq!(ready(&step(&available(0), 1)), ("False", "MinimumReplicasUnavailable", &at(1)));
        assert_eq!(ready(&step(&available(0), 2)), ("False", "MinimumReplicasUnavailable", &at(1)));
        let status = step(&available(2), 3);
        assert_eq!(ready(&status), ("True", "AsExpected", &at(3)));
        assert_eq!((status.replicas, status.ready_replicas), (Some(2), Some(2)));
        assert_eq!(status.url.as_deref(), Some("http://a.dev/api/orders"));
        assert!(is_current(&status, &step(&available(2), 4)));
        let stuck = deployment(json!({
            "observedGeneration": 2,
            "conditions": [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "m"}]
        }));
        assert_eq!(ready(&step(&stuck, 5)), ("False", "ProgressDeadlineExceeded", &at(5)));
    }

    #[test]
    fn pods_that_wait_for_a_database_are_told_by_their_cause() {
        let mut service = service(json!({}));
        let valid = validate(&service, &Dereferenced::default(), Some("i")).unwrap();
        let mut conditions = Vec::new();
        let unreachable = NewCondition {
            kind: ConditionType::DatabaseReady,
            status: false,
            reason: "DatabaseUnreachable".into(),
            message: "no answer".into(),
            generation: Some(1),
        };
        set_condition(&mut conditions, &[], unreachable, at(1));
        service.status = Some(OrdersServiceStatus { conditions, ..OrdersServiceStatus::default() });
        let told = |applied: &Applied| {
            let status = compute(&service, &completed(&valid, applied), None, Author::ALONE, at(2));
            let ready = find_condition(&status.conditions, ConditionType::Ready).unwrap();
            ready.reason.clone()
        };
        assert_eq!(told(&available(0)), "DatabaseUnreachable");
        assert_eq!(told(&available(2)), "DatabaseUnreachable");
        let quota = deployment(json!({
            "observedGeneration": 2, "replicas": 2, "readyReplicas": 2,
            "conditions": [
                {"type": "Available", "status": "True"},
                {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"}
            ]
        }));
        assert_eq!(
            told(&quota),
            "PodCreationFailed",
            "pods that cannot be created do not wait for a database"
        );
    }

    #[test]
    fn a_rollout_past_its_deadline_is_stalled_whatever_its_cause_unless_it_waits_for_a_database() {
        let valid = validate(&service(json!({})), &Dereferenced::default(), Some("i")).unwrap();
        let rolling = |has_passed: bool| {
            deployment(json!({
                "observedGeneration": 2, "replicas": 3, "updatedReplicas": 1, "readyReplicas": 2,
                "conditions": [
                    {"type": "Available", "status": "True"},
                    {"type": "Progressing", "status": if has_passed { "False" } else { "True" }, "reason": "ProgressDeadlineExceeded"}
                ]
            }))
        };
        let image = || Some(Problem::new(Reason::ImagePullFailed, "pod a cannot pull image x"));
        let said = |kind: ConditionType, reason: &str| {
            let (reason, message) = (reason.to_owned(), "m".to_owned());
            let said = NewCondition { kind, status: false, reason, message, generation: Some(1) };
            let mut conditions = Vec::new();
            set_condition(&mut conditions, &[], said, at(1));
            conditions
        };
        let database = || said(ConditionType::DatabaseReady, "DatabaseUnreachable");
        let is_told = |trouble: Option<Problem>, has_passed, of_sweeper: Vec<Condition>| {
            let mut service = service(json!({}));
            service.status =
                Some(OrdersServiceStatus { conditions: of_sweeper, ..OrdersServiceStatus::default() });
            let mut outcome = completed(&valid, &rolling(has_passed));
            outcome.as_mut().unwrap().pods.problem = trouble;
            let status = compute(&service, &outcome, None, Author::ALONE, at(2));
            let is_there = |kind| find_condition(&status.conditions, kind).is_some();
            assert_ne!(is_there(ConditionType::Stalled), is_there(ConditionType::Reconciling));
            is_there(ConditionType::Stalled)
        };
        assert!(is_told(image(), true, Vec::new()) && is_told(None, true, Vec::new()));
        assert!(!is_told(image(), false, Vec::new()) && !is_told(None, false, Vec::new()));
        assert!(!is_told(None, true, database()), "it goes on as soon as the database is back");
        assert!(
            is_told(image(), true, database()),
            "an image that cannot be pulled does not wait for the database"
        );
    }

    #[test]
    fn what_the_sweeper_says_of_a_former_generation_is_waited_for_and_what_warns_is_told() {
        let mut service = service(json!({}));
        service.metadata.generation = Some(2);
        let valid = validate(&service, &Dereferenced::default(), Some("i")).unwrap();
        let mut told = |status: bool, reason: &str, generation| {
            let (reason, message) = (reason.to_owned(), "the words".to_owned());
            let kind = ConditionType::DatabaseReady;
            let said = NewCondition { kind, status, reason, message, generation: Some(generation) };
            let mut conditions = Vec::new();
            set_condition(&mut conditions, &[], said, at(1));
            service.status = Some(OrdersServiceStatus { conditions, ..OrdersServiceStatus::default() });
            let status = compute(&service, &completed(&valid, &available(2)), None, Author::ALONE, at(2));
            let ready = find_condition(&status.conditions, ConditionType::Ready).unwrap().clone();
            (ready.status, ready.reason, ready.message)
        };
        for is_ready in [true, false] {
            let (status, reason, message) = told(is_ready, "DatabaseUnreachable", 1);
            assert_eq!((status.as_str(), reason.as_str()), ("False", "AwaitingSweeper"));
            assert!(!message.contains("the words"), "{message}");
        }
        let said = |status: &str, reason: &str, message: &str| (status.into(), reason.into(), message.into());
        assert_eq!(told(true, "AsExpected", 2), said("True", "AsExpected", "everything is in place"));
        assert_eq!(
            told(true, "DatabaseOptionIgnored", 2),
            said("True", "DatabaseOptionIgnored", "the words")
        );
        assert_eq!(told(false, "DatabaseTooSlow", 2), said("False", "DatabaseTooSlow", "the words"));
    }

    #[test]
    fn a_resource_is_not_ready_before_a_sweeper_has_reported_on_it() {
        let mut service = service(json!({}));
        let valid = validate(&service, &Dereferenced::default(), Some("i")).unwrap();
        let author = Author { awaits_sweeper: true, ..Author::ALONE };
        let status = compute(&service, &completed(&valid, &available(2)), None, author, at(1));
        assert_eq!(ready(&status), ("False", "AwaitingSweeper", &at(1)));
        let status = compute(&service, &completed(&valid, &available(0)), None, author, at(1));
        assert_eq!(ready(&status).1, "MinimumReplicasUnavailable", "what is known to be missing comes first");
        let reported = NewCondition {
            kind: ConditionType::Sweeping,
            status: true,
            reason: "AsExpected".into(),
            message: "m".into(),
            generation: service.metadata.generation,
        };
        let mut conditions = Vec::new();
        set_condition(&mut conditions, &[], reported, at(1));
        service.status = Some(OrdersServiceStatus { conditions, ..OrdersServiceStatus::default() });
        let status = compute(&service, &completed(&valid, &available(2)), None, author, at(2));
        assert_eq!(ready(&status).0, "True");
    }
}
