//! An HTTP server whose clients can take no more than is theirs: connections, requests, memory and time have bounds, and
//! what a client does not take makes room for others.
//!
//! ```text
//! listen         opens the ports, for IPv6 and IPv4
//! accept         accepts HTTP/1.1 and h2c connections, with timeouts, and closes them gracefully
//! connections    the open connections: how many there may be, and which of them make room
//! bodies         the bodies of requests and responses, which show whom a connection waits for
//! header_blocks  bounds what an HTTP/2 client may send of a head before it ends it
//! streams        ends HTTP/2 streams whose client does not take the response
//! limits         how many connections there may be, from what the process may use
//! ```

mod accept;
mod bodies;
mod connections;
mod header_blocks;
mod limits;
mod listen;
mod streams;

pub use accept::{GracefulStop, serve};
pub use connections::ServerMetrics;
pub use limits::Limits;
pub use listen::{ListenArgs, listen};
