//! The wire: one JSON object per event, with exactly the names and fields that the neighbours use. Pure.
//!
//! ```text
//! subject     the subjects, and those by other names
//! outgoing    what is published of orders
//! refused     what is published of payments
//! message_id  by what an event is recognized if it is published again
//! incoming    the events of other services
//! number      numbers as they come from JavaScript
//! ```

mod incoming;
mod message_id;
mod number;
mod outgoing;
mod refused;
mod subject;

pub use incoming::{Malformed, PaymentCreated, PaymentStarted, TicketDeleted, TicketEvent};
pub use message_id::message_id;
pub use outgoing::OrderEvent;
pub use refused::PaymentRefused;
pub use subject::{InvalidSubjects, Subject, Subjects};
