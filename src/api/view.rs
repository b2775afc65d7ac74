//! Orders and tickets as clients see them: `id` and never `_id`, times in UTC with milliseconds.

use std::borrow::Cow;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Serialize, Serializer};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};

use super::error::ApiError;
use crate::order::{OrderId, OrderStatus, Reservation, Ticket, TicketId, UserId, iso_millis};

/// The media type of every answer.
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// An order with its ticket nested, the fields in the order that they always had.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Order)]
pub(super) struct OrderView<'a> {
    /// Who reserved; the auth service's id.
    #[schema(value_type = String)]
    user_id: &'a UserId,
    /// Where the order stands.
    #[schema(value_type = StatusView)]
    status: OrderStatus,
    /// The order may be paid for before this moment.
    #[schema(format = DateTime, example = "2026-11-22T17:29:24.464Z")]
    expires_at: String,
    /// The ticket; null when its record is gone.
    #[schema(required)]
    ticket: Option<TicketView<'a>>,
    /// How often the order has changed: 0 when it is new.
    version: u32,
    #[schema(value_type = String, pattern = "^[0-9a-f]{24}$", example = "65f0c1d2a3b4c5d6e7f80912")]
    id: OrderId,
}

/// What an order is for.
#[derive(Serialize, ToSchema)]
#[schema(as = Ticket)]
pub(super) struct TicketView<'a> {
    #[schema(example = "concert")]
    title: &'a str,
    #[schema(example = 20)]
    #[serde(serialize_with = "javascript_number")]
    price: f64,
    /// The version of the tickets service's record that this is a copy of.
    version: u32,
    #[schema(value_type = String, pattern = "^[0-9a-f]{24}$", example = "65f0c1d2a3b4c5d6e7f80911")]
    id: TicketId,
}

/// The statuses as the description of the API names them.
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

impl<'a> From<&'a Reservation> for OrderView<'a> {
    fn from(reservation: &'a Reservation) -> Self {
        let order = &reservation.order;
        Self {
            user_id: &order.user,
            status: order.status,
            expires_at: iso_millis(order.expires_at),
            ticket: reservation.ticket.as_ref().map(TicketView::from),
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

/// Whole numbers without a fraction, as JavaScript writes them: `20`, not `20.0`.
#[allow(clippy::cast_possible_truncation, reason = "the range is checked first")]
fn javascript_number<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    const MAX_SAFE: f64 = 9_007_199_254_740_991.0;
    if number.fract() == 0.0 && number.abs() <= MAX_SAFE {
        serializer.serialize_i64(*number as i64)
    } else {
        serializer.serialize_f64(*number)
    }
}

/// A JSON response.
pub(super) fn json<T: Serialize>(status: StatusCode, body: &T) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => (status, [(header::CONTENT_TYPE, JSON)], bytes).into_response(),
        Err(error) => {
            tracing::error!(%error, "cannot write a response as JSON");
            // The error's own body is plain texts, which can always be written.
            ApiError::Internal.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::{Order, Version};

    #[test]
    fn the_fields_and_their_forms_are_the_contracts() {
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
            expires_at: "2026-11-22T17:29:24.464Z".parse().unwrap(),
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
    }

    #[test]
    fn prices_are_written_as_javascript_does() {
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
