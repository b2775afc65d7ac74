//! Step 5: what the resource says of itself. Computing it is pure; an equal status is not written.

use k8s_openapi::{
    api::apps::v1::{Deployment, DeploymentStatus},
    apimachinery::pkg::apis::meta::v1::Condition,
    jiff::Timestamp,
};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};

use super::{
    apply::Applied,
    build::selector_labels,
    dereference::Dereferenced,
    problem::{CallError, Cluster, Problem},
    validate::{ValidatedIngress, ValidatedOrdersService},
};
use crate::crd::{
    CONTROLLER_MANAGER, ConditionType, NewCondition, OrdersService, OrdersServiceStatus, Reason,
    RenderedRoute, find_condition, is_true, set_condition, status_patch,
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
    /// Every child was applied.
    Applied(&'a ValidatedOrdersService, &'a Dereferenced, &'a Applied),
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
        selector: Some(
            selector_labels(&service.name_any())
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect::<Vec<_>>()
                .join(","),
        ),
        // What cannot be known now stays as it was.
        replicas: old.replicas,
        ready_replicas: old.ready_replicas,
        ready_of_wanted: old.ready_of_wanted.clone(),
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
                        "the spec is not valid; the children were left as they are".into(),
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
            describe_ingress(&mut status, valid.ingress.as_ref());
        }
        Outcome::Applied(valid, found, applied) => {
            set(ConditionType::Valid, true, Reason::AsExpected, "the spec is valid".into());
            set(ConditionType::Reconciled, true, Reason::AsExpected, "every child was applied".into());
            let (available, reason, message) = availability(&applied.deployment);
            set(ConditionType::Available, available, reason, message);
            if let Some(ingress) = &valid.ingress {
                let (ready, reason, message) = ingress_readiness(ingress, found);
                set(ConditionType::IngressReady, ready, reason, message);
            }
            let deployed = applied.deployment.status.as_ref();
            status.replicas = Some(deployed.and_then(|status| status.replicas).unwrap_or(0));
            let ready = deployed.and_then(|status| status.ready_replicas).unwrap_or(0);
            status.ready_replicas = Some(ready);
            status.ready_of_wanted = Some(format!("{ready}/{}", wanted(&applied.deployment)));
            describe_ingress(&mut status, valid.ingress.as_ref());
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

/// The number of pods that the Deployment is to have.
fn wanted(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

fn availability(deployment: &Deployment) -> (bool, Reason, String) {
    let wanted = wanted(deployment);
    let empty = DeploymentStatus::default();
    let status = deployment.status.as_ref().unwrap_or(&empty);
    let ready = status.ready_replicas.unwrap_or(0);
    let seen = status.observed_generation >= deployment.metadata.generation;
    let condition = |kind: &str| status.conditions.iter().flatten().find(|condition| condition.type_ == kind);
    if let Some(stuck) = condition("Progressing").filter(|progress| {
        progress.status == "False" && progress.reason.as_deref() == Some("ProgressDeadlineExceeded")
    }) {
        let why = stuck.message.as_deref().unwrap_or("the rollout does not progress");
        return (
            false,
            Reason::ProgressDeadlineExceeded,
            format!("{why}; {ready} of {wanted} pods are ready: look at the pods' events and logs"),
        );
    }
    if seen && condition("Available").is_some_and(|available| available.status == "True") {
        return (true, Reason::AsExpected, format!("{ready} of {wanted} pods are ready"));
    }
    (false, Reason::MinimumReplicasUnavailable, format!("{ready} of {wanted} pods are ready"))
}

fn ingress_readiness(ingress: &ValidatedIngress, found: &Dereferenced) -> (bool, Reason, String) {
    if let Some(class) = &found.missing_class {
        let message = format!(
            "spec.ingress.className names IngressClass {class:?}, which does not exist: create it, or name one of `kubectl get ingressclass`"
        );
        return (false, Reason::IngressClassNotFound, message);
    }
    let routes = ingress.routes.iter().count();
    let hosts = ingress.hosts.len();
    if !ingress.routes.has_client() {
        return (
            true,
            Reason::MissingClient,
            format!(
                "{routes} routes on {hosts} hosts; spec.ingress.client is not set, so other paths are not served"
            ),
        );
    }
    (true, Reason::AsExpected, format!("{routes} routes on {hosts} hosts, the client last"))
}

fn describe_ingress(status: &mut OrdersServiceStatus, ingress: Option<&ValidatedIngress>) {
    status.url = None;
    status.routes.clear();
    let Some(ingress) = ingress else { return };
    let scheme = if ingress.tls_secret.is_some() { "https" } else { "http" };
    status.url = ingress
        .hosts
        .iter()
        .find(|host| !host.is_wildcard())
        .map(|host| format!("{scheme}://{host}{}", ingress.own_path));
    status.routes = ingress
        .hosts
        .iter()
        .flat_map(|host| {
            ingress.routes.iter().map(move |route| RenderedRoute {
                host: host.to_string(),
                path: route.path.to_string(),
                service: route.backend.to_string(),
                client: route.client,
            })
        })
        .collect();
}

/// Writes `status`, unless the object has it already; says whether it did.
///
/// # Errors
/// When the API server does not answer, or refuses.
pub async fn write(
    cluster: &Cluster,
    service: &OrdersService,
    status: &OrdersServiceStatus,
) -> Result<bool, CallError> {
    if service.status.as_ref().is_some_and(|current| is_current(current, status)) {
        return Ok(false);
    }
    let api =
        Api::<OrdersService>::namespaced(cluster.client.clone(), &service.namespace().unwrap_or_default());
    let params = PatchParams::apply(CONTROLLER_MANAGER).force();
    cluster
        .write(api.patch_status(&service.name_any(), &params, &Patch::Apply(status_patch(service, status))))
        .await
        .map(|_| true)
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
    use serde_json::json;

    use super::*;
    use crate::controller::{fixture::service, validate::validate};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn deployment(status: serde_json::Value) -> Applied {
        let object = json!({"metadata": {"generation": 2}, "spec": {"replicas": 2, "selector": {}, "template": {}}, "status": status});
        Applied { deployment: serde_json::from_value(object).unwrap() }
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
            let status = compute(&service, &Outcome::Applied(&valid, &found, applied), at(second));
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
    fn an_outdated_status_of_the_deployment_does_not_count() {
        let old = deployment(
            json!({"observedGeneration": 1, "conditions": [{"type": "Available", "status": "True"}]}),
        );
        assert!(!availability(&old.deployment).0);
    }

    #[test]
    fn what_an_invalid_spec_says_nothing_about_stays_as_it_was() {
        let mut service = service(json!({}));
        let found = Dereferenced::default();
        let valid = validate(&service, &found, Some("i")).unwrap();
        let before = compute(&service, &Outcome::Applied(&valid, &found, &available(2)), at(1));
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
        let status = compute(&service, &Outcome::Applied(&valid, &found, &available(2)), at(1));
        assert_eq!(ready(&status).1, "DatabaseUnreachable");
        assert!(status.conditions.iter().all(|condition| condition.type_ != "DatabaseReady"));
    }

    #[test]
    fn a_long_list_of_problems_is_cut_at_a_character() {
        let problem = Problem::new(Reason::InvalidSpec, "é".repeat(5000));
        assert!(join(&[&problem]).len() <= 4003);
    }
}
