//! The four routes.

use axum::{
    Extension,
    extract::{Path, State, rejection::PathRejection},
    http::StatusCode,
    response::Response,
};
use jiff::Timestamp;
use serde_json::Value;

use super::{
    Api,
    body::Submitted,
    error::ApiError,
    metrics::Outcome,
    session::SignedIn,
    view::{OrderView, json},
};
use crate::{
    order::{OrderId, Reservation, TicketId, UserId},
    store::{Cancellation, ReserveError},
};

/// `POST /api/orders`: reserves a ticket.
pub(super) async fn create(
    State(api): State<Api>,
    SignedIn(user): SignedIn,
    Extension(submitted): Extension<Submitted>,
) -> Result<Response, ApiError> {
    let result = reserve(&api, &user, submitted).await;
    api.metrics.reservation(match &result {
        Ok(_) => Outcome::Reserved,
        Err(ApiError::AlreadyReserved) => Outcome::AlreadyReserved,
        Err(ApiError::NotFound) => Outcome::TicketNotFound,
        Err(ApiError::TicketIdMissing | ApiError::TicketIdInvalid) => Outcome::Invalid,
        Err(ApiError::Unavailable) => Outcome::Unavailable,
        Err(_) => Outcome::Failed,
    });
    result.map(|reservation| json(StatusCode::CREATED, &OrderView::from(&reservation)))
}

async fn reserve(api: &Api, user: &UserId, submitted: Submitted) -> Result<Reservation, ApiError> {
    let ticket = ticket_id(submitted.ticket_id)?;
    let store = api.database.store()?;
    match store.reserve(user, ticket, Timestamp::now(), &api.terms).await {
        Ok(reservation) => {
            tracing::info!(order = %reservation.order.id, %ticket, "ticket reserved");
            Ok(reservation)
        }
        Err(error @ ReserveError::Store(_)) => Err(error.into()),
        Err(error) => {
            tracing::debug!(%error, "not reserved");
            Err(error.into())
        }
    }
}

/// `GET /api/orders`: the user's orders, oldest first.
pub(super) async fn list(State(api): State<Api>, SignedIn(user): SignedIn) -> Result<Response, ApiError> {
    let orders = api.database.store()?.orders_of(&user).await?;
    let views: Vec<_> = orders.iter().map(OrderView::from).collect();
    Ok(json(StatusCode::OK, &views))
}

/// `GET /api/orders/:orderId`: one order.
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

/// `DELETE /api/orders/:orderId`: cancels the order; the document stays.
pub(super) async fn cancel(
    State(api): State<Api>,
    SignedIn(user): SignedIn,
    id: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, ApiError> {
    let id = order_id(id)?;
    if let Cancellation::Now(order) = api.database.store()?.cancel(id, &user).await? {
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
