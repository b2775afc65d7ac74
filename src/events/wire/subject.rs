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
    /// A ticket is gone: to us, where it is named.
    TicketDeleted,
    /// The payment of an order has begun: to us, where it is named.
    PaymentStarted,
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
    /// The subjects that every system has.
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

    /// Those that are consumed only where they are named.
    pub const OPTIONAL: [Self; 2] = [Self::TicketDeleted, Self::PaymentStarted];

    /// The subjects of what is published.
    pub const PUBLISHED: [Self; 5] = [
        Self::OrderCreated,
        Self::OrderUpdated,
        Self::OrderCancelled,
        Self::OrderCompleted,
        Self::PaymentRefused,
    ];

    /// The subjects of what is always consumed.
    pub const CONSUMED: [Self; 3] = [Self::TicketCreated, Self::TicketUpdated, Self::PaymentCreated];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TicketCreated => "ticket:created",
            Self::TicketUpdated => "ticket:updated",
            Self::TicketDeleted => "ticket:deleted",
            Self::PaymentStarted => "payment:started",
            Self::PaymentCreated => "payment:created",
            Self::OrderCreated => "order:created",
            Self::OrderUpdated => "order:updated",
            Self::OrderCancelled => "order:cancelled",
            Self::OrderCompleted => "order:completed",
            Self::PaymentRefused => "payment:refused",
        }
    }

    /// The subject of this name, one of the optional ones too.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().chain(Self::OPTIONAL).find(|subject| subject.as_str() == name)
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
    #[error("{0:?} does not rename a subject: write NAME=OTHER, such as order:created=orders.created")]
    NotAPair(String),
    /// There is no such subject.
    #[error("{0:?} is not a subject; the subjects are {known}", known = Subject::ALL.map(Subject::as_str).join(", "))]
    Unknown(String),
    /// The broker would not take it.
    #[error("{0:?} cannot be a subject: it must have no space, no *, no > and no empty part between dots")]
    NotAName(String),
    /// Events of two kinds could not be distinguished.
    #[error("{0:?} is used for two subjects: give each its own")]
    Twice(String),
}

/// The names of all subjects that a system has.
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

    /// The subjects.
    pub fn all(&self) -> impl Iterator<Item = Subject> {
        self.0.keys().copied()
    }

    /// Whether the system has this one.
    #[must_use]
    pub fn has(&self, subject: Subject) -> bool {
        self.0.contains_key(&subject)
    }

    /// The same, with an optional subject by this name.
    ///
    /// # Errors
    /// When it cannot be a subject, or is another's name.
    pub fn with(mut self, subject: Subject, name: &str) -> Result<Self, InvalidSubjects> {
        self.insert(subject, name.trim())?;
        self.check()?;
        Ok(self)
    }

    fn insert(&mut self, subject: Subject, name: &str) -> Result<(), InvalidSubjects> {
        if !is_nats_subject(name) {
            return Err(InvalidSubjects::NotAName(name.to_owned()));
        }
        self.0.insert(subject, name.to_owned());
        Ok(())
    }

    fn check(&self) -> Result<(), InvalidSubjects> {
        let mut names: Vec<_> = self.0.values().collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair.first() == pair.last()).and_then(|pair| pair.first()) {
            Some(twice) => Err(InvalidSubjects::Twice((*twice).clone())),
            None => Ok(()),
        }
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
            subjects.insert(subject, other.trim())?;
        }
        subjects.check()?;
        Ok(subjects)
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
    fn an_optional_subject_is_there_only_where_it_is_named() {
        let subjects = Subjects::default();
        assert!(!subjects.has(Subject::TicketDeleted) && subjects.find("ticket:deleted").is_none());
        let named = subjects.clone().with(Subject::TicketDeleted, " tickets.deleted ").unwrap();
        assert_eq!(named.find("tickets.deleted"), Some(Subject::TicketDeleted));
        assert_eq!((named.all().count(), subjects.all().count()), (9, 8));
        let wrong = |name: &str| subjects.clone().with(Subject::PaymentStarted, name).unwrap_err();
        assert_eq!(wrong("a b"), InvalidSubjects::NotAName("a b".into()));
        assert_eq!(wrong("order:created"), InvalidSubjects::Twice("order:created".into()));
        assert_eq!(Subject::parse("payment:started"), Some(Subject::PaymentStarted));
        assert_eq!(Subject::parse("payment:ended"), None);
    }

    #[test]
    fn a_name_that_cannot_work_is_refused_with_what_to_write() {
        for (text, wanted) in [
            ("orders.created", "NAME=OTHER"),
            ("order:made=a", "not a subject; the subjects are ticket:created"),
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
