//! Step 5: what the resource reports of itself. Computing the status is pure; one that is unchanged is not written.
//!
//! ```text
//! availability  the condition Available
//! routes        the condition IngressReady, and the rendered routes
//! update        writing the status
//! ```

mod availability;
mod routes;
pub mod update;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use kube::ResourceExt;

use self::availability::availability;
use super::{
    outcome::{Completed, Outcome, Stopped},
    pods::selector,
};
use crate::{
    controller::{
        children::{inspected::Inspected, rollout::Rollout},
        problem::Problem,
    },
    crd::{
        ConditionType, NewCondition, OrdersService, OrdersServiceStatus, Reason, find_condition, is_true,
        set_condition,
    },
};

/// Who reports.
#[derive(Clone, Copy)]
pub struct Author<'a> {
    /// The identity of this operator, for another one that writes to the same resource.
    pub operator: &'a str,
    /// Whether a sweeper has to report, too, before a resource is ready.
    pub awaits_sweeper: bool,
}

#[cfg(test)]
impl Author<'static> {
    /// One without a sweeper.
    pub const ALONE: Self = Self { operator: "shop/lease", awaits_sweeper: false };
}

/// The status after `outcome`, without the conditions that other managers own. If not every step was done, `observed` is
/// how far the Deployment is, as far as that is known.
pub fn compute(
    service: &OrdersService,
    outcome: &Outcome,
    observed: Option<&Rollout>,
    author: Author<'_>,
    now: Timestamp,
) -> OrdersServiceStatus {
    let operator = author.operator;
    let old = service.status.clone().unwrap_or_default();
    let generation = service.metadata.generation;
    let mut conditions = Vec::new();
    let mut set = |kind, status: bool, reason: Reason, message: String| {
        let reason = reason.as_str().into();
        set_condition(
            &mut conditions,
            &old.conditions,
            NewCondition { kind, status, reason, message, generation },
            now,
        );
    };

    let mut status = OrdersServiceStatus {
        observed_generation: generation,
        selector: Some(selector(&service.name_any())),
        // Unless the outcome says otherwise, these stay as they were.
        replicas: old.replicas,
        ready_replicas: old.ready_replicas,
        ready_of_wanted: old.ready_of_wanted.clone(),
        // Only set while every child is in sync.
        applied: None,
        image: old.image.clone(),
        deployment: old.deployment.clone(),
        operator: Some(operator.to_owned()),
        // Owned by the sweeper, and by who moves resources to another image.
        expiry: None,
        upgrade: None,
        url: old.url.clone(),
        routes: old.routes.clone(),
        conditions: Vec::new(),
    };
    match outcome {
        Err(Stopped::Invalid { problems, .. }) => {
            let is_reference = |problem: &&Problem| problem.reason.is_missing_reference();
            let (references, spec): (Vec<_>, Vec<_>) = problems.iter().partition(is_reference);
            match spec.first() {
                Some(first) => {
                    set(ConditionType::Valid, false, first.reason, Problem::join(spec.iter().copied()));
                    set(
                        ConditionType::Reconciled,
                        false,
                        first.reason,
                        "the spec is not valid (see the condition Valid): nothing was created, changed or deleted".into(),
                    );
                }
                None => {
                    set(ConditionType::Valid, true, Reason::AsExpected, "the spec is valid".into());
                    let reason = references.first().map_or(Reason::ApplyFailed, |first| first.reason);
                    set(ConditionType::Reconciled, false, reason, Problem::join(references.iter().copied()));
                }
            }
        }
        Err(Stopped::Suspended) => {
            set(
                ConditionType::Reconciled,
                false,
                Reason::Suspended,
                "spec.suspend is true: the children are left as they are".into(),
            );
        }
        Err(Stopped::ReadFailed(error)) => {
            let message = format!("cannot read what the spec refers to: {}", error.remedy());
            set(ConditionType::Reconciled, false, error.read_reason(), message);
        }
        // The rollout is not observed yet: nothing is known of it.
        Err(Stopped::AwaitObserved(_)) => {}
        Err(Stopped::AnotherOperator { identity: other, pause, .. }) => {
            let message = format!(
                "another operator ({other}) writes to this resource too, with other settings: this one ({operator}) leaves \
                 it alone for {} s; uninstall one of them, or let each watch namespaces of its own",
                pause.as_secs()
            );
            set(ConditionType::Reconciled, false, Reason::AnotherOperator, message);
        }
        Err(Stopped::Rejected(valid, failures)) => {
            let problems = &failures.problems;
            let rejected = problems.iter().filter(|problem| problem.reason == Reason::InvalidSpec);
            set(ConditionType::Valid, false, Reason::InvalidSpec, Problem::join(rejected));
            set(ConditionType::Reconciled, false, Reason::InvalidSpec, Problem::join(problems));
            routes::describe_after(&mut status, valid, failures);
        }
        Err(Stopped::NotApplied(valid, failures)) => {
            let problems = &failures.problems;
            set(ConditionType::Valid, true, Reason::AsExpected, "the spec is valid".into());
            let reason = problems.first().map_or(Reason::ApplyFailed, |first| first.reason);
            set(ConditionType::Reconciled, false, reason, Problem::join(problems));
            routes::describe_after(&mut status, valid, failures);
        }
        Ok(Completed { valid, applied, pods, autoscaler_warning, .. }) => {
            set(ConditionType::Valid, true, Reason::AsExpected, "the spec is valid".into());
            set(ConditionType::Reconciled, true, Reason::AsExpected, "every child was applied".into());
            let (available, mut reason, mut message) = availability(applied.rollout(), pods);
            if let Some(warning) = autoscaler_warning.as_ref().filter(|_| available) {
                reason = warning.reason;
                message = format!("{message}; {}", warning.message);
            }
            set(ConditionType::Available, available, reason, message);
            if valid.ingress.is_some() || valid.gateway.is_some() {
                let (ready, reason, message) = routes::readiness(valid, applied.route_problems());
                set(ConditionType::IngressReady, ready, reason, message);
            }
            let rollout = applied.rollout();
            status.applied = applied.digest().map(str::to_owned);
            status.deployment = applied.deployment().map(str::to_owned);
            status.image = Some(valid.image.clone());
            count(&mut status, rollout);
            if !applied.keeps_ingress() {
                routes::describe(&mut status, valid, applied.route_problems());
            }
        }
    }
    if outcome.is_err() {
        let former = |kind| find_condition(&old.conditions, kind);
        if let Some(rollout) = observed.filter(|rollout| rollout.is_observed) {
            let (available, reason, message) = availability(rollout, &Inspected::default());
            // The pods are of the generation that was applied last.
            let generation = former(ConditionType::Available).map_or(generation, |of| of.observed_generation);
            let (kind, reason) = (ConditionType::Available, reason.as_str().into());
            let told = NewCondition { kind, status: available, reason, message, generation };
            set_condition(&mut conditions, &old.conditions, told, now);
            count(&mut status, rollout);
        }
        // Conditions that this outcome says nothing about stay as they were; but whether a former spec was valid says nothing
        // about this one.
        for kind in [ConditionType::Valid, ConditionType::Available, ConditionType::IngressReady] {
            let is_meant = |former: &&Condition| {
                kind != ConditionType::Valid || former.observed_generation == generation
            };
            if find_condition(&conditions, kind).is_none() {
                conditions.extend(former(kind).filter(is_meant).cloned());
            }
        }
    }
    let (is_ready, reason, message) =
        readiness(&conditions, &old.conditions, generation, author.awaits_sweeper);
    let ready = NewCondition { kind: ConditionType::Ready, status: is_ready, reason, message, generation };
    if !is_ready {
        let rollout = match outcome {
            Ok(completed) => Some(completed.applied.rollout()),
            Err(_) => observed,
        };
        let kind = if is_stalled(&ready.reason, &conditions, rollout) {
            ConditionType::Stalled
        } else {
            ConditionType::Reconciling
        };
        let progress = NewCondition { kind, status: true, ..ready.clone() };
        set_condition(&mut conditions, &old.conditions, progress, now);
    }
    set_condition(&mut conditions, &old.conditions, ready, now);
    conditions.sort_by(|left, right| left.type_.cmp(&right.type_));
    status.conditions = conditions;
    status
}

