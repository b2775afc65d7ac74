//! Paying for an order: from `created` by way of `awaiting:payment`, or at once, to `complete`.
//!
//! An order may be paid for while the database's clock is before its `expiresAt`; one whose payment
//! has begun, for the payment's grace longer. The write says so itself, with the same moment that the
//! sweeper's write would have, so of a payment and an expiry that race, exactly one happens. A late
//! payment never revives a cancelled order.

use jiff::Timestamp;
use mongodb::bson::{Document, doc};
use thiserror::Error;

use super::{
    database::Store,
    document::{before, date},
    error::StoreError,
    orders::Moved,
    retry::{self, ROUNDS},
};
use crate::order::{OrderId, OrderStatus, ReservationTerms, Transition, TransitionError};

/// Why an order was not paid for.
#[derive(Clone, Debug, Error)]
pub enum PaymentError {
    /// There is no such order.
    #[error("there is no order {0}")]
    NotFound(OrderId),
    /// Its time is over, though it has not been cancelled yet; the payment is to be given back.
    #[error("the time to pay for the order {0} is over")]
    TooLate(OrderId),
    /// It is cancelled, or complete where only its payment was to begin.
    #[error("the order {id} cannot be paid for: {source}")]
    Refused {
        /// The order.
        id: OrderId,
        /// Where it stands.
        source: TransitionError,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

const PAYING: &str = "paying for an order";

impl Store {
    /// Notes that the payment of the order `id` has begun.
    ///
    /// # Errors
    /// When there is no such order, its time is over, it is final, or the database fails.
    pub async fn begin_payment(&self, id: OrderId, terms: &ReservationTerms) -> Result<Moved, PaymentError> {
        self.pay(id, Transition::BeginPayment, terms).await
    }

    /// Notes that the order `id` is paid for. Doing so again changes nothing.
    ///
    /// # Errors
    /// When there is no such order, its time is over, it is cancelled, or the database fails.
    pub async fn complete(&self, id: OrderId, terms: &ReservationTerms) -> Result<Moved, PaymentError> {
        self.pay(id, Transition::Complete, terms).await
    }

    async fn pay(
        &self,
        id: OrderId,
        transition: Transition,
        terms: &ReservationTerms,
    ) -> Result<Moved, PaymentError> {
        retry::within(retry::DEADLINE, PAYING, async {
            for _ in 0..ROUNDS {
                let now = self.server_time().await?;
                let in_time = in_time(now, terms);
                if let Some(order) = self.advance(id, in_time, transition).await? {
                    return Ok(Moved::Now(order));
                }
                let order = self.bare_order(id).await?.ok_or(PaymentError::NotFound(id))?;
                if order.status == transition.to() {
                    return Ok(Moved::Before(order));
                }
                transition.apply(order.status).map_err(|source| PaymentError::Refused { id, source })?;
                if order.is_overdue(now, terms) {
                    return Err(PaymentError::TooLate(id));
                }
                // It moved meanwhile, or a replica that lags behind shows it as it was: the write decides.
                retry::pause(1).await;
            }
            let detail = format!("the order {id} reads as payable and is not");
            Err(StoreError::Unavailable { doing: PAYING, detail }.into())
        })
        .await
    }
}

/// What an order must be to be paid for at `now`: the opposite of what the sweeper calls due.
fn in_time(now: Timestamp, terms: &ReservationTerms) -> Document {
    doc! { "$or": [
        { "expiresAt": { "$gt": date(now) } },
        {
            "status": OrderStatus::AwaitingPayment.as_str(),
            "expiresAt": { "$gt": date(before(now, terms.payment_grace)) },
        },
    ] }
}
