//! JetStream, which is part of a NATS server.
//!
//! ```text
//! streams    the streams of our subjects, and publishing to them
//! publisher  sends a message, and distinguishes what was not kept from what may have been
//! fence      marks, by which it refuses what a former leader has sent
//! read_back  what a stream has of our events
//! pull       the durable consumer of a stream, by which this service consumes
//! ```

mod fence;
mod publisher;
mod pull;
mod read_back;
mod streams;

pub(super) use pull::Joined;
pub(super) use streams::JetStream;
