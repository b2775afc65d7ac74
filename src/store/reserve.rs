//! Reserving a ticket: one insert, which the unique index accepts or refuses.
//!
//! The ticket, what an earlier call with the same idempotency key has made, and what holds the ticket are read at once
//! before it, so a reservation takes two round trips, and one if the ticket is known to be taken. They decide nothing that
//! the insert does not: a ticket that was free may be taken by then.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use futures::try_join;
use jiff::Timestamp;
use mongodb::bson::{Document, RawDocument, doc, oid::ObjectId};
use thiserror::Error;

use super::{
    database::Store,
    document::{IDEMPOTENCY_KEY, ORDERS, expires_at, from_order, object_id, skip_malformed, to_order},
    error::{InsertError, StoreError},
    outbox::OUTBOX,
    retry::{self, Passing},
};
use crate::order::{
    IdempotencyKey, Order, OrderId, Reservation, ReservationTerms, Ticket, TicketId, Transition, UserId,
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

impl Passing for ReserveError {
    fn of_database(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) => Some(error),
            _ => None,
        }
    }
}

const RESERVING: &str = "reserving a ticket";
const CONFIRMING: &str = "waiting until a majority has an order";

/// How often the insert is repeated after it was refused although no order held the ticket.
const INSERT_ROUNDS: u32 = 3;

/// Conflicting inserts back off as if they had made so many attempts more, since PostgreSQL takes about 20 ms per
/// writer to detect a deadlock.
const CONFLICT_BACKOFF: u32 = 4;

/// How long before the end of an attempt its insert is given up, so that it has ended when the next attempt looks.
const GIVE_UP_BEFORE: Duration = Duration::from_millis(100);

/// One call of [`Store::reserve`]. The order's id stays the same however often it is attempted, so an order that was
/// inserted is recognized even if the reply to its insert was lost.
struct Request<'a> {
    id: OrderId,
    user: &'a UserId,
    ticket: TicketId,
    key: Option<&'a IdempotencyKey>,
    terms: &'a ReservationTerms,
    /// Whether an insert of it got no answer.
    is_in_doubt: AtomicBool,
}

impl Request<'_> {
    /// Whether an order was made by this call, or by an earlier one with the same idempotency key.
    fn has_made(&self, order: &RawDocument) -> bool {
        let has_key =
            |key: &IdempotencyKey| order.get_str(IDEMPOTENCY_KEY).is_ok_and(|known| known == key.as_str());
        let is_same_call = || {
            self.key.is_some_and(has_key)
                && order.get_str("userId").is_ok_and(|user| user == self.user.as_str())
        };
        order.get_object_id("_id").is_ok_and(|id| id == object_id(self.id.bytes())) || is_same_call()
    }
}

impl Store {
    /// Reserves `ticket` for `user`, from now on by the database's clock.
    ///
    /// Of any number of concurrent calls for one ticket, at most one succeeds. An overdue open order does not prevent
    /// it: that order is cancelled first. Calls with the same `key` make one order, which all of them return, whatever
    /// its status is by then. An order is returned only once a majority of the servers has it.
    ///
    /// # Errors
    /// When there is no such ticket, an active order holds it, the key was used for another ticket,
    /// or the database fails. In the last case the reservation may have been made nevertheless, or may still be, by a server
    /// that has the insert and has not answered it; repeating the call with the same key returns it.
    pub async fn reserve(
        &self,
        user: &UserId,
        ticket: TicketId,
        key: Option<&IdempotencyKey>,
        terms: &ReservationTerms,
    ) -> Result<Reserved, ReserveError> {
        let id = OrderId::from_bytes(ObjectId::new().bytes());
        let request = Request { id, user, ticket, key, terms, is_in_doubt: AtomicBool::new(false) };
        // An insert that nobody waits for any more could otherwise be sent after its buyer was told that the ticket is another's.
        let attempt = |end: tokio::time::Instant| {
            self.try_reserve(&request, end.checked_sub(GIVE_UP_BEFORE).unwrap_or(end))
        };
        let reserved = retry::patiently_until(RESERVING, attempt).await;
        if matches!(reserved, Err(ReserveError::AlreadyReserved(_)))
            && request.is_in_doubt.load(Ordering::SeqCst)
        {
            // Should whoever holds the ticket give it back before the server comes to that insert, the ticket is this user's.
            let detail =
                "the ticket was held, and an insert that was not answered may still be carried out".into();
            return Err(StoreError::Unavailable { doing: RESERVING, detail }.into());
        }
        reserved
    }

