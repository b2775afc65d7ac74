//! Why an order does not take a payment, which has to be given back then.

/// Why a payment is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The order is cancelled, or has expired.
    OrderCancelled,
    /// The time of the order was over when it was paid for.
    TooLate,
    /// Another payment has completed the order.
    AlreadyPaid,
    /// There never was such an order.
    OrderNotFound,
}

impl Refusal {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::OrderCancelled, Self::TooLate, Self::AlreadyPaid, Self::OrderNotFound];

    /// The one that is written as `text`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|refusal| refusal.as_str() == text)
    }

    /// The reason, as events have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OrderCancelled => "order-cancelled",
            Self::TooLate => "too-late",
            Self::AlreadyPaid => "already-paid",
            Self::OrderNotFound => "order-not-found",
        }
    }

    /// The same in words.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::OrderCancelled => "The order is cancelled; refund the payment",
            Self::TooLate => "The order had expired; refund the payment",
            Self::AlreadyPaid => "Another payment has completed the order; refund the payment",
            Self::OrderNotFound => "There is no such order; refund the payment",
        }
    }
}
