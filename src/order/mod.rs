//! The domain, pure: statuses and their transitions, orders, tickets, identifiers.
//!
//! Every value of these types is valid: an identifier is 12 bytes, a status is one of four, a final status has no
//! transition, a window is within its bounds. Nothing here reads a clock, a database or a request.
//!
//! ```text
//! status       where an order stands, and its transitions
//! reservation  how long a reservation lasts
//! expires_at   until when an order can be paid for
//! id           identifiers of orders, tickets and users
//! idempotency  the idempotency key of a reservation
//! timestamp    timestamps in whole milliseconds
//! refusal      why an order does not take a payment
//! cast         values of other types than a schema says, as mongoose takes them
//! javascript   numbers as JavaScript writes them
//! ```

mod cast;
mod expires_at;
mod id;
mod idempotency;
mod javascript;
mod refusal;
mod reservation;
mod status;
mod timestamp;

pub use cast::{Foreign, MAX_SAFE_INTEGER, whole};
pub use expires_at::ExpiresAt;
pub use id::{InvalidId, OrderId, TicketId, UserId};
pub use idempotency::{IdempotencyKey, InvalidKey};
pub use javascript::javascript_number;
pub use refusal::Refusal;
pub use reservation::{InvalidWindow, ReservationTerms, ReservationWindow};
pub use status::{OrderStatus, Transition, TransitionError, UnknownStatus};
pub use timestamp::to_millis;

use std::fmt;

use jiff::Timestamp;

/// How many times a record has changed: a new order has version 0, and each transition adds exactly 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u32);

impl Version {
    /// The version after another change.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A reservation of one ticket by one user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Its identifier.
    pub id: OrderId,
    /// Who reserved.
    pub user: UserId,
    /// Its status.
    pub status: OrderStatus,
    /// Until when it can be paid for.
    pub expires_at: ExpiresAt,
    /// The ticket that it holds while it is active; `None` in malformed records without one.
    pub ticket: Option<TicketId>,
    /// How many times it has changed.
    pub version: Version,
}

impl Order {
    /// A new reservation, made at `now`.
    #[must_use]
    pub fn reserve(
        id: OrderId,
        user: UserId,
        ticket: TicketId,
        now: Timestamp,
        window: ReservationWindow,
    ) -> Self {
        Self {
            id,
            user,
            status: OrderStatus::Created,
            expires_at: window.end(now).into(),
            ticket: Some(ticket),
            version: Version(0),
        }
    }

    /// The order after `transition`, one version higher.
    ///
    /// # Errors
    /// When the order's status does not allow it.
    pub fn after(self, transition: Transition) -> Result<Self, TransitionError> {
        let status = transition.apply(self.status)?;
        Ok(Self { status, version: self.version.next(), ..self })
    }

    /// Whether it is open but has expired at `now`. An order whose payment has begun also has the grace period of
    /// `terms`; one without a time never expires.
    #[must_use]
    pub fn is_overdue(&self, now: Timestamp, terms: &ReservationTerms) -> bool {
        let Some(expires_at) = self.expires_at.time() else { return false };
        let end = match self.status {
            OrderStatus::Created => expires_at,
            OrderStatus::AwaitingPayment => terms.end_of_grace(expires_at),
            OrderStatus::Complete | OrderStatus::Cancelled => return false,
        };
        end <= now
    }
}

/// The local copy of a ticket of the tickets service.
#[derive(Clone, Debug, PartialEq)]
pub struct Ticket {
    /// Its identifier in the tickets service.
    pub id: TicketId,
    /// What is sold, such as a concert.
    pub title: String,
    /// Its price, in the system's only currency.
    pub price: f64,
    /// The version of the ticket that this is a copy of.
    pub version: Version,
}

impl Ticket {
    /// The longest title that is taken from another service, in bytes.
    pub const MAX_TITLE: usize = 10_000;
}

/// An order and its ticket; `None` when the ticket is not stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Reservation {
    /// The order.
    pub order: Order,
    /// Its ticket.
    pub ticket: Option<Ticket>,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn order(status: OrderStatus, expires_at: Timestamp) -> Order {
        Order {
            id: OrderId::from_bytes([1; 12]),
            user: UserId::new("u1").unwrap(),
            status,
            expires_at: expires_at.into(),
            ticket: Some(TicketId::from_bytes([2; 12])),
            version: Version(3),
        }
    }

    #[test]
    fn a_new_order_has_version_0_and_expires_with_its_window() {
        let now: Timestamp = "2026-11-22T17:14:24.4649Z".parse().unwrap();
        let (id, ticket) = (OrderId::from_bytes([7; 12]), TicketId::from_bytes([9; 12]));
        let order = Order::reserve(id, UserId::new("u1").unwrap(), ticket, now, ReservationWindow::default());
        assert_eq!(order.version, Version(0));
        assert_eq!(order.status, OrderStatus::Created);
        assert_eq!(order.expires_at.iso().as_deref(), Some("2026-11-22T17:29:24.464Z"));
    }

    #[test]
    fn each_transition_adds_exactly_one_version_and_a_final_order_has_none() {
        let paid =
            order(OrderStatus::Created, Timestamp::UNIX_EPOCH).after(Transition::BeginPayment).unwrap();
        assert_eq!((paid.status, paid.version), (OrderStatus::AwaitingPayment, Version(4)));
        let complete = paid.after(Transition::Complete).unwrap();
        assert_eq!((complete.status, complete.version), (OrderStatus::Complete, Version(5)));
        assert!(complete.after(Transition::Cancel).is_err());
    }

    #[test]
    fn only_an_open_order_is_overdue_and_one_being_paid_for_has_a_grace_period() {
        let now: Timestamp = "2026-11-22T17:14:24Z".parse().unwrap();
        let grace =
            ReservationTerms { payment_grace: Duration::from_secs(60), ..ReservationTerms::default() };
        assert!(order(OrderStatus::Created, now).is_overdue(now, &grace));
        assert!(!order(OrderStatus::Created, now + Duration::from_millis(1)).is_overdue(now, &grace));
        assert!(!order(OrderStatus::AwaitingPayment, now).is_overdue(now, &grace));
        assert!(order(OrderStatus::AwaitingPayment, now - Duration::from_secs(60)).is_overdue(now, &grace));
        assert!(!order(OrderStatus::Complete, Timestamp::UNIX_EPOCH).is_overdue(now, &grace));
        assert!(!order(OrderStatus::Cancelled, Timestamp::UNIX_EPOCH).is_overdue(now, &grace));
        for never in [ExpiresAt::Null, ExpiresAt::Missing] {
            let order = Order { expires_at: never, ..order(OrderStatus::Created, now) };
            assert!(!order.is_overdue(Timestamp::MAX, &grace));
        }
    }
}
