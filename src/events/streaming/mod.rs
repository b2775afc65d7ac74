//! NATS Streaming, the broker of the course: a server that speaks protobuf over the subjects of NATS. Its protocol is
//! frozen, and so is this client of it.
//!
//! A server with the course's memory store forgets everything when it restarts, its clients too; then whoever was connected
//! connects and subscribes again. It removes no duplicates and says no places of what it keeps, so what was published is
//! found by its time.
//!
//! ```text
//! protocol      the messages
//! session       being a client of the server: connecting, publishing, pings both ways
//! subscription  what a channel has, and what comes to it
//! channels      publishing to the channels of our subjects
//! read_back     what these channels have of our events
//! claim         whose a channel is
//! fence         keeps out what a former leader has sent
//! durable       the durable queue subscription, by which this service consumes
//! ```

mod channels;
mod claim;
mod durable;
mod fence;
mod protocol;
mod read_back;
mod session;
mod subscription;

pub(super) use channels::Streaming;