/// Sets the numbers of pods.
fn count(status: &mut OrdersServiceStatus, rollout: &Rollout) {
    status.replicas = Some(rollout.replicas);
    status.ready_replicas = Some(rollout.ready);
    status.ready_of_wanted = Some(format!("{}/{}", rollout.ready, rollout.desired));
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
        let is_consequence = waits.iter().any(|reason| first.reason == reason.as_str());
        let database = failing.find(|condition| condition.type_ == ConditionType::DatabaseReady.as_str());
        let cause = database.filter(|_| is_consequence).unwrap_or(first);
        return (false, cause.reason.clone(), cause.message.clone());
    }
    let reported = former.iter().filter_map(|condition| condition.observed_generation).min();
    let awaited = match reported {
        Some(of) => Some(format!("has not reported on this generation yet, only on {of}")),
        None if !awaits_sweeper => None,
        None => find_condition(on_object, ConditionType::Sweeping)
            .is_none()
            .then(|| "has not reported on this resource yet".to_owned()),
    };
    if let Some(awaited) = awaited {
        let message = format!("the sweeper {awaited}: if that lasts, check that a sweeper runs");
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
    use k8s_openapi::api::apps::v1::Deployment;
    use serde_json::json;

    use super::*;
    use crate::controller::{
        children::{inspected::Pods, partial::Partial},
        fixture::service,
        reconcile::{
            apply::{Applied, Failures, RoutesAfter},
            dereference::Dereferenced,
            status::update::is_current,
            validate::{validate, validated::ValidatedOrdersService},
        },
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn deployment(status: serde_json::Value) -> Applied {
        let object = json!({"metadata": {"generation": 2}, "spec": {"replicas": 2, "selector": {}, "template": {}}, "status": status});
        let deployment: Partial<Deployment> = serde_json::from_value(object).unwrap();
        Applied::for_test(Rollout::from(&deployment), Vec::new())
    }

    fn completed(valid: &ValidatedOrdersService, applied: &Applied) -> Outcome {
        let (valid, applied) = (valid.clone(), applied.clone());
        Ok(Completed {
            valid,
            applied,
            pods: Inspected::default(),
            autoscaler_warning: None,
            requeue_after: None,
        })
    }

    fn available(ready: i32) -> Applied {
        deployment(json!({
            "observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "readyReplicas": ready,
            "conditions": [{"type": "Available", "status": if ready > 0 { "True" } else { "False" }}]
        }))
    }

    fn ready(status: &OrdersServiceStatus) -> (&str, &str, &Timestamp) {
        let ready = find_condition(&status.conditions, ConditionType::Ready).unwrap();
        (&ready.status, &ready.reason, &ready.last_transition_time.0)
    }

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
    fn a_resource_at_gateways_only_is_told_that_no_client_is_set_and_where_it_is_reached() {
        let gateway = json!({"parentRefs": [{"name": "g", "sectionName": "https"}], "hostnames": ["a.dev"]});
        let service = service(json!({"ingress": null, "gateway": gateway}));
        let valid = validate(&service, &Dereferenced::default(), Some("i")).unwrap();
        let status = compute(&service, &completed(&valid, &available(2)), None, Author::ALONE, at(1));
        let told = find_condition(&status.conditions, ConditionType::IngressReady).unwrap();
        assert_eq!((told.status.as_str(), told.reason.as_str()), ("True", "MissingClient"));
        assert!(told.message.contains("requests for a.dev that no route takes"), "{}", told.message);
        assert_eq!(status.url.as_deref(), Some("https://a.dev/api/orders"));
        assert_eq!(status.routes.len(), 1);
        let missing = vec![Problem::new(Reason::GatewayApiMissing, "m")];
        let status = compute(
            &service,
            &completed(&valid, &Applied::for_test(available(2).rollout().clone(), missing)),
            None,
            Author::ALONE,
            at(1),
        );
        assert_eq!((status.url, status.routes), (None, Vec::new()), "where none is served, none is rendered");
    }

    #[test]
    fn an_outdated_status_of_the_deployment_does_not_count() {
        let old = deployment(
            json!({"observedGeneration": 1, "conditions": [{"type": "Available", "status": "True"}]}),
        );
        assert!(!availability(old.rollout(), &Inspected::default()).0);
    }

    #[test]
    fn pods_that_cannot_run_are_told_and_count_when_they_hold_up_what_was_asked_for() {
        let image = Problem::new(Reason::ImagePullFailed, "pod a cannot pull image x");
        let waits = Problem::new(Reason::MinimumReplicasUnavailable, "pod a has no node");
        let whole = Rollout {
            desired: 2,
            replicas: 2,
            ready: 2,
            updated: 2,
            is_available: true,
            is_observed: true,
            ..Rollout::default()
        };
        let scaling = Rollout { desired: 5, ..whole.clone() };
        let quota = Rollout { updated: 0, creation_failure: Some("exceeded quota".into()), ..whole.clone() };
        let one_fails = Rollout { ready: 1, ..whole.clone() };
        let rolling = Rollout { replicas: 3, updated: 1, ..whole.clone() };
        let none = Rollout { ready: 0, is_available: false, ..whole.clone() };
        let stuck = Rollout { stalled: Some("given up".into()), ..rolling.clone() };
        for (rollout, trouble, expected) in [
            (&whole, None, (true, Reason::AsExpected)),
            (&one_fails, Some(&image), (true, Reason::AsExpected)),
            (&scaling, None, (true, Reason::AsExpected)),
            (&rolling, None, (false, Reason::RolloutInProgress)),
            (&rolling, Some(&waits), (false, Reason::RolloutInProgress)),
            (&quota, None, (false, Reason::PodCreationFailed)),
            (&quota, Some(&image), (false, Reason::ImagePullFailed)),
            (&rolling, Some(&image), (false, Reason::ImagePullFailed)),
            (&none, None, (false, Reason::MinimumReplicasUnavailable)),
            (&none, Some(&waits), (false, Reason::MinimumReplicasUnavailable)),
            (&none, Some(&image), (false, Reason::ImagePullFailed)),
            (&stuck, None, (false, Reason::ProgressDeadlineExceeded)),
            (&stuck, Some(&waits), (false, Reason::ProgressDeadlineExceeded)),
            (&stuck, Some(&image), (false, Reason::ImagePullFailed)),
        ] {
            let (status, reason, message) =
                availability(rollout, &Inspected { problem: trouble.cloned(), ..Inspected::default() });
            assert_eq!((status, reason), expected, "{rollout:?} {trouble:?}");
            assert!(trouble.is_none_or(|trouble| message.contains(&trouble.message)), "{message}");
        }
        assert!(whole.is_complete() && ![one_fails, rolling, none, stuck].iter().any(Rollout::is_complete));
    }

    #[test]
    fn the_pods_of_the_current_spec_are_told_from_those_of_a_former_one() {
        let told = |replicas, updated, ready, of_current: Option<(i32, i32)>| {
            let (desired, is_observed, is_available) = (1, true, true);
            let rollout = Rollout {
                desired,
                replicas,
                updated,
                ready,
                is_observed,
                is_available,
                ..Rollout::default()
            };
            let pods = of_current.map(|(all, ready)| Pods { all, ready, of: rollout.counts() });
            availability(&rollout, &Inspected { problem: None, pods }).2
        };
        assert_eq!(told(1, 0, 1, None), "0 of 1 pods have the current spec; 1 pod of a former spec is ready");
        assert_eq!(
            told(2, 1, 1, Some((1, 0))),
            "1 of 1 pods have the current spec, 0 of them ready; 1 pod of a former spec is ready"
        );
        assert_eq!(
            told(2, 1, 1, Some((1, 1))),
            "1 of 1 pods have the current spec, 1 of them ready; no pod of a former spec is ready"
        );
        assert_eq!(
            told(4, 1, 3, Some((1, 0))),
            "1 of 1 pods have the current spec, 0 of them ready; 3 pods of a former spec are ready"
        );
        assert_eq!(
            told(2, 1, 1, None),
            "1 of 1 pods have the current spec; of all 2 pods, those of a former spec too, 1 is ready"
        );
        assert_eq!(told(2, 2, 1, None), "1 of 1 pods are ready");
        let unseen = Rollout { desired: 1, replicas: 1, updated: 1, ready: 1, ..Rollout::default() };
        assert_eq!(
            availability(&unseen, &Inspected::default()).2,
            "the cluster has not acted on the current spec yet; 1 of 1 pods are ready"
        );
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

    #[test]
    fn what_an_invalid_spec_says_nothing_about_stays_as_it_was() {
        let mut service = service(json!({}));
        let found = Dereferenced::default();
        let valid = validate(&service, &found, Some("i")).unwrap();
        let before = compute(&service, &completed(&valid, &available(2)), None, Author::ALONE, at(1));
        service.status = Some(before.clone());
        let problem = [Problem::new(Reason::DuplicatePath, "two")];
        let status = compute(
            &service,
            &Err(Stopped::Invalid { problems: problem.to_vec(), is_missing: false }),
            None,
            Author::ALONE,
            at(2),
        );
        assert_eq!(ready(&status), ("False", "DuplicatePath", &at(2)));
        assert_eq!(
            find_condition(&status.conditions, ConditionType::Available),
            find_condition(&before.conditions, ConditionType::Available)
        );
        assert_eq!((status.ready_replicas, &status.routes), (Some(2), &before.routes));
    }

    #[test]
    fn pods_are_told_of_as_they_are_whatever_keeps_the_steps_from_being_done() {
        let mut service = service(json!({}));
        let valid = validate(&service, &Dereferenced::default(), Some("i")).unwrap();
        let before = compute(&service, &completed(&valid, &available(2)), None, Author::ALONE, at(1));
        service.status = Some(before);
        service.metadata.generation = Some(2);
        let told = |observed: Option<&Rollout>| {
            let status = compute(&service, &Err(Stopped::Suspended), observed, Author::ALONE, at(2));
            let of_pods = find_condition(&status.conditions, ConditionType::Available).unwrap().clone();
            let numbers = (status.replicas, status.ready_replicas, status.ready_of_wanted);
            (of_pods.status, of_pods.observed_generation, numbers)
        };
        let as_before = ("True".to_owned(), Some(1), (Some(2), Some(2), Some("2/2".to_owned())));
        assert_eq!(told(None), as_before);
        let failed = available(0);
        let observed = failed.rollout();
        assert_eq!(
            told(Some(observed)),
            ("False".to_owned(), Some(1), (Some(2), Some(0), Some("0/2".to_owned())))
        );
        let not_seen_yet = Rollout { is_observed: false, ..observed.clone() };
        assert_eq!(told(Some(&not_seen_yet)), as_before);
    }

    #[test]
    fn that_a_former_spec_was_valid_says_nothing_about_this_one() {
        let mut service = service(json!({}));
        let valid = validate(&service, &Dereferenced::default(), Some("i")).unwrap();
        service.status =
            Some(compute(&service, &completed(&valid, &available(2)), None, Author::ALONE, at(1)));
        let mut is_known = |generation| {
            service.metadata.generation = Some(generation);
            let status = compute(&service, &Err(Stopped::Suspended), None, Author::ALONE, at(2));
            find_condition(&status.conditions, ConditionType::Valid).is_some()
        };
        assert!(is_known(1) && !is_known(2));
    }

    #[test]
    fn routes_that_may_still_be_served_are_not_given_up() {
        let mut service = service(json!({"ingress": {"hosts": ["a.dev"], "routes": [], "client": null}}));
        let was = validate(&service, &Dereferenced::default(), Some("i")).unwrap();
        let before = compute(&service, &completed(&was, &available(2)), None, Author::ALONE, at(1));
        service.status = Some(before.clone());
        service.spec.ingress.as_mut().unwrap().hosts = vec![crate::crd::Host("b.dev".into())];
        let valid = validate(&service, &Dereferenced::default(), Some("i")).unwrap();
        for (routes, hosts, url) in [
            (RoutesAfter::Wanted, &["b.dev"][..], "http://b.dev/api/orders"),
            (RoutesAfter::Former, &["a.dev"], "http://a.dev/api/orders"),
            (RoutesAfter::Either, &["a.dev", "b.dev"], "http://a.dev/api/orders"),
        ] {
            let problems = vec![Problem::new(Reason::InvalidSpec, "m")];
            let failures = Failures { problems, route_problems: Vec::new(), routes };
            for stopped in [Stopped::Rejected, Stopped::NotApplied] {
                let outcome = Err(stopped(Box::new(valid.clone()), failures.clone()));
                let status = compute(&service, &outcome, None, Author::ALONE, at(2));
                let served: Vec<_> = status.routes.iter().map(|route| route.host.as_str()).collect();
                assert_eq!((served.as_slice(), status.url.as_deref()), (hosts, Some(url)));
            }
        }
    }

    #[test]
    fn a_condition_of_the_sweeper_counts_and_is_not_ours_to_write() {
        let mut service = service(json!({}));
        let found = Dereferenced::default();
        let valid = validate(&service, &found, Some("i")).unwrap();
        let theirs: Condition = serde_json::from_value(json!({
            "type": "DatabaseReady", "status": "False", "reason": "DatabaseUnreachable", "message": "m",
            "lastTransitionTime": "2026-01-01T00:00:00Z"
        }))
        .unwrap();
        service.status =
            Some(OrdersServiceStatus { conditions: vec![theirs], ..OrdersServiceStatus::default() });
        let status = compute(&service, &completed(&valid, &available(2)), None, Author::ALONE, at(1));
        assert_eq!(ready(&status).1, "DatabaseUnreachable");
        assert!(status.conditions.iter().all(|condition| condition.type_ != "DatabaseReady"));
    }
}
