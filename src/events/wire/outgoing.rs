//! What is published of orders, as consumers read it.

use serde::Serialize;

use super::{message_id, subject::Subject};
use crate::{
    order::{OrderId, OrderStatus, TicketId, UserId, javascript_number},
    store::{Change, ChangeKind, PendingOrder},
};

/// One event about an order.
#[derive(Debug)]
pub struct OrderEvent<'a> {
    order: &'a PendingOrder,
    change: Change,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Created<'a> {
    id: OrderId,
    version: u32,
    status: OrderStatus,
    user_id: &'a UserId,
    expires_at: Option<String>,
    ticket: PricedTicket,
}

#[derive(Serialize)]
struct PricedTicket {
    id: TicketId,
    #[serde(serialize_with = "javascript_number")]
    price: f64,
}

#[derive(Serialize)]
struct TicketRef {
    id: TicketId,
}

#[derive(Serialize)]
struct Updated {
    id: OrderId,
    version: u32,
    status: OrderStatus,
    ticket: TicketRef,
}

#[derive(Serialize)]
struct Cancelled {
    id: OrderId,
    version: u32,
    ticket: TicketRef,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Completed<'a> {
    id: OrderId,
    version: u32,
    user_id: &'a UserId,
    ticket: TicketRef,
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_id: Option<&'a str>,
}

impl<'a> OrderEvent<'a> {
    /// The event for `change` of `order`.
    #[must_use]
    pub fn new(order: &'a PendingOrder, change: Change) -> Self {
        Self { order, change }
    }

    /// Its subject.
    #[must_use]
    pub fn subject(&self) -> Subject {
        match self.change.kind {
            ChangeKind::Created { .. } => Subject::OrderCreated,
            ChangeKind::Updated => Subject::OrderUpdated,
            ChangeKind::Cancelled => Subject::OrderCancelled,
            ChangeKind::Completed => Subject::OrderCompleted,
        }
    }

    /// The id by which a broker recognizes it if it is published again.
    #[must_use]
    pub fn message_id(&self) -> String {
        message_id::of_change(self.order.order.id, self.change.version)
    }

    /// The JSON.
    ///
    /// # Errors
    /// Never; the signature is that of the serializer.
    pub fn data(&self) -> serde_json::Result<Vec<u8>> {
        let (order, version) = (&self.order.order, self.change.version.0);
        let ticket = TicketRef { id: self.order.ticket };
        match self.change.kind {
            ChangeKind::Created { price } => serde_json::to_vec(&Created {
                id: order.id,
                version,
                status: OrderStatus::Created,
                user_id: &order.user,
                expires_at: order.expires_at.iso(),
                ticket: PricedTicket { id: ticket.id, price },
            }),
            ChangeKind::Updated => serde_json::to_vec(&Updated {
                id: order.id,
                version,
                status: OrderStatus::AwaitingPayment,
                ticket,
            }),
            ChangeKind::Cancelled => serde_json::to_vec(&Cancelled { id: order.id, version, ticket }),
            ChangeKind::Completed => serde_json::to_vec(&Completed {
                id: order.id,
                version,
                user_id: &order.user,
                ticket,
                payment_id: self.order.payment.as_deref(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::{ExpiresAt, Order, Version};

    fn event(version: u32, kind: ChangeKind, status: OrderStatus) -> (Subject, String, String) {
        let ticket = TicketId::from_bytes([0xab; 12]);
        let order = Order {
            id: OrderId::from_bytes([1; 12]),
            user: UserId::new("u1").unwrap(),
            status,
            expires_at: ExpiresAt::At(1_795_368_564_464),
            ticket: Some(ticket),
            version: Version(version),
        };
        let pending = PendingOrder {
            order,
            ticket,
            payment: Some("p1".into()),
            changes: Vec::new(),
            refused: Vec::new(),
            since: None,
            again: None,
        };
        let event = OrderEvent::new(&pending, Change { version: Version(version), kind });
        (event.subject(), event.message_id(), String::from_utf8(event.data().unwrap()).unwrap())
    }

    #[test]
    fn events_are_exactly_what_the_neighbours_read() {
        for (version, kind, status, subject, data) in [
            (
                0,
                ChangeKind::Created { price: 20.0 },
                // What is published of its creation is what it was then.
                OrderStatus::Cancelled,
                Subject::OrderCreated,
                concat!(
                    r#"{"id":"010101010101010101010101","version":0,"status":"created","userId":"u1","#,
                    r#""expiresAt":"2026-11-22T17:29:24.464Z","#,
                    r#""ticket":{"id":"abababababababababababab","price":20}}"#
                ),
            ),
            (
                1,
                ChangeKind::Updated,
                OrderStatus::Complete,
                Subject::OrderUpdated,
                concat!(
                    r#"{"id":"010101010101010101010101","version":1,"status":"awaiting:payment","#,
                    r#""ticket":{"id":"abababababababababababab"}}"#
                ),
            ),
            (
                1,
                ChangeKind::Cancelled,
                OrderStatus::Cancelled,
                Subject::OrderCancelled,
                concat!(
                    r#"{"id":"010101010101010101010101","version":1,"#,
                    r#""ticket":{"id":"abababababababababababab"}}"#
                ),
            ),
            (
                2,
                ChangeKind::Completed,
                OrderStatus::Complete,
                Subject::OrderCompleted,
                concat!(
                    r#"{"id":"010101010101010101010101","version":2,"userId":"u1","#,
                    r#""ticket":{"id":"abababababababababababab"},"paymentId":"p1"}"#
                ),
            ),
        ] {
            let wanted = (subject, format!("010101010101010101010101:{version}"), data.to_owned());
            assert_eq!(event(version, kind, status), wanted);
        }
        assert!(
            event(0, ChangeKind::Created { price: 20.5 }, OrderStatus::Created)
                .2
                .contains(r#""price":20.5}"#)
        );
    }
}
