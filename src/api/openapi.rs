//! The API's description in OpenAPI 3.1, made from the code that serves it, and a page to read it.
//!
//! The routes and the forms of their answers are derived from the handlers and views; what can go
//! wrong is written from the very errors that are answered, messages included.

use std::sync::LazyLock;

use axum::{
    Router,
    body::Bytes,
    extract::Path,
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
    error::{ApiError, Errors},
    list, orders,
    view::{self, OrderView},
};

/// Where the description is served.
pub(super) const JSON_PATH: &str = "/api/orders/openapi.json";
/// Where the page is served that shows it.
pub(super) const PAGE_PATH: &str = "/api/orders/docs";
/// Where the page's own files are.
pub(super) const FILE_PATH: &str = "/api/orders/docs/{file}";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Orders API",
        description = "Reserves tickets. An order is `created`, and payable until `expiresAt`; then it is `cancelled`, \
                       unless it was `complete` before. Times are in UTC with milliseconds, ids are 24 hexadecimal digits."
    ),
    paths(orders::create, list::list, orders::show, orders::cancel),
    components(schemas(OrderView, Errors)),
    modifiers(&Sessions, &Failures)
)]
struct Described;

/// The description as JSON, ending with a line end.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn openapi_json() -> Result<String, serde_json::Error> {
    Described::openapi().to_pretty_json().map(|json| json + "\n")
}

/// The three ways to be signed in.
struct Sessions;

impl Modify for Sessions {
    fn modify(&self, api: &mut openapi::OpenApi) {
        let cookie = |name, text: &str| {
            SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::with_description(name, text)))
        };
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .description(Some("The token itself, for clients that keep no cookies."))
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

/// What can go wrong, for each route.
struct Failures;

impl Modify for Failures {
    fn modify(&self, api: &mut openapi::OpenApi) {
        use ApiError::{
            AfterInvalid, AlreadyComplete, AlreadyReserved, KeyInvalid, KeyReused, LimitInvalid,
            MalformedJson, NotFound, OrderIdInvalid, PayloadTooLarge, StatusInvalid, TicketIdInvalid,
            TicketIdMissing,
        };
        for (path, item) in &mut api.paths.paths {
            let one = path.ends_with('}');
            let describe = |operation: &mut Option<Operation>, own: &[ApiError]| {
                if let Some(operation) = operation {
                    add(operation, own);
                }
            };
            let (get, delete): (&[_], &[_]) = if one {
                (&[OrderIdInvalid, NotFound], &[OrderIdInvalid, AlreadyComplete, NotFound])
            } else {
                (&[LimitInvalid, AfterInvalid, StatusInvalid], &[])
            };
            let post = [
                TicketIdMissing,
                TicketIdInvalid,
                AlreadyReserved,
                KeyInvalid,
                MalformedJson,
                NotFound,
                PayloadTooLarge,
                KeyReused,
            ];
            describe(&mut item.get, get);
            describe(&mut item.post, &post);
            describe(&mut item.delete, delete);
        }
    }
}

/// Adds a response for each status of `own` errors and of those that every route has.
fn add(operation: &mut Operation, own: &[ApiError]) {
    let common = [ApiError::NotAuthorized, ApiError::Internal, ApiError::Unavailable];
    let mut errors = [own, &common].concat();
    errors.sort_by_key(|error| error.status());
    for errors in errors.chunk_by(|a, b| a.status() == b.status()) {
        let mut content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Errors")));
        let mut messages = Vec::new();
        for error in errors {
            let example = ExampleBuilder::new().value(serde_json::to_value(error.body()).ok()).build();
            content = content.examples_from_iter([(format!("{error:?}"), example)]);
            messages.push(error.message());
        }
        let Some(status) = errors.first().map(|error| error.status().as_str().to_owned()) else { continue };
        let response = ResponseBuilder::new()
            .description(messages.join("; "))
            .content("application/json", content.build())
            .build();
        operation.responses.responses.insert(status, RefOr::T(response));
    }
}

/// The routes that show it. They need no session: they say nothing about anyone's orders.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route(JSON_PATH, get(json)).route(PAGE_PATH, get(page)).route(FILE_PATH, get(file))
}

async fn json() -> Result<Response, ApiError> {
    static JSON: LazyLock<Option<Bytes>> = LazyLock::new(|| openapi_json().ok().map(Bytes::from));
    let json = JSON.clone().ok_or(ApiError::Internal)?;
    Ok(([(header::CONTENT_TYPE, view::JSON)], json).into_response())
}

/// Nothing of the page comes from elsewhere, and nothing in it is run that is not a file of ours.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'",
);
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const JAVASCRIPT: HeaderValue = HeaderValue::from_static("text/javascript; charset=utf-8");
const CSS: HeaderValue = HeaderValue::from_static("text/css; charset=utf-8");
const GZIP: HeaderValue = HeaderValue::from_static("gzip");
/// The files change with the program only.
const A_DAY: HeaderValue = HeaderValue::from_static("public, max-age=86400");

async fn page() -> Response {
    let headers = [(header::CONTENT_TYPE, HTML), (header::CONTENT_SECURITY_POLICY, POLICY)];
    (headers, include_str!("openapi.html")).into_response()
}

/// The files that the page names; the others of Swagger UI are not needed.
async fn file(Path(name): Path<String>) -> Result<Response, ApiError> {
    let content_type = match name.as_str() {
        "start.js" => {
            return Ok(([(header::CONTENT_TYPE, JAVASCRIPT)], include_str!("openapi.js")).into_response());
        }
        "swagger-ui-bundle.js" => JAVASCRIPT,
        "swagger-ui.css" => CSS,
        _ => return Err(ApiError::NotFound),
    };
    let file =
        utoipa_swagger_ui::serve(&name, Default::default()).ok().flatten().ok_or(ApiError::Internal)?;
    let mut response = (StatusCode::OK, file.bytes.into_owned()).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::CACHE_CONTROL, A_DAY);
    if file.gzpipped {
        headers.insert(header::CONTENT_ENCODING, GZIP);
    }
    Ok(response)
}
