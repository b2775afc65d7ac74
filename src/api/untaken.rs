//! Counts responses that are not small, until their clients have taken them.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    Error,
    body::{Body, Bytes, HttpBody},
    response::{IntoResponse, Response},
};
use hyper::body::{Frame, SizeHint};

use super::{
    budget::{Account, SMALL},
    state::ApiState,
};
use crate::order::UserId;

/// Counts a response to `user`. Where there is no room for it, it is not sent.
pub(super) fn counted(state: &ApiState, user: &UserId, response: Response) -> Response {
    let size = response.body().size_hint().exact();
    let bytes = size.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(usize::MAX);
    if bytes <= SMALL {
        return response;
    }
    let mut account = state.budget.account_of(user.clone());
    match account.grow_to(bytes) {
        Ok(()) => held(response, account),
        Err(error) => {
            state.metrics.over_budget();
            error.into_response()
        }
    }
}

/// The response, with what is counted for it until its client has taken it.
pub(super) fn held(response: Response, account: Account) -> Response {
    response.map(|body| Body::new(Counted { body, _account: account }))
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