    /// One attempt, whose insert is given up at `until`.
    async fn try_reserve(
        &self,
        request: &Request<'_>,
        until: tokio::time::Instant,
    ) -> Result<Reserved, ReserveError> {
        let (earlier, ticket, holder, clock) = try_join!(
            self.order_by_key(request),
            self.ticket(request.ticket),
            self.holders.before_insert(object_id(request.ticket.bytes())),
            self.clock(),
        )?;
        if let Some(earlier) = earlier {
            return self.replayed(request, earlier, ticket).await;
        }
        let ticket = ticket.ok_or(ReserveError::TicketNotFound(request.ticket))?;
        if let Some(holder) = holder
            && let Some(order) = self.judge(request, &holder).await?
        {
            return self.replayed(request, order, Some(ticket)).await;
        }
        // The upper bound: the order lasts no shorter than the window.
        let now = clock.not_passed(Instant::now());
        let order =
            Order::reserve(request.id, request.user.clone(), request.ticket, now, request.terms.window);
        self.insert(request, until, order, ticket).await
    }

    /// Inserts `order`, until it is known whether it has been inserted and a majority has acknowledged it.
    async fn insert(
        &self,
        request: &Request<'_>,
        until: tokio::time::Instant,
        order: Order,
        ticket: Ticket,
    ) -> Result<Reserved, ReserveError> {
        let mut document = from_order(&order);
        if let Some(key) = request.key {
            document.insert(IDEMPOTENCY_KEY, key.as_str());
        }
        if let Some(entry) = self.entry_of_new(ticket.price).await? {
            document.insert(OUTBOX, entry);
        }
        let (mut attempt, mut refusals) = (0, 0);
        while refusals < INSERT_ROUNDS {
            attempt += 1;
            // Remembered before, since this future may be dropped before there is an answer.
            let was_in_doubt = request.is_in_doubt.swap(true, Ordering::SeqCst);
            let inserted = self.inserter.insert(until, document.clone()).await?;
            let is_in_doubt = inserted.as_ref().is_err_and(|error| error.is_in_doubt);
            request.is_in_doubt.store(was_in_doubt || is_in_doubt, Ordering::SeqCst);
            let Err(InsertError { is_duplicate, is_transient, error, .. }) = inserted else {
                self.holders.hold(object_id(request.ticket.bytes()));
                self.outbox.written();
                return Ok(Reserved::New(Reservation { order, ticket: Some(ticket) }));
            };
            if is_duplicate {
                refusals += 1;
            } else if is_transient {
                // An immediate retry would conflict again. After the backoff, one of the conflicting orders usually
                // holds the ticket: it may be this one, if only the reply or the acknowledgement was lost.
                retry::backoff(attempt + CONFLICT_BACKOFF).await;
            } else {
                return Err(error.into());
            }
            if let Some(ours) = self.find_made(request).await? {
                return self.replayed(request, ours, Some(ticket)).await;
            }
        }
        // Others have taken the ticket and given it back again and again; or it is an index of theirs that refuses.
        self.check_indexes().await?;
        Err(ReserveError::AlreadyReserved(request.ticket))
    }

    /// The order that the request has made, now or by an earlier call; `None` when there is none and the ticket is free.
    async fn find_made(&self, request: &Request<'_>) -> Result<Option<Order>, ReserveError> {
        let (earlier, holder) =
            try_join!(self.order_by_key(request), self.holders.of(object_id(request.ticket.bytes())))?;
        if earlier.is_some() {
            return Ok(earlier);
        }
        match holder {
            Some(holder) => self.judge(request, &holder).await,
            // It may have been inserted, and cancelled since.
            None => Ok(self.order_alone(request.id).await?),
        }
    }

