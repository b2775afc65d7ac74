//! What is published of payments that an order does not take, so that the money can be given back.

use serde::Serialize;

use super::message_id;
use crate::order::{OrderId, Refusal};

/// `payment:refused`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentRefused<'a> {
    id: &'a str,
    order_id: OrderId,
    reason: &'static str,
    message: &'static str,
}

impl<'a> PaymentRefused<'a> {
    /// The event for a payment that the order `order_id` refuses.
    #[must_use]
    pub fn new(payment: &'a str, order_id: OrderId, refusal: Refusal) -> Self {
        Self { id: payment, order_id, reason: refusal.as_str(), message: refusal.message() }
    }

    /// The id by which a broker recognizes it if it is published again.
    #[must_use]
    pub fn message_id(&self) -> String {
        message_id::of_refusal(self.order_id, self.id)
    }

    /// The JSON.
    ///
    /// # Errors
    /// Never; the signature is that of the serializer.
    pub fn data(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_exactly_what_a_payments_service_reads() {
        let order = OrderId::from_bytes([1; 12]);
        for (refusal, reason, message) in [
            (Refusal::OrderCancelled, "order-cancelled", "The order is cancelled; refund the payment"),
            (Refusal::TooLate, "too-late", "The order had expired; refund the payment"),
            (
                Refusal::AlreadyPaid,
                "already-paid",
                "Another payment has completed the order; refund the payment",
            ),
            (Refusal::OrderNotFound, "order-not-found", "There is no such order; refund the payment"),
        ] {
            let event = PaymentRefused::new("p\"1", order, refusal);
            let wanted = format!(
                r#"{{"id":"p\"1","orderId":"010101010101010101010101","reason":"{reason}","message":"{message}"}}"#
            );
            assert_eq!(String::from_utf8(event.data().unwrap()).unwrap(), wanted);
            assert!(event.message_id().starts_with("010101010101010101010101:refused:"));
            assert_ne!(event.message_id(), PaymentRefused::new("p2", order, refusal).message_id());
        }
    }
}
