//! One OrdersService: its Secrets and its class as they are, and everything else as its conditions say.
//!
//! What its Secrets or its class fail by is told by these lines, and the conditions that say the same are left out.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{Api, ResourceExt};

use super::{report::Group, routing::Routing};
use crate::{
    controller::{SHARED_SUBJECTS_REMEDY, shares_subjects},
    crd::{ConditionType, OrdersService, Reason, SecretField, find_condition, has_any_of, is_true},
    osvc::{cluster::Cluster, error::AskError},
};

/// What fails in the Secrets and the routing of an OrdersService.
#[derive(Clone, Copy, Debug, Default)]
struct Causes {
    /// A Secret or a key lacks.
    secrets: bool,
    /// The one with the connection string lacks.
    uri: bool,
    /// Its class does not exist.
    class: bool,
    /// There is no Gateway API.
    gateways: bool,
}

/// Checks one OrdersService, beside all that whoever asks may read.
pub(super) async fn check(
    cluster: &Cluster,
    service: &OrdersService,
    all: &[OrdersService],
    routing: &Routing,
) -> Group {
    let mut group = Group::new(format!(
        "OrdersService {}/{}",
        service.namespace().unwrap_or_default(),
        service.name_any()
    ));
    let mut causes = Causes::default();
    check_secrets(&mut group, cluster, service, &mut causes).await;
    check_routing(&mut group, service, routing, &mut causes);
    if let Some(shared) = shares_subjects(service, all) {
        group.warning(shared, SHARED_SUBJECTS_REMEDY);
    }
    check_conditions(&mut group, service, causes);
    group
}

/// A key that a Secret must have, and the field that says so.
struct NeededKey<'a> {
    field: SecretField,
    key: &'a str,
}

async fn check_secrets(group: &mut Group, cluster: &Cluster, service: &OrdersService, causes: &mut Causes) {
    let namespace = service.namespace().unwrap_or_default();
    let mut by_secret = BTreeMap::<&str, Vec<NeededKey<'_>>>::new();
    for of in service.spec.secret_refs() {
        let keys = of.keys().map(|key| NeededKey { field: of.field, key });
        by_secret.entry(of.name).or_default().extend(keys);
    }
    let api = Api::<Secret>::namespaced(cluster.client.clone(), &namespace);
    for (name, needed) in by_secret {
        let secret = match cluster.ask(&format!("read Secret {namespace}/{name}"), api.get_opt(name)).await {
            Ok(secret) => secret,
            // The rights tell it, once for all.
            Err(AskError::Forbidden(_)) => return,
            Err(error) => return group.unasked(&error),
        };
        let data = secret.as_ref().and_then(|secret| secret.data.as_ref());
        // Of the values only whether there are any is looked at.
        let is_there =
            |key: &str| data.and_then(|data| data.get(key)).is_some_and(|value| !value.0.is_empty());
        let missing: Vec<_> = needed.iter().filter(|needed| !is_there(needed.key)).collect();
        let keys: Vec<_> = needed.iter().map(|needed| needed.key).collect();
        causes.secrets |= !missing.is_empty();
        causes.uri |= missing.iter().any(|missing| missing.field == SecretField::DatabaseUri);
        match (&secret, missing.first()) {
            (Some(_), None) => group.ok(format!("Secret {name} has {}", keys.join(", "))),
            (None, _) => group.failure(
                format!("Secret {name} does not exist"),
                advice(&needed.iter().collect::<Vec<_>>(), "create it with"),
            ),
            (Some(_), Some(_)) => {
                let lacking: Vec<_> = missing.iter().map(|missing| missing.key).collect();
                group.failure(
                    format!("Secret {name} has no value under {}", lacking.join(", ")),
                    advice(&missing, "add"),
                );
            }
        }
    }
}

