//! The OpenAPI 3.1 description of the API, generated from its code, and a page that shows it.
//!
//! Routes and response schemas are derived from the handlers and views; the error responses are generated from
//! [`ApiError`], messages included.

use std::borrow::Cow;

use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        self, ContentBuilder, Ref, RefOr, ResponseBuilder,
        example::ExampleBuilder,
        path::Operation,
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use super::{
    base_path::BasePath,
    error::{ApiError, Errors},
    list, orders,
    pages::Pages,
    response::JSON,
    state::ApiState,
    view::{DirectionView, OrderView},
};

/// Path of the description, below the base path.
pub(super) const JSON_PATH: &str = "/openapi.json";
/// Path of the page that shows it.
pub(super) const PAGE_PATH: &str = "/docs";
/// Path of the page's scripts and styles.
pub(super) const FILE_PATH: &str = "/docs/{file}";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Orders API",
        description = "Reserves tickets. A new order is `created` and can be paid for until `expiresAt`; it is then \
                       `cancelled` unless it is `complete`. Times are in UTC with milliseconds, ids are 24 hexadecimal \
                       digits."
    ),
    paths(orders::create, list::list, orders::show, orders::cancel),
    components(schemas(OrderView, Errors, DirectionView)),
    modifiers(&SecuritySchemes, &ErrorResponses)
)]
struct Description;

/// The description as JSON, with a newline at the end, of the API under its default path.
///
/// # Errors
/// When it cannot be serialized.
pub fn openapi_json() -> Result<String, serde_json::Error> {
    openapi_json_of(&BasePath::default())
}

fn openapi_json_of(base: &BasePath) -> Result<String, serde_json::Error> {
    let mut description = Description::openapi();
    let paths = std::mem::take(&mut description.paths.paths);
    description.paths.paths = paths.into_iter().map(|(path, item)| (under(base, &path), item)).collect();
    description.to_pretty_json().map(|json| json + "\n")
}

/// A text in which the default path stands, with this one in its place.
fn under(base: &BasePath, text: &str) -> String {
    text.replace(BasePath::DEFAULT, base.as_str())
}

/// The description and its page, as they are under a base path.
pub(super) fn pages(base: &BasePath) -> Pages {
    let html = include_str!("openapi.html").replace(BasePath::DEFAULT, &base.as_str().replace('&', "&amp;"));
    Pages {
        json: openapi_json_of(base).ok().map(Bytes::from),
        html: html.into(),
        script: under(base, include_str!("openapi.js")).into(),
    }
}

/// Adds the three ways to authenticate.
struct SecuritySchemes;

impl Modify for SecuritySchemes {
    fn modify(&self, api: &mut openapi::OpenApi) {
        let cookie = |name, text: &str| {
            SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::with_description(name, text)))
        };
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .description(Some("The token itself, for clients without cookies."))
            .build();
        let components = api.components.get_or_insert_default();
        let form = "Base64 of `{\"jwt\": \"...\"}`, as the auth service sets it";
        components.add_security_scheme("session", cookie("session", &format!("{form}.")));
        components.add_security_scheme(
            "expressSession",
            cookie("express:sess", &format!("{form} with cookie-session 1.")),
        );
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    }
}

/// Adds the error responses of each route.
struct ErrorResponses;

impl Modify for ErrorResponses {
    fn modify(&self, api: &mut openapi::OpenApi) {
        use ApiError::{
            AfterInvalid, AlreadyComplete, AlreadyReserved, BodyTooSlow, EncodingUnsupported, KeyInvalid,
            KeyReused, LimitInvalid, MalformedJson, NotFound, OrderIdInvalid, OrderInvalid, PayloadTooLarge,
            StatusInvalid, TicketIdInvalid, TicketIdMissing,
        };
        for (path, item) in &mut api.paths.paths {
            let has_id = path.ends_with('}');
            let add = |operation: &mut Option<Operation>, own: &[ApiError]| {
                if let Some(operation) = operation {
                    add_errors(operation, own);
                }
            };
            let (get, delete): (&[_], &[_]) = if has_id {
                (&[OrderIdInvalid, NotFound], &[OrderIdInvalid, AlreadyComplete, NotFound])
            } else {
                (&[LimitInvalid, AfterInvalid, OrderInvalid, StatusInvalid], &[])
            };
            let post = [
                TicketIdMissing,
                TicketIdInvalid,
                AlreadyReserved,
                KeyInvalid,
                MalformedJson,
                NotFound,
                PayloadTooLarge,
                EncodingUnsupported,
                BodyTooSlow,
                KeyReused,
            ];
            add(&mut item.get, get);
            add(&mut item.post, &post);
            add(&mut item.delete, delete);
        }
    }
}

