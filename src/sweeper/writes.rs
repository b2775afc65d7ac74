//! What this sweeper has written to one resource, and what became of it: whether another sweeper, which does not share its
//! Lease, takes it back, and whether a write was carried out that was not answered.

use std::time::Instant;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;

use super::{status::is_written, targets::resource_key};
use crate::{
    crd::{ConditionType, OrdersService, find_condition},
    runtime::contention::Contention,
};

/// How many totals are remembered that may have been written to one version of a resource. No API server carries out a
/// request that was given up that many attempts ago.
const MAX_UNANSWERED: usize = 256;

/// The writes to one resource.
#[derive(Debug, Default)]
pub struct Writes {
    /// The last one that was answered.
    last: Option<Answered>,
    /// Those since then whose answer is not known.
    unanswered: Option<Unanswered>,
    contention: Contention,
    /// The generation that `contention` is about: whoever changes the spec is to see what comes of it.
    generation: Option<i64>,
}

#[derive(Debug)]
struct Answered {
    /// The versions of the resource before and after it.
    versions: [Option<String>; 2],
    conditions: Vec<Condition>,
}

/// Writes that are all based on one version of the resource, so one of them at most was carried out.
#[derive(Debug)]
struct Unanswered {
    base: Option<String>,
    /// The `expiredTotal` of each, and how many of the orders that this process has cancelled are in it.
    totals: Vec<(i64, u64)>,
}

impl Writes {
    /// A write is sent, which is based on this state of the resource and adds to its `expiredTotal`. To be noted before that,
    /// since it may never be known what becomes of it.
    pub fn sent(&mut self, service: &OrdersService, total: i64, expired: u64) {
        let base = service.resource_version();
        let sent = self.unanswered.get_or_insert_with(|| Unanswered { base, totals: Vec::new() });
        if !sent.totals.contains(&(total, expired)) {
            if sent.totals.len() == MAX_UNANSWERED {
                sent.totals.remove(0);
            }
            sent.totals.push((total, expired));
        }
    }

    /// A write that was based on this state of the resource has made it this version, with these conditions.
    pub fn answered(&mut self, service: &OrdersService, version: Option<String>, conditions: Vec<Condition>) {
        self.unanswered = None;
        self.last = Some(Answered { versions: [service.resource_version(), version], conditions });
    }

    /// What is known of unanswered writes from the state of the resource now: how many of the orders that this process has
    /// cancelled are in its `expiredTotal`, if that is news. If somebody else may have counted others meanwhile, those count as
    /// in it that may be: no order counts twice.
    pub fn carried_out(&mut self, service: &OrdersService) -> Option<u64> {
        let version = service.resource_version();
        let Unanswered { totals, .. } = self.unanswered.take_if(|unanswered| unanswered.base != version)?;
        let expiry = service.status.as_ref().and_then(|status| status.expiry.as_ref());
        let now = expiry.and_then(|expiry| expiry.expired_total).unwrap_or(0);
        totals.into_iter().filter(|(total, _)| *total <= now).map(|(_, expired)| expired).max()
    }

    /// Forgets the unanswered writes, which were about another database.
    pub fn forget_unanswered(&mut self) {
        self.unanswered = None;
    }

    /// Whether the conditions of the resource may be changed at this moment. Not while another sweeper takes back at once what
    /// this one writes: each write would be the other's watch event, without end.
    pub fn may_change(&mut self, service: &OrdersService, now: Instant) -> bool {
        if self.generation != service.metadata.generation {
            (self.generation, self.contention) = (service.metadata.generation, Contention::default());
        }
        if self.last.as_ref().is_some_and(|last| last.is_taken_back(service)) {
            self.last = None;
            if let Some(pause) = self.contention.lost(now) {
                tracing::warn!(
                    resource = resource_key(service),
                    seconds = pause.as_secs(),
                    "another sweeper, which does not share this one's Lease, writes different conditions to this \
                     resource: backing off; have the sweepers watch different namespaces"
                );
            }
        }
        self.contention.paused(now).is_none()
    }
}

