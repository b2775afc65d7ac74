//! The events of other services. Fields that are not known are ignored, as those services do.
//!
//! They are JavaScript with mongoose, so an id is a text of 24 hexadecimal digits, or the object that an ObjectId becomes
//! in extended JSON; it may be named `_id`. A price or a version may be a text.

use serde_json::{Map, Value};
use thiserror::Error;

use super::number;
use crate::{
    events::dead_reason::DeadReason,
    order::{InvalidId, OrderId, Ticket, TicketId, Version},
};

/// Why an event cannot be read. It can never be, so it need not be tried again.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// It is not JSON.
    #[error("it is not JSON: {0}")]
    NotJson(String),
    /// It is JSON, but not an object.
    #[error("it is not a JSON object")]
    NotAnObject,
    /// A field is missing, or has a value that is none.
    #[error("{field}: {problem}")]
    Field {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

impl Malformed {
    /// The same in one word.
    #[must_use]
    pub fn reason(&self) -> DeadReason {
        match self {
            Self::NotJson(_) => DeadReason::NotJson,
            Self::NotAnObject => DeadReason::NotAnObject,
            Self::Field { .. } => DeadReason::MalformedField,
        }
    }
}

/// `ticket:created` or `ticket:updated`: the whole ticket.
#[derive(Clone, Debug, PartialEq)]
pub struct TicketEvent {
    /// The ticket as it is now.
    pub ticket: Ticket,
}

/// `payment:created`: the order is paid for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaymentCreated {
    /// The payment.
    pub id: String,
    /// The order.
    pub order: OrderId,
}

/// `ticket:deleted`: the ticket is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TicketDeleted {
    /// The ticket.
    pub id: TicketId,
    /// The version with which it went, if the event has one.
    pub version: Option<Version>,
}

/// `payment:started`: the payment of an order has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaymentStarted {
    /// The order.
    pub order: OrderId,
}

/// The longest id of a payment; an order keeps those that it has refused.
const MAX_ID: usize = 255;

impl TicketEvent {
    /// Parses one.
    ///
    /// # Errors
    /// When it can never be read.
    pub fn parse(data: &[u8]) -> Result<Self, Malformed> {
        let fields = Fields::parse(data)?;
        let id: TicketId = fields.id("id")?;
        let title = fields.text("title", Ticket::MAX_TITLE)?;
        let price = fields.get("price").ok_or_else(|| field("price", "it is missing"))?;
        let price = number::price(price).ok_or_else(|| field("price", "it is not a finite number"))?;
        let version = fields.version(fields.get("version"))?;
        Ok(Self { ticket: Ticket { id, title, price, version } })
    }
}

impl PaymentCreated {
    /// Parses one.
    ///
    /// # Errors
    /// When it can never be read.
    pub fn parse(data: &[u8]) -> Result<Self, Malformed> {
        let fields = Fields::parse(data)?;
        Ok(Self { id: fields.text("id", MAX_ID)?, order: fields.id("orderId")? })
    }
}

impl TicketDeleted {
    /// Parses one.
    ///
    /// # Errors
    /// When it can never be read.
    pub fn parse(data: &[u8]) -> Result<Self, Malformed> {
        let fields = Fields::parse(data)?;
        let version = match fields.get("version") {
            None => None,
            version => Some(fields.version(version)?),
        };
        Ok(Self { id: fields.id("id")?, version })
    }
}

impl PaymentStarted {
    /// Parses one.
    ///
    /// # Errors
    /// When it can never be read.
    pub fn parse(data: &[u8]) -> Result<Self, Malformed> {
        Ok(Self { order: Fields::parse(data)?.id("orderId")? })
    }
}

struct Fields(Map<String, Value>);

impl Fields {
    fn parse(data: &[u8]) -> Result<Self, Malformed> {
        match serde_json::from_slice(data) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(Malformed::NotAnObject),
            Err(error) => Err(Malformed::NotJson(error.to_string())),
        }
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// The field `name`; `id` may also be there as mongoose names it.
    fn identifier(&self, name: &str) -> Option<&Value> {
        let value = self.get(name).or_else(|| if name == "id" { self.get("_id") } else { None })?;
        Some(value.get("$oid").unwrap_or(value))
    }

    fn id<T: std::str::FromStr<Err = InvalidId>>(&self, name: &'static str) -> Result<T, Malformed> {
        let value = self.identifier(name).ok_or_else(|| field(name, "it is missing"))?;
        let text = value.as_str().ok_or_else(|| field(name, "it is not a string"))?;
        text.parse().map_err(|error: InvalidId| field(name, &error.to_string()))
    }

    fn version(&self, value: Option<&Value>) -> Result<Version, Malformed> {
        number::version(value).ok_or_else(|| field("version", "it is not a non-negative integer"))
    }

    /// A text, or a whole number, which mongoose casts to one.
    fn text(&self, name: &'static str, most: usize) -> Result<String, Malformed> {
        let value = self.identifier(name).ok_or_else(|| field(name, "it is missing"))?;
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) if number.is_i64() || number.is_u64() => number.to_string(),
            _ => return Err(field(name, "it is not a string")),
        };
        if text.is_empty() {
            Err(field(name, "it is empty"))
        } else if text.len() > most {
            Err(field(name, &format!("it is longer than {most} bytes")))
        } else {
            Ok(text)
        }
    }
}

