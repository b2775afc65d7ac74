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
    base_path::{BasePath, ORDER},
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

/// The API over a store whose indexes exist, under the default path, for callers that bring their own listener.
pub fn router(store: Store, jwt_key: &str, terms: ReservationTerms, registry: &mut Registry) -> Router {
    let base = BasePath::default();
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
        pages: openapi::pages(&base),
        base,
    })
}

/// All routes. Requests are checked in the order of the Node.js service: the body, then the session, then the
/// fields, then what the database says.
pub(super) fn routes(state: ApiState) -> Router {
    let base = &state.base;
    // No segment is meant as a variable because it begins as one did in former versions of axum.
    let routes = Router::new()
        .without_v07_checks()
        .route(&base.route(""), get(list::list).post(orders::create).options(|| options("GET,HEAD,POST")))
        .route(
            &base.route(ORDER),
            get(orders::show).delete(orders::cancel).options(|| options("GET,HEAD,DELETE")),
        )
        .merge(openapi::routes(base))
        .fallback(not_found)
        .method_not_allowed_fallback(not_found)
        .layer(middleware::from_fn_with_state(state.clone(), body::read))
        .layer(middleware::from_fn(etag::not_modified))
        .layer(middleware::from_fn_with_state(state.clone(), observe::observe))
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

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::Request};
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[tokio::test]
    async fn all_of_the_api_is_under_its_base_path_and_nothing_is_elsewhere() {
        let base: BasePath = "/Shop/v1.0/:orders".parse().unwrap();
        let mut registry = Registry::default();
        let bytes = 64 << 20;
        let app = routes(ApiState {
            database: Database::default(),
            sessions: Sessions::new("a key for tests"),
            metrics: Metrics::new(&mut registry),
            terms: ReservationTerms::default(),
            budget: Budget::new(bytes),
            reading: Reading::new(bytes),
            pages: openapi::pages(&base),
            base,
        });
        for (path, expected) in [
            ("/Shop/v1.0/:orders", 401),
            ("/shop/V1.0/:ORDERS/", 401),
            ("/shop/v1.0/:orders/65f0c1d2a3b4c5d6e7f80911", 401),
            ("/shop/v1.0/:orders/docs", 200),
            ("/shop/v1.0/:orders/docs/start.js", 200),
            ("/shop/v1.0/:orders/openapi.json", 200),
            ("/api/orders", 404),
            ("/api/orders/docs", 404),
            ("/shop/v1.0", 404),
            ("/shop/v1.0/xorders", 404),
            ("/", 404),
        ] {
            let request = Request::get(path).body(Body::empty()).unwrap();
            let response = app.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status().as_u16(), expected, "{path}");
        }
        // What is measured has the same names whatever the path is.
        let mut metrics = String::new();
        encode(&mut metrics, &registry).unwrap();
        for label in ["\"/api/orders\"", "\"/api/orders/{orderId}\"", "\"docs\"", "\"other\""] {
            assert!(metrics.contains(label), "{label} is missing in:\n{metrics}");
        }
        assert!(!metrics.to_lowercase().contains("shop"), "{metrics}");
    }
}