impl Answered {
    fn is_taken_back(&self, service: &OrdersService) -> bool {
        // The watch may still show what was there before. Nobody has written in between, or this write would have failed.
        if self.versions.contains(&service.resource_version()) {
            return false;
        }
        let now = service.status.as_ref().map_or(&[][..], |status| &status.conditions);
        let count = |all: &[Condition]| {
            ConditionType::SWEEPER.iter().filter(|kind| find_condition(all, **kind).is_some()).count()
        };
        count(now) != count(&self.conditions)
            || !self.conditions.iter().all(|condition| is_written(condition, now))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    /// A resource of this version, with this reason of its condition and this total.
    fn service(version: u32, generation: i64, reason: &str, total: i64) -> OrdersService {
        let condition = json!({
            "type": "Sweeping", "status": "False", "reason": reason, "message": reason, "observedGeneration": generation,
            "lastTransitionTime": "2026-11-27T13:51:14Z",
        });
        serde_json::from_value(json!({
            "apiVersion": "ticketing.dev/v1alpha1", "kind": "OrdersService",
            "metadata": {
                "name": "orders", "namespace": "shop", "generation": generation, "resourceVersion": version.to_string(),
            },
            "spec": {"auth": {"jwtSecretRef": {"name": "jwt"}}, "database": {"uriSecretRef": {"name": "mongo"}}},
            "status": {"conditions": [condition], "expiry": {"expiredTotal": total}},
        }))
        .unwrap()
    }

    fn conditions(service: &OrdersService) -> Vec<Condition> {
        service.status.as_ref().unwrap().conditions.clone()
    }

    #[test]
    fn only_what_another_one_takes_back_again_and_again_holds_the_next_write_back() {
        let (mut writes, mut now) = (Writes::default(), Instant::now());
        let mut held_back = 0;
        for version in (0..40).step_by(2) {
            now += Duration::from_secs(1);
            let before = service(version, 1, "Theirs", 0);
            if !writes.may_change(&before, now) {
                held_back += 1;
                continue;
            }
            let ours = conditions(&service(version + 1, 1, "Ours", 0));
            writes.answered(&before, Some((version + 1).to_string()), ours);
            // The watch shows what was there before; then this one's write, and one of somebody else that leaves it as it is.
            assert!(writes.may_change(&before, now));
            assert!(writes.may_change(&service(version + 1, 1, "Ours", 0), now));
        }
        assert!(held_back > 10, "{held_back}");
        assert!(writes.may_change(&service(50, 2, "Theirs", 0), now), "the spec is another one");

        let mut alone = Writes::default();
        for version in 0..40 {
            let (before, after) = if version % 2 == 0 { ("Well", "Ill") } else { ("Ill", "Well") };
            let before = service(version, 1, before, 0);
            assert!(alone.may_change(&before, now));
            let after = conditions(&service(version + 1, 1, after, 0));
            alone.answered(&before, Some((version + 1).to_string()), after);
        }
    }

    #[test]
    fn what_an_unanswered_write_has_counted_is_known_by_the_next_version_of_the_resource() {
        let before = service(1, 1, "Well", 10);
        for (shown, total, expected) in [
            // Nothing has come of it yet.
            (1, 10, None),
            // Somebody else has written, so neither can be carried out any more.
            (2, 10, None),
            (2, 13, Some(3)),
            (2, 15, Some(5)),
            // Others have counted too, perhaps after one of these.
            (3, 14, Some(3)),
            (3, 99, Some(5)),
        ] {
            let mut writes = Writes::default();
            writes.sent(&before, 13, 3);
            writes.sent(&before, 15, 5);
            assert_eq!(writes.carried_out(&service(shown, 1, "Well", total)), expected, "{shown} {total}");
            assert_eq!(writes.unanswered.is_some(), shown == 1);
        }
        let mut answered = Writes::default();
        answered.sent(&before, 13, 3);
        answered.answered(&before, Some("2".into()), Vec::new());
        assert_eq!(answered.carried_out(&service(2, 1, "Well", 13)), None);
    }
}
