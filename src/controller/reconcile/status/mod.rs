//! Step 5: what the resource reports of itself. Computing the status is pure; one that is unchanged is not written.
//!
//! ```text
//! ready         the conditions Ready, Stalled and Reconciling
//! draft         what each outcome says, and what stays as it was
//! availability  the condition Available
//! routes        the condition IngressReady, and the rendered routes
//! update        writing the status
//! ```

mod availability;
mod draft;
#[cfg(test)]
mod fixture;
mod ready;
mod routes;
pub mod update;

use k8s_openapi::jiff::Timestamp;

use self::draft::Draft;
use super::outcome::Outcome;
use crate::{
    controller::children::rollout::Rollout,
    crd::{OrdersService, OrdersServiceStatus},
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
    let mut draft = Draft::new(service, author.operator, now);
    let rollout = match outcome {
        Ok(completed) => {
            draft.completed(completed);
            Some(completed.applied.rollout())
        }
        Err(stopped) => {
            draft.stopped(stopped, author.operator);
            draft.keep(observed);
            observed
        }
    };
    draft.finish(author.awaits_sweeper, rollout)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
    use serde_json::json;

    use super::{
        fixture::{at, available, completed, ready},
        *,
    };
    use crate::{
        controller::{
            fixture::service,
            problem::Problem,
            reconcile::{
                apply::{Applied, Failures, RoutesAfter},
                dereference::Dereferenced,
                outcome::Stopped,
                validate::validate,
            },
        },
        crd::{ConditionType, Reason, find_condition},
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
        let hosts: Vec<_> = status.routes.iter().map(|route| route.host.as_str()).collect();
        assert_eq!(hosts, ["a.dev"], "kubectl get shows the first");
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
    fn that_pods_cannot_run_stays_until_they_serve_or_are_looked_at_again() {
        let mut service = service(json!({}));
        let valid = validate(&service, &Dereferenced::default(), Some("i")).unwrap();
        service.status =
            Some(compute(&service, &completed(&valid, &available(0)), None, Author::ALONE, at(1)));
        let mut told = |reason: &str, ready: i32| {
            let conditions = &mut service.status.as_mut().unwrap().conditions;
            let former = conditions.iter_mut().find(|of| of.type_ == "Available").unwrap();
            former.reason = reason.into();
            let rollout = available(ready);
            let status =
                compute(&service, &Err(Stopped::Suspended), Some(rollout.rollout()), Author::ALONE, at(2));
            find_condition(&status.conditions, ConditionType::Available).unwrap().reason.clone()
        };
        assert_eq!(told("ImagePullFailed", 0), "ImagePullFailed");
        assert_eq!(told("CrashLoopBackOff", 0), "CrashLoopBackOff");
        assert_eq!(told("CrashLoopBackOff", 2), "AsExpected");
        assert_eq!(told("RolloutInProgress", 0), "MinimumReplicasUnavailable");
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
