//! Handlers: reserve a ticket, show an order, cancel an order.

use axum::{
    Extension,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, HeaderName, StatusCode},
    response::Response,
};
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    body::RequestFields,
    error::ApiError,
    metrics::{Metrics, ReservationOutcome},
    response::json,
    session::SignedIn,
    state::ApiState,
    untaken::counted,
    view::OrderView,
};
use crate::{
    order::{IdempotencyKey, OrderId, TicketId, UserId},
    store::{ReserveError, Reserved, Transitioned},
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Reserves a ticket
///
/// Of any number of requests for a ticket at most one succeeds, until its order is cancelled.
#[utoipa::path(
    post,
    path = "/api/orders",
    tag = "orders",
    request_body = NewOrder,
    params((
        "Idempotency-Key" = Option<String>, Header, pattern = "^[!-~]+$", min_length = 1, max_length = 255,
        description = "Identifies this reservation: 1 to 255 visible ASCII characters. A request that is sent again \
                       with the same key, by the same user, returns the same order.",
    )),
    responses((status = 201, description = "The order", body = OrderView)),
    security(("session" = []), ("expressSession" = []), ("bearer" = []))
)]
pub(super) async fn create(
    State(state): State<ApiState>,
    SignedIn(user): SignedIn,
    Extension(fields): Extension<RequestFields>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let attempt = Attempt { metrics: state.metrics.clone(), outcome: ReservationOutcome::Unanswered };
    let result = reserve(&state, &user, fields, &headers).await;
    attempt.ended(match &result {
        Ok(Reserved::New(_)) => ReservationOutcome::Reserved,
        Ok(Reserved::Replayed(_)) => ReservationOutcome::Repeated,
        Err(ApiError::AlreadyReserved) => ReservationOutcome::AlreadyReserved,
        Err(ApiError::NotFound) => ReservationOutcome::TicketNotFound,
        Err(
            ApiError::TicketIdMissing
            | ApiError::TicketIdInvalid
            | ApiError::KeyInvalid
            | ApiError::KeyReused,
        ) => ReservationOutcome::Invalid,
        Err(ApiError::Unavailable) => ReservationOutcome::Unavailable,
        Err(_) => ReservationOutcome::Failed,
    });
    Ok(counted(&state, &user, json(StatusCode::CREATED, &OrderView::from(result?.reservation()))?))
}

/// An attempt to reserve, which is counted when it ends, also if that is because nobody waits for it any more.
struct Attempt {
    metrics: Metrics,
    outcome: ReservationOutcome,
}

impl Attempt {
    fn ended(mut self, outcome: ReservationOutcome) {
        self.outcome = outcome;
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.metrics.reservation(self.outcome);
    }
}

/// The ticket to reserve; other fields are ignored.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only describes what body.rs reads, for the OpenAPI document")]
struct NewOrder {
    #[schema(rename = "ticketId", pattern = "^[0-9a-fA-F]{24}$", example = "65f0c1d2a3b4c5d6e7f80911")]
    ticket_id: String,
}

async fn reserve(
    state: &ApiState,
    user: &UserId,
    fields: RequestFields,
    headers: &HeaderMap,
) -> Result<Reserved, ApiError> {
    let ticket = ticket_id(fields.ticket_id)?;
    let key = idempotency_key(headers)?;
    let store = state.database.to_reserve().await?;
    match store.reserve(user, ticket, key.as_ref(), &state.terms).await {
        Ok(reserved) => {
            if let Reserved::New(reservation) = &reserved {
                tracing::info!(order = %reservation.order.id, %ticket, "ticket reserved");
            }
            Ok(reserved)
        }
        Err(ReserveError::Store(error)) => {
            state.database.doubt(&error);
            Err(error.into())
        }
        Err(error) => {
            tracing::debug!(%error, "not reserved");
            Err(error.into())
        }
    }
}

/// Shows one of the user's orders
#[utoipa::path(
    get,
    path = "/api/orders/{orderId}",
    tag = "orders",
    params((
        "orderId" = String, Path, pattern = "^[0-9a-fA-F]{24}$", min_length = 24, max_length = 24,
        description = "The order's id",
    )),
    responses((status = 200, description = "The order", body = OrderView)),
    security(("session" = []), ("expressSession" = []), ("bearer" = []))
)]
pub(super) async fn show(
    State(state): State<ApiState>,
    SignedIn(user): SignedIn,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let id = order_id(id)?;
    let reservation = state.database.store()?.order(id).await?.ok_or(ApiError::NotFound)?;
    if reservation.order.user != user {
        return Err(ApiError::NotAuthorized);
    }
    Ok(counted(&state, &user, json(StatusCode::OK, &OrderView::from(&reservation))?))
}

/// Cancels one of the user's orders
///
/// The order can still be shown, and its ticket can be reserved again. Cancelling it again changes nothing.
#[utoipa::path(
    delete,
    path = "/api/orders/{orderId}",
    tag = "orders",
    params((
        "orderId" = String, Path, pattern = "^[0-9a-fA-F]{24}$", min_length = 24, max_length = 24,
        description = "The order's id",
    )),
    responses((status = 204, description = "The order is cancelled")),
    security(("session" = []), ("expressSession" = []), ("bearer" = []))
)]
pub(super) async fn cancel(
    State(state): State<ApiState>,
    SignedIn(user): SignedIn,
    id: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, ApiError> {
    let id = order_id(id)?;
    if !matches!(state.database.store()?.cancel(id, &user).await?, Transitioned::Already(_)) {
        tracing::info!(order = %id, "order cancelled");
    }
    Ok(StatusCode::NO_CONTENT)
}

fn ticket_id(field: Option<Value>) -> Result<TicketId, ApiError> {
    match field {
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
    // The rejection is for a segment that is not UTF-8 once it is percent-decoded: not an id either.
    let Path(text) = segment.map_err(|_| ApiError::OrderIdInvalid)?;
    text.parse().map_err(|_| ApiError::OrderIdInvalid)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_missing_ticket_id_and_an_invalid_one_are_different_errors() {
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
