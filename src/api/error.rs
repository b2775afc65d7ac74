//! What a request can be answered but success: `{"errors":[{"message", "field"?}]}`.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::view::json;
use crate::store::{CancelError, ReserveError, StoreError};

/// One of the answers of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ApiError {
    /// Nobody is signed in, or the order is another user's.
    NotAuthorized,
    /// No such order, ticket, route or method.
    NotFound,
    /// The body has no `ticketId`.
    TicketIdMissing,
    /// The `ticketId` is no id.
    TicketIdInvalid,
    /// The id in the path is none.
    OrderIdInvalid,
    /// A page's size is none.
    LimitInvalid,
    /// The order that a page is to begin after has no id.
    AfterInvalid,
    /// A status to list is none.
    StatusInvalid,
    /// The idempotency key is none.
    KeyInvalid,
    /// The idempotency key belongs to another reservation.
    KeyReused,
    /// An active order holds the ticket.
    AlreadyReserved,
    /// A complete order cannot be cancelled.
    AlreadyComplete,
    /// The body says that it is JSON, and is not.
    MalformedJson,
    /// The body is over the limit.
    PayloadTooLarge,
    /// The database is away or too slow.
    Unavailable,
    /// Anything unforeseen; the log has it.
    Internal,
}

/// What a client is told to wait before it asks again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("2");

/// What went wrong.
#[derive(Serialize, ToSchema)]
pub(super) struct Errors {
    errors: &'static [Entry],
}

#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
pub(super) struct Entry {
    message: &'static str,
    /// What of the request it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'static str>,
}

const fn plain(message: &'static str) -> Entry {
    Entry { message, field: None }
}

const fn about(field: &'static str, message: &'static str) -> Entry {
    Entry { message, field: Some(field) }
}

impl ApiError {
    /// The status of the answer.
    pub(super) const fn status(self) -> StatusCode {
        match self {
            Self::NotAuthorized => StatusCode::UNAUTHORIZED,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::TicketIdMissing
            | Self::TicketIdInvalid
            | Self::OrderIdInvalid
            | Self::LimitInvalid
            | Self::AfterInvalid
            | Self::StatusInvalid
            | Self::KeyInvalid
            | Self::AlreadyReserved
            | Self::AlreadyComplete
            | Self::MalformedJson => StatusCode::BAD_REQUEST,
        }
    }

    /// The answer's body.
    pub(super) const fn body(self) -> Errors {
        Errors { errors: self.entries() }
    }

    /// What it says last, which says most.
    pub(super) fn message(self) -> &'static str {
        self.entries().last().map_or("", |entry| entry.message)
    }

    const fn entries(self) -> &'static [Entry] {
        const TICKET_ID: Entry = about("ticketId", "TicketId must be provided");
        match self {
            Self::NotAuthorized => const { &[plain("Not authorized")] },
            Self::NotFound => const { &[plain("Not Found")] },
            // Two rules of the original's validator fail at once, and both say so.
            Self::TicketIdMissing => const { &[about("ticketId", "Invalid value"), TICKET_ID] },
            Self::TicketIdInvalid => const { &[TICKET_ID] },
            Self::OrderIdInvalid => const { &[about("orderId", "OrderId must be valid")] },
            Self::LimitInvalid => const { &[about("limit", "Limit must be a whole number from 1 to 1000")] },
            Self::AfterInvalid => const { &[about("after", "After must be the id of an order")] },
            Self::StatusInvalid => {
                const {
                    &[about(
                        "status",
                        "Status must be one or more of created, awaiting:payment, complete and cancelled, separated by commas",
                    )]
                }
            }
            Self::KeyInvalid => {
                const { &[about("Idempotency-Key", "Idempotency-Key must be 1 to 255 visible ASCII characters")] }
            }
            Self::KeyReused => {
                const { &[about("Idempotency-Key", "Idempotency-Key was used for another ticket")] }
            }
            Self::AlreadyReserved => const { &[plain("Ticket is already reserved")] },
            Self::AlreadyComplete => const { &[plain("Order is already complete")] },
            Self::MalformedJson => const { &[plain("Malformed JSON")] },
            Self::PayloadTooLarge => const { &[plain("Payload too large")] },
            Self::Unavailable => const { &[plain("Service unavailable")] },
            Self::Internal => const { &[plain("Something went wrong")] },
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = json(self.status(), &self.body());
        if self == Self::Unavailable {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        if error.is_unavailable() {
            tracing::warn!(%error, "the database is away");
            Self::Unavailable
        } else {
            tracing::error!(%error, "unforeseen");
            Self::Internal
        }
    }
}

impl From<ReserveError> for ApiError {
    fn from(error: ReserveError) -> Self {
        match error {
            ReserveError::TicketNotFound(_) => Self::NotFound,
            ReserveError::AlreadyReserved(_) => Self::AlreadyReserved,
            ReserveError::KeyReused(_) => Self::KeyReused,
            ReserveError::Store(error) => error.into(),
        }
    }
}

impl From<CancelError> for ApiError {
    fn from(error: CancelError) -> Self {
        match error {
            CancelError::NotFound(_) => Self::NotFound,
            CancelError::NotOwner(_) => Self::NotAuthorized,
            CancelError::Complete(_) => Self::AlreadyComplete,
            CancelError::Store(error) => error.into(),
        }
    }
}
