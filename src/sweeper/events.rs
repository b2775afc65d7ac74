//! The condition `EventsFlowing`: whether events are published and consumed, as the database shows it. The sweeper speaks to no
//! broker. Pure.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};

use super::status::is_written;
use crate::{
    crd::{ConditionType, NewCondition, Reason, find_condition, set_condition},
    store::{EventsHealth, EventsTrouble},
};

/// How long ago the pod that publishes must have shown that it does. Longer than a handover takes.
const SHOWN_WITHIN: Duration = Duration::from_secs(30);

/// For how long a failure that a pod has recorded counts; it records it again before.
const TROUBLE_FOR: Duration = Duration::from_secs(60);

/// Whether events flow, and why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventsState {
    is_flowing: bool,
    reason: Reason,
    message: String,
}

impl EventsState {
    /// By what pods whose settings have one of these marks do, or pods without a mark, which the operator has not made. None
    /// while these have shown nothing, and pods with other settings still do.
    pub fn of(health: &EventsHealth, marks: &BTreeSet<String>) -> Option<Self> {
        let is_ours = |mark: &Option<String>| mark.as_ref().is_none_or(|mark| marks.contains(mark));
        let recent =
            |trouble: &Option<EventsTrouble>| trouble.clone().filter(|trouble| trouble.age <= TROUBLE_FOR);
        let ours = |trouble: &Option<EventsTrouble>| {
            recent(trouble).filter(|trouble| is_ours(&trouble.mark)).map(|trouble| reason_of(&trouble))
        };
        let publisher = health.publisher.as_ref().filter(|publisher| publisher.age <= SHOWN_WITHIN);
        let problem = if publisher.is_some_and(|publisher| is_ours(&publisher.mark)) {
            // What one event waits for says more than that it waits.
            let stuck = || ours(&health.publishing).unwrap_or(Reason::OutboxStuck);
            if health.is_stuck { Some(stuck()) } else { ours(&health.consuming) }
        } else {
            let problem = ours(&health.publishing);
            if problem.is_none() && (publisher.is_some() || recent(&health.publishing).is_some()) {
                return None;
            }
            Some(problem.unwrap_or(Reason::NoPublisher))
        };
        Some(match problem {
            Some(reason) => Self { is_flowing: false, reason, message: message(reason).to_owned() },
            None if health.dead_letters > 0 => {
                let count = match health.dead_letters {
                    1000.. => "1000 or more".to_owned(),
                    count => count.to_string(),
                };
                let message = format!(
                    "events flow, but {count} messages of the last day could not be handled: they are in the \
                     collection deadLetters of the database, with the reason"
                );
                Self { is_flowing: true, reason: Reason::DeadLetters, message }
            }
            None => {
                let message =
                    "events of orders are published, and those of tickets and payments are consumed"
                        .to_owned();
                Self { is_flowing: true, reason: Reason::AsExpected, message }
            }
        })
    }
}

/// The reason for what a pod has recorded, which is only compared: the text is from a database.
fn reason_of(trouble: &EventsTrouble) -> Reason {
    let known = [
        Reason::BrokerRefused,
        Reason::SubjectWithoutStream,
        Reason::ConsumerOfOthers,
        Reason::SubjectsOfOthers,
        Reason::BrokerFailed,
    ];
    known.into_iter().find(|reason| reason.as_str() == trouble.reason).unwrap_or(Reason::BrokerUnreachable)
}

fn message(reason: Reason) -> &'static str {
    match reason {
        Reason::BrokerRefused => {
            "the NATS servers reject the pods, or are not the broker in spec.events: check the credentials in the \
             Secret, and that the servers run with --jetstream, or belong to the NATS Streaming cluster in \
             spec.events.streaming; the pods' log has the server's error. Unpublished events are kept in the \
             database, and published in order later"
        }
        Reason::SubjectWithoutStream => {
            "no stream has one of the subjects, and the stream in spec.events.jetStream, which is never modified, \
             exists with other subjects: add the subject to it, or set another stream; the pods' log names the \
             subject"
        }
        Reason::ConsumerOfOthers => {
            "the durable consumer in spec.events.jetStream was created by another service, or by pods with other \
             subjects: if this persists, use another name, or delete it; events of tickets and payments are not \
             consumed"
        }
        Reason::SubjectsOfOthers => {
            "conflict: another system publishes to the subjects of spec.events, or uses its durable consumer: give \
             each system its own broker or names. If this system replaces the other, say so with `orders-operator \
             events identity`; the pods' log names both. No message of the other system is consumed, and \
             unpublished events are kept in the database"
        }
        Reason::BrokerFailed => {
            "the NATS servers are reachable but reject what the pods ask for, for instance because a stream is \
             full or the user has no permission for a subject; the pods' log has the error. Rejected events are \
             kept in the database, and all others are published"
        }
        Reason::OutboxStuck => {
            "a change of an order, or the refusal of a payment, has not been published for a minute, although a \
             pod publishes events: check the pods' log and orders_events_lag_seconds"
        }
        Reason::NoPublisher => {
            "no pod publishes events: none is running, or they are just starting. Unpublished events are kept in \
             the database, and published in order later"
        }
        _ => {
            "the pods cannot reach the NATS servers, or they do not answer in time: check spec.events.nats and \
             that the servers run; the pods' log has the details. Unpublished events are kept in the database, and \
             published in order later"
        }
    }
}

