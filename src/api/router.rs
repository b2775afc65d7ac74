//! The routes and their middleware.

use axum::{
    Router,
    http::{HeaderValue, header},
    middleware,
    response::IntoResponse,
    routing::get,
};
use prometheus_client::registry::Registry;
use tower::ServiceExt;

use super::{
    body,
    budget::{self, Budget},
    database::Database,
    error::ApiError,
    etag, list,
    metrics::Metrics,
    observe, openapi, orders, path,
    reading::Reading,
    session::Sessions,
    state::ApiState,
};
use crate::{order::ReservationTerms, runtime::Resources, store::Store};

/// The API over a store whose indexes exist, for callers that bring their own listener.
pub fn router(store: Store, jwt_key: &str, terms: ReservationTerms, registry: &mut Registry) -> Router {
    let database = Database::default();
    database.holds(store);
    let bytes = budget::bytes_of(Resources::claim());
    routes(ApiState {
        database,
        sessions: Sessions::new(jwt_key),
        metrics: Metrics::new(registry),
        terms,
        budget: Budget::new(bytes),
        reading: Reading::new(bytes),
    })
}

/// All routes. Requests are checked in the order of the Node.js service: the body, then the session, then the
/// fields, then what the database says.
pub(super) fn routes(state: ApiState) -> Router {
    let routes = Router::new()
        .route("/api/orders", get(list::list).post(orders::create).options(|| options("GET,HEAD,POST")))
        .route(
            "/api/orders/{orderId}",
            get(orders::show).delete(orders::cancel).options(|| options("GET,HEAD,DELETE")),
        )
        .merge(openapi::routes())
        .fallback(not_found)
        .method_not_allowed_fallback(not_found)
        .layer(middleware::from_fn_with_state(state.clone(), body::read))
        .layer(middleware::from_fn(etag::not_modified))
        .layer(middleware::from_fn_with_state(state.metrics.clone(), observe::observe))
        .with_state(state);
    // A router matches the path before its layers run, so the path has to be rewritten outside of it.
    Router::new().fallback_service(routes.map_request(path::canonical))
}

/// The methods of a route, for `OPTIONS`, in the form of Express.
async fn options(methods: &'static str) -> impl IntoResponse {
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    ([(header::ALLOW, HeaderValue::from_static(methods)), (header::CONTENT_TYPE, html)], methods)
}

async fn not_found() -> ApiError {
    ApiError::NotFound
}
