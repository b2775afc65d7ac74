//! The orders HTTP API, as the course's thousands of copies of it answer, and nothing looser.
//!
//! ```text
//! path         paths without regard to case or a trailing slash
//! observe      request id, deadline, access log, metrics; nothing a handler does gets past it
//! body         reads bodies before anything else is looked at: 413, "Malformed JSON"
//! hs256        HS256 signatures for session tokens
//! session      who is signed in
//! orders       reserving, showing and cancelling
//! list         the user's orders, streamed or page by page
//! view         what clients see
//! error        every answer but success
//! openapi      the description of all that, and a page to read it
//! connections  HTTP/1.1 and h2c within bounds, and their end
//! database     the database comes, goes and comes back
//! serve        the subcommand
//! ```
//! Requests are judged in the original's order: the body, then the session, then the fields, then
//! what the database says.

mod body;
mod connections;
mod database;
mod error;
mod hs256;
mod list;
mod metrics;
mod observe;
mod openapi;
mod orders;
mod path;
mod serve;
mod session;
mod view;

use axum::{Router, extract::FromRef, middleware, routing::get};
use prometheus_client::registry::Registry;
use tower::ServiceExt;

use self::{database::Database, error::ApiError, metrics::Metrics, session::Sessions};
use crate::{order::ReservationTerms, store::Store};

pub use openapi::openapi_json;
pub use serve::{ServeArgs, ServeError, serve};

/// What the handlers share.
#[derive(Clone, Debug)]
struct Api {
    database: Database,
    sessions: Sessions,
    metrics: Metrics,
    terms: ReservationTerms,
}

impl FromRef<Api> for Sessions {
    fn from_ref(api: &Api) -> Self {
        api.sessions.clone()
    }
}

/// The API over a store whose indexes are in place, for whoever brings a listener of their own.
pub fn router(store: Store, jwt_key: &str, terms: ReservationTerms, registry: &mut Registry) -> Router {
    let database = Database::default();
    database.set(store);
    routes(Api { database, sessions: Sessions::new(jwt_key), metrics: Metrics::new(registry), terms })
}

fn routes(api: Api) -> Router {
    let routes = Router::new()
        .route("/api/orders", get(list::list).post(orders::create))
        .route("/api/orders/{orderId}", get(orders::show).delete(orders::cancel))
        .merge(openapi::routes())
        .fallback(not_found)
        .method_not_allowed_fallback(not_found)
        .layer(middleware::from_fn(body::read))
        .layer(middleware::from_fn_with_state(api.metrics.clone(), observe::observe))
        .with_state(api);
    // A router chooses the route before its layers run, so what changes the path goes around it.
    Router::new().fallback_service(routes.map_request(path::canonical))
}

async fn not_found() -> ApiError {
    ApiError::NotFound
}
