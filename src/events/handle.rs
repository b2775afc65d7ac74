//! What is done with the messages of other services. Each is a conditional write, so one that comes twice changes nothing;
//! and it is acknowledged only after that write.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures::{StreamExt, stream};
use jiff::Timestamp;

use super::{
    broker::{Broker, BrokerError, Message},
    dead_reason::DeadReason,
    metrics::{Metrics, Outcome},
    wire::{Malformed, PaymentCreated, PaymentRefused, PaymentStarted, Subject, TicketDeleted, TicketEvent},
};
use crate::{
    order::{Refusal, ReservationTerms, Ticket, TicketId},
    store::{DeadLetter, DeletedTicket, PaymentError, Settled, Store, StoreError, Transitioned, Upserted},
};

/// How many messages about payments, or about tickets that are gone, are handled at the same time.
const AT_ONCE: usize = 8;

/// How often the database must have refused a message for it to be a dead letter.
const MAX_REFUSALS: u32 = 5;

/// The most messages of which that is counted; none are forgotten that are few.
const MOST_COUNTED: usize = 10_000;

/// A message, as a broker delivers it.
#[derive(Clone, Debug)]
pub(super) struct Received {
    pub(super) subject: Subject,
    pub(super) data: Vec<u8>,
    pub(super) stream: String,
    pub(super) sequence: u64,
    pub(super) published: Timestamp,
    /// How often the broker has delivered it, as far as it says that.
    pub(super) deliveries: u32,
}

/// What is to become of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is done with, and acknowledged.
    Done,
    /// It comes again: the database is away.
    Later,
    /// It comes again: it is not known whether the broker has the answer.
    Unanswered,
    /// It comes again, by itself: the broker does not take the answer.
    Held,
}

/// How often the database has refused a message, by its place on the broker. How often that has delivered it says nothing:
/// the database may have been away.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<HashMap<(String, u64), u32>>);

impl Refusals {
    /// Counts one more, and returns how many there are.
    fn count(&self, message: &Received) -> u32 {
        // No code panics while it holds the lock.
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.len() >= MOST_COUNTED {
            counted.clear();
        }
        let count = counted.entry((message.stream.clone(), message.sequence)).or_default();
        *count += 1;
        *count
    }

    fn forget(&self, message: &Received) {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counted.remove(&(message.stream.clone(), message.sequence));
    }
}

/// Why a payment that was refused without an entry in its order's outbox is kept, and the same in a sentence.
const NO_ORDER: (DeadReason, &str) =
    (DeadReason::OrderNotFound, "the order of this payment does not exist; the payment was refused");
const TOO_MANY: (DeadReason, &str) = (
    DeadReason::TooManyPayments,
    "too many payments were refused for this order, so its outbox takes no more; this one was refused too",
);

/// Handles messages.
pub(super) struct Handler<'a, B> {
    pub(super) store: &'a Store,
    pub(super) broker: &'a B,
    pub(super) terms: &'a ReservationTerms,
    pub(super) metrics: &'a Metrics,
    /// The name of this process, which no other has.
    pub(super) me: &'a str,
    pub(super) refusals: Refusals,
    /// Whether tickets may be gone.
    pub(super) consumes_deletions: bool,
}

