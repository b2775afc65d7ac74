//! Step 5: what the resource reports of itself. Computing the status is pure; one that is unchanged is not written.
//!
//! ```text
//! ready         the conditions Ready, Stalled and Reconciling
//! availability  the condition Available
//! routes        the condition IngressReady, and the rendered routes
//! update        writing the status
//! ```

mod availability;
#[cfg(test)]
mod fixture;
mod ready;
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
        ConditionType, NewCondition, OrdersService, OrdersServiceStatus, Reason, find_condition,
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
    let rollout = match outcome {
        Ok(completed) => Some(completed.applied.rollout()),
        Err(_) => observed,
    };
    ready::set(&mut conditions, &old.conditions, generation, author.awaits_sweeper, rollout, now);
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        fixture::{at, available, completed, ready},
        *,
    };
    use crate::controller::{
        fixture::service,
        reconcile::{
            apply::{Applied, Failures, RoutesAfter},
            dereference::Dereferenced,
            validate::validate,
        },
    };

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
