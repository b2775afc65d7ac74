//! Counts responses that are not small, until their clients have taken them.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    Error,
    body::{Body, Bytes, HttpBody},
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use hyper::body::{Frame, SizeHint};

use super::{
    budget::{Account, SMALL},
    state::ApiState,
};

/// What a response counts that is produced as the client takes it.
const STREAMED: usize = 256 * 1024;

/// Middleware: counts the response until the client has taken it.
pub(super) async fn count(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let bytes = match response.body().size_hint().exact() {
        Some(bytes) => usize::try_from(bytes).unwrap_or(usize::MAX),
        None => STREAMED,
    };
    if bytes <= SMALL {
        return response;
    }
    let mut account = state.budget.account();
    // Nobody else gets an answer of this size here.
    match account.count(bytes, || true) {
        Ok(()) => response.map(|body| Body::new(Counted { body, _account: account })),
        Err(error) => {
            state.metrics.over_budget();
            error.into_response()
        }
    }
}

/// A body that is counted until it is dropped.
struct Counted {
    body: Body,
    _account: Account,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
