//! Checks the history of an order, from the results that callers got and the states that were observed.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// What is known of one order.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// When it expires, and when it does at the latest once its payment has begun.
    pub(crate) expires_at: Timestamp,
    pub(crate) end_of_grace: Timestamp,
    /// What was attempted, whether or not it succeeded, as a response may be lost.
    pub(crate) tried_to_begin: bool,
    pub(crate) tried_to_pay: bool,
    pub(crate) tried_to_cancel: bool,
    /// The statuses and versions that callers were told they had created, in any order.
    pub(crate) made: Vec<(String, i32)>,
    /// The observed states, each with a time that the database's clock had not passed when it was observed.
    pub(crate) seen: Vec<(Timestamp, String, i32)>,
    /// The final state.
    pub(crate) last: Option<(String, i32)>,
}

impl History {
    /// Everything that is wrong with the history; empty if it is correct.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let Some((status, version)) = &self.last else { return vec!["it is gone".into()] };
        let mut states = BTreeMap::<i32, String>::from([(0, "created".into())]);
        let seen = self.seen.iter().map(|(_, status, version)| (status, version));
        let made = self.made.iter().map(|(status, version)| (status, version));
        for (status, version) in made.clone().chain(seen).chain([(status, version)]) {
            let known = states.entry(*version).or_insert_with(|| status.clone());
            if known != status {
                problems.push(format!("version {version} was both {known} and {status}"));
            }
        }
        let mut makers = self.made.clone();
        makers.sort_unstable();
        let count = makers.len();
        makers.dedup();
        if makers.len() != count {
            problems.push("two callers were told that they made the same version".into());
        }
        if states.last_key_value().is_some_and(|(last, _)| last > version) {
            problems.push(format!("it went back to version {version}"));
        }
        for ((before, from), (after, to)) in states.iter().zip(states.iter().skip(1)) {
            let steps = after - before;
            let fits = match (from.as_str(), to.as_str(), steps) {
                ("created", "awaiting:payment" | "complete" | "cancelled", 1)
                | ("awaiting:payment", "complete" | "cancelled", 1) => true,
                // Through awaiting:payment, which was not observed.
                ("created", "complete" | "cancelled", 2) => self.tried_to_begin,
                _ => false,
            };
            if !fits {
                problems.push(format!("from {from} (version {before}) to {to} (version {after})"));
            }
        }
        for (status, tried) in [("complete", self.tried_to_pay), ("awaiting:payment", self.tried_to_begin)] {
            if states.values().any(|known| known == status) && !tried {
                problems.push(format!("it was {status}, and nobody asked for that"));
            }
        }
        if !self.tried_to_cancel {
            let early = |(at, status, version): &&(Timestamp, String, i32)| {
                let was_paying =
                    states.get(&(version - 1)).is_some_and(|status| status == "awaiting:payment");
                status == "cancelled" && *at < if was_paying { self.end_of_grace } else { self.expires_at }
            };
            if let Some((at, ..)) = self.seen.iter().find(early) {
                problems.push(format!("it was cancelled by {at}, and was to expire at {}", self.expires_at));
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn history(made: &[(&str, i32)], seen: &[(i64, &str, i32)], last: (&str, i32)) -> History {
        History {
            expires_at: at(10),
            end_of_grace: at(12),
            tried_to_begin: true,
            tried_to_pay: true,
            made: made.iter().map(|(status, version)| ((*status).into(), *version)).collect(),
            seen: seen
                .iter()
                .map(|(second, status, version)| (at(*second), (*status).into(), *version))
                .collect(),
            last: Some((last.0.into(), last.1)),
            ..History::default()
        }
    }

    #[test]
    fn a_legal_history_has_no_problems() {
        for history in [
            history(&[], &[(1, "created", 0), (11, "cancelled", 1)], ("cancelled", 1)),
            history(&[("awaiting:payment", 1), ("complete", 2)], &[], ("complete", 2)),
            history(&[("complete", 1)], &[(1, "complete", 1)], ("complete", 1)),
            // The response to the first step was lost.
            history(&[], &[(12, "cancelled", 2)], ("cancelled", 2)),
            history(&[], &[], ("created", 0)),
        ] {
            assert!(history.problems().is_empty(), "{history:?}: {:?}", history.problems());
        }
        let cancelled_by_hand = History {
            tried_to_cancel: true,
            ..history(&[("cancelled", 1)], &[(1, "cancelled", 1)], ("cancelled", 1))
        };
        assert!(cancelled_by_hand.problems().is_empty());
    }

    #[test]
    fn each_illegal_history_has_a_problem() {
        let wrong = [
            ("cancelled twice", history(&[], &[(11, "cancelled", 1)], ("cancelled", 2))),
            ("cancelled twice, unseen", history(&[], &[], ("cancelled", 3))),
            ("cancelled after it was paid", history(&[("complete", 1)], &[], ("cancelled", 2))),
            (
                "paid after it was cancelled",
                history(&[("complete", 2)], &[(11, "cancelled", 1)], ("complete", 2)),
            ),
            ("a change without a version", history(&[("complete", 1)], &[], ("cancelled", 1))),
            ("a version left out", history(&[("awaiting:payment", 2)], &[], ("complete", 3))),
            ("back again", history(&[("complete", 1)], &[], ("created", 0))),
            ("made by two", history(&[("complete", 1), ("complete", 1)], &[], ("complete", 1))),
            ("too early", history(&[], &[(9, "cancelled", 1)], ("cancelled", 1))),
            (
                "too early, within its grace",
                history(&[("awaiting:payment", 1)], &[(11, "cancelled", 2)], ("cancelled", 2)),
            ),
            ("gone", History { last: None, ..history(&[], &[], ("created", 0)) }),
            ("paid by nobody", History { tried_to_pay: false, ..history(&[], &[], ("complete", 1)) }),
            (
                "a step by nobody",
                History { tried_to_begin: false, ..history(&[], &[(12, "cancelled", 2)], ("cancelled", 2)) },
            ),
        ];
        for (what, history) in wrong {
            assert!(!history.problems().is_empty(), "{what}: {history:?}");
        }
    }
}
