//! Middleware for every request: a request id, a deadline, a response even if the handler panics, an access log
//! line, metrics and a trace.

use std::{
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures::FutureExt;
use tokio::time::timeout;
use tracing::{Instrument, info_span};

use super::{
    base_path::{BasePath, ORDER},
    error::ApiError,
    metrics::Metrics,
    openapi,
    request_span::RequestSpan,
};
use crate::{runtime::traces, store};

/// How long a request may take, including the time to receive its body.
const DEADLINE: Duration = Duration::from_secs(10);

/// How long its calls of the database may take: a little less, so that the handler answers, which knows what they have failed of.
const OF_DATABASE: Duration = Duration::from_millis(9_500);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Handles a request within its span and trace, and records the result.
pub(super) async fn observe(
    State(metrics): State<Metrics>,
    State(base): State<BasePath>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let id = request_id(&request);
    let (method, path) = (request.method().clone(), traces::beginning(request.uri().path()).to_owned());
    let route = route(&base, request.extensions().get::<MatchedPath>());
    let span = info_span!("request", id = id.to_str().unwrap_or_default());
    request.extensions_mut().insert(RequestSpan(span.clone()));
    let trace =
        traces::request(&method, request.uri(), route, id.to_str().unwrap_or_default(), request.headers());

    async move {
        let mut record = Record { metrics, method, path, route, started, answered: false };
        let mut response = respond(request, next).instrument(trace.clone()).await;
        traces::answered(&trace, response.status());
        record.answered(response.status());
        response.headers_mut().insert(REQUEST_ID, id);
        response
    }
    .instrument(span)
    .await
}

/// What is recorded of a request, whether it is answered or not.
struct Record {
    metrics: Metrics,
    method: Method,
    /// Its beginning: a stranger may send one of 32 kB.
    path: String,
    route: &'static str,
    started: Instant,
    answered: bool,
}

impl Record {
    fn answered(&mut self, status: StatusCode) {
        self.answered = true;
        let took = self.started.elapsed();
        self.metrics.request(&self.method, self.route, status, took);
        tracing::info!(
            target: "orders_operator::access",
            method = %self.method, path = self.path, status = status.as_u16(), ms = took.as_millis(), "answered"
        );
    }
}

impl Drop for Record {
    /// A request whose client disconnects is dropped wherever it waits, and what it has begun may be done.
    fn drop(&mut self) {
        if !self.answered {
            self.metrics.abandoned(&self.method, self.route);
            tracing::info!(
                target: "orders_operator::access",
                method = %self.method, path = self.path, ms = self.started.elapsed().as_millis(),
                "the client gave up before it was answered; what it asked for may have been done"
            );
        }
    }
}

/// The handler's response, or an error response if it panics or misses the deadline.
async fn respond(request: Request, next: Next) -> Response {
    let handled = store::ending_by(Instant::now() + OF_DATABASE, next.run(request));
    match timeout(DEADLINE, AssertUnwindSafe(handled).catch_unwind()).await {
        Ok(Ok(response)) => response,
        Ok(Err(_panic)) => {
            tracing::error!("a handler panicked: this is a bug");
            ApiError::Internal.into_response()
        }
        Err(_) => {
            tracing::warn!(seconds = DEADLINE.as_secs(), "a request exceeded its deadline");
            ApiError::Unavailable.into_response()
        }
    }
}

/// The client's request id if it is safe to log, otherwise a new one.
fn request_id(request: &Request) -> HeaderValue {
    let given = request.headers().get(&REQUEST_ID).filter(|id| {
        let bytes = id.as_bytes();
        (1..=128).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
    });
    given.cloned().unwrap_or_else(|| {
        // Hexadecimal digits are always a valid header value.
        HeaderValue::try_from(format!("{:032x}", fastrand::u128(..))).unwrap_or(HeaderValue::from_static("-"))
    })
}

/// The label of a route, from a fixed set, so that arbitrary paths cannot create new time series, and the same whatever
/// the base path is.
fn route(base: &BasePath, matched: Option<&MatchedPath>) -> &'static str {
    match matched.and_then(|matched| base.below(matched.as_str())) {
        Some("") => "/api/orders",
        Some(ORDER) => "/api/orders/{orderId}",
        Some(openapi::JSON_PATH | openapi::PAGE_PATH | openapi::FILE_PATH) => "docs",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn id_for(given: Option<&[u8]>) -> HeaderValue {
        let mut request = Request::new(Body::empty());
        if let Some(given) = given {
            request.headers_mut().insert(REQUEST_ID, HeaderValue::from_bytes(given).unwrap());
        }
        request_id(&request)
    }

    #[test]
    fn the_clients_request_id_is_kept_if_it_is_safe_to_log() {
        assert_eq!(id_for(Some(b"abc-1")), "abc-1");
        for unsafe_id in [b"".as_slice(), b"two words", "é".as_bytes(), &[b'x'; 129]] {
            let made = id_for(Some(unsafe_id));
            assert_eq!(made.len(), 32, "{made:?}");
        }
        assert_ne!(id_for(None), id_for(None));
    }
}
