//! Step 5: what the resource says of itself. Computing it is pure; an equal status is not written.

mod routes;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};

use super::{
    apply::Applied,
    partial::Partial,
    pods,
    problem::{CallError, Cluster, Problem},
    rollout::Rollout,
    validate::ValidatedOrdersService,
};
use crate::crd::{
    CONTROLLER_MANAGER, ConditionType, NewCondition, OrdersService, OrdersServiceStatus, Reason,
    find_condition, is_true, set_condition, status_patch,
};

/// How far a reconcile came.
pub enum Outcome<'a> {
    /// The spec, or what it refers to, is not in order; the children were not touched.
    Invalid(&'a [Problem]),
    /// The resource is suspended; the children were not touched.
    Suspended,
    /// What the spec refers to could not be read; the children were not touched.
    Unread(&'a Problem),
    /// Some children could not be applied.
    NotApplied(&'a ValidatedOrdersService, &'a [Problem]),
    /// Every child was applied; and what keeps its pods from running, if that is known.
    Applied(&'a ValidatedOrdersService, &'a Applied, Option<&'a Problem>),
}

/// The status that `outcome` calls for. Conditions of other writers are left out: they are theirs.
pub fn compute(service: &OrdersService, outcome: &Outcome<'_>, now: Timestamp) -> OrdersServiceStatus {
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
        selector: Some(pods::selector(&service.name_any())),
        // What cannot be known now stays as it was.
        replicas: old.replicas,
        ready_replicas: old.ready_replicas,
        ready_of_wanted: old.ready_of_wanted.clone(),
        // Only of children that are all as they should be.
        applied: None,
        // The sweeper's to write.
        expiry: None,
        url: old.url.clone(),
        routes: old.routes.clone(),
        conditions: Vec::new(),
    };
    match outcome {
        Outcome::Invalid(problems) => {
            let is_reference = |problem: &&Problem| {
                matches!(problem.reason, Reason::SecretNotFound | Reason::SecretKeyMissing)
            };
            let (references, spec): (Vec<_>, Vec<_>) = problems.iter().partition(is_reference);
            match spec.first() {
                Some(first) => {
                    set(ConditionType::Valid, false, first.reason, join(&spec));
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
                    set(ConditionType::Reconciled, false, reason, join(&references));
                }
            }
        }
        Outcome::Suspended => {
            set(
                ConditionType::Reconciled,
                false,
                Reason::Suspended,
                "spec.suspend is true: the children are left as they are".into(),
            );
        }
        Outcome::Unread(problem) => {
            set(ConditionType::Reconciled, false, problem.reason, problem.message.clone());
        }
        Outcome::NotApplied(valid, problems) => {
            set(ConditionType::Valid, true, Reason::AsExpected, "the spec is valid".into());
            let reason = problems.first().map_or(Reason::ApplyFailed, |first| first.reason);
            set(ConditionType::Reconciled, false, reason, join(&problems.iter().collect::<Vec<_>>()));
            routes::describe(&mut status, valid, &[]);
        }
        Outcome::Applied(valid, applied, trouble) => {
            set(ConditionType::Valid, true, Reason::AsExpected, "the spec is valid".into());
            set(ConditionType::Reconciled, true, Reason::AsExpected, "every child was applied".into());
            let (available, reason, message) = availability(&applied.rollout, *trouble);
            set(ConditionType::Available, available, reason, message);
            if valid.ingress.is_some() || valid.gateway.is_some() {
                let (ready, reason, message) = routes::readiness(valid, &applied.gateway);
                set(ConditionType::IngressReady, ready, reason, message);
            }
            let rollout = &applied.rollout;
            status.applied = applied.record.clone();
            status.replicas = Some(rollout.pods);
            status.ready_replicas = Some(rollout.ready);
            status.ready_of_wanted = Some(format!("{}/{}", rollout.ready, rollout.wanted));
            routes::describe(&mut status, valid, &applied.gateway);
        }
    }
    // Conditions that this outcome says nothing about stay as they were.
    if !matches!(outcome, Outcome::Applied(..)) {
        for kind in [ConditionType::Valid, ConditionType::Available, ConditionType::IngressReady] {
            if find_condition(&conditions, kind).is_none() {
                conditions.extend(find_condition(&old.conditions, kind).cloned());
            }
        }
    }
    let (is_ready, reason, message) = readiness(&conditions, &old.conditions);
    let ready = NewCondition { kind: ConditionType::Ready, status: is_ready, reason, message, generation };
    set_condition(&mut conditions, &old.conditions, ready, now);
    conditions.sort_by(|left, right| left.type_.cmp(&right.type_));
    status.conditions = conditions;
    status
}

fn join(problems: &[&Problem]) -> String {
    let messages: Vec<_> = problems.iter().map(|problem| problem.message.as_str()).collect();
    // The API server refuses messages over 32,768 bytes; nobody reads that far.
    let mut text = messages.join("; ");
    if text.len() > 4000 {
        text.truncate(text.floor_char_boundary(4000));
        text.push('…');
    }
    text
}

/// Ready: status, reason and message of the first that fails of our conditions, then of the sweeper's
/// on the same object.
fn readiness(ours: &[Condition], on_object: &[Condition]) -> (bool, String, String) {
    let [_, order @ ..] = ConditionType::CONTROLLER;
    let own = order.iter().filter_map(|kind| find_condition(ours, *kind));
    let others = ConditionType::SWEEPER.iter().filter_map(|kind| find_condition(on_object, *kind));
    match own.chain(others).find(|condition| !is_true(condition)) {
        None => (true, Reason::AsExpected.as_str().into(), "everything is in place".into()),
        Some(failing) => (false, failing.reason.clone(), failing.message.clone()),
    }
}

/// A rollout that is held up counts as not available although the old pods still serve: what was asked
/// for does not run. A single pod that fails later on does not, while enough others are there.
fn availability(rollout: &Rollout, trouble: Option<&Problem>) -> (bool, Reason, String) {
    let ready = format!("{} of {} pods are ready", rollout.ready, rollout.wanted);
    let works = rollout.available && rollout.stuck.is_none();
    match (trouble, &rollout.stuck) {
        (Some(trouble), _) if works && rollout.is_all_new() => {
            (true, Reason::AsExpected, format!("{ready}; {}", trouble.message))
        }
        // A pod that waits for something has not failed yet.
        (Some(trouble), _) if works && trouble.reason == Reason::MinimumReplicasUnavailable => {
            (true, Reason::AsExpected, format!("{ready}; {}", trouble.message))
        }
        (Some(trouble), None) => (false, trouble.reason, format!("{}; {ready}", trouble.message)),
        (Some(trouble), Some(why)) => {
            let reason = match trouble.reason {
                Reason::MinimumReplicasUnavailable => Reason::ProgressDeadlineExceeded,
                reason => reason,
            };
            (false, reason, format!("{}; {why}; {ready}", trouble.message))
        }
        (None, Some(why)) => (
            false,
            Reason::ProgressDeadlineExceeded,
            format!("{why}; {ready}: look at the pods' events and logs"),
        ),
        (None, None) if works => (true, Reason::AsExpected, ready),
        (None, None) => (false, Reason::MinimumReplicasUnavailable, ready),
    }
}

/// Writes `status`, unless the object has it already; gives what came back. Where the object is another by now, nothing
/// is written: that comes as an event, and with it another look. So nothing has changed in what comes back but the
/// status.
///
/// # Errors
/// When the API server does not answer, or refuses.
pub async fn write(
    cluster: &Cluster,
    service: &OrdersService,
    status: &OrdersServiceStatus,
) -> Result<Option<Partial<OrdersService>>, CallError> {
    if service.status.as_ref().is_some_and(|current| is_current(current, status)) {
        return Ok(None);
    }
    let api = Api::<Partial<OrdersService>>::namespaced(
        cluster.client.clone(),
        &service.namespace().unwrap_or_default(),
    );
    let params = PatchParams::apply(CONTROLLER_MANAGER).force();
    let mut patch = status_patch(service, status);
    if let Some(version) = &service.metadata.resource_version {
        patch["metadata"]["resourceVersion"] = version.as_str().into();
    }
    let (name, patch) = (service.name_any(), Patch::Apply(patch));
    match cluster.write("OrdersService", "patch", api.patch_status(&name, &params, &patch)).await {
        Err(CallError::Refused { code: 409, .. }) => Ok(None),
        written => written.map(Some),
    }
}

/// Whether the object's status is `ours` already, other writers' conditions aside.
fn is_current(current: &OrdersServiceStatus, ours: &OrdersServiceStatus) -> bool {
    let mut current = OrdersServiceStatus { expiry: None, ..current.clone() };
    current
        .conditions
        .retain(|condition| ConditionType::CONTROLLER.iter().any(|kind| kind.as_str() == condition.type_));
    current.conditions.sort_by(|left, right| left.type_.cmp(&right.type_));
    current == *ours
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use serde_json::json;

    use super::*;
    use crate::controller::{dereference::Dereferenced, fixture::service, validate::validate};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn deployment(status: serde_json::Value) -> Applied {
        let object = json!({"metadata": {"generation": 2}, "spec": {"replicas": 2, "selector": {}, "template": {}}, "status": status});
        let deployment: Partial<Deployment> = serde_json::from_value(object).unwrap();
        Applied { rollout: Rollout::from(&deployment), gateway: Vec::new(), record: Some("r".into()) }
    }

    fn available(ready: i32) -> Applied {
        deployment(json!({
            "observedGeneration": 2, "replicas": 2, "readyReplicas": ready,
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
            let status = compute(&service, &Outcome::Applied(&valid, applied, None), at(second));
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
        let stuck = deployment(
            json!({"conditions": [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "m"}]}),
        );
        assert_eq!(ready(&step(&stuck, 5)), ("False", "ProgressDeadlineExceeded", &at(5)));
    }

    #[test]
    fn a_resource_at_gateways_only_is_told_that_no_client_is_set_and_where_it_is_reached() {
        let gateway = json!({"parentRefs": [{"name": "g", "sectionName": "https"}], "hostnames": ["a.dev"]});
        let service = service(json!({"ingress": null, "gateway": gateway}));
        let valid = validate(&service, &Dereferenced::default(), Some("i")).unwrap();
        let status = compute(&service, &Outcome::Applied(&valid, &available(2), None), at(1));
        let told = find_condition(&status.conditions, ConditionType::IngressReady).unwrap();
        assert_eq!((told.status.as_str(), told.reason.as_str()), ("True", "MissingClient"));
        assert!(told.message.contains("requests for a.dev that no route takes"), "{}", told.message);
        assert_eq!(status.url.as_deref(), Some("https://a.dev/api/orders"));
        assert_eq!(status.routes.len(), 1);
        let missing = vec![Problem::new(Reason::GatewayApiMissing, "m")];
        let status = compute(
            &service,
            &Outcome::Applied(&valid, &Applied { gateway: missing, ..available(2) }, None),
            at(1),
        );
        assert_eq!((status.url, status.routes), (None, Vec::new()), "where none is served, none is rendered");
    }

    #[test]
    fn an_outdated_status_of_the_deployment_does_not_count() {
        let old = deployment(
            json!({"observedGeneration": 1, "conditions": [{"type": "Available", "status": "True"}]}),
        );
        assert!(!availability(&old.rollout, None).0);
    }

    #[test]
    fn pods_that_cannot_run_are_told_and_count_when_they_hold_up_what_was_asked_for() {
        let image = Problem::new(Reason::ImagePullFailed, "pod a cannot pull image x");
        let waits = Problem::new(Reason::MinimumReplicasUnavailable, "pod a has no node");
        let whole =
            Rollout { wanted: 2, pods: 2, ready: 2, updated: 2, available: true, ..Rollout::default() };
        let one_fails = Rollout { ready: 1, ..whole.clone() };
        let rolling = Rollout { pods: 3, updated: 1, ..whole.clone() };
        let none = Rollout { ready: 0, available: false, ..whole.clone() };
        let stuck = Rollout { stuck: Some("given up".into()), ..rolling.clone() };
        for (rollout, trouble, expected) in [
            (&whole, None, (true, Reason::AsExpected)),
            (&one_fails, Some(&image), (true, Reason::AsExpected)),
            (&rolling, None, (true, Reason::AsExpected)),
            (&rolling, Some(&waits), (true, Reason::AsExpected)),
            (&rolling, Some(&image), (false, Reason::ImagePullFailed)),
            (&none, None, (false, Reason::MinimumReplicasUnavailable)),
            (&none, Some(&waits), (false, Reason::MinimumReplicasUnavailable)),
            (&none, Some(&image), (false, Reason::ImagePullFailed)),
            (&stuck, None, (false, Reason::ProgressDeadlineExceeded)),
            (&stuck, Some(&waits), (false, Reason::ProgressDeadlineExceeded)),
            (&stuck, Some(&image), (false, Reason::ImagePullFailed)),
        ] {
            let (status, reason, message) = availability(rollout, trouble);
            assert_eq!((status, reason), expected, "{rollout:?} {trouble:?}");
            assert!(trouble.is_none_or(|trouble| message.contains(&trouble.message)), "{message}");
        }
        assert!(whole.is_complete() && ![one_fails, rolling, none, stuck].iter().any(Rollout::is_complete));
    }

    #[test]
    fn what_an_invalid_spec_says_nothing_about_stays_as_it_was() {
        let mut service = service(json!({}));
        let found = Dereferenced::default();
        let valid = validate(&service, &found, Some("i")).unwrap();
        let before = compute(&service, &Outcome::Applied(&valid, &available(2), None), at(1));
        service.status = Some(before.clone());
        let problem = [Problem::new(Reason::DuplicatePath, "two")];
        let status = compute(&service, &Outcome::Invalid(&problem), at(2));
        assert_eq!(ready(&status), ("False", "DuplicatePath", &at(2)));
        assert_eq!(
            find_condition(&status.conditions, ConditionType::Available),
            find_condition(&before.conditions, ConditionType::Available)
        );
        assert_eq!((status.ready_replicas, &status.routes), (Some(2), &before.routes));
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
        let status = compute(&service, &Outcome::Applied(&valid, &available(2), None), at(1));
        assert_eq!(ready(&status).1, "DatabaseUnreachable");
        assert!(status.conditions.iter().all(|condition| condition.type_ != "DatabaseReady"));
    }

    #[test]
    fn a_long_list_of_problems_is_cut_at_a_character() {
        let problem = Problem::new(Reason::InvalidSpec, "é".repeat(5000));
        assert!(join(&[&problem]).len() <= 4003);
    }
}
