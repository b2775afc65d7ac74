//! The span of a request, for what goes on after its handler has answered.

use tracing::Span;

/// The span with the id of the request. What is the current span in a handler is that of the trace, which log lines do not have.
#[derive(Clone)]
pub(super) struct RequestSpan(pub(super) Span);