fn field(field: &'static str, problem: &str) -> Malformed {
    Malformed::Field { field, problem: problem.to_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "65f0c1d2a3b4c5d6e7f80912";

    fn ticket(json: &str) -> Result<(String, String, f64, Version), Malformed> {
        let event = TicketEvent::parse(json.replace("ID", ID).as_bytes())?;
        let Ticket { id, title, price, version } = event.ticket;
        Ok((id.to_string(), title, price, version))
    }

    #[test]
    fn a_ticket_is_read_in_every_form_that_mongoose_and_the_course_send() {
        let wanted = Ok((ID.to_owned(), "concert".to_owned(), 20.5, Version(3)));
        for json in [
            r#"{"id":"ID","version":3,"title":"concert","price":20.5,"userId":"u1"}"#,
            r#"{"id":"ID","version":3,"title":"concert","price":20.5,"userId":"u1","orderId":"ID","more":[1]}"#,
            r#"{"_id":"ID","version":"3","title":"concert","price":"20.5"}"#,
            r#"{"id":{"$oid":"ID"},"version":3.0,"title":"concert","price":" 2.05e1 "}"#,
        ] {
            assert_eq!(ticket(json), wanted, "{json}");
        }
        let upper = r#"{"id":"65F0C1D2A3B4C5D6E7F80912","title":5,"price":0}"#;
        assert_eq!(
            ticket(upper),
            Ok((ID.to_owned(), "5".to_owned(), 0.0, Version(0))),
            "its version may be missing"
        );
    }

    #[test]
    fn what_can_never_be_read_says_which_field_is_wrong() {
        for (json, wanted) in [
            ("", "not JSON"),
            ("{", "not JSON"),
            ("\u{0}\u{1}", "not JSON"),
            ("[]", "not a JSON object"),
            ("null", "not a JSON object"),
            (r#"{"title":"t","price":1}"#, "id: it is missing"),
            (r#"{"id":null,"title":"t","price":1}"#, "id: it is missing"),
            (r#"{"id":"abc","title":"t","price":1}"#, "id: \"abc\" is not an id"),
            (r#"{"id":7,"title":"t","price":1}"#, "id: it is not a string"),
            (r#"{"id":"ID","price":1}"#, "title: it is missing"),
            (r#"{"id":"ID","title":"","price":1}"#, "title: it is empty"),
            (r#"{"id":"ID","title":{},"price":1}"#, "title: it is not a string"),
            (r#"{"id":"ID","title":"t"}"#, "price: it is missing"),
            (r#"{"id":"ID","title":"t","price":"cheap"}"#, "price: it is not"),
            (r#"{"id":"ID","title":"t","price":"1e999"}"#, "price: it is not"),
            (r#"{"id":"ID","title":"t","price":[1]}"#, "price: it is not"),
            (r#"{"id":"ID","title":"t","price":1,"version":-1}"#, "version: it is not"),
            (r#"{"id":"ID","title":"t","price":1,"version":1.5}"#, "version: it is not"),
            (r#"{"id":"ID","title":"t","price":1,"version":"new"}"#, "version: it is not"),
        ] {
            let error = ticket(json).unwrap_err().to_string();
            assert!(error.contains(wanted), "{json}: {error}");
        }
    }

    #[test]
    fn a_payment_names_its_order_and_may_have_an_id_of_any_form() {
        let parse = |json: &str| PaymentCreated::parse(json.replace("ID", ID).as_bytes());
        let wanted = |id: &str| PaymentCreated { id: id.to_owned(), order: ID.parse().unwrap() };
        assert_eq!(parse(r#"{"id":"p1","orderId":"ID","stripeId":"ch_1"}"#), Ok(wanted("p1")));
        assert_eq!(parse(r#"{"_id":{"$oid":"ID"},"orderId":{"$oid":"ID"}}"#), Ok(wanted(ID)));
        assert_eq!(parse(r#"{"id":17,"orderId":"ID"}"#), Ok(wanted("17")));
        for json in [r#"{"id":"p1"}"#, r#"{"orderId":"ID"}"#, r#"{"id":"p1","orderId":"17"}"#] {
            assert!(matches!(parse(json), Err(Malformed::Field { .. })), "{json}");
        }
        let long = format!(r#"{{"id":"{}","orderId":"ID"}}"#, "p".repeat(MAX_ID + 1));
        assert!(parse(&long).unwrap_err().to_string().contains("longer"));
    }

    #[test]
    fn a_ticket_that_is_gone_may_have_a_version_and_a_payment_that_begins_has_none() {
        let gone = |json: &str| TicketDeleted::parse(json.replace("ID", ID).as_bytes());
        let wanted =
            |version: Option<u32>| TicketDeleted { id: ID.parse().unwrap(), version: version.map(Version) };
        assert_eq!(gone(r#"{"id":"ID"}"#), Ok(wanted(None)));
        assert_eq!(gone(r#"{"_id":{"$oid":"ID"},"version":null}"#), Ok(wanted(None)));
        assert_eq!(gone(r#"{"id":"ID","version":"3","userId":"u"}"#), Ok(wanted(Some(3))));
        assert!(gone(r#"{"id":"ID","version":-1}"#).is_err() && gone(r#"{"version":1}"#).is_err());
        let started = |json: &str| PaymentStarted::parse(json.replace("ID", ID).as_bytes());
        assert_eq!(started(r#"{"orderId":"ID"}"#), Ok(PaymentStarted { order: ID.parse().unwrap() }));
        assert!(started(r#"{"id":"ID"}"#).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60), json in "[\\[\\]{}:,\"a-z0-9$.]{0,60}") {
            drop(TicketEvent::parse(&bytes));
            drop(TicketDeleted::parse(&bytes));
            drop(PaymentCreated::parse(json.as_bytes()));
            drop(PaymentStarted::parse(json.as_bytes()));
        }
    }
}
