//! Orders and tickets as clients see them: `id` in place of `_id`, times in UTC with milliseconds.

use std::borrow::Cow;

use serde::Serialize;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};

use crate::order::{
    ExpiresAt, Order, OrderId, OrderStatus, Reservation, Ticket, TicketId, UserId, javascript_number,
};

/// An order with its ticket nested, the fields in the order of the Node.js service.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Order)]
pub(super) struct OrderView<'a> {
    /// The user who reserved the ticket, by the id that the auth service gives.
    #[schema(value_type = String)]
    user_id: &'a UserId,
    /// The status of the order.
    #[schema(value_type = StatusView)]
    status: OrderStatus,
    /// The order can be paid for until this time. Orders that were stored by other programs may have null, or no such
    /// field; they do not expire.
    #[schema(value_type = Option<String>, format = DateTime, example = "2026-11-22T17:29:24.464Z", required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Option<String>>,
    /// The ticket; null if its record no longer exists.
    #[schema(required)]
    ticket: Option<TicketView<'a>>,
    /// How many times the order has changed: 0 for a new one.
    version: u32,
    #[schema(value_type = String, pattern = "^[0-9a-f]{24}$", example = "65f0c1d2a3b4c5d6e7f80912")]
    id: OrderId,
}

/// The ticket of an order.
#[derive(Serialize, ToSchema)]
#[schema(as = Ticket)]
pub(super) struct TicketView<'a> {
    #[schema(example = "concert")]
    title: &'a str,
    #[schema(example = 20)]
    #[serde(serialize_with = "javascript_number")]
    price: f64,
    /// The version of the tickets service's record that this copy was made from.
    version: u32,
    #[schema(value_type = String, pattern = "^[0-9a-f]{24}$", example = "65f0c1d2a3b4c5d6e7f80911")]
    id: TicketId,
}

/// The schema of an order's status in the OpenAPI description.
pub(super) struct StatusView;

impl PartialSchema for StatusView {
    fn schema() -> RefOr<Schema> {
        let values = OrderStatus::ALL.map(OrderStatus::as_str);
        ObjectBuilder::new().schema_type(Type::String).enum_values(Some(values)).into()
    }
}

impl ToSchema for StatusView {
    fn name() -> Cow<'static, str> {
        "OrderStatus".into()
    }
}

/// The schema of the direction of a list.
pub(super) struct DirectionView;

impl PartialSchema for DirectionView {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["asc", "desc"])).into()
    }
}

impl ToSchema for DirectionView {
    fn name() -> Cow<'static, str> {
        "Direction".into()
    }
}

impl<'a> From<&'a Reservation> for OrderView<'a> {
    fn from(reservation: &'a Reservation) -> Self {
        Self::new(&reservation.order, reservation.ticket.as_ref())
    }
}

impl<'a> OrderView<'a> {
    /// An order with its ticket.
    pub(super) fn new(order: &'a Order, ticket: Option<&'a Ticket>) -> Self {
        Self {
            user_id: &order.user,
            status: order.status,
            expires_at: (order.expires_at != ExpiresAt::Missing).then(|| order.expires_at.iso()),
            ticket: ticket.map(TicketView::from),
            version: order.version.0,
            id: order.id,
        }
    }
}

impl<'a> From<&'a Ticket> for TicketView<'a> {
    fn from(ticket: &'a Ticket) -> Self {
        Self { title: &ticket.title, price: ticket.price, version: ticket.version.0, id: ticket.id }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::Version;

    #[test]
    fn an_order_is_serialized_as_the_node_service_does() {
        let ticket = Ticket {
            id: TicketId::from_bytes([0xab; 12]),
            title: "concert".into(),
            price: 20.0,
            version: Version(2),
        };
        let order = Order {
            id: OrderId::from_bytes([1; 12]),
            user: UserId::new("u1").unwrap(),
            status: OrderStatus::AwaitingPayment,
            expires_at: ExpiresAt::At(1_795_368_564_464),
            ticket: Some(ticket.id),
            version: Version(1),
        };
        let mut reservation = Reservation { order, ticket: Some(ticket) };
        assert_eq!(
            serde_json::to_string(&OrderView::from(&reservation)).unwrap(),
            concat!(
                r#"{"userId":"u1","status":"awaiting:payment","expiresAt":"2026-11-22T17:29:24.464Z","#,
                r#""ticket":{"title":"concert","price":20,"version":2,"id":"abababababababababababab"},"#,
                r#""version":1,"id":"010101010101010101010101"}"#
            )
        );
        reservation.ticket = None;
        assert!(serde_json::to_string(&OrderView::from(&reservation)).unwrap().contains(r#""ticket":null"#));
        reservation.order.expires_at = ExpiresAt::Null;
        assert!(
            serde_json::to_string(&OrderView::from(&reservation)).unwrap().contains(r#""expiresAt":null"#)
        );
        reservation.order.expires_at = ExpiresAt::Missing;
        assert!(!serde_json::to_string(&OrderView::from(&reservation)).unwrap().contains("expiresAt"));
    }

    #[test]
    fn prices_are_serialized_as_javascript_does() {
        let written = |price| {
            let ticket =
                Ticket { id: TicketId::from_bytes([0; 12]), title: "t".into(), price, version: Version(0) };
            serde_json::to_value(TicketView::from(&ticket)).unwrap()["price"].to_string()
        };
        assert_eq!(written(20.0), "20");
        assert_eq!(written(20.5), "20.5");
        assert_eq!(written(-0.0), "0");
    }
}
