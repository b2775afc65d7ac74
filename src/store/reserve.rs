//! Reserving a ticket: one insert, which the unique index lets through or not.

use jiff::Timestamp;
use mongodb::bson::{RawDocumentBuf, doc, oid::ObjectId};
use thiserror::Error;

use super::{
    database::Store,
    document::{IDEMPOTENCY_KEY, date, from_order, kept, object_id, statuses, to_order, transition_update},
    error::StoreError,
    retry,
};
use crate::order::{
    IdempotencyKey, Order, OrderId, OrderStatus, Reservation, ReservationTerms, TicketId, Transition, UserId,
};

/// A reservation that stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Reserved {
    /// This call made it.
    Now(Reservation),
    /// An earlier call with the same idempotency key made it; its order may have moved on since.
    Before(Reservation),
}

impl Reserved {
    /// The order and its ticket.
    #[must_use]
    pub fn reservation(&self) -> &Reservation {
        match self {
            Self::Now(reservation) | Self::Before(reservation) => reservation,
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
    /// The user has an order by this idempotency key already, and it is for another ticket.
    #[error("the idempotency key was used for another ticket, by the order {0}")]
    KeyReused(OrderId),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

const RESERVING: &str = "reserving a ticket";

/// How often an insert is tried after an overdue order was cancelled to make room for it.
const ROUNDS: u32 = 3;

/// Rivals for one ticket begin with the pauses of a later attempt: PostgreSQL takes 20 ms for each of
/// them to see who waits for whom.
const RIVALRY: u32 = 4;

/// How far this machine's clock may be ahead or behind of the database's before it misjudges which
/// orders are worth asking the database about.
const CLOCK_SLACK: jiff::SignedDuration = jiff::SignedDuration::from_secs(60);

enum Inserted {
    Yes,
    Held,
}

impl Store {
    /// Reserves `ticket` for `user`, from `now` on.
    ///
    /// Of any number of simultaneous calls for one ticket at most one succeeds. An open order that
    /// is past its time does not count: it is cancelled first. Calls with the same `key` make one
    /// order, which each of them gets, whatever has become of it since.
    ///
    /// # Errors
    /// When there is no such ticket, an active order holds it, the key was used for another ticket,
    /// or the database fails. In the last case the reservation may have been made nevertheless, if
    /// the database went away in the midst: the same call with the same key finds out.
    pub async fn reserve(
        &self,
        user: &UserId,
        ticket: TicketId,
        key: Option<&IdempotencyKey>,
        now: Timestamp,
        terms: &ReservationTerms,
    ) -> Result<Reserved, ReserveError> {
        retry::within(retry::DEADLINE, RESERVING, async {
            if let Some(earlier) = self.earlier(user, ticket, key).await? {
                return Ok(earlier);
            }
            let record = self.ticket(ticket).await?.ok_or(ReserveError::TicketNotFound(ticket))?;
            let id = OrderId::from_bytes(ObjectId::new().bytes());
            let order = Order::reserve(id, user.clone(), ticket, now, terms.window);
            for _ in 0..ROUNDS {
                match self.insert_in_turn(&order, key, ticket).await? {
                    Inserted::Yes => return Ok(Reserved::Now(Reservation { order, ticket: Some(record) })),
                    // Of calls that race with one key, all but one find the winner's order here.
                    Inserted::Held => match self.earlier(user, ticket, key).await? {
                        Some(earlier) => return Ok(earlier),
                        None if self.make_room(ticket, now, terms).await? => {}
                        None => break,
                    },
                }
            }
            Err(ReserveError::AlreadyReserved(ticket))
        })
        .await
    }

    /// What an earlier call of `user` with `key` has reserved.
    async fn earlier(
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
        Ok(Some(Reserved::Before(Reservation { order, ticket })))
    }

    /// Inserts `order` when no other buyer in this process is at it for the same ticket.
    async fn insert_in_turn(
        &self,
        order: &Order,
        key: Option<&IdempotencyKey>,
        ticket: TicketId,
    ) -> Result<Inserted, StoreError> {
        let gate = self.gates.get_or_init(Box::default).of(ticket);
        loop {
            if let Ok(_turn) = gate.try_lock() {
                return self.insert(order, key, ticket).await;
            }
            drop(gate.lock().await);
            // Whoever was before has the ticket now, as a rule: one look instead of one more rival.
            if self.holder(ticket).await?.is_some() {
                return Ok(Inserted::Held);
            }
        }
    }

    /// Inserts `order` once, however often it takes to learn whether it happened.
    async fn insert(
        &self,
        order: &Order,
        key: Option<&IdempotencyKey>,
        ticket: TicketId,
    ) -> Result<Inserted, StoreError> {
        let mut document = from_order(order);
        if let Some(key) = key {
            document.insert(IDEMPOTENCY_KEY, key.as_str());
        }
        let mut attempt = 1;
        loop {
            let Err(refused) = self.inserts.one(document.clone()).await? else { return Ok(Inserted::Yes) };
            if refused.is_duplicate && attempt == 1 {
                return Ok(Inserted::Held);
            }
            if !refused.is_duplicate && !retry::again(refused.is_transient, attempt) {
                return Err(refused.error);
            }
            // Rivals that try again at once only get in each other's way again. After a pause one of
            // them has the ticket, and the others can see it. After a lost reply it may be this order.
            retry::pause(attempt + RIVALRY).await;
            let ours = object_id(order.id.bytes());
            match self.holder(ticket).await? {
                Some(holder) if holder.get_object_id("_id").is_ok_and(|id| id == ours) => {
                    return Ok(Inserted::Yes);
                }
                Some(_) => return Ok(Inserted::Held),
                None if refused.is_duplicate => {
                    // It was inserted, and has been cancelled since; or it is its key that is taken,
                    // or its ticket is free again, which the caller looks into.
                    let ours = self.bare_order(order.id).await?.is_some();
                    return Ok(if ours { Inserted::Yes } else { Inserted::Held });
                }
                None => {}
            }
            attempt += 1;
        }
    }

    /// Whether it is worth inserting again: the order that holds `ticket` was overdue and is
    /// cancelled now, or has gone meanwhile.
    async fn make_room(
        &self,
        ticket: TicketId,
        now: Timestamp,
        terms: &ReservationTerms,
    ) -> Result<bool, StoreError> {
        let Some(document) = self.holder(ticket).await? else { return Ok(true) };
        // A document that cannot be read holds its ticket all the same.
        let Some(holder) = kept(to_order(&document)) else { return Ok(false) };
        // Most losers of a race end here, having asked one question.
        let latest = now.checked_add(CLOCK_SLACK).unwrap_or(Timestamp::MAX);
        if !holder.is_overdue(latest, terms) {
            return Ok(false);
        }
        // Whether it is overdue in earnest is for the database's clock to say, not for ours.
        let cutoff = self.server_time().await?;
        if !holder.is_overdue(cutoff, terms) {
            return Ok(false);
        }
        let orders = self.orders();
        // The holder exactly as it was judged, so a payment that begins now keeps its order.
        let filter = doc! {
            "_id": object_id(holder.id.bytes()),
            "status": holder.status.as_str(),
            "expiresAt": date(holder.expires_at),
        };
        let result = retry::transient("cancelling an overdue order", || async {
            orders.update_one(filter.clone(), transition_update(Transition::Cancel)).await
        })
        .await?;
        if result.matched_count > 0 {
            tracing::info!(order = %holder.id, %ticket, "cancelled an overdue order to reserve its ticket again");
        }
        // When it did not match, somebody else moved it: to be seen by looking again.
        Ok(true)
    }

    /// The active order that holds `ticket`.
    async fn holder(&self, ticket: TicketId) -> Result<Option<RawDocumentBuf>, StoreError> {
        let orders = self.raw_orders();
        let filter = doc! {
            "ticket": object_id(ticket.bytes()),
            "status": { "$in": statuses(&OrderStatus::ACTIVE) },
        };
        retry::transient(RESERVING, || async { orders.find_one(filter.clone()).await }).await
    }
}
