//! Reserving a ticket; showing and cancelling an order.

use axum::{
    Extension,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, HeaderName, StatusCode},
    response::Response,
};
use jiff::Timestamp;
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    Api,
    body::Submitted,
    error::ApiError,
    metrics::Outcome,
    session::SignedIn,
    view::{OrderView, json},
};
use crate::{
    order::{IdempotencyKey, OrderId, TicketId, UserId},
    store::{Moved, ReserveError, Reserved},
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Reserves a ticket
///
/// Of any number of requests for one ticket at most one succeeds, until its order is cancelled.
#[utoipa::path(
    post,
    path = "/api/orders",
    tag = "orders",
    request_body = NewOrder,
    params((
        "Idempotency-Key" = Option<String>, Header,
        description = "Names this reservation, 1 to 255 visible ASCII characters: the same user and key get the same \
                       order again, however often the request is sent.",
    )),
    responses((status = 201, description = "The order", body = OrderView)),
    security(("session" = []), ("expressSession" = []), ("bearer" = []))
)]
pub(super) async fn create(
    State(api): State<Api>,
    SignedIn(user): SignedIn,
    Extension(submitted): Extension<Submitted>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let result = reserve(&api, &user, submitted, &headers).await;
    api.metrics.reservation(match &result {
        Ok(Reserved::Now(_)) => Outcome::Reserved,
        Ok(Reserved::Before(_)) => Outcome::Repeated,
        Err(ApiError::AlreadyReserved) => Outcome::AlreadyReserved,
        Err(ApiError::NotFound) => Outcome::TicketNotFound,
        Err(
            ApiError::TicketIdMissing
            | ApiError::TicketIdInvalid
            | ApiError::KeyInvalid
            | ApiError::KeyReused,
        ) => Outcome::Invalid,
        Err(ApiError::Unavailable) => Outcome::Unavailable,
        Err(_) => Outcome::Failed,
    });
    result.map(|reserved| json(StatusCode::CREATED, &OrderView::from(reserved.reservation())))
}

/// What to reserve; other fields are ignored.
#[derive(ToSchema)]
#[allow(dead_code, reason = "it describes what body.rs reads")]
struct NewOrder {
    #[schema(rename = "ticketId", pattern = "^[0-9a-fA-F]{24}$", example = "65f0c1d2a3b4c5d6e7f80911")]
    ticket_id: String,
}

async fn reserve(
    api: &Api,
    user: &UserId,
    submitted: Submitted,
    headers: &HeaderMap,
) -> Result<Reserved, ApiError> {
    let ticket = ticket_id(submitted.ticket_id)?;
    let key = idempotency_key(headers)?;
    let store = api.database.store()?;
    match store.reserve(user, ticket, key.as_ref(), Timestamp::now(), &api.terms).await {
        Ok(reserved) => {
            if let Reserved::Now(reservation) = &reserved {
                tracing::info!(order = %reservation.order.id, %ticket, "ticket reserved");
            }
            Ok(reserved)
        }
        Err(error @ ReserveError::Store(_)) => Err(error.into()),
        Err(error) => {
            tracing::debug!(%error, "not reserved");
            Err(error.into())
        }
    }
}

/// Shows an order of mine
#[utoipa::path(
    get,
    path = "/api/orders/{orderId}",
    tag = "orders",
    params(("orderId" = String, Path, description = "The order's id")),
    responses((status = 200, description = "The order", body = OrderView)),
    security(("session" = []), ("expressSession" = []), ("bearer" = []))
)]
pub(super) async fn show(
    State(api): State<Api>,
    SignedIn(user): SignedIn,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let id = order_id(id)?;
    let reservation = api.database.store()?.order(id).await?.ok_or(ApiError::NotFound)?;
    if reservation.order.user != user {
        return Err(ApiError::NotAuthorized);
    }
    Ok(json(StatusCode::OK, &OrderView::from(&reservation)))
}

/// Cancels an order of mine
///
/// The order stays to be seen, and its ticket is free. Cancelling it again changes nothing.
#[utoipa::path(
    delete,
    path = "/api/orders/{orderId}",
    tag = "orders",
    params(("orderId" = String, Path, description = "The order's id")),
    responses((status = 204, description = "The order is cancelled")),
    security(("session" = []), ("expressSession" = []), ("bearer" = []))
)]
pub(super) async fn cancel(
    State(api): State<Api>,
    SignedIn(user): SignedIn,
    id: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, ApiError> {
    let id = order_id(id)?;
    if let Moved::Now(order) = api.database.store()?.cancel(id, &user).await? {
        tracing::info!(order = %order.id, "order cancelled");
    }
    Ok(StatusCode::NO_CONTENT)
}

fn ticket_id(submitted: Option<Value>) -> Result<TicketId, ApiError> {
    match submitted {
        None | Some(Value::Null) => Err(ApiError::TicketIdMissing),
        Some(Value::String(text)) if text.is_empty() => Err(ApiError::TicketIdMissing),
        Some(Value::String(text)) => text.parse().map_err(|_| ApiError::TicketIdInvalid),
        Some(_) => Err(ApiError::TicketIdInvalid),
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, ApiError> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let key = value.to_str().ok().and_then(|text| text.parse().ok());
    key.map(Some).ok_or(ApiError::KeyInvalid)
}

fn order_id(segment: Result<Path<String>, PathRejection>) -> Result<OrderId, ApiError> {
    // A segment that is not even text once its percent signs are decoded is no id either.
    let Path(text) = segment.map_err(|_| ApiError::OrderIdInvalid)?;
    text.parse().map_err(|_| ApiError::OrderIdInvalid)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_missing_is_told_from_what_is_wrong() {
        for missing in [None, Some(json!(null)), Some(json!(""))] {
            assert_eq!(ticket_id(missing), Err(ApiError::TicketIdMissing));
        }
        let id = "65f0c1d2a3b4c5d6e7f80912";
        for wrong in
            [json!(" "), json!(7), json!(false), json!([]), json!([id]), json!({}), json!("abcdefghijkl")]
        {
            assert_eq!(ticket_id(Some(wrong)), Err(ApiError::TicketIdInvalid));
        }
        assert_eq!(ticket_id(Some(json!(id.to_uppercase()))).unwrap().to_string(), id);
    }
}