fn advice(missing: &[&NeededKey<'_>], what_to_do: &str) -> String {
    let each =
        missing.iter().map(|NeededKey { field, key }| format!("{key}, {} ({})", field.what(), field.path()));
    format!("{what_to_do} {}", each.collect::<Vec<_>>().join("; "))
}

fn check_routing(group: &mut Group, service: &OrdersService, routing: &Routing, causes: &mut Causes) {
    if let (Some(ingress), Some(classes)) = (&service.spec.ingress, &routing.classes) {
        match &ingress.class_name {
            Some(class) if classes.contains(class) => group.ok(format!("IngressClass {class} exists")),
            Some(class) => {
                causes.class = true;
                group.failure(
                    format!("IngressClass {class} does not exist"),
                    "name one that `kubectl get ingressclass` lists in spec.ingress.className, or create it",
                );
            }
            None if routing.has_default => group.ok("its Ingress is of the default class"),
            // Its condition warns of it.
            None => {}
        }
    }
    if service.spec.gateway.is_some() && routing.has_gateways == Some(false) {
        causes.gateways = true;
        group.failure(
            "it asks for routes at a Gateway, and the Gateway API is not there",
            "install the Gateway API and what serves it, or remove spec.gateway",
        );
    }
}

fn check_conditions(group: &mut Group, service: &OrdersService, causes: Causes) {
    let status = service.status.clone().unwrap_or_default();
    let (all, generation) = (&status.conditions, service.metadata.generation);
    let find = |kind| find_condition(all, kind);
    if find(ConditionType::Ready).is_none() {
        return group.failure("no operator has reported on it", "see the lines of the operator above");
    }
    if status.observed_generation != generation {
        return group.warning(
            "the operator has not reported on the current spec yet",
            "check again in a moment; if this persists, see the log of the controller",
        );
    }
    let database = find(ConditionType::DatabaseReady);
    for kind in [
        ConditionType::Valid,
        ConditionType::Reconciled,
        ConditionType::Available,
        ConditionType::IngressReady,
    ] {
        if let Some(condition) = find(kind)
            && !follows(condition, causes, database)
        {
            tell(group, condition, kind, generation);
        }
    }
    if !causes.uri {
        check_database(group, database, generation);
        let sweeping = find(ConditionType::Sweeping);
        if let Some(condition) = sweeping.filter(|_| database.is_some_and(is_true)) {
            tell(group, condition, ConditionType::Sweeping, generation);
        }
    }
    if service.spec.events.is_some() && !causes.secrets {
        match find(ConditionType::EventsFlowing) {
            Some(condition) => tell(group, condition, ConditionType::EventsFlowing, generation),
            None => group.warning(
                "nothing is reported of its broker yet",
                "check again in a moment; if this persists, see the log of the sweeper",
            ),
        }
    }
}

/// Whether a condition only says what another line says.
fn follows(condition: &Condition, causes: Causes, database: Option<&Condition>) -> bool {
    let is_one_of = |reasons: &[Reason]| has_any_of(condition, reasons);
    let waits =
        [Reason::MinimumReplicasUnavailable, Reason::RolloutInProgress, Reason::ProgressDeadlineExceeded];
    !is_true(condition) && {
        causes.secrets && is_one_of(&[Reason::SecretNotFound, Reason::SecretKeyMissing])
            || causes.class && is_one_of(&[Reason::IngressClassNotFound])
            || causes.gateways && is_one_of(&[Reason::GatewayApiMissing])
            // Pods wait for their database.
            || database.is_some_and(|database| !is_true(database)) && is_one_of(&waits)
    }
}

/// What the sweeper found of the database: each line is known only if those before it are well.
fn check_database(group: &mut Group, reported: Option<&Condition>, generation: Option<i64>) {
    let Some(condition) = reported else {
        return group.warning(
            "nothing is reported of its database yet",
            "check again in a moment; if this persists, see the log of the sweeper",
        );
    };
    if condition.observed_generation != generation {
        return tell(group, condition, ConditionType::DatabaseReady, generation);
    }
    let steps: [(&str, &[Reason]); 3] = [
        ("its database is reachable", &[]),
        ("its indexes are in place", &[Reason::UnsupportedServer, Reason::IndexConflict]),
        ("no ticket is held by two active orders", &[Reason::DuplicateActiveOrders]),
    ];
    let failing = match is_true(condition) {
        true => steps.len(),
        false => steps.iter().position(|(_, reasons)| has_any_of(condition, reasons)).unwrap_or(0),
    };
    for (at, (what, _)) in steps.iter().enumerate() {
        if at < failing {
            group.ok(*what);
        } else if at == failing {
            tell(group, condition, ConditionType::DatabaseReady, generation);
        }
    }
    if is_true(condition) && condition.reason != Reason::AsExpected.as_str() {
        tell(group, condition, ConditionType::DatabaseReady, generation);
    }
}

/// Tells a condition, whose message says what to do.
fn tell(group: &mut Group, condition: &Condition, kind: ConditionType, generation: Option<i64>) {
    let Condition { reason, message, .. } = condition;
    let well = match kind {
        ConditionType::Valid => "its spec is valid",
        ConditionType::Reconciled => "all its objects are applied",
        ConditionType::Available => "its pods are available",
        ConditionType::IngressReady => "its routes are served",
        ConditionType::Sweeping => "its orders expire",
        ConditionType::EventsFlowing => "its events flow",
        kind => kind.as_str(),
    };
    let named = format!("{}: {reason}", kind.as_str());
    if condition.observed_generation != generation {
        group.warning(
            format!("{} is about an earlier spec", kind.as_str()),
            "check again in a moment; if this persists, see the log of the operator",
        );
    } else if !is_true(condition) {
        group.failure(named, message.as_str());
    } else if reason == Reason::AsExpected.as_str() {
        group.ok(well);
    } else {
        group.warning(named, message.as_str());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(conditions: &[(&str, &str, &str)]) -> OrdersService {
        let conditions: Vec<_> = conditions
            .iter()
            .map(|(kind, status, reason)| {
                json!({
                    "type": kind, "status": status, "reason": reason, "message": format!("about {kind}"),
                    "observedGeneration": 2, "lastTransitionTime": "2026-01-01T00:00:00Z"
                })
            })
            .collect();
        serde_json::from_value(json!({
            "apiVersion": "ticketing.dev/v1alpha1", "kind": "OrdersService",
            "metadata": {"name": "orders", "namespace": "shop", "generation": 2},
            "spec": {
                "auth": {"jwtSecretRef": {"name": "jwt-secret"}},
                "database": {"uriSecretRef": {"name": "orders-mongo"}}
            },
            "status": {"observedGeneration": 2, "conditions": conditions}
        }))
        .unwrap()
    }

    /// The lines that are told, as `level text`.
    fn told(conditions: &[(&str, &str, &str)], causes: Causes) -> Vec<String> {
        let mut group = Group::new("");
        check_conditions(&mut group, &service(conditions), causes);
        let group = serde_json::to_value(&group).unwrap();
        let line =
            |line: &Value| format!("{} {}", line["level"].as_str().unwrap(), line["text"].as_str().unwrap());
        group["lines"].as_array().unwrap().iter().map(line).collect()
    }

    #[test]
    fn a_database_is_told_as_far_as_it_is_known() {
        let of = |status, reason| {
            let ready = ("Ready", status, reason);
            told(
                &[ready, ("DatabaseReady", status, reason), ("Sweeping", "True", "AsExpected")],
                Causes::default(),
            )
        };
        let all = [
            "ok its database is reachable",
            "ok its indexes are in place",
            "ok no ticket is held by two active orders",
        ];
        assert_eq!(of("True", "AsExpected"), [all.as_slice(), &["ok its orders expire"]].concat());
        assert_eq!(of("False", "DatabaseUnreachable"), ["failure DatabaseReady: DatabaseUnreachable"]);
        assert_eq!(of("False", "IndexConflict"), [all[0], "failure DatabaseReady: IndexConflict"]);
        let duplicates = of("False", "DuplicateActiveOrders");
        assert_eq!(duplicates, [all[0], all[1], "failure DatabaseReady: DuplicateActiveOrders"]);
        let warned = of("True", "DatabaseOptionIgnored");
        assert_eq!(warned[3], "warning DatabaseReady: DatabaseOptionIgnored");
    }

    #[test]
    fn what_only_follows_from_a_line_above_is_not_told() {
        let failing = [
            ("Ready", "False", "SecretKeyMissing"),
            ("Valid", "True", "AsExpected"),
            ("Reconciled", "False", "SecretKeyMissing"),
            ("IngressReady", "False", "IngressClassNotFound"),
            ("DatabaseReady", "False", "DatabaseUnreachable"),
        ];
        let causes = Causes { secrets: true, uri: true, class: true, gateways: false };
        assert_eq!(told(&failing, causes), ["ok its spec is valid"]);
        let unknown = told(&failing, Causes::default());
        let failures: Vec<_> = unknown.iter().filter(|line| line.starts_with("failure")).collect();
        assert_eq!(failures.len(), 3, "{unknown:?}");
        let waiting = [
            ("Ready", "False", "DatabaseUnreachable"),
            ("Available", "False", "MinimumReplicasUnavailable"),
            ("DatabaseReady", "False", "DatabaseUnreachable"),
        ];
        assert_eq!(told(&waiting, Causes::default()), ["failure DatabaseReady: DatabaseUnreachable"]);
    }
}
