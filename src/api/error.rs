//! Every error response: `{"errors":[{"message", "field"?}]}`.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::response::json;
use crate::store::{CancelError, ReserveError, StoreError};

/// An error response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ApiError {
    /// Nobody is signed in, or the order belongs to another user.
    NotAuthorized,
    /// No such order, ticket, route or method.
    NotFound,
    /// The body has no `ticketId`.
    TicketIdMissing,
    /// The `ticketId` is not a ticket id.
    TicketIdInvalid,
    /// The id in the path is not an order id.
    OrderIdInvalid,
    /// The `limit` is not a valid page size.
    LimitInvalid,
    /// The `after` of a page is not an order id.
    AfterInvalid,
    /// The `order` of a list is not `asc` or `desc`.
    OrderInvalid,
    /// The `status` to list is not an order status.
    StatusInvalid,
    /// The idempotency key is not valid.
    KeyInvalid,
    /// The idempotency key was used for another ticket.
    KeyReused,
    /// An active order holds the ticket.
    AlreadyReserved,
    /// A complete order cannot be cancelled.
    AlreadyComplete,
    /// The content type is JSON, but the body cannot be parsed.
    MalformedJson,
    /// The body is larger than the limit.
    PayloadTooLarge,
    /// The body is compressed in a way that is not supported.
    EncodingUnsupported,
    /// The body was not received in time.
    BodyTooSlow,
    /// The database is unavailable or too slow.
    Unavailable,
    /// An unexpected error; it is logged.
    Internal,
}

/// How many seconds a client is asked to wait before it tries again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("2");

/// The body of an error response.
#[derive(Serialize, ToSchema)]
pub(super) struct Errors {
    errors: &'static [Entry],
}

#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
pub(super) struct Entry {
    message: &'static str,
    /// The field of the request that the message is about.
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
    /// The status code.
    pub(super) const fn status(self) -> StatusCode {
        match self {
            Self::NotAuthorized => StatusCode::UNAUTHORIZED,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::EncodingUnsupported => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::TicketIdMissing
            | Self::TicketIdInvalid
            | Self::OrderIdInvalid
            | Self::LimitInvalid
            | Self::AfterInvalid
            | Self::OrderInvalid
            | Self::StatusInvalid
            | Self::KeyInvalid
            | Self::AlreadyReserved
            | Self::AlreadyComplete
            | Self::MalformedJson => StatusCode::BAD_REQUEST,
        }
    }

    /// The body.
    pub(super) const fn body(self) -> Errors {
        Errors { errors: self.entries() }
    }

    /// The last message, which is the most specific one.
    pub(super) fn message(self) -> &'static str {
        self.entries().last().map_or("", |entry| entry.message)
    }

    const fn entries(self) -> &'static [Entry] {
        const TICKET_ID: Entry = about("ticketId", "TicketId must be provided");
        match self {
            Self::NotAuthorized => const { &[plain("Not authorized")] },
            Self::NotFound => const { &[plain("Not Found")] },
            // The validator of the Node.js service has two rules for the field, and reports both.
            Self::TicketIdMissing => const { &[about("ticketId", "Invalid value"), TICKET_ID] },
            Self::TicketIdInvalid => const { &[TICKET_ID] },
            Self::OrderIdInvalid => const { &[about("orderId", "OrderId must be valid")] },
            Self::LimitInvalid => const { &[about("limit", "Limit must be a whole number from 1 to 1000")] },
            Self::AfterInvalid => const { &[about("after", "After must be the id of an order")] },
            Self::OrderInvalid => const { &[about("order", "Order must be asc or desc")] },
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
            Self::EncodingUnsupported => {
                const { &[plain("Content-Encoding must be gzip, deflate or identity")] }
            }
            Self::BodyTooSlow => const { &[plain("Request timeout")] },
            Self::Unavailable => const { &[plain("Service unavailable")] },
            Self::Internal => const { &[plain("Something went wrong")] },
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        // These bodies are static texts, so they can always be serialized.
        let mut response =
            json(self.status(), &self.body()).unwrap_or_else(|_| self.status().into_response());
        if self == Self::Unavailable {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        if error.is_unavailable() || error.is_of_an_index() {
            tracing::warn!(%error, "the database is unavailable");
            Self::Unavailable
        } else {
            tracing::error!(%error, "unexpected error");
            Self::Internal
        }
    }
}

impl From<serde_json::Error> for ApiError {
    fn from(error: serde_json::Error) -> Self {
        tracing::error!(%error, "cannot serialize a response");
        Self::Internal
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