/// Adds a response for each status code of the `own` errors of an operation and of those that every operation has.
fn add_errors(operation: &mut Operation, own: &[ApiError]) {
    let common = [ApiError::NotAuthorized, ApiError::Internal, ApiError::Unavailable];
    let mut errors = [own, &common].concat();
    errors.sort_by_key(|error| error.status());
    for errors in errors.chunk_by(|a, b| a.status() == b.status()) {
        let mut content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Errors")));
        let mut messages = Vec::new();
        for error in errors {
            let example = ExampleBuilder::new().value(serde_json::to_value(error.body()).ok()).build();
            content = content.examples_from_iter([(format!("{error:?}"), example)]);
            if !messages.contains(&error.message()) {
                messages.push(error.message());
            }
        }
        let Some(status) = errors.first().map(|error| error.status().as_str().to_owned()) else { continue };
        let response = ResponseBuilder::new()
            .description(messages.join("; "))
            .content("application/json", content.build())
            .build();
        operation.responses.responses.insert(status, RefOr::T(response));
    }
}

/// The routes of the description and its page. They need no session, since they show no orders.
pub(super) fn routes(base: &BasePath) -> Router<ApiState> {
    Router::new()
        .without_v07_checks()
        .route(&base.route(JSON_PATH), get(json))
        .route(&base.route(PAGE_PATH), get(page))
        .route(&base.route(FILE_PATH), get(file))
}

async fn json(State(pages): State<Pages>) -> Result<Response, ApiError> {
    Ok(([(header::CONTENT_TYPE, JSON)], pages.json.ok_or(ApiError::Internal)?).into_response())
}

/// The page loads nothing from other hosts, and runs no inline scripts.
const CONTENT_SECURITY_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'",
);
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const JAVASCRIPT: HeaderValue = HeaderValue::from_static("text/javascript; charset=utf-8");
const CSS: HeaderValue = HeaderValue::from_static("text/css; charset=utf-8");
const GZIP: HeaderValue = HeaderValue::from_static("gzip");
/// The files change only with a new version of the program.
const ONE_DAY: HeaderValue = HeaderValue::from_static("public, max-age=86400");

async fn page(State(pages): State<Pages>) -> Response {
    let headers = [(header::CONTENT_TYPE, HTML), (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY)];
    (headers, pages.html).into_response()
}

/// The scripts and styles of the page; it needs no other files of Swagger UI.
async fn file(State(pages): State<Pages>, Path(name): Path<String>) -> Result<Response, ApiError> {
    let content_type = match name.as_str() {
        "start.js" => {
            return Ok(([(header::CONTENT_TYPE, JAVASCRIPT)], pages.script).into_response());
        }
        "swagger-ui-bundle.js" => JAVASCRIPT,
        "swagger-ui.css" => CSS,
        _ => return Err(ApiError::NotFound),
    };
    let file =
        utoipa_swagger_ui::serve(&name, Default::default()).ok().flatten().ok_or(ApiError::Internal)?;
    // The files are part of the program, so no answer has a copy of its own.
    let bytes = match file.bytes {
        Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        Cow::Owned(bytes) => bytes.into(),
    };
    let mut response = (StatusCode::OK, bytes).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::CACHE_CONTROL, ONE_DAY);
    if file.gzpipped {
        headers.insert(header::CONTENT_ENCODING, GZIP);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    #[test]
    fn the_description_of_a_response_says_each_of_its_messages_once() {
        let description: serde_json::Value = serde_json::from_str(&openapi_json().unwrap()).unwrap();
        let mut joined = 0;
        for (path, operations) in description["paths"].as_object().unwrap() {
            for operation in operations.as_object().unwrap().values() {
                for (status, response) in operation["responses"].as_object().unwrap() {
                    let messages: Vec<_> = response["description"].as_str().unwrap().split("; ").collect();
                    let distinct: std::collections::BTreeSet<_> = messages.iter().collect();
                    assert_eq!(distinct.len(), messages.len(), "{status} of {path}: {messages:?}");
                    joined += usize::from(messages.len() > 1);
                }
            }
        }
        assert!(joined > 0, "some status has several");
    }

    #[test]
    fn description_and_page_name_the_base_path_and_nothing_else() {
        let default = pages(&BasePath::default());
        assert_eq!(default.json, openapi_json().ok().map(Bytes::from));
        assert_eq!(default.html, include_str!("openapi.html"));
        let Pages { json, html, script } = pages(&"/shop/R&D".parse().unwrap());
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json.unwrap()).unwrap();
        let paths: Vec<_> = json["paths"].as_object().unwrap().keys().collect();
        assert_eq!(paths, ["/shop/R&D", "/shop/R&D/{orderId}"]);
        assert!(text(&script).contains("\"/shop/R&D/openapi.json\""));
        assert!(text(&html).contains("\"/shop/R&amp;D/docs/start.js\""));
        for text in [json.to_string(), text(&html), text(&script)] {
            assert!(!text.contains(BasePath::DEFAULT), "{text}");
        }
    }

    #[tokio::test]
    async fn the_files_of_the_page_are_not_copied_for_an_answer() {
        let pages = super::pages(&BasePath::default());
        for name in ["swagger-ui-bundle.js", "swagger-ui.css", "start.js"] {
            let mut places = Vec::new();
            for _ in 0..2 {
                let response = file(State(pages.clone()), Path(name.into())).await.unwrap();
                places.push(to_bytes(response.into_body(), usize::MAX).await.unwrap());
            }
            assert_eq!(places[0].as_ptr(), places[1].as_ptr(), "{name}");
        }
    }
}
