//! When an order can be paid for, and that its payment begins: from `created` to `awaiting:payment`. What a payment does
//! that has come is in `settle`.
//!
//! An order can be paid for until the database's clock reaches its `expiresAt`, and during the grace period after it
//! if its payment has begun. The write itself has this condition, which is the opposite of the sweeper's: of a payment
//! and an expiry that race, exactly one happens. A late payment never revives a cancelled order.

use jiff::Timestamp;
use mongodb::bson::{Document, doc};
use thiserror::Error;

use super::{
    database::Store,
    document::{ORDERS, before, date, object_id},
    error::StoreError,
    orders::Transitioned,
    retry::{self, Passing, ROUNDS},
};
use crate::order::{OrderId, OrderStatus, ReservationTerms, Transition, TransitionError};

/// Why it was not stored that the payment of an order has begun.
#[derive(Clone, Debug, Error)]
pub enum PaymentError {
    /// There is no such order.
    #[error("there is no order {0}")]
    NotFound(OrderId),
    /// It has expired, though it is not cancelled yet; the payment must be refunded.
    #[error("the time to pay for the order {0} is over")]
    TooLate(OrderId),
    /// Its status does not allow it: it is cancelled, or already complete when the payment is to begin.
    #[error("the order {id} cannot be paid for: {source}")]
    Refused {
        /// The order.
        id: OrderId,
        /// The transition that is not allowed.
        source: TransitionError,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Passing for PaymentError {
    fn of_database(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) => Some(error),
            _ => None,
        }
    }
}

const BEGINNING: &str = "storing that a payment has begun";

impl Store {
    /// Records that the payment of the order `id` has begun, as was published at `published` by the broker's clock: that
    /// counts if the order is still open.
    ///
    /// # Errors
    /// When there is no such order, it has expired, its status does not allow it, or the database fails.
    pub async fn payment_started(
        &self,
        id: OrderId,
        published: Timestamp,
        terms: &ReservationTerms,
    ) -> Result<Transitioned, PaymentError> {
        let transition = Transition::BeginPayment;
        retry::patiently(BEGINNING, || async {
            for _ in 0..ROUNDS {
                let now = self.server_time().await?.min(published);
                if let Some(done) = self.transition(id, payable_at(now, terms), transition).await? {
                    return Ok(done);
                }
                let Some(order) = self.order_alone(id).await? else {
                    // A caller that is told the order never was forgets the payment.
                    if self.holds(BEGINNING, ORDERS, doc! { "_id": object_id(id.bytes()) }).await? {
                        continue;
                    }
                    return Err(PaymentError::NotFound(id));
                };
                if order.status == transition.to() {
                    return Ok(Transitioned::Already(order));
                }
                transition.apply(order.status).map_err(|source| PaymentError::Refused { id, source })?;
                if order.is_overdue(now, terms) {
                    return Err(PaymentError::TooLate(id));
                }
                // It changed meanwhile, or was read from a replica that lags behind. The write decides, so repeat it.
                retry::backoff(1).await;
            }
            let detail = format!("the order {id} reads as payable and is not");
            Err(StoreError::Unavailable { doing: BEGINNING, detail }.into())
        })
        .await
    }
}

/// The filter for orders that can be paid for at `now`: those that the sweeper does not consider due. An order without a
/// time never is.
pub(super) fn payable_at(now: Timestamp, terms: &ReservationTerms) -> Document {
    doc! { "$or": [
        { "expiresAt": { "$not": { "$type": "date" } } },
        { "expiresAt": { "$gt": date(now) } },
        {
            "status": OrderStatus::AwaitingPayment.as_str(),
            "expiresAt": { "$gt": date(before(now, terms.payment_grace)) },
        },
    ] }
}
