//! Reserving a ticket: one insert, which the unique index accepts or refuses.

use jiff::Timestamp;
use mongodb::bson::{RawDocumentBuf, doc, oid::ObjectId};
use thiserror::Error;

use super::{
    database::Store,
    document::{
        IDEMPOTENCY_KEY, expires_at, from_order, object_id, skip_malformed, statuses, to_order,
        transition_update,
    },
    error::StoreError,
    retry,
};
use crate::order::{
    IdempotencyKey, Order, OrderId, OrderStatus, Reservation, ReservationTerms, TicketId, Transition, UserId,
};

/// A successful reservation.
#[derive(Clone, Debug, PartialEq)]
pub enum Reserved {
    /// This call has made it.
    New(Reservation),
    /// An earlier call with the same idempotency key has made it; the order's status may have changed since.
    Replayed(Reservation),
}

impl Reserved {
    /// The order and its ticket.
    #[must_use]
    pub fn reservation(&self) -> &Reservation {
        match self {
            Self::New(reservation) | Self::Replayed(reservation) => reservation,
        }
    }
}

/// Why a ticket was not reserved.
#[derive(Clone, Debug, Error)]
pub enum ReserveError {
    /// There is no such ticket.
    #[error("there is no ticket {0}")]
    TicketNotFound(TicketId),
    /// An active order holds it.
    #[error("the ticket {0} is held by an active order")]
    AlreadyReserved(TicketId),
    /// The user has used this idempotency key for another ticket.
    #[error("the idempotency key was used for another ticket, by the order {0}")]
    KeyReused(OrderId),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

const RESERVING: &str = "reserving a ticket";

/// How often the insert is repeated after the ticket's overdue order was cancelled.
const INSERT_ROUNDS: u32 = 3;

/// Conflicting inserts back off as if they had made so many attempts more, since PostgreSQL takes about 20 ms per
/// writer to detect a deadlock.
const CONFLICT_BACKOFF: u32 = 4;

/// How much this machine's clock may differ from the database's before it wrongly concludes that an order is not
/// overdue without asking the database for its time.
const CLOCK_SLACK: jiff::SignedDuration = jiff::SignedDuration::from_secs(60);

enum InsertOutcome {
    Inserted,
    /// An active order holds the ticket, or the idempotency key has been used.
    Refused,
}

impl Store {
    /// Reserves `ticket` for `user`, from `now` on.
    ///
    /// Of any number of concurrent calls for one ticket, at most one succeeds. An overdue open order does not prevent
    /// it: that order is cancelled first. Calls with the same `key` make one order, which all of them return, whatever
    /// its status is by then.
    ///
    /// # Errors
    /// When there is no such ticket, an active order holds it, the key was used for another ticket,
    /// or the database fails. In the last case the reservation may have been made nevertheless; repeating the call with
    /// the same key returns it.
    pub async fn reserve(
        &self,
        user: &UserId,
        ticket: TicketId,
        key: Option<&IdempotencyKey>,
        now: Timestamp,
        terms: &ReservationTerms,
    ) -> Result<Reserved, ReserveError> {
        retry::within(retry::DEADLINE, RESERVING, async {
            if let Some(earlier) = self.reserved_before(user, ticket, key).await? {
                return Ok(earlier);
            }
            let record = self.ticket(ticket).await?.ok_or(ReserveError::TicketNotFound(ticket))?;
            let id = OrderId::from_bytes(ObjectId::new().bytes());
            let order = Order::reserve(id, user.clone(), ticket, now, terms.window);
            for _ in 0..INSERT_ROUNDS {
                match self.insert(&order, key, ticket).await? {
                    InsertOutcome::Inserted => {
                        return Ok(Reserved::New(Reservation { order, ticket: Some(record) }));
                    }
                    // Of concurrent calls with the same key, all but one find the order of that one here.
                    InsertOutcome::Refused => match self.reserved_before(user, ticket, key).await? {
                        Some(earlier) => return Ok(earlier),
                        None if self.release_ticket(ticket, now, terms).await? => {}
                        None => break,
                    },
                }
            }
            Err(ReserveError::AlreadyReserved(ticket))
        })
        .await
    }

