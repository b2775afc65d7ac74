//! JSON responses.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::etag;

/// The media type of every response with a JSON body.
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// A response with `body` as JSON.
pub(super) fn json<T: Serialize>(status: StatusCode, body: &T) -> serde_json::Result<Response> {
    Ok(of_json(status, serde_json::to_vec(body)?))
}

/// A response with this JSON as its body.
pub(super) fn of_json(status: StatusCode, bytes: Vec<u8>) -> Response {
    let tag = etag::of(&bytes);
    let mut response = (status, [(header::CONTENT_TYPE, JSON)], bytes).into_response();
    if let Some(tag) = tag {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}
