//! What every request gets, whatever its handler does: an id, a deadline, an answer, a line in the
//! log, a place in the metrics.

use std::{
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures::FutureExt;
use tokio::time::timeout;
use tracing::{Instrument, info_span};

use super::{error::ApiError, metrics::Metrics, openapi};
use crate::runtime::traces;

/// How long a request may take, its body included.
const DEADLINE: Duration = Duration::from_secs(10);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Wraps a request.
pub(super) async fn observe(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(&request);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let route = route(request.extensions().get::<MatchedPath>());
    let span = info_span!("request", id = id.to_str().unwrap_or_default());
    let trace =
        traces::request(&method, request.uri(), route, id.to_str().unwrap_or_default(), request.headers());

    async move {
        let mut response = answer(request, next).instrument(trace.clone()).await;
        let (status, took) = (response.status(), started.elapsed());
        traces::answered(&trace, status);
        metrics.request(&method, route, status, took);
        tracing::info!(
            target: "orders_operator::access",
            %method, path, status = status.as_u16(), ms = took.as_millis(), "answered"
        );
        response.headers_mut().insert(REQUEST_ID, id);
        response
    }
    .instrument(span)
    .await
}

/// The answer, in time, whatever happens.
async fn answer(request: Request, next: Next) -> Response {
    match timeout(DEADLINE, AssertUnwindSafe(next.run(request)).catch_unwind()).await {
        Ok(Ok(response)) => response,
        Ok(Err(_panic)) => {
            tracing::error!("a handler panicked; this is a bug");
            ApiError::Internal.into_response()
        }
        Err(_) => {
            tracing::warn!(seconds = DEADLINE.as_secs(), "gave up on a request");
            ApiError::Unavailable.into_response()
        }
    }
}

/// The caller's id for this request if it is fit to be logged, else a new one.
fn request_id(request: &Request) -> HeaderValue {
    let given = request.headers().get(&REQUEST_ID).filter(|id| {
        let bytes = id.as_bytes();
        (1..=128).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
    });
    given.cloned().unwrap_or_else(|| {
        // Hexadecimal digits are always fit for a header.
        HeaderValue::try_from(format!("{:032x}", fastrand::u128(..))).unwrap_or(HeaderValue::from_static("-"))
    })
}

/// The label for a route: of our own making, so that paths cannot make new ones.
fn route(matched: Option<&MatchedPath>) -> &'static str {
    match matched.map(MatchedPath::as_str) {
        Some("/api/orders") => "/api/orders",
        Some("/api/orders/{orderId}") => "/api/orders/{orderId}",
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
    fn a_request_keeps_its_id_unless_it_is_unfit() {
        assert_eq!(id_for(Some(b"abc-1")), "abc-1");
        for unfit in [b"".as_slice(), b"two words", "é".as_bytes(), &[b'x'; 129]] {
            let made = id_for(Some(unfit));
            assert_eq!(made.len(), 32, "{made:?}");
        }
        assert_ne!(id_for(None), id_for(None));
    }
}
