//! Tells each resource how its database is: the conditions `DatabaseReady` and `Sweeping`.
//!
//! They are written only when their status or reason changes, so an idle cluster sees no write.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
    core::DeserializeGuard,
};

use super::{sweep::Health, targets::resource_key};
use crate::crd::{
    ConditionType, NewCondition, OrdersService, SWEEPER_MANAGER, find_condition, set_condition, status_patch,
};

/// The longest that one write may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// How many writes are sent at the same time.
const CONCURRENCY: usize = 8;

/// Writes what changed. `health_of` gives the health of a resource's (namespace/name) target.
pub async fn report(
    client: &Client,
    services: &[Arc<DeserializeGuard<OrdersService>>],
    health_of: impl Fn(&str) -> Health,
) {
    let changes = services.iter().filter_map(|guarded| {
        let service = guarded.0.as_ref().ok()?;
        let key = resource_key(service);
        let old = service.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let new = conditions(&health_of(&key), old, service.metadata.generation, Timestamp::now())?;
        Some((key, service, new))
    });
    stream::iter(changes)
        .for_each_concurrent(CONCURRENCY, |(key, service, new)| async move {
            match tokio::time::timeout(WRITE_TIMEOUT, write(client, service, new)).await {
                Ok(Ok(())) => {}
                // It is tried again at the next round.
                Ok(Err(error)) => tracing::warn!(resource = key, %error, "cannot write the conditions"),
                Err(_) => {
                    tracing::warn!(resource = key, "the API server did not take the conditions in time")
                }
            }
        })
        .await;
}

async fn write(client: &Client, service: &OrdersService, conditions: Vec<Condition>) -> kube::Result<()> {
    let api = Api::<OrdersService>::namespaced(client.clone(), &service.namespace().unwrap_or_default());
    let patch = status_patch(service, &serde_json::json!({"conditions": conditions}));
    let params = PatchParams::apply(SWEEPER_MANAGER).force();
    api.patch_status(&service.name_any(), &params, &Patch::Apply(&patch)).await.map(drop)
}

/// The conditions that `health` calls for; none when the resource has them already, or when there is
/// nothing to say yet.
fn conditions(
    health: &Health,
    old: &[Condition],
    generation: Option<i64>,
    now: Timestamp,
) -> Option<Vec<Condition>> {
    let as_expected = "AsExpected";
    let reached = "the database is reached, and its indexes are in place";
    let sweeping = "expired orders are moved to cancelled";
    // DatabaseReady, then Sweeping: status, reason, message.
    let (database, sweeping) = match health {
        Health::Unknown => return None,
        Health::Suspended => {
            (None, (false, "Suspended", "spec.expiration.suspend is true: expired orders stay as they are"))
        }
        Health::Well => (Some((true, as_expected, reached)), (true, as_expected, sweeping)),
        Health::IndexMissing(problem) => {
            (Some((false, problem.reason, problem.message.as_str())), (true, as_expected, sweeping))
        }
        Health::Failing(problem) => {
            let failing = (false, problem.reason, problem.message.as_str());
            (Some(failing), failing)
        }
    };
    let mut new = Vec::new();
    let wanted = [(ConditionType::DatabaseReady, database), (ConditionType::Sweeping, Some(sweeping))];
    for (kind, state) in wanted {
        match state {
            Some((status, reason, message)) => {
                let (reason, message) = (reason.to_owned(), message.to_owned());
                let condition = NewCondition { kind, status, reason, message, generation };
                set_condition(&mut new, old, condition, now);
            }
            // Nothing is known of it now: it stays as it was.
            None => new.extend(find_condition(old, kind).cloned()),
        }
    }
    // Not the message: a driver words the same failure differently each time.
    let same = |condition: &Condition| {
        old.iter().any(|old| {
            (&old.type_, &old.status, &old.reason) == (&condition.type_, &condition.status, &condition.reason)
        })
    };
    (!new.iter().all(same)).then_some(new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweeper::sweep::StoreProblem;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn summary(conditions: &[Condition]) -> Vec<(&str, &str, &str)> {
        conditions.iter().map(|c| (c.type_.as_str(), c.status.as_str(), c.reason.as_str())).collect()
    }

    #[test]
    fn an_equal_state_is_not_written_and_a_change_keeps_the_time_of_what_stayed() {
        assert_eq!(conditions(&Health::Unknown, &[], Some(1), at(1)), None);
        let well = conditions(&Health::Well, &[], Some(1), at(1)).unwrap();
        assert_eq!(
            summary(&well),
            [("DatabaseReady", "True", "AsExpected"), ("Sweeping", "True", "AsExpected")]
        );
        assert_eq!(conditions(&Health::Well, &well, Some(2), at(2)), None);

        let problem = StoreProblem { reason: "DuplicateActiveOrders", message: "two".into() };
        let missing = conditions(&Health::IndexMissing(problem.clone()), &well, Some(1), at(3)).unwrap();
        assert_eq!(
            summary(&missing),
            [("DatabaseReady", "False", "DuplicateActiveOrders"), ("Sweeping", "True", "AsExpected")]
        );
        assert_eq!(missing[0].last_transition_time.0, at(3));
        assert_eq!(missing[1].last_transition_time.0, at(1));

        let failing = conditions(&Health::Failing(problem), &missing, Some(1), at(4)).unwrap();
        assert_eq!(failing[0].last_transition_time.0, at(3));
        let suspended = conditions(&Health::Suspended, &failing, Some(1), at(5)).unwrap();
        assert_eq!(
            summary(&suspended),
            [("DatabaseReady", "False", "DuplicateActiveOrders"), ("Sweeping", "False", "Suspended")]
        );
    }
}
