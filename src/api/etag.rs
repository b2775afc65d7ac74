//! Entity tags and `304 Not Modified`, as Express sends them.
//!
//! A tag is that of Express to the letter, so what a client has kept from the Node.js service stays valid.

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};
use ring::digest;

/// The weak tag of a body: its length and its hash, for which SHA-1 is good enough.
pub(super) fn of(body: &[u8]) -> Option<HeaderValue> {
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, body);
    HeaderValue::try_from(format!("W/\"{:x}-{}\"", body.len(), BASE64_STANDARD_NO_PAD.encode(hash))).ok()
}

/// Middleware: a client that has the body already gets `304 Not Modified` without it.
pub(super) async fn not_modified(request: Request, next: Next) -> Response {
    let is_conditional = matches!(*request.method(), Method::GET | Method::HEAD)
        && request.headers().contains_key(header::IF_NONE_MATCH);
    if !is_conditional {
        return next.run(request).await;
    }
    // Not all of them: what others there are is counted only once.
    let relevant = [header::IF_NONE_MATCH, header::CACHE_CONTROL, header::IF_MODIFIED_SINCE];
    let conditions = relevant.into_iter().filter_map(|name| {
        let value = request.headers().get(&name)?.clone();
        Some((name, value))
    });
    let conditions: HeaderMap = conditions.collect();
    let response = next.run(request).await;
    if !response.status().is_success() || !is_fresh(&conditions, response.headers().get(header::ETAG)) {
        return response;
    }
    let mut not_modified = StatusCode::NOT_MODIFIED.into_response();
    not_modified.headers_mut().extend(
        response
            .headers()
            .iter()
            .filter(|(name, _)| ![header::CONTENT_TYPE, header::CONTENT_LENGTH].contains(name))
            .map(|(name, value)| (name.clone(), value.clone())),
    );
    not_modified
}

/// Whether the client's copy is the current one. `If-Modified-Since` rules that out, since nothing here has such a time, and
/// so does a reload (`Cache-Control: no-cache`).
fn is_fresh(conditions: &HeaderMap, tag: Option<&HeaderValue>) -> bool {
    let text = |name| conditions.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let Some(tag) = tag.and_then(|tag| tag.to_str().ok()) else { return false };
    let is_reload = text(header::CACHE_CONTROL).is_some_and(|value| {
        value.split(',').any(|directive| directive.trim().eq_ignore_ascii_case("no-cache"))
    });
    if is_reload || conditions.contains_key(header::IF_MODIFIED_SINCE) {
        return false;
    }
    // A strong tag of the client matches too: the comparison is weak.
    let strong = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag).to_owned();
    text(header::IF_NONE_MATCH).is_some_and(|known| {
        known == "*" || known.split(',').any(|known| strong(known.trim_matches(' ')) == strong(tag))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_that_of_express() {
        // By the package etag 1.8.1 of Node.
        assert_eq!(of(b"[]").unwrap(), "W/\"2-l9Fw4VUO7kr8CvBlt4zaMCqXZ0w\"");
        let body = br#"{"errors":[{"message":"Not authorized"}]}"#;
        assert_eq!(of(body).unwrap(), "W/\"29-SZMPIJdF/ssbLs1vpzphr0E1ihI\"");
    }

    #[test]
    fn a_copy_is_fresh_if_its_tag_is_known_and_it_is_not_reloaded() {
        let tag = HeaderValue::from_static("W/\"2-x\"");
        let fresh = |headers: &[(header::HeaderName, &'static str)]| {
            let headers = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
            is_fresh(&headers.collect(), Some(&tag))
        };
        let known = |value| (header::IF_NONE_MATCH, value);
        for value in ["W/\"2-x\"", "\"2-x\"", "\"a\", W/\"2-x\"", "*"] {
            assert!(fresh(&[known(value)]), "{value}");
        }
        for value in ["W/\"2-y\"", "2-x", "", "\"*\""] {
            assert!(!fresh(&[known(value)]), "{value}");
        }
        assert!(!fresh(&[known("*"), (header::CACHE_CONTROL, "max-age=0, No-Cache")]));
        assert!(!fresh(&[known("*"), (header::IF_MODIFIED_SINCE, "Sat, 01 Jan 2028 00:00:00 GMT")]));
        assert!(!is_fresh(
            &HeaderMap::from_iter([known("*")].map(|(n, v)| (n, HeaderValue::from_static(v)))),
            None
        ));
    }
}