    /// The answer to a request that has made `order`: `ticket` is the one that it asks for.
    async fn replayed(
        &self,
        request: &Request<'_>,
        order: Order,
        ticket: Option<Ticket>,
    ) -> Result<Reserved, ReserveError> {
        if order.ticket != Some(request.ticket) {
            return Err(ReserveError::KeyReused(order.id));
        }
        self.confirm(order.id).await?;
        let is_new = order.id == request.id;
        let reservation = Reservation { order, ticket };
        Ok(if is_new { Reserved::New(reservation) } else { Reserved::Replayed(reservation) })
    }

    /// The order that an earlier call of the user with the same key has made.
    async fn order_by_key(&self, request: &Request<'_>) -> Result<Option<Order>, StoreError> {
        let Some(key) = request.key else { return Ok(None) };
        let orders = self.raw_orders();
        let filter = doc! { "userId": request.user.as_str(), IDEMPOTENCY_KEY: key.as_str() };
        let found = retry::transient(RESERVING, || async { orders.find_one(filter.clone()).await }).await?;
        found.map(|document| to_order(&document)).transpose()
    }

    /// Waits until a majority of the servers has the order `id`, which was read from the primary alone: that could still
    /// be rolled back, and its ticket sold to another.
    async fn confirm(&self, id: OrderId) -> Result<(), ReserveError> {
        if self.holds(CONFIRMING, ORDERS, doc! { "_id": object_id(id.bytes()) }).await? {
            Ok(())
        } else {
            // Repeated, since the ticket may be free now.
            let detail = format!("the order {id} has been rolled back");
            Err(StoreError::Unavailable { doing: CONFIRMING, detail }.into())
        }
    }

    /// What `holder` means, the active order that holds the ticket: it is returned if the request has made it. If it is
    /// overdue, it is cancelled; otherwise the ticket is reserved.
    async fn judge(
        &self,
        request: &Request<'_>,
        holder: &RawDocument,
    ) -> Result<Option<Order>, ReserveError> {
        let parsed = to_order(holder);
        if request.has_made(holder) {
            return Ok(Some(parsed?));
        }
        // A malformed order holds its ticket all the same.
        let is_overdue = |order: &Order, now: Timestamp| order.is_overdue(now, request.terms);
        let holder = skip_malformed(parsed).ok_or(ReserveError::AlreadyReserved(request.ticket))?;
        // The usual case when buyers compete for a ticket: it costs no query for the time.
        if !is_overdue(&holder, self.clock().await?.not_passed(Instant::now())) {
            return Err(ReserveError::AlreadyReserved(request.ticket));
        }
        // A reading of its own: the one before may be that of another server, which was the primary then.
        if !is_overdue(&holder, self.server_time().await?) {
            return Err(ReserveError::AlreadyReserved(request.ticket));
        }
        self.cancel_overdue(&holder).await?;
        Ok(None)
    }

    async fn cancel_overdue(&self, holder: &Order) -> Result<(), StoreError> {
        let orders = self.orders();
        // The write has the status and the time that were checked, so an order whose payment begins meanwhile is kept.
        let filter: Document = doc! {
            "_id": object_id(holder.id.bytes()),
            "status": holder.status.as_str(),
            "expiresAt": expires_at(holder.expires_at),
        };
        let update = self.transition_with_entry(Transition::Cancel).await?;
        let result = retry::transient("cancelling an overdue order", || async {
            orders.update_one(filter.clone(), update.clone()).await
        })
        .await?;
        if result.matched_count > 0 {
            tracing::info!(order = %holder.id, "cancelled an overdue order to reserve its ticket again");
        }
        // If nothing matched, the order has changed meanwhile, which the insert will show.
        Ok(())
    }
}
