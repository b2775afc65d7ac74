//! The status of an order, and its three transitions.
//!
//! ```text
//! created          -> awaiting:payment, complete, cancelled
//! awaiting:payment -> complete, cancelled
//! ```
//! `complete` and `cancelled` are final. Only [`Transition`] defines from which statuses each transition may start;
//! the conditional writes of the store are derived from it.

use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};
use thiserror::Error;

/// The status of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OrderStatus {
    /// Reserved, not paid for.
    Created,
    /// Its payment has begun.
    AwaitingPayment,
    /// Paid for. Final.
    Complete,
    /// Cancelled by the user, or expired. Final.
    Cancelled,
}

impl OrderStatus {
    /// Every status.
    pub const ALL: [Self; 4] = [Self::Created, Self::AwaitingPayment, Self::Complete, Self::Cancelled];
    /// The statuses of orders that are not paid for yet and can expire.
    pub const OPEN: [Self; 2] = [Self::Created, Self::AwaitingPayment];
    /// The statuses of orders that hold their ticket.
    pub const ACTIVE: [Self; 3] = [Self::Created, Self::AwaitingPayment, Self::Complete];

    /// The status as clients, events and the database write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::AwaitingPayment => "awaiting:payment",
            Self::Complete => "complete",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether the order is not paid for yet and can expire.
    #[must_use]
    pub fn is_open(self) -> bool {
        Self::OPEN.contains(&self)
    }

    /// Whether the order holds its ticket.
    #[must_use]
    pub fn is_active(self) -> bool {
        Self::ACTIVE.contains(&self)
    }

    /// Whether there is no transition from it.
    #[must_use]
    pub fn is_final(self) -> bool {
        !self.is_open()
    }
}

impl fmt::Display for OrderStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for OrderStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A string that is not a status.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is not a status; the statuses are created, awaiting:payment, complete and cancelled")]
pub struct UnknownStatus(pub String);

impl FromStr for OrderStatus {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| UnknownStatus(text.to_owned()))
    }
}

/// A change of an order's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transition {
    /// The user begins to pay.
    BeginPayment,
    /// The payment has arrived.
    Complete,
    /// The user cancels, or the order expires.
    Cancel,
}

/// A transition that the order's status does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("an order that is {from} cannot become {to}")]
pub struct TransitionError {
    /// The order's status.
    pub from: OrderStatus,
    /// The status that it should have become.
    pub to: OrderStatus,
}

impl Transition {
    /// The statuses it may start from.
    #[must_use]
    pub const fn from(self) -> &'static [OrderStatus] {
        match self {
            Self::BeginPayment => &[OrderStatus::Created],
            Self::Complete | Self::Cancel => &OrderStatus::OPEN,
        }
    }

    /// The status it ends in.
    #[must_use]
    pub const fn to(self) -> OrderStatus {
        match self {
            Self::BeginPayment => OrderStatus::AwaitingPayment,
            Self::Complete => OrderStatus::Complete,
            Self::Cancel => OrderStatus::Cancelled,
        }
    }

    /// The status after this transition from `status`.
    ///
    /// # Errors
    /// When the transition may not start from `status`.
    pub fn apply(self, status: OrderStatus) -> Result<OrderStatus, TransitionError> {
        if self.from().contains(&status) {
            Ok(self.to())
        } else {
            Err(TransitionError { from: status, to: self.to() })
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::select};

    use super::*;

    const TRANSITIONS: [Transition; 3] = [Transition::BeginPayment, Transition::Complete, Transition::Cancel];

    #[test]
    fn the_allowed_transitions_are_exactly_these() {
        let mut allowed = Vec::new();
        for status in OrderStatus::ALL {
            for transition in TRANSITIONS {
                if let Ok(next) = transition.apply(status) {
                    allowed.push(format!("{status} -> {next}"));
                }
            }
        }
        assert_eq!(
            allowed,
            [
                "created -> awaiting:payment",
                "created -> complete",
                "created -> cancelled",
                "awaiting:payment -> complete",
                "awaiting:payment -> cancelled",
            ]
        );
    }

    #[test]
    fn created_and_awaiting_payment_are_open_and_all_but_cancelled_are_active() {
        let each = |is: fn(OrderStatus) -> bool| OrderStatus::ALL.map(is);
        assert_eq!(each(OrderStatus::is_open), [true, true, false, false]);
        assert_eq!(each(OrderStatus::is_active), [true, true, true, false]);
        assert_eq!(each(OrderStatus::is_final), [false, false, true, true]);
    }

    #[test]
    fn every_status_is_written_as_the_other_services_write_it() {
        let written = OrderStatus::ALL.map(OrderStatus::as_str);
        assert_eq!(written, ["created", "awaiting:payment", "complete", "cancelled"]);
        for status in OrderStatus::ALL {
            assert_eq!(status.as_str().parse(), Ok(status));
        }
        assert!("Created".parse::<OrderStatus>().is_err());
    }

    proptest! {
        #[test]
        fn no_sequence_of_transitions_leaves_a_final_status_or_has_more_than_two(
            transitions in prop::collection::vec(select(TRANSITIONS.as_slice()), 0..20),
        ) {
            let mut status = OrderStatus::Created;
            let mut count = 0;
            for transition in transitions {
                match transition.apply(status) {
                    Ok(next) => {
                        prop_assert!(!status.is_final());
                        prop_assert_ne!(next, status);
                        status = next;
                        count += 1;
                    }
                    Err(error) => prop_assert_eq!(error.from, status),
                }
            }
            prop_assert!(count <= 2);
            prop_assert_eq!(status.is_open(), !status.is_final());
        }
    }
}