/// The sweeper's conditions with that about events: `new` if there are such, else those of `old`. None if nothing is to be
/// written.
pub fn with_events(
    new: Option<Vec<Condition>>,
    events: Option<&EventsState>,
    has_events: bool,
    is_other_database: bool,
    old: &[Condition],
    generation: Option<i64>,
    now: Timestamp,
) -> Option<Vec<Condition>> {
    let kind = ConditionType::EventsFlowing;
    let known = find_condition(old, kind);
    let mut flowing = Vec::new();
    match events.filter(|_| has_events) {
        Some(EventsState { is_flowing, reason, message }) => {
            let (reason, message) = (reason.as_str().to_owned(), message.clone());
            let condition = NewCondition { kind, status: *is_flowing, reason, message, generation };
            set_condition(&mut flowing, old, condition, now);
        }
        // It is not known now: what is there is about a former generation, or the database is away.
        None if has_events && !is_other_database => flowing.extend(known.cloned()),
        None => {}
    }
    let is_same = match (known, flowing.first()) {
        (None, None) => true,
        (Some(old), Some(new)) => is_written(new, std::slice::from_ref(old)),
        _ => false,
    };
    if is_same && new.is_none() {
        return None;
    }
    let others = || {
        let kinds = ConditionType::SWEEPER.iter().filter(|other| **other != kind);
        kinds.filter_map(|kind| find_condition(old, *kind).cloned()).collect()
    };
    let mut all: Vec<_> = new.unwrap_or_else(others);
    all.extend(flowing);
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::EventsShown;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn trouble(reason: &str, age: u64) -> Option<EventsTrouble> {
        Some(EventsTrouble { reason: reason.into(), age: seconds(age), mark: None })
    }

    fn publisher(age: u64) -> Option<EventsShown> {
        Some(EventsShown { age: seconds(age), mark: None })
    }

    /// The state where the settings have the mark `now`.
    fn state(health: &EventsHealth) -> Option<EventsState> {
        EventsState::of(health, &BTreeSet::from(["now".to_owned()]))
    }

    fn judged(health: EventsHealth) -> (bool, Reason) {
        let state = state(&health).unwrap();
        assert!(state.message.len() > 20);
        (state.is_flowing, state.reason)
    }

    #[test]
    fn what_pods_of_former_settings_do_does_not_count_and_what_those_of_now_do_is_waited_for() {
        let shown = |mark: &str, age| Some(EventsShown { age: seconds(age), mark: Some(mark.to_owned()) });
        let recorded = |mark: &str, age| {
            trouble("BrokerRefused", age).map(|of| EventsTrouble { mark: Some(mark.to_owned()), ..of })
        };
        let of = |publisher, publishing, consuming| {
            let health = EventsHealth { publisher, publishing, consuming, ..EventsHealth::default() };
            state(&health).map(|state| (state.is_flowing, state.reason))
        };
        let flowing = Some((true, Reason::AsExpected));
        let refused = Some((false, Reason::BrokerRefused));
        for (publisher, publishing, consuming, wanted) in [
            (shown("now", 1), None, None, flowing),
            (shown("former", 1), None, None, None),
            // One of them is enough to know that it does not work.
            (shown("former", 1), recorded("now", 1), None, refused),
            (shown("now", 1), recorded("former", 1), None, flowing),
            (shown("now", 1), None, recorded("former", 1), flowing),
            (shown("now", 1), None, recorded("now", 1), refused),
            // The former ones did not reach their server, and may be about to end.
            (None, recorded("former", 1), None, None),
            (shown("former", 31), recorded("former", 61), None, Some((false, Reason::NoPublisher))),
            (shown("former", 31), recorded("now", 1), None, refused),
        ] {
            assert_eq!(
                of(publisher.clone(), publishing.clone(), consuming.clone()),
                wanted,
                "{publisher:?} {publishing:?} {consuming:?}"
            );
        }
    }

    #[test]
    fn events_flow_while_somebody_tells_and_nothing_is_stuck() {
        let well = || EventsHealth { publisher: publisher(2), ..EventsHealth::default() };
        assert_eq!(judged(well()), (true, Reason::AsExpected));
        // Another pod does not reach the broker.
        assert_eq!(
            judged(EventsHealth { publishing: trouble("BrokerUnreachable", 1), ..well() }),
            (true, Reason::AsExpected)
        );
        assert_eq!(judged(EventsHealth { dead_letters: 3, ..well() }), (true, Reason::DeadLetters));
        assert_eq!(judged(EventsHealth { is_stuck: true, ..well() }), (false, Reason::OutboxStuck));
        let full = EventsHealth { is_stuck: true, publishing: trouble("BrokerFailed", 9), ..well() };
        assert_eq!(judged(full), (false, Reason::BrokerFailed));
        let consuming = trouble("ConsumerOfOthers", 5);
        assert_eq!(judged(EventsHealth { consuming, ..well() }), (false, Reason::ConsumerOfOthers));
        assert_eq!(
            judged(EventsHealth { consuming: trouble("BrokerFailed", 61), ..well() }),
            (true, Reason::AsExpected)
        );
    }

    #[test]
    fn while_nobody_tells_the_reason_is_what_a_pod_has_noted_last() {
        let silent =
            |publishing| EventsHealth { publisher: publisher(31), publishing, ..EventsHealth::default() };
        assert_eq!(judged(silent(None)), (false, Reason::NoPublisher));
        assert_eq!(judged(silent(trouble("BrokerRefused", 3))), (false, Reason::BrokerRefused));
        assert_eq!(judged(silent(trouble("SubjectWithoutStream", 3))), (false, Reason::SubjectWithoutStream));
        assert_eq!(judged(silent(trouble("BrokerTooSlow", 3))), (false, Reason::BrokerUnreachable));
        assert_eq!(judged(silent(trouble("BrokerFailed", 3))), (false, Reason::BrokerFailed));
        assert_eq!(judged(silent(trouble("SubjectsOfOthers", 3))), (false, Reason::SubjectsOfOthers));
        assert_eq!(judged(silent(trouble("<script>", 3))), (false, Reason::BrokerUnreachable));
        assert_eq!(judged(silent(trouble("BrokerRefused", 90))), (false, Reason::NoPublisher));
    }

    #[test]
    fn the_condition_comes_with_the_events_and_goes_with_them() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let state = |dead_letters| {
            state(&EventsHealth { publisher: publisher(1), dead_letters, ..EventsHealth::default() }).unwrap()
        };
        let written = |state: Option<&EventsState>, has_events, old: &[Condition]| {
            with_events(None, state, has_events, false, old, Some(1), at(5))
        };
        assert_eq!(written(None, false, &[]), None);
        assert_eq!(written(Some(&state(0)), false, &[]), None, "another resource has them");
        let first = written(Some(&state(0)), true, &[]).unwrap();
        assert_eq!((first[0].type_.as_str(), first[0].status.as_str()), ("EventsFlowing", "True"));
        assert_eq!(written(Some(&state(0)), true, &first), None);
        assert_eq!(written(None, true, &first), None, "the database is away");
        let warned = written(Some(&state(1)), true, &first).unwrap();
        assert_eq!(warned[0].reason, "DeadLetters");
        assert!(written(Some(&state(2)), true, &warned).is_some(), "the number is reported again");
        assert_eq!(written(None, false, &first), Some(Vec::new()));
        // Beside the others, which are kept.
        let mut other = first[0].clone();
        other.type_ = "Sweeping".into();
        let both = written(Some(&state(0)), true, std::slice::from_ref(&other)).unwrap();
        assert_eq!(both.iter().map(|c| c.type_.as_str()).collect::<Vec<_>>(), ["Sweeping", "EventsFlowing"]);
        let beside = |is_other| {
            with_events(Some(vec![other.clone()]), None, true, is_other, &first, Some(1), at(6)).unwrap()
        };
        assert_eq!((beside(false).len(), beside(true).len()), (2, 1), "it was about another database");
    }
}