    /// The reservation that an earlier call of `user` with the same `key` has made.
    async fn reserved_before(
        &self,
        user: &UserId,
        ticket: TicketId,
        key: Option<&IdempotencyKey>,
    ) -> Result<Option<Reserved>, ReserveError> {
        let Some(key) = key else { return Ok(None) };
        let orders = self.raw_orders();
        let filter = doc! { "userId": user.as_str(), IDEMPOTENCY_KEY: key.as_str() };
        let found = retry::transient(RESERVING, || async { orders.find_one(filter.clone()).await }).await?;
        let Some(order) = found.map(|document| to_order(&document)).transpose()? else { return Ok(None) };
        if order.ticket != Some(ticket) {
            return Err(ReserveError::KeyReused(order.id));
        }
        let ticket = self.ticket(ticket).await?;
        Ok(Some(Reserved::Replayed(Reservation { order, ticket })))
    }

    /// Inserts `order` exactly once, retrying until it is known whether it has been inserted.
    async fn insert(
        &self,
        order: &Order,
        key: Option<&IdempotencyKey>,
        ticket: TicketId,
    ) -> Result<InsertOutcome, StoreError> {
        let mut document = from_order(order);
        if let Some(key) = key {
            document.insert(IDEMPOTENCY_KEY, key.as_str());
        }
        let mut attempt = 1;
        loop {
            let Err(refused) = self.inserter.insert(document.clone()).await? else {
                return Ok(InsertOutcome::Inserted);
            };
            if refused.is_duplicate && attempt == 1 {
                return Ok(InsertOutcome::Refused);
            }
            if !refused.is_duplicate && !retry::should_retry(refused.is_transient, attempt) {
                return Err(refused.error);
            }
            // An immediate retry would conflict again. After the backoff, one of the conflicting orders usually holds
            // the ticket: it may be this one, if only the reply was lost.
            retry::backoff(attempt + CONFLICT_BACKOFF).await;
            let ours = object_id(order.id.bytes());
            match self.active_order(ticket).await? {
                Some(holder) if holder.get_object_id("_id").is_ok_and(|id| id == ours) => {
                    return Ok(InsertOutcome::Inserted);
                }
                Some(_) => return Ok(InsertOutcome::Refused),
                None if refused.is_duplicate => {
                    // Either this order was inserted and has been cancelled since; or the key is used, or the order
                    // that held the ticket is gone, which the caller checks.
                    let ours = self.order_alone(order.id).await?.is_some();
                    return Ok(if ours { InsertOutcome::Inserted } else { InsertOutcome::Refused });
                }
                None => {}
            }
            attempt += 1;
        }
    }

    /// Cancels the order that holds `ticket` if it is overdue. Returns whether another insert may succeed: that order
    /// was cancelled, or no order holds the ticket any more.
    async fn release_ticket(
        &self,
        ticket: TicketId,
        now: Timestamp,
        terms: &ReservationTerms,
    ) -> Result<bool, StoreError> {
        let Some(document) = self.active_order(ticket).await? else { return Ok(true) };
        // A malformed order holds its ticket all the same.
        let Some(holder) = skip_malformed(to_order(&document)) else { return Ok(false) };
        // The usual case when buyers compete for a ticket: it costs no query for the time.
        let latest = now.checked_add(CLOCK_SLACK).unwrap_or(Timestamp::MAX);
        if !holder.is_overdue(latest, terms) {
            return Ok(false);
        }
        // Only the database's clock decides whether it is overdue.
        let cutoff = self.server_time().await?;
        if !holder.is_overdue(cutoff, terms) {
            return Ok(false);
        }
        let orders = self.orders();
        // The write has the status and the time that were checked, so an order whose payment begins meanwhile is kept.
        let filter = doc! {
            "_id": object_id(holder.id.bytes()),
            "status": holder.status.as_str(),
            "expiresAt": expires_at(holder.expires_at),
        };
        let result = retry::transient("cancelling an overdue order", || async {
            orders.update_one(filter.clone(), transition_update(Transition::Cancel)).await
        })
        .await?;
        if result.matched_count > 0 {
            tracing::info!(order = %holder.id, %ticket, "cancelled an overdue order to reserve its ticket again");
        }
        // If nothing matched, the order has changed meanwhile, which the next insert will show.
        Ok(true)
    }

    /// The active order that holds `ticket`.
    async fn active_order(&self, ticket: TicketId) -> Result<Option<RawDocumentBuf>, StoreError> {
        let orders = self.raw_orders();
        let filter = doc! {
            "ticket": object_id(ticket.bytes()),
            "status": { "$in": statuses(&OrderStatus::ACTIVE) },
        };
        retry::transient(RESERVING, || async { orders.find_one(filter.clone()).await }).await
    }
}
