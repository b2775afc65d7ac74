//! What is to be written to one resource: pure.

use std::time::{Duration, Instant};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};

use super::alternation::Alternation;
use crate::{
    crd::{ConditionType, ExpiryStatus, OrdersService, find_condition},
    sweeper::{
        events::{EventsState, with_events},
        health::TargetHealth,
        status::{Transition, conditions, expiry, transitions},
        targets::TargetKey,
        writes::Writes,
    },
};

/// The shortest interval between two writes of `status.expiry`.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(60);

/// What was reported to one resource.
#[derive(Default)]
pub(super) struct Reported {
    pub(super) uid: Option<String>,
    /// Its database, once that is known.
    pub(super) target: Option<TargetKey>,
    /// Whether what is written may still be about another database, which it had before.
    pub(super) is_about_former: bool,
    /// How many of the orders that this process has cancelled in its database are in its `expiredTotal`.
    pub(super) expired: u64,
    /// When its `status.expiry` was last written.
    pub(super) at: Option<Instant>,
    pub(super) writes: Writes,
    pub(super) alternation: Alternation,
}

/// What is known of the database of a resource.
pub(super) struct Known {
    pub(super) health: TargetHealth,
    /// What has become of its orders, once it is swept.
    pub(super) progress: Option<Figures>,
    /// Whether its events flow.
    pub(super) events: Option<EventsState>,
}

/// How far the sweep of a database is.
#[derive(Clone, Copy)]
pub(super) struct Figures {
    /// How many orders this process has cancelled.
    pub(super) expired: u64,
    /// By how many seconds the oldest order is overdue.
    pub(super) overdue_seconds: u64,
}

/// A status update to be written.
pub(super) struct StatusUpdate<'a> {
    pub(super) key: String,
    pub(super) service: &'a OrdersService,
    pub(super) conditions: Vec<Condition>,
    pub(super) expiry: Option<ExpiryStatus>,
    pub(super) transitions: Vec<Transition>,
    /// [`Reported::expired`] once it is written.
    pub(super) expired: u64,
}

impl Reported {
    /// The update that `known` asks for; none if nothing has changed. With `flush` also of what could wait for up to a minute.
    pub(super) fn update<'a>(
        &mut self,
        key: String,
        service: &'a OrdersService,
        known: &Known,
        flush: bool,
        (now, time): (Instant, Timestamp),
    ) -> Option<StatusUpdate<'a>> {
        let is_unknown = known.health == TargetHealth::Unknown;
        if is_unknown && !self.is_about_former {
            return None;
        }
        let status = service.status.clone().unwrap_or_default();
        let overdue = known.progress.map_or(0, |figures| figures.overdue_seconds);
        let new = self.conditions(service, known, overdue, now, time);
        let transitions = new.as_ref().map_or(Vec::new(), |new| transitions(&status.conditions, new));
        let is_due = flush || new.is_some() || self.at.is_none_or(|at| now - at >= EXPIRY_INTERVAL);
        let counted = known.progress.filter(|_| is_due && !is_unknown).map(|Figures { expired, .. }| {
            (expired, expiry(status.expiry.as_ref(), expired.saturating_sub(self.expired), overdue, time))
        });
        let has_changed = counted.as_ref().is_some_and(|(_, changed)| changed.is_some());
        if new.is_none() && !has_changed {
            return None;
        }
        let (expired, changed) = counted.unwrap_or((self.expired, None));
        // A server-side apply removes the fields that it leaves out, so it always has all of the sweeper's.
        let kept = || {
            let ours = ConditionType::SWEEPER.iter();
            ours.filter_map(|kind| find_condition(&status.conditions, *kind).cloned()).collect()
        };
        let conditions = new.unwrap_or_else(kept);
        Some(StatusUpdate {
            key,
            service,
            conditions,
            expiry: changed.or(status.expiry),
            transitions,
            expired,
        })
    }

    /// The conditions that are to be written, if any.
    fn conditions(
        &mut self,
        service: &OrdersService,
        known: &Known,
        overdue_seconds: u64,
        now: Instant,
        time: Timestamp,
    ) -> Option<Vec<Condition>> {
        let old = service.status.as_ref().map_or(&[][..], |status| &status.conditions);
        let (is_other, generation) = (self.is_about_former, service.metadata.generation);
        let new = conditions(&known.health, is_other, overdue_seconds, old, generation, time);
        let new = self.alternation.settled(new, old, now);
        let has_events = service.spec.events.is_some();
        let new = with_events(new, known.events.as_ref(), has_events, is_other, old, generation, time);
        new.filter(|_| self.writes.may_change(service, now))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const WELL: TargetHealth = TargetHealth::WELL;

    fn service(status: &Value) -> OrdersService {
        serde_json::from_value(json!({
            "apiVersion": "ticketing.dev/v1alpha1", "kind": "OrdersService",
            "metadata": {"name": "orders", "namespace": "shop", "generation": 1, "resourceVersion": "1"},
            "spec": {"auth": {"jwtSecretRef": {"name": "jwt"}}, "database": {"uriSecretRef": {"name": "mongo"}}},
            "status": status,
        }))
        .unwrap()
    }

    fn swept(expired: u64) -> Known {
        Known { health: WELL, progress: Some(Figures { expired, overdue_seconds: 0 }), events: None }
    }

    /// The conditions and the total that are written.
    fn written(update: Option<StatusUpdate<'_>>) -> Option<(usize, Option<i64>)> {
        update.map(|update| (update.conditions.len(), update.expiry.and_then(|expiry| expiry.expired_total)))
    }

    #[test]
    fn figures_wait_for_a_minute_unless_conditions_are_written_or_it_is_the_last_time() {
        let (mut reported, bare, now) = (Reported::default(), service(&json!({})), Instant::now());
        let mut update = |service: &OrdersService, expired, flush, seconds| {
            let at = (now + Duration::from_secs(seconds), Timestamp::UNIX_EPOCH);
            let update = reported.update("k".into(), service, &swept(expired), flush, at);
            let wrote = update.as_ref().is_some_and(|update| update.expiry.is_some());
            if wrote {
                (reported.at, reported.expired) = (Some(at.0), expired);
            }
            let status =
                update.as_ref().map(|update| service_status(&update.conditions, update.expiry.as_ref()));
            (written(update), status)
        };
        let (first, status) = update(&bare, 3, false, 0);
        assert_eq!(first, Some((2, Some(3))), "with the conditions");
        let shown = service(&status.unwrap());
        assert_eq!(update(&shown, 3, true, 1).0, None, "nothing has changed");
        assert_eq!(update(&shown, 5, false, 59).0, None);
        assert_eq!(update(&shown, 5, false, 60).0, Some((2, Some(5))));
        assert_eq!(update(&shown, 7, true, 61).0, Some((2, Some(5))), "the two that were counted last");
    }

    fn service_status(conditions: &[Condition], expiry: Option<&ExpiryStatus>) -> Value {
        json!({"conditions": conditions, "expiry": expiry})
    }

    #[test]
    fn of_an_unknown_database_nothing_is_told_unless_what_is_told_is_of_another_one() {
        let (service, at) = (service(&json!({})), (Instant::now(), Timestamp::UNIX_EPOCH));
        let known = Known { health: TargetHealth::Unknown, ..swept(4) };
        let mut reported = Reported::default();
        assert!(reported.update("k".into(), &service, &known, true, at).is_none());
        reported.is_about_former = true;
        let update = reported.update("k".into(), &service, &known, true, at);
        assert_eq!(written(update), Some((2, None)), "its orders are not counted yet");
    }
}
