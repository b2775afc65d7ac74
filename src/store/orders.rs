//! Reading an order, and moving it on.

use mongodb::{
    bson::{Document, doc},
    options::ReturnDocument,
};
use thiserror::Error;

use super::{
    database::Store,
    document::{kept, object_id, statuses, to_order, to_ticket, transition_update},
    error::StoreError,
    retry::{self, ROUNDS},
};
use crate::order::{Order, OrderId, OrderStatus, Reservation, Transition, UserId};

/// An order that is where it was to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moved {
    /// This call moved it, one version higher.
    Now(Order),
    /// It was there already, and stays as it is.
    Before(Order),
}

/// Why an order was not cancelled.
#[derive(Clone, Debug, Error)]
pub enum CancelError {
    /// There is no such order.
    #[error("there is no order {0}")]
    NotFound(OrderId),
    /// It is somebody else's.
    #[error("the order {0} belongs to another user")]
    NotOwner(OrderId),
    /// It is paid for.
    #[error("the order {0} is complete")]
    Complete(OrderId),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

const READING: &str = "reading an order";
const CANCELLING: &str = "cancelling an order";

impl Store {
    /// One order with its ticket; `None` when there is no such order.
    ///
    /// # Errors
    /// When its document cannot be read, or the database fails.
    pub async fn order(&self, id: OrderId) -> Result<Option<Reservation>, StoreError> {
        retry::within(retry::DEADLINE, READING, async {
            let Some(order) = self.bare_order(id).await? else { return Ok(None) };
            let ticket = match order.ticket {
                Some(id) => self.raw_ticket(id).await?.and_then(|document| kept(to_ticket(&document))),
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
    pub async fn cancel(&self, id: OrderId, user: &UserId) -> Result<Moved, CancelError> {
        retry::within(retry::DEADLINE, CANCELLING, async {
            for _ in 0..ROUNDS {
                if let Some(order) =
                    self.advance(id, doc! { "userId": user.as_str() }, Transition::Cancel).await?
                {
                    return Ok(Moved::Now(order));
                }
                let order = self.bare_order(id).await?.ok_or(CancelError::NotFound(id))?;
                if order.user != *user {
                    return Err(CancelError::NotOwner(id));
                }
                match order.status {
                    OrderStatus::Cancelled => return Ok(Moved::Before(order)),
                    OrderStatus::Complete => return Err(CancelError::Complete(id)),
                    // A replica that lags behind still shows it open: the write decides, so ask it again.
                    OrderStatus::Created | OrderStatus::AwaitingPayment => retry::pause(1).await,
                }
            }
            let detail = format!("the order {id} reads as open and is not");
            Err(StoreError::Unavailable { doing: CANCELLING, detail }.into())
        })
        .await
    }

    /// Moves the order `id` on, if its status allows it and `condition` holds; `None` when not, or there
    /// is no such order. One conditional write, which adds exactly 1 to the version.
    pub(super) async fn advance(
        &self,
        id: OrderId,
        condition: Document,
        transition: Transition,
    ) -> Result<Option<Order>, StoreError> {
        let mut filter =
            doc! { "_id": object_id(id.bytes()), "status": { "$in": statuses(transition.from()) } };
        filter.extend(condition);
        let orders = self.raw_orders();
        let moved = retry::transient("moving an order on", || async {
            orders
                .find_one_and_update(filter.clone(), transition_update(transition))
                .return_document(ReturnDocument::After)
                .await
        })
        .await?;
        moved.map(|document| to_order(&document)).transpose()
    }

    pub(super) async fn bare_order(&self, id: OrderId) -> Result<Option<Order>, StoreError> {
        let found = self.orders_by_id.one(object_id(id.bytes())).await?;
        found.map(|document| to_order(&document)).transpose()
    }
}
