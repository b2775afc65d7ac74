//! Why a message can never be handled, in one word: of its dead letter, and of the metric.

/// Why a message can never be handled. `docs/events.md` explains each, which a test checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadReason {
    /// It is not JSON.
    NotJson,
    /// It is JSON, but not an object.
    NotAnObject,
    /// A field is missing, or has a value that is none.
    MalformedField,
    /// The order of a payment never was; the payment was refused.
    OrderNotFound,
    /// So many payments were refused for an order that no more are put in its outbox; this one was refused too.
    TooManyPayments,
    /// The order of a payment that has begun never was.
    UnknownOrder,
    /// The database has rejected again and again what follows from it.
    RefusedByDatabase,
}

impl DeadReason {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::NotJson,
        Self::NotAnObject,
        Self::MalformedField,
        Self::OrderNotFound,
        Self::TooManyPayments,
        Self::UnknownOrder,
        Self::RefusedByDatabase,
    ];

    /// As it is kept and counted.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotJson => "not-json",
            Self::NotAnObject => "not-an-object",
            Self::MalformedField => "malformed-field",
            Self::OrderNotFound => "order-not-found",
            Self::TooManyPayments => "too-many-payments",
            Self::UnknownOrder => "unknown-order",
            Self::RefusedByDatabase => "refused-by-database",
        }
    }

    /// Whether it is a payment that was answered: what else happens to it must not contradict the answer.
    #[must_use]
    pub const fn is_payment_refused(self) -> bool {
        matches!(self, Self::OrderNotFound | Self::TooManyPayments)
    }

    /// The reason of a letter that is kept.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }
}
