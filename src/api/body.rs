//! Reads and parses request bodies, before anything else of the request is checked.
//!
//! Malformed JSON is answered with 400 on every route, signed in or not, and a body over the limit with 413:
//! the Node.js service checks in this order. A body of another content type is treated as absent. What is kept of bodies is
//! part of the memory that clients can have, unless it is small; if there is none left, the session is looked at first.

use std::time::Duration;

use axum::{
    body::{Body, HttpBody},
    extract::{Request, State},
    http::{HeaderMap, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures::TryStreamExt;
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, Visitor},
};
use serde_json::Value;
use tokio::time::timeout;

use super::{
    budget::{Account, SMALL},
    error::ApiError,
    inflate::inflated,
    session::Sessions,
    state::ApiState,
};

/// 100 kB, as in the Node.js service.
const LIMIT: usize = 100 * 1024;

/// How long a body may take: a little less than the deadline of a request, which is answered with 503.
const TIMEOUT: Duration = Duration::from_secs(9);

/// How much more is read and discarded, so that a client that is still sending sees the response and not a reset
/// connection.
const DISCARD: usize = 4 * 1024 * 1024;

/// The fields of a request's body that a handler uses; all others are ignored.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct RequestFields {
    /// The ticket to reserve.
    pub(super) ticket_id: Option<Value>,
}

