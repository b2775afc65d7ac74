//! Reading an order, and its transitions.

use mongodb::{
    bson::{Document, doc},
    options::ReturnDocument,
};
use thiserror::Error;

use super::{
    database::Store,
    document::{object_id, owned_by, skip_malformed, statuses, to_order, to_ticket},
    error::StoreError,
    retry::{self, Passing, ROUNDS},
};
use crate::order::{Order, OrderId, OrderStatus, Reservation, Transition, UserId};

/// An order that has the wanted status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transitioned {
    /// This call changed its status and added 1 to its version.
    Now(Order),
    /// The same, but its document cannot be read. That is no error: what was done is done.
    NowUnreadable(OrderId),
    /// It had the status already and is unchanged.
    Already(Order),
}

/// Why an order was not cancelled.
#[derive(Clone, Debug, Error)]
pub enum CancelError {
    /// There is no such order.
    #[error("there is no order {0}")]
    NotFound(OrderId),
    /// It belongs to another user.
    #[error("the order {0} belongs to another user")]
    NotOwner(OrderId),
    /// It is complete.
    #[error("the order {0} is complete")]
    Complete(OrderId),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Passing for CancelError {
    fn of_database(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) => Some(error),
            _ => None,
        }
    }
}

const READING: &str = "reading an order";
const CANCELLING: &str = "cancelling an order";

impl Store {
    /// One order with its ticket; `None` when there is no such order.
    ///
    /// # Errors
    /// When its document cannot be read, or the database fails.
    pub async fn order(&self, id: OrderId) -> Result<Option<Reservation>, StoreError> {
        retry::patiently(READING, || async {
            let Some(order) = self.order_alone(id).await? else { return Ok(None) };
            let ticket = match order.ticket {
                Some(id) => {
                    self.raw_ticket(id).await?.and_then(|document| skip_malformed(to_ticket(&document)))
                }
                None => None,
            };
            Ok(Some(Reservation { order, ticket }))
        })
        .await
    }

    /// Cancels the order `id` of `user`, if it is open.
    ///
    /// # Errors
    /// When there is no such order, it is another user's, it is complete, or the database fails.
    pub async fn cancel(&self, id: OrderId, user: &UserId) -> Result<Transitioned, CancelError> {
        retry::patiently(CANCELLING, || async {
            for _ in 0..ROUNDS {
                let owned = doc! { "userId": owned_by(user) };
                if let Some(done) = self.transition(id, owned, Transition::Cancel).await? {
                    return Ok(done);
                }
                let order = self.order_alone(id).await?.ok_or(CancelError::NotFound(id))?;
                if order.user != *user {
                    return Err(CancelError::NotOwner(id));
                }
                match order.status {
                    OrderStatus::Cancelled => return Ok(Transitioned::Already(order)),
                    OrderStatus::Complete => return Err(CancelError::Complete(id)),
                    // Read from a replica that lags behind. The write decides, so repeat it.
                    OrderStatus::Created | OrderStatus::AwaitingPayment => retry::backoff(1).await,
                }
            }
            let detail = format!("the order {id} reads as open and is not");
            Err(StoreError::Unavailable { doing: CANCELLING, detail }.into())
        })
        .await
    }

    /// Carries out `transition` on the order `id` in one conditional write, which adds exactly 1 to its version.
    /// `None` when its status does not allow that, `condition` does not hold, or there is no such order.
    pub(super) async fn transition(
        &self,
        id: OrderId,
        condition: Document,
        transition: Transition,
    ) -> Result<Option<Transitioned>, StoreError> {
        let mut filter =
            doc! { "_id": object_id(id.bytes()), "status": { "$in": statuses(transition.from()) } };
        filter.extend(condition);
        let update = self.transition_with_entry(transition).await?;
        let orders = self.raw_orders();
        let updated = retry::transient("updating an order's status", || async {
            orders
                .find_one_and_update(filter.clone(), update.clone())
                .return_document(ReturnDocument::After)
                .await
        })
        .await?;
        if updated.is_some() {
            self.outbox.written();
        }
        Ok(updated.map(|document| match to_order(&document) {
            Ok(order) => Transitioned::Now(order),
            Err(error) => {
                tracing::warn!(%error, to = %transition.to(), "changed the status of a malformed order");
                Transitioned::NowUnreadable(id)
            }
        }))
    }

    /// The order without its ticket.
    pub(super) async fn order_alone(&self, id: OrderId) -> Result<Option<Order>, StoreError> {
        let found = self.order_loader.one(object_id(id.bytes())).await?;
        found.map(|document| to_order(&document)).transpose()
    }
}