impl<B: Broker> Handler<'_, B> {
    /// Handles some messages, and says of each what is to become of it.
    pub(super) async fn handle(&self, messages: &[Received]) -> Vec<Verdict> {
        let mut verdicts = vec![Verdict::Done; messages.len()];
        let is_ticket =
            |message: &Received| matches!(message.subject, Subject::TicketCreated | Subject::TicketUpdated);
        let (tickets, others): (Vec<_>, Vec<_>) =
            messages.iter().enumerate().partition(|(_, message)| is_ticket(message));
        let mut decided = self.tickets(tickets).await;
        let mut deciding = Vec::new();
        for (at, message) in others {
            deciding.push(async move { (at, self.one(message).await) });
        }
        decided.extend(stream::iter(deciding).buffered(AT_ONCE).collect::<Vec<_>>().await);
        for (at, verdict) in decided {
            if let Some(place) = verdicts.get_mut(at) {
                *place = verdict;
            }
        }
        verdicts
    }

    /// Brings the copies of tickets up to date, all with one call.
    async fn tickets(&self, messages: Vec<(usize, &Received)>) -> Vec<(usize, Verdict)> {
        let mut decided = Vec::new();
        let mut parsed = Vec::new();
        for (at, message) in messages {
            match TicketEvent::parse(&message.data) {
                Ok(event) => parsed.push((at, message, event.ticket)),
                Err(error) => decided.push((at, self.malformed(message, &error).await)),
            }
        }
        if parsed.is_empty() {
            return decided;
        }
        let tickets = newest(parsed.iter().map(|(_, _, ticket)| ticket));
        match self.write(&tickets).await {
            Ok(written) => {
                for (number, (at, message, _)) in (0..).zip(&parsed) {
                    let outcome =
                        if number < written.written { Outcome::Written } else { Outcome::Unchanged };
                    self.metrics.consumed(message.subject, outcome);
                    decided.push((*at, Verdict::Done));
                }
            }
            Err(error) if error.is_unavailable() => {
                tracing::debug!(%error, "tickets are not written");
                for (at, message, _) in &parsed {
                    self.metrics.consumed(message.subject, Outcome::Retried);
                    decided.push((*at, Verdict::Later));
                }
            }
            // One of them is at fault: each by itself.
            Err(_) => {
                for (at, message, ticket) in &parsed {
                    let written = self.write(std::slice::from_ref(ticket)).await;
                    let verdict = match written {
                        Ok(written) => {
                            let is_new = written.written > 0;
                            let outcome = if is_new { Outcome::Written } else { Outcome::Unchanged };
                            self.metrics.consumed(message.subject, outcome);
                            Verdict::Done
                        }
                        Err(error) => self.refused_by_database(message, &error).await,
                    };
                    decided.push((*at, verdict));
                }
            }
        }
        decided
    }

    async fn write(&self, tickets: &[Ticket]) -> Result<Upserted, StoreError> {
        if self.consumes_deletions {
            self.store.upsert_tickets_unless_deleted(tickets).await
        } else {
            self.store.upsert_tickets(tickets).await
        }
    }

    async fn one(&self, message: &Received) -> Verdict {
        match message.subject {
            Subject::TicketDeleted => self.deletion(message).await,
            Subject::PaymentStarted => self.start(message).await,
            _ => self.payment(message).await,
        }
    }

    async fn deletion(&self, message: &Received) -> Verdict {
        let TicketDeleted { id, version } = match TicketDeleted::parse(&message.data) {
            Ok(deleted) => deleted,
            Err(error) => return self.malformed(message, &error).await,
        };
        let outcome = match self.store.delete_ticket(&DeletedTicket { id, version }).await {
            Ok(true) => Outcome::Deleted,
            Ok(false) => Outcome::Unchanged,
            Err(error) => return self.refused_by_database(message, &error).await,
        };
        self.metrics.consumed(message.subject, outcome);
        Verdict::Done
    }

    async fn start(&self, message: &Received) -> Verdict {
        let PaymentStarted { order } = match PaymentStarted::parse(&message.data) {
            Ok(started) => started,
            Err(error) => return self.malformed(message, &error).await,
        };
        let outcome = match self.store.payment_started(order, message.published, self.terms).await {
            Ok(Transitioned::Now(_) | Transitioned::NowUnreadable(_)) => Outcome::Started,
            // What becomes of the payment is decided once it is made.
            Ok(Transitioned::Already(_)) | Err(PaymentError::TooLate(_) | PaymentError::Refused { .. }) => {
                Outcome::Unchanged
            }
            Err(PaymentError::NotFound(_)) => {
                // No payment was made that could be refused.
                return self
                    .dead(message, DeadReason::UnknownOrder, "the order of this payment does not exist")
                    .await;
            }
            Err(PaymentError::Store(error)) => return self.refused_by_database(message, &error).await,
        };
        self.metrics.consumed(message.subject, outcome);
        Verdict::Done
    }

    async fn payment(&self, message: &Received) -> Verdict {
        let payment = match PaymentCreated::parse(&message.data) {
            Ok(payment) => payment,
            Err(error) => return self.malformed(message, &error).await,
        };
        let (order, id) = (payment.order, payment.id.as_str());
        let outcome = match self.store.settle(order, id, message.published, self.terms).await {
            Ok(Settled::Completed) => {
                tracing::info!(%order, "order paid for");
                Outcome::Completed
            }
            Ok(Settled::Repeated) => Outcome::Unchanged,
            Ok(Settled::Refused(refusal)) => {
                tracing::warn!(%order, reason = refusal.as_str(), "a payment is refused");
                Outcome::Refused
            }
            Ok(Settled::OrderNotFound) => {
                return self.answer(message, &payment, Refusal::OrderNotFound, NO_ORDER).await;
            }
            Ok(Settled::TooManyRefused(refusal)) => {
                return self.answer(message, &payment, refusal, TOO_MANY).await;
            }
            Err(error) => return self.refused_by_database(message, &error).await,
        };
        self.metrics.consumed(message.subject, outcome);
        Verdict::Done
    }

    /// There is no order whose outbox could have the refusal, or no room in it; so it is published before the payment is
    /// acknowledged.
    async fn answer(
        &self,
        message: &Received,
        payment: &PaymentCreated,
        refusal: Refusal,
        (reason, detail): (DeadReason, &str),
    ) -> Verdict {
        let event = PaymentRefused::new(&payment.id, payment.order, refusal);
        let Ok(data) = event.data() else { return Verdict::Later };
        let answer = Message { subject: Subject::PaymentRefused, id: event.message_id(), data };
        // Whoever leads: it has no place among the events of an order.
        if let Err(error) = self.broker.publish(&answer, || true).await {
            self.metrics.consumed(message.subject, Outcome::Retried);
            if !matches!(error, BrokerError::Rejected { .. }) {
                tracing::debug!(%error, "a refusal is not published");
                return Verdict::Unanswered;
            }
            if message.deliveries <= 1 {
                tracing::warn!(%error, payment = payment.id, "cannot publish the refusal of a payment; retrying \
                     it, while other messages are handled");
            }
            return Verdict::Held;
        }
        self.dead(message, reason, detail).await
    }

    async fn malformed(&self, message: &Received, error: &Malformed) -> Verdict {
        self.dead(message, error.reason(), &error.to_string()).await
    }

    /// The database is away, or it does not take what follows from this message.
    async fn refused_by_database(&self, message: &Received, error: &StoreError) -> Verdict {
        if error.is_unavailable() || self.refusals.count(message) < MAX_REFUSALS {
            tracing::debug!(%error, subject = message.subject.as_str(), "a message is not handled; it comes again");
            self.metrics.consumed(message.subject, Outcome::Retried);
            return Verdict::Later;
        }
        self.refusals.forget(message);
        self.dead(message, DeadReason::RefusedByDatabase, &error.remedy()).await
    }

    /// Keeps a message that can never be handled, so that it delays no other.
    async fn dead(&self, message: &Received, reason: DeadReason, detail: &str) -> Verdict {
        let reason = reason.as_str();
        let letter = DeadLetter {
            subject: message.subject.as_str(),
            data: &message.data,
            reason,
            detail,
            stream: &message.stream,
            sequence: message.sequence,
            published: message.published,
        };
        match self.store.keep_dead_letter(&letter).await {
            Ok(()) => {
                tracing::warn!(
                    subject = letter.subject,
                    stream = letter.stream,
                    sequence = letter.sequence,
                    reason,
                    detail,
                    "a message cannot be handled; it is kept in deadLetters"
                );
                self.metrics.dead_letter(message.subject, reason);
                Verdict::Done
            }
            Err(error) => {
                tracing::debug!(%error, "a dead letter is not kept");
                self.metrics.consumed(message.subject, Outcome::Retried);
                Verdict::Later
            }
        }
    }
}

/// The newest version of each ticket.
fn newest<'t>(tickets: impl Iterator<Item = &'t Ticket>) -> Vec<Ticket> {
    let mut newest = HashMap::<TicketId, &Ticket>::new();
    for ticket in tickets {
        let known = newest.entry(ticket.id).or_insert(ticket);
        if known.version < ticket.version {
            *known = ticket;
        }
    }
    newest.into_values().cloned().collect()
}

/// The first and the longest pause after messages that come again.
pub(super) const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(15));

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::Version;

    #[test]
    fn of_several_events_of_a_ticket_the_newest_counts() {
        let ticket = |id: u8, version: u32| Ticket {
            id: TicketId::from_bytes([id; 12]),
            title: format!("{id} {version}"),
            price: 1.0,
            version: Version(version),
        };
        let mut found = newest([ticket(1, 0), ticket(2, 5), ticket(1, 3), ticket(1, 2), ticket(2, 5)].iter());
        found.sort_by_key(|ticket| ticket.id);
        assert_eq!(found, [ticket(1, 3), ticket(2, 5)]);
    }
}
