//! The subjects of the events, which a system may name otherwise.

use std::{collections::BTreeMap, fmt, str::FromStr};

use thiserror::Error;

use crate::runtime::is_nats_subject;

/// What an event is about, by the name that the course uses for its subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A ticket was made: to us.
    TicketCreated,
    /// A ticket has changed: to us.
    TicketUpdated,
    /// A payment was made: to us.
    PaymentCreated,
    /// An order was made: to all.
    OrderCreated,
    /// The payment of an order has begun: to all.
    OrderUpdated,
    /// An order was cancelled, or has expired: to all.
    OrderCancelled,
    /// An order was paid for: to all.
    OrderCompleted,
    /// A payment came for an order that cannot take it: to all.
    PaymentRefused,
}

impl Subject {
    /// Every subject.
    pub const ALL: [Self; 8] = [
        Self::TicketCreated,
        Self::TicketUpdated,
        Self::PaymentCreated,
        Self::OrderCreated,
        Self::OrderUpdated,
        Self::OrderCancelled,
        Self::OrderCompleted,
        Self::PaymentRefused,
    ];

    /// The subjects of what is told.
    pub const TOLD: [Self; 5] = [
        Self::OrderCreated,
        Self::OrderUpdated,
        Self::OrderCancelled,
        Self::OrderCompleted,
        Self::PaymentRefused,
    ];

    /// The subjects of what is heard.
    pub const HEARD: [Self; 3] = [Self::TicketCreated, Self::TicketUpdated, Self::PaymentCreated];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TicketCreated => "ticket:created",
            Self::TicketUpdated => "ticket:updated",
            Self::PaymentCreated => "payment:created",
            Self::OrderCreated => "order:created",
            Self::OrderUpdated => "order:updated",
            Self::OrderCancelled => "order:cancelled",
            Self::OrderCompleted => "order:completed",
            Self::PaymentRefused => "payment:refused",
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a list of names is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidSubjects {
    /// It is not a list of `NAME=OTHER`.
    #[error("{0:?} renames no subject: write NAME=OTHER, such as order:created=orders.created")]
    NotAPair(String),
    /// There is no such subject.
    #[error("{0:?} is no subject; the subjects are {known}", known = Subject::ALL.map(Subject::as_str).join(", "))]
    Unknown(String),
    /// The broker would not take it.
    #[error("{0:?} cannot be a subject: it must have no space, no *, no > and no empty part between dots")]
    NotAName(String),
    /// Events of two kinds could not be told apart.
    #[error("{0:?} is the name of two subjects: give each its own")]
    Twice(String),
}

/// The names of all subjects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subjects(BTreeMap<Subject, String>);

impl Default for Subjects {
    fn default() -> Self {
        Self(Subject::ALL.into_iter().map(|subject| (subject, subject.as_str().to_owned())).collect())
    }
}

impl Subjects {
    /// The subject that has this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Subject> {
        self.0.iter().find(|(_, known)| *known == name).map(|(subject, _)| *subject)
    }

    /// The name of one.
    #[must_use]
    pub fn name(&self, subject: Subject) -> &str {
        self.0.get(&subject).map_or(subject.as_str(), String::as_str)
    }
}

/// From a list such as `order:created=orders.created,order:cancelled=orders.cancelled`; the other subjects keep their names.
impl FromStr for Subjects {
    type Err = InvalidSubjects;

    fn from_str(text: &str) -> Result<Self, InvalidSubjects> {
        let mut subjects = Self::default();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (name, other) =
                pair.split_once('=').ok_or_else(|| InvalidSubjects::NotAPair(pair.to_owned()))?;
            let known = Subject::ALL.into_iter().find(|subject| subject.as_str() == name.trim());
            let subject = known.ok_or_else(|| InvalidSubjects::Unknown(name.trim().to_owned()))?;
            let other = other.trim();
            if !is_nats_subject(other) {
                return Err(InvalidSubjects::NotAName(other.to_owned()));
            }
            subjects.0.insert(subject, other.to_owned());
        }
        let mut names: Vec<_> = subjects.0.values().collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair.first() == pair.last()).and_then(|pair| pair.first()) {
            Some(twice) => Err(InvalidSubjects::Twice((*twice).clone())),
            None => Ok(subjects),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_have_the_names_of_the_course_unless_they_are_renamed() {
        let renamed: Subjects =
            "order:created=orders.created, ticket:created = tickets.created".parse().unwrap();
        assert_eq!(renamed.name(Subject::OrderCreated), "orders.created");
        assert_eq!(renamed.name(Subject::TicketCreated), "tickets.created");
        assert_eq!(renamed.name(Subject::OrderCancelled), "order:cancelled");
        assert_eq!("".parse(), Ok(Subjects::default()));
    }

    #[test]
    fn a_name_that_cannot_work_is_refused_with_what_to_write() {
        for (text, wanted) in [
            ("orders.created", "NAME=OTHER"),
            ("order:made=a", "no subject; the subjects are ticket:created"),
            ("order:created=a b", "cannot be a subject"),
            ("order:created=a..b", "cannot be a subject"),
            ("order:created=orders.*", "cannot be a subject"),
            ("order:created=orders.>", "cannot be a subject"),
            ("order:created=", "cannot be a subject"),
            ("order:created=$JS.API.INFO", "cannot be a subject"),
            ("order:created=order:cancelled", "two subjects"),
            ("order:created=x,order:cancelled=x", "two subjects"),
        ] {
            let error = text.parse::<Subjects>().unwrap_err().to_string();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }
}
