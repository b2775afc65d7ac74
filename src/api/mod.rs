//! The orders HTTP API. It answers as the Node.js orders service does, and is no more lenient.
//!
//! ```text
//! etag         entity tags, and 304 for what the client has already
//! response     JSON responses
//! error        every error response
//! hs256        HS256 signatures for session tokens
//! session      authentication: who is signed in
//! budget       the memory that clients can have, all together
//! reading      the memory for lists that are being read
//! inflate      compressed request bodies
//! body         reads and parses request bodies: 413, "Malformed JSON"
//! base_path    the path under which the API is served
//! path         matches paths without regard to case or a trailing slash
//! view         orders and tickets as clients see them
//! metrics      the API's metrics
//! database     connects to the database, and reconnects after an outage
//! state        the state that the handlers share
//! request_span the span of a request, for what goes on after its answer
//! orders       handlers: reserve, show and cancel
//! list         handler: the user's orders, streamed or page by page
//! untaken      counts responses until their clients have taken them
//! pages        that description and page, ready to be sent
//! openapi      the OpenAPI description, and a page that shows it
//! observe      middleware: request id, deadline, access log, metrics
//! router       the routes and their middleware
//! serve        the `serve` subcommand
//! ```

mod base_path;
mod body;
mod budget;
mod database;
mod error;
mod etag;
mod hs256;
mod inflate;
mod list;
mod metrics;
mod observe;
mod openapi;
mod orders;
mod pages;
mod path;
mod reading;
mod request_span;
mod response;
mod router;
mod serve;
mod session;
mod state;
mod untaken;
mod view;

pub use base_path::{BasePath, BasePathError};
pub use openapi::openapi_json;
pub use router::router;
pub use serve::{ServeArgs, ServeError, serve};