/// Middleware: reads the body and adds its fields to the request as an extension.
pub(super) async fn read(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let mut head = state.budget.account();
    if let Err(error) = head.count_head(&request, || state.sessions.user(request.headers()).ok()) {
        return refused(&state, error);
    }
    let (parts, body) = request.into_parts();
    let fields = {
        let mut account = state.budget.account();
        match in_time(receive(body, &parts.headers, &state.sessions, &mut account)).await {
            Ok(bytes) => parse(&bytes),
            Err(Refused::Wrong(error)) => Err(error),
            Err(Refused::NoRoom(error)) => return refused(&state, error),
        }
    };
    match fields {
        Ok(fields) => {
            let mut request = Request::from_parts(parts, Body::empty());
            request.extensions_mut().insert(fields);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

fn refused(state: &ApiState, error: ApiError) -> Response {
    state.metrics.over_budget();
    error.into_response()
}

/// Why a body is not received.
#[derive(Debug, PartialEq)]
enum Refused {
    Wrong(ApiError),
    /// There is no memory left for it.
    NoRoom(ApiError),
}

/// What is received within the time for a body.
async fn in_time<T>(receive: impl Future<Output = Result<T, Refused>>) -> Result<T, Refused> {
    timeout(TIMEOUT, receive).await.unwrap_or(Err(Refused::Wrong(ApiError::BodyTooSlow)))
}

/// The body if it is JSON; what is received of it is counted, once it is not small.
async fn receive(
    body: Body,
    headers: &HeaderMap,
    sessions: &Sessions,
    account: &mut Account,
) -> Result<Vec<u8>, Refused> {
    if body.is_end_stream() {
        return Ok(Vec::new());
    }
    let (is_kept, user) = (is_json(headers), || sessions.user(headers).ok());
    let mut chunks = body.into_data_stream();
    let (mut kept, mut received, mut counted) = (Vec::new(), 0_usize, 0);
    let mut count_to = |bytes: usize| {
        let more = if bytes <= SMALL { 0 } else { bytes.saturating_sub(counted) };
        counted += more;
        account.count(more, user).map_err(Refused::NoRoom)
    };
    // A body that breaks off is malformed, whatever its content type.
    while let Some(chunk) = chunks.try_next().await.map_err(|_| Refused::Wrong(ApiError::MalformedJson))? {
        received = received.saturating_add(chunk.len());
        if received > LIMIT + DISCARD {
            break;
        }
        if received <= LIMIT && is_kept {
            count_to(received)?;
            kept.reserve_exact(chunk.len());
            kept.extend_from_slice(&chunk);
        } else {
            kept = Vec::new();
        }
    }
    if received > LIMIT {
        return Err(Refused::Wrong(ApiError::PayloadTooLarge));
    }
    if kept.is_empty() {
        return Ok(kept);
    }
    let body = inflated(headers, kept, LIMIT).map_err(Refused::Wrong)?;
    count_to(body.len())?;
    Ok(body)
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(Ok(value)) = headers.get(header::CONTENT_TYPE).map(|value| value.to_str()) else { return false };
    let media_type = value.split(';').next().unwrap_or_default();
    media_type.trim().eq_ignore_ascii_case("application/json")
}

fn parse(bytes: &[u8]) -> Result<RequestFields, ApiError> {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    if bytes.is_empty() {
        return Ok(RequestFields::default());
    }
    let text = std::str::from_utf8(bytes).map_err(|_| ApiError::MalformedJson)?;
    let malformed = |_| ApiError::MalformedJson;
    match text.trim_start_matches([' ', '\t', '\n', '\r']).chars().next() {
        Some('{') => serde_json::from_str(text).map_err(malformed),
        // An array is valid, but has no fields.
        Some('[') => serde_json::from_str(text).map(|IgnoredAny| RequestFields::default()).map_err(malformed),
        _ => Err(ApiError::MalformedJson),
    }
}

impl<'de> Deserialize<'de> for RequestFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

/// Reads the known fields. Of a duplicate field the last one counts, as in JavaScript.
struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = RequestFields;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RequestFields, A::Error> {
        let mut fields = RequestFields::default();
        while let Some(name) = map.next_key::<String>()? {
            if name == "ticketId" {
                fields.ticket_id = Some(map.next_value().map_err(A::Error::custom)?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(fields)
    }
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt, stream};
    use proptest::prelude::*;

    use super::*;
    use crate::api::budget::Budget;

    fn json() -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_TYPE, "application/json".parse().unwrap())])
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_not_received_in_time_is_refused_as_such() {
        let beginning = stream::iter([Ok::<_, std::io::Error>("{")]).chain(stream::pending());
        let (started, headers, sessions) = (tokio::time::Instant::now(), json(), Sessions::new("a key"));
        let mut account = Budget::new(1_000_000).account();
        let received =
            in_time(receive(Body::from_stream(beginning), &headers, &sessions, &mut account)).await;
        assert_eq!(received, Err(Refused::Wrong(ApiError::BodyTooSlow)));
        assert_eq!(started.elapsed(), TIMEOUT);
    }

    #[tokio::test]
    async fn while_others_have_all_the_memory_a_small_body_is_received_and_a_large_one_is_not() {
        let (headers, sessions) = (json(), Sessions::new("a key"));
        for (size, expected) in
            [(40, Ok(40)), (SMALL, Ok(SMALL)), (SMALL + 1, Err(Refused::NoRoom(ApiError::NotAuthorized)))]
        {
            let mut account = Budget::new(0).account();
            let chunks = vec![b' '; size]
                .chunks(1000)
                .map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec()))
                .collect::<Vec<_>>();
            let body = Body::from_stream(stream::iter(chunks));
            let received = receive(body, &headers, &sessions, &mut account).await;
            assert_eq!(received.map(|body| body.len()), expected);
        }
    }

    fn ticket_id(body: &str) -> Result<Option<Value>, ApiError> {
        parse(body.as_bytes()).map(|fields| fields.ticket_id)
    }

    #[test]
    fn only_objects_and_arrays_are_valid_bodies() {
        assert_eq!(ticket_id(r#"{"ticketId":"x","more":[1,{"a":null}]}"#), Ok(Some("x".into())));
        assert_eq!(ticket_id(r#" {"ticketId":1,"ticketId":"x"}"#), Ok(Some("x".into())));
        assert_eq!(ticket_id("\u{feff}{}"), Ok(None));
        assert_eq!(ticket_id("[1]"), Ok(None));
        assert_eq!(ticket_id(""), Ok(None));
        for wrong in ["{", " ", "null", "1", "\"x\"", "{\"ticketId\":}", "[1", "{} x", "nonsense"] {
            assert_eq!(ticket_id(wrong), Err(ApiError::MalformedJson), "{wrong}");
        }
        assert_eq!(parse(b"{\"ticketId\":\"\xff\"}"), Err(ApiError::MalformedJson));
    }

    #[test]
    fn unknown_fields_may_have_any_value() {
        let deep =
            format!(r#"{{"deep":{}{},"huge":1e999,"ticketId":"x"}}"#, "[".repeat(5000), "]".repeat(5000));
        assert_eq!(ticket_id(&deep), Ok(Some("x".into())));
    }

    #[test]
    fn only_the_json_media_type_is_json() {
        for (value, expected) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("text/plain", false),
            ("application/vnd.api+json", false),
            ("application/jsonx", false),
        ] {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, value.parse().unwrap())]);
            assert_eq!(is_json(&headers), expected, "{value}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }

    /// Any JSON value, a few levels deep.
    fn json_values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map("ticketId|[$a-z]{0,6}", inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in r#"[\[\]{}",:a-z0-9\\ ]{0,60}"#) {
            let _ = parse(&bytes);
            let _ = parse(text.as_bytes());
        }

        #[test]
        fn the_ticket_id_is_read_as_it_was_sent(value in json_values()) {
            let parsed = parse(value.to_string().as_bytes());
            match &value {
                Value::Object(fields) => {
                    prop_assert_eq!(parsed.unwrap().ticket_id, fields.get("ticketId").cloned());
                }
                Value::Array(_) => prop_assert_eq!(parsed, Ok(RequestFields::default())),
                _ => prop_assert_eq!(parsed, Err(ApiError::MalformedJson)),
            }
        }
    }
}
