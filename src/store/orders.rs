//! Reading orders, and moving them on.

use futures::TryStreamExt;
use mongodb::{
    bson::{Document, RawDocumentBuf, doc},
    options::ReturnDocument,
};
use thiserror::Error;

use super::{
    Store, StoreError,
    document::{kept, object_id, statuses, to_order},
    retry,
};
use crate::order::{Order, OrderId, OrderStatus, Reservation, Transition, UserId};

/// What a cancellation found; either way the order is cancelled now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cancellation {
    /// It was open: this call cancelled it, one version higher.
    Now(Order),
    /// It was cancelled already, and stays as it is.
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

const LISTING: &str = "listing a user's orders";
const READING: &str = "reading an order";
const CANCELLING: &str = "cancelling an order";

/// How often a cancellation looks again when the order moved between its write and its read.
const ROUNDS: u32 = 3;

impl Store {
    /// All orders of `user`, oldest first, with their tickets: two queries, however many orders.
    ///
    /// # Errors
    /// When the database fails. Malformed orders are logged and left out.
    pub async fn orders_of(&self, user: &UserId) -> Result<Vec<Reservation>, StoreError> {
        retry::within(retry::DEADLINE, LISTING, async {
            let orders = self.raw_orders();
            let found: Vec<RawDocumentBuf> = retry::transient(LISTING, || async {
                // Ids begin with the time that they were made.
                orders
                    .find(doc! { "userId": user.as_str() })
                    .sort(doc! { "_id": 1 })
                    .await?
                    .try_collect()
                    .await
            })
            .await?;
            let orders: Vec<Order> = found.iter().filter_map(|document| kept(to_order(document))).collect();
            let tickets = self.tickets_by_id(orders.iter().filter_map(|order| order.ticket)).await?;
            let with_ticket = |order: Order| {
                let ticket = order.ticket.and_then(|id| tickets.get(&id).cloned());
                Reservation { order, ticket }
            };
            Ok(orders.into_iter().map(with_ticket).collect())
        })
        .await
    }

    /// One order with its ticket; `None` when there is no such order.
    ///
    /// # Errors
    /// When its document cannot be read, or the database fails.
    pub async fn order(&self, id: OrderId) -> Result<Option<Reservation>, StoreError> {
        retry::within(retry::DEADLINE, READING, async {
            let Some(order) = self.bare_order(id).await? else { return Ok(None) };
            let ticket = match order.ticket {
                Some(id) => self.tickets_by_id([id]).await?.remove(&id),
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
    pub async fn cancel(&self, id: OrderId, user: &UserId) -> Result<Cancellation, CancelError> {
        retry::within(retry::DEADLINE, CANCELLING, async {
            for _ in 0..ROUNDS {
                if let Some(order) = self.advance(id, user, Transition::Cancel).await? {
                    return Ok(Cancellation::Now(order));
                }
                let order = self.bare_order(id).await?.ok_or(CancelError::NotFound(id))?;
                if order.user != *user {
                    return Err(CancelError::NotOwner(id));
                }
                match order.status {
                    OrderStatus::Cancelled => return Ok(Cancellation::Before(order)),
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

    /// Moves the order `id` of `user` on, if its status allows it; `None` when it does not, or there is
    /// no such order. One conditional write, which adds exactly 1 to the version.
    async fn advance(
        &self,
        id: OrderId,
        user: &UserId,
        transition: Transition,
    ) -> Result<Option<Order>, StoreError> {
        let filter = doc! {
            "_id": object_id(id.bytes()),
            "userId": user.as_str(),
            "status": { "$in": statuses(transition.from()) },
        };
        let orders = self.raw_orders();
        let moved = retry::transient("moving an order on", || async {
            orders
                .find_one_and_update(filter.clone(), advanced(transition))
                .return_document(ReturnDocument::After)
                .await
        })
        .await?;
        moved.map(|document| to_order(&document)).transpose()
    }

    pub(super) async fn bare_order(&self, id: OrderId) -> Result<Option<Order>, StoreError> {
        let orders = self.raw_orders();
        let found = retry::transient(READING, || async {
            orders.find_one(doc! { "_id": object_id(id.bytes()) }).await
        })
        .await?;
        found.map(|document| to_order(&document)).transpose()
    }
}

/// The update of a transition. Only these two fields are touched: others may write theirs.
pub(super) fn advanced(transition: Transition) -> Document {
    doc! { "$set": { "status": transition.to().as_str() }, "$inc": { "version": 1 } }
}
