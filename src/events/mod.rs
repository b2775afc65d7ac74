//! Events: what the orders service publishes to other services, and consumes from them.
//!
//! The writes of the store put what is to be published in the outbox. The relay of one process at a time publishes what is
//! pending there, and marks it as published once the broker has acknowledged it. So every change is published at least once,
//! each order's changes by version, and the orders of a ticket one after the other, whatever process is killed, and when.
//!
//! The only module that names the crates `async_nats` and `prost`.
//!
//! ```text
//! wire         the JSON of every event
//!
//! args         the settings: servers, stream or cluster, subjects
//! system       which system this is, to the broker
//! broker       what is asked of a broker
//! inbox        what a broker delivers
//! client_error what an error of its client means
//! connection   a connection to NATS, which is not repaired but made again
//! jetstream    JetStream as a broker
//! streaming    NATS Streaming as a broker
//!
//! attempts     the pauses between attempts, and which failures are logged
//! lead         being the one that publishes: the lease
//! plan         what is published one after the other
//! held         what is held back, since the broker does not take it
//! page         what has become of a page of pending orders
//! relay        publishes what is pending, and marks it as published
//! relay_error  why that ends
//! dead_reason  why a message can never be handled
//! handle       what is done with the events of other services
//! consume      consumes them
//!
//! dead_letters what could not be read: the command `events dead-letters`
//! publish      what consumers have lost: the command `events publish`
//! identity     which system this is: the command `events identity`
//! run          connects, leads or waits, for as long as the process runs
//! backlog      how much is pending, for the metrics
//! metrics      the metrics of events
//! ```

mod args;
mod attempts;
mod backlog;
mod broker;
mod client_error;
mod connection;
mod consume;
pub mod dead_letters;
mod dead_reason;
mod handle;
mod held;
pub mod identity;
mod inbox;
mod jetstream;
mod lead;
mod metrics;
mod page;
mod plan;
pub mod publish;
mod relay;
mod relay_error;
mod run;
mod streaming;
mod system;
pub mod wire;

pub use args::{EventsArgs, InvalidSettings, Settings};
pub use dead_reason::DeadReason;
pub use metrics::Metrics;
pub use run::{Events, run};
