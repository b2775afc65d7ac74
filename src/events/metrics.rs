//! The metrics of events. All labels have a fixed set of values.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::{dead_reason::DeadReason, wire::Subject};

/// From what an idle broker takes to the time of an outage.
const BUCKETS: [f64; 15] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0];

/// The metrics of events. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    published: Family<SubjectLabels, Counter>,
    lag: Histogram,
    consumed: Family<ConsumedLabels, Counter>,
    dead_letters: Family<DeadLabels, Counter>,
    failures: Family<ReasonLabels, Counter>,
    connected: Gauge,
    leads: Gauge,
    has_leader: Gauge,
    pending: Gauge,
    oldest_pending: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SubjectLabels {
    subject: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConsumedLabels {
    subject: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeadLabels {
    subject: &'static str,
    reason: &'static str,
}

/// Whether a message of this subject, which is consumed, can be a dead letter for this reason.
fn may_happen(reason: DeadReason, subject: Subject) -> bool {
    match reason {
        DeadReason::OrderNotFound | DeadReason::TooManyPayments => subject == Subject::PaymentCreated,
        DeadReason::UnknownOrder => subject == Subject::PaymentStarted,
        DeadReason::NotJson
        | DeadReason::NotAnObject
        | DeadReason::MalformedField
        | DeadReason::RefusedByDatabase => true,
    }
}

/// What has become of a message of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A ticket is new, or newer.
    Written,
    /// It was known.
    Unchanged,
    /// A ticket is gone.
    Deleted,
    /// A payment has begun.
    Started,
    /// A payment has completed its order.
    Completed,
    /// A payment is refused.
    Refused,
    /// It comes again.
    Retried,
}

impl Outcome {
    const fn label(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Unchanged => "unchanged",
            Self::Deleted => "deleted",
            Self::Started => "started",
            Self::Completed => "completed",
            Self::Refused => "refused",
            Self::Retried => "retried",
        }
    }
}

impl Metrics {
    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            published: Family::default(),
            lag: Histogram::new(BUCKETS),
            consumed: Family::default(),
            dead_letters: Family::default(),
            failures: Family::default(),
            connected: Gauge::default(),
            leads: Gauge::default(),
            has_leader: Gauge::default(),
            pending: Gauge::default(),
            oldest_pending: Gauge::default(),
        };
        // Prometheus sees no increase in a series that begins with its first message.
        for subject in Subject::CONSUMED.into_iter().chain(Subject::OPTIONAL) {
            for reason in DeadReason::ALL.into_iter().filter(|reason| may_happen(*reason, subject)) {
                let labels = DeadLabels { subject: subject.as_str(), reason: reason.as_str() };
                drop(metrics.dead_letters.get_or_create(&labels));
            }
        }
        let events = registry.sub_registry_with_prefix("orders_events");
        events.register(
            "published",
            "Events that the broker has acknowledged, by subject",
            metrics.published.clone(),
        );
        events.register_with_unit(
            "lag",
            "From the change of an order to the acknowledgement of its event",
            Unit::Seconds,
            metrics.lag.clone(),
        );
        events.register(
            "consumed",
            "Messages from other services, by subject and outcome",
            metrics.consumed.clone(),
        );
        events.register(
            "dead_letters",
            "Messages from other services that can never be handled, by subject and reason",
            metrics.dead_letters.clone(),
        );
        events.register(
            "failures",
            "How often publishing or consuming was interrupted, by reason",
            metrics.failures.clone(),
        );
        events.register(
            "connected",
            "1 while this pod is connected to the broker",
            metrics.connected.clone(),
        );
        events.register("leads", "1 while this pod publishes", metrics.leads.clone());
        events.register(
            "has_leader",
            "1 while this pod, or another pod of the same database that it knows of, publishes",
            metrics.has_leader.clone(),
        );
        events.register(
            "pending",
            "Orders of this pod's database that are pending in the outbox, up to 100000",
            metrics.pending.clone(),
        );
        events.register_with_unit(
            "oldest_pending",
            "Age of the oldest change that is pending in the outbox, 0 if there is none",
            Unit::Seconds,
            metrics.oldest_pending.clone(),
        );
        metrics
    }

    pub(super) fn published(&self, subject: Subject, lag: Option<Duration>) {
        self.published.get_or_create(&SubjectLabels { subject: subject.as_str() }).inc();
        if let Some(lag) = lag {
            self.lag.observe(lag.as_secs_f64());
        }
    }

    pub(super) fn consumed(&self, subject: Subject, outcome: Outcome) {
        let labels = ConsumedLabels { subject: subject.as_str(), outcome: outcome.label() };
        self.consumed.get_or_create(&labels).inc();
    }

    pub(super) fn dead_letter(&self, subject: Subject, reason: &'static str) {
        self.dead_letters.get_or_create(&DeadLabels { subject: subject.as_str(), reason }).inc();
    }

    pub(super) fn failed(&self, reason: &'static str) {
        self.failures.get_or_create(&ReasonLabels { reason }).inc();
    }

    pub(super) fn connected(&self, is_connected: bool) {
        self.connected.set(is_connected.into());
        if !is_connected {
            // Whoever is not connected does not look who leads.
            self.has_leader.set(0);
        }
    }

    pub(super) fn backlog(&self, orders: u64, oldest: Duration) {
        self.pending.set(i64::try_from(orders).unwrap_or(i64::MAX));
        self.oldest_pending.set(i64::try_from(oldest.as_secs()).unwrap_or(i64::MAX));
    }

    pub(super) fn leads(&self, leads: bool) {
        self.leads.set(leads.into());
        self.has_leader.set(leads.into());
    }

    /// Another pod has the lease.
    pub(super) fn is_led(&self) {
        self.has_leader.set(1);
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn a_dead_letter_is_counted_from_zero_on_wherever_one_may_come() {
        let (mut registry, mut page) = (Registry::default(), String::new());
        let _metrics = Metrics::register(&mut registry);
        encode(&mut page, &registry).unwrap();
        let letters: Vec<_> = page.lines().filter(|line| line.contains("dead_letters_total{")).collect();
        // Five subjects are consumed, and each can be unreadable in three ways, or be refused.
        assert_eq!(letters.len(), 5 * 4 + 3, "{page}");
        assert!(letters.iter().all(|line| line.ends_with(" 0") && !line.contains("\"order:")), "{page}");
        let first = r#"orders_events_dead_letters_total{subject="ticket:created",reason="not-json"} 0"#;
        assert!(letters.contains(&first), "{page}");
    }
}
