//! The ids by which events are recognized if they are published again. A broker may keep an id with its message; where it does
//! not, the id follows from what the event says.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::subject::Subject;
use crate::{
    order::{OrderId, Version},
    runtime::hex,
};

/// The id of an event about a change of an order.
pub(super) fn of_change(order: OrderId, version: Version) -> String {
    format!("{order}:{version}")
}

/// The id of an event about a payment that an order refuses. A payment's own id may have characters that no header may
/// have.
pub(super) fn of_refusal(order: OrderId, payment: &str) -> String {
    let digest = hex(Sha256::digest(payment).iter().take(12));
    format!("{order}:refused:{digest}")
}

/// The id of an event that was published, by us or by whatever service published orders before; none if it is no such event.
#[must_use]
pub fn message_id(subject: Subject, data: &[u8]) -> Option<String> {
    let event: Value = serde_json::from_slice(data).ok()?;
    let text = |field: &str| event.get(field).and_then(Value::as_str);
    match subject {
        Subject::OrderCreated | Subject::OrderUpdated | Subject::OrderCancelled | Subject::OrderCompleted => {
            let version = event.get("version").and_then(Value::as_u64)?;
            Some(of_change(text("id")?.parse().ok()?, Version(u32::try_from(version).ok()?)))
        }
        Subject::PaymentRefused => Some(of_refusal(text("orderId")?.parse().ok()?, text("id")?)),
        Subject::TicketCreated
        | Subject::TicketUpdated
        | Subject::TicketDeleted
        | Subject::PaymentStarted
        | Subject::PaymentCreated => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{events::wire::PaymentRefused, order::Refusal};

    const ID: &str = "65f0c1d2a3b4c5d6e7f80912";

    #[test]
    fn an_event_about_an_order_is_known_by_order_and_version() {
        for json in [
            r#"{"id":"ID","version":3,"status":"created","userId":"u1","ticket":{"id":"ID","price":20}}"#,
            // As the Node.js service of the course writes it.
            r#"{"id":"ID","version":3,"ticket":{"id":"ID"}}"#,
        ] {
            let data = json.replace("ID", ID);
            assert_eq!(message_id(Subject::OrderCancelled, data.as_bytes()), Some(format!("{ID}:3")));
        }
    }

    #[test]
    fn a_refusal_is_known_by_order_and_payment() {
        let event = PaymentRefused::new("p\"1", ID.parse().unwrap(), Refusal::TooLate);
        assert_eq!(message_id(Subject::PaymentRefused, &event.data().unwrap()), Some(event.message_id()));
    }

    #[test]
    fn what_is_no_event_of_ours_has_no_id() {
        for json in [
            "",
            "[]",
            r#"{"id":"ID"}"#,
            r#"{"id":"ID","version":-1}"#,
            r#"{"id":"ID","version":99999999999}"#,
            r#"{"id":"7","version":1}"#,
        ] {
            assert_eq!(message_id(Subject::OrderCreated, json.replace("ID", ID).as_bytes()), None, "{json}");
        }
        assert_eq!(
            message_id(Subject::TicketCreated, br#"{"id":"65f0c1d2a3b4c5d6e7f80912","version":0}"#),
            None
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            drop(message_id(Subject::OrderCreated, &bytes));
            drop(message_id(Subject::PaymentRefused, &bytes));
        }
    }
}
