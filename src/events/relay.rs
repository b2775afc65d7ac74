//! Publishes what is pending in the outbox, and marks it as published.
//!
//! It goes by pages: read what is pending, publish it, and mark what the broker has acknowledged. While there is more than
//! one page, the next one is read and published while the one before it is marked: its tickets come after all of that one's,
//! so nothing is read twice, and the orders of a ticket are never in two of them.
//!
//! If it is not known whether a message has arrived, the relay ends. The next one reads back from the broker what was
//! published, and publishes the rest of just those orders before any other.
//!
//! What the broker does not take is held back, with whatever else is pending of the same ticket, and everything else goes on:
//! while something is held back, queries go past it.
//!
//! As long as nothing is known to be published and not marked, the lease says with each page up to where, or until when,
//! everything published is also marked, so that nobody has to read that back.

use std::{
    collections::{BTreeSet, HashSet},
    time::{Duration, Instant},
};

use futures::{StreamExt, future::join, stream};
use jiff::Timestamp;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    broker::{Broker, BrokerError, IN_FLIGHT, Marks},
    held::Held,
    lead::Lead,
    metrics::Metrics,
    page::{Page, Progress},
    plan::{self, Cleared, Step},
    relay_error::RelayError,
};
use crate::{
    order::{OrderId, TicketId},
    store::{EventsTask, Pending, Positions, RelayLease, Store, StoreError, advance_positions},
};

/// The most orders of one page.
const PAGE: u32 = 2000;

/// How long a page goes on publishing; the rest is for the next ones. The orders of one ticket are published one after the
/// other, and while the broker was away there may have been thousands: what is published is to be marked soon all the same,
/// and a relay that is to stop must not be in the middle of it.
const PAGE_LASTS: Duration = Duration::from_secs(1);

/// The shortest time between two looks, unless there is more to publish: changes that are made meanwhile share a page.
const GATHER: Duration = Duration::from_millis(20);

/// The longest: what other processes have put in the outbox is found by then.
const LOOK: Duration = Duration::from_secs(1);

/// How long a relay that is to stop goes on with what is left.
const LAST_PAGES: Duration = Duration::from_secs(2);

/// The relay of the process that leads.
pub(super) struct Relay<'a, B> {
    pub(super) store: &'a Store,
    pub(super) broker: &'a B,
    pub(super) lead: &'a Lead,
    /// The name of this process, which no other has.
    pub(super) holder: &'a str,
    /// The last marks before this process has taken the lease.
    pub(super) marks: &'a Marks,
    pub(super) metrics: &'a Metrics,
}

/// How far a look for pending orders went.
struct Look {
    /// Whether it has found all that there is.
    is_whole: bool,
    /// After which ticket the next look goes on; none if it begins anew.
    next: Option<TicketId>,
}

/// What is known of this process's own work, from one page to the next.
#[derive(Default)]
struct Known {
    /// The ids of messages that the broker has and that may not be marked as published.
    published: HashSet<String>,
    /// Up to where the broker has something of the pages that were marked since everything was.
    reached: Positions,
}

impl<B: Broker> Relay<'_, B> {
    /// Publishes what is pending until `stop`. `woken` ends the wait for something new.
    pub(super) async fn run<F: Future<Output = ()>>(
        &self,
        mut woken: impl FnMut() -> F,
        stop: &CancellationToken,
    ) -> Result<(), RelayError> {
        let published = tokio::select! {
            published = self.published() => published?,
            () = stop.cancelled() => return Ok(()),
        };
        let mut known = Known { published, reached: Positions::new() };
        self.settle(&mut known, stop).await?;
        let (mut held, mut stops_at) = (Held::default(), None);
        // From which ticket on the next look goes, and whether something was published since the looks began at the first one.
        let (mut after, mut has_progress) = (None, false);
        loop {
            let started = Instant::now();
            let mut from = after;
            let (mut look, mut page) = self.next(&mut held, from, &known).await?;
            while look.next.is_some()
                && page.is_settled()
                && held.is_empty()
                && known.published.is_empty()
                && !stop.is_cancelled()
            {
                has_progress |= page.has_progress();
                from = look.next;
                let (marked, next) =
                    join(self.mark_published(&page), self.next(&mut held, from, &known)).await;
                marked?;
                advance_positions(&mut known.reached, page.places);
                (look, page) = next?;
                self.advance(&mut known, page.begun).await?;
            }
            after = look.next;
            has_progress |= page.has_progress();
            let (orders, is_full) = (page.orders, page.is_full);
            self.finish(page, &mut known, &mut held).await?;
            if look.is_whole && orders == 0 {
                known.published.clear();
            } else if !known.published.is_empty() && held.is_empty() {
                self.settle(&mut known, stop).await?;
            }
            self.advance(&mut known, None).await?;
            // What was put in the outbox before a ticket that a look began after is found by the next look from the first ticket.
            let has_more = after.is_some()
                || has_progress && (is_full || held.has_due() || from.is_some() && held.is_empty());
            let is_idle = !(has_more || has_progress);
            if after.is_none() {
                has_progress = false;
            }
            if stop.is_cancelled() {
                let stops_at = *stops_at.get_or_insert(started + LAST_PAGES);
                if is_idle || Instant::now() > stops_at {
                    return Ok(());
                }
                continue;
            }
            if has_more {
                continue;
            }
            let took = started.elapsed();
            // Where there is much to read past, it is read for no more than half of the time.
            let pause = if held.is_empty() { GATHER.saturating_sub(took) } else { took.clamp(GATHER, LOOK) };
            // Dropped while the lease is kept, so it waits for nothing that has to be finished.
            sleep(pause).await;
            tokio::select! {
                () = woken() => {}
                () = self.store.changed() => {}
                () = sleep(LOOK) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// What to publish now: everything that is pending but not held back, from the ticket `after` on, and of what is held
    /// back whatever is to be tried again.
    async fn look(&self, held: &mut Held, after: Option<TicketId>) -> Result<(Look, Pending), StoreError> {
        if held.is_empty() {
            let (pending, next) = self.store.pending_after(after, PAGE).await?;
            return Ok((Look { is_whole: after.is_none() && !pending.is_full, next }, pending));
        }
        let due = held.due();
        let (mut pending, next) = self.store.pending_past(after, PAGE, |ticket| held.has(ticket)).await?;
        if !due.is_empty() {
            let (again, is_all) = self.store.pending_of_tickets(&due, PAGE).await?;
            let left: HashSet<_> = again.orders.iter().map(|order| order.ticket).collect();
            // Somebody else has published the others.
            due.iter()
                .filter(|ticket| is_all && !left.contains(ticket))
                .for_each(|ticket| held.release(*ticket));
            pending.orders.extend(again.orders);
            pending.holders.extend(again.holders);
            pending.is_full |= again.is_full;
        }
        Ok((Look { is_whole: false, next }, pending))
    }

    /// Publishes the rest of the orders of which something was published and may not be marked: a predecessor, or this
    /// process before its connection was lost, did not get that far. Once all of these are marked, nothing published is
    /// unknown any more; some are not if the broker does not take what is left of them, or if it is to stop.
    async fn settle(&self, known: &mut Known, stop: &CancellationToken) -> Result<(), RelayError> {
        let orders: BTreeSet<_> = known.published.iter().filter_map(|id| order_of(id)).collect();
        let orders = Vec::from_iter(orders);
        for some in orders.chunks(PAGE as usize) {
            // What one round does not come to, the next does.
            loop {
                let pending = self.store.pending_of_orders(some).await?;
                if pending.orders.is_empty() {
                    break;
                }
                let mut held = Held::default();
                let page = self.publish(&pending, &known.published, &mut held).await?;
                let has_progress = page.has_progress();
                self.finish(page, known, &mut held).await?;
                if stop.is_cancelled() || !has_progress {
                    return Ok(());
                }
            }
        }
        known.published.clear();
        Ok(())
    }

    /// The ids of what was published and may not be marked as such.
    async fn published(&self) -> Result<HashSet<String>, RelayError> {
        // First of all: what a predecessor has sent is read back now, or refused when it arrives.
        self.broker.begin(self.marks).await?;
        let known = self.lead.known();
        let positions: Positions = self
            .broker
            .ends()
            .await?
            .into_iter()
            .map(|(stream, end)| {
                let position = known.positions.get(&stream).copied().unwrap_or(end);
                // Beyond its end: it was made anew, and has begun at 1 again.
                (stream, if position > end { 0 } else { position })
            })
            .collect();
        if positions != known.positions {
            // Before anything is published: otherwise nobody would know from where on to look for it.
            self.lead.set_known(RelayLease { positions: positions.clone(), ..known.clone() });
            if !self.lead.renew().await? {
                return Err(RelayError::LeaseLost);
            }
        }
        if !self.store.has_pending().await? {
            return Ok(HashSet::new());
        }
        // What is found by its place needs no time.
        let age = if positions.is_empty() { self.age(known.published_until).await? } else { Duration::ZERO };
        Ok(self.broker.published_since(&positions, age).await?)
    }

    /// How long ago the first message may have been published that is not marked as such.
    async fn age(&self, published_until: Option<Timestamp>) -> Result<Duration, StoreError> {
        let now = self.store.clock().await?.not_passed(Instant::now());
        match published_until.map(|until| Duration::try_from(now.duration_since(until))) {
            Some(Ok(age)) => Ok(age),
            // Nobody has said it yet, or the clock was set back.
            None | Some(Err(_)) => Ok(self.store.oldest_pending().await?.unwrap_or_default()),
        }
    }

    /// The next page: reads what is pending, and publishes it.
    async fn next(
        &self,
        held: &mut Held,
        after: Option<TicketId>,
        known: &Known,
    ) -> Result<(Look, Page), RelayError> {
        let (look, pending) = self.look(held, after).await?;
        Ok((look, self.publish(&pending, &known.published, held).await?))
    }

    /// Publishes what is pending, but for what is `published` already.
    async fn publish(
        &self,
        pending: &Pending,
        published: &HashSet<String>,
        held: &mut Held,
    ) -> Result<Page, RelayError> {
        let mut page = Page::of(pending);
        if page.orders == 0 {
            return Ok(page);
        }
        let clock = self.store.clock().await?;
        let started = Instant::now();
        let now = clock.not_passed(started);
        page.begun = Some(clock.reached(started));
        let lines = plan::steps(pending, published)?;
        // Where a holder is published again, there may be former orders that did not fit before it.
        page.is_full |= lines.values().flatten().any(|step| step.cleared.is_none());
        let publishing =
            stream::iter(lines).map(|(ticket, line)| self.publish_line(ticket, line, now, started));
        let mut publishing = Box::pin(publishing.buffer_unordered(IN_FLIGHT));
        while let Some(mut progress) = publishing.next().await {
            let Some(ticket) = progress.ticket else { continue };
            match progress.error.take() {
                Some(RelayError::Broker(error @ BrokerError::Rejected { .. })) => {
                    held.hold(ticket);
                    page.rejected = page.rejected.or(Some(error));
                }
                Some(error) => page.error = page.error.or(Some(error)),
                None => held.release(ticket),
            }
            page.add(progress);
        }
        Ok(page)
    }

    /// Marks what was published.
    async fn mark_published(&self, page: &Page) -> Result<(), StoreError> {
        self.store.mark_published(&page.published).await?;
        for (order, payment) in &page.refused {
            self.store.mark_refusal_published(*order, payment).await?;
        }
        Ok(())
    }

    /// Marks what was published, and remembers what could not be marked.
    async fn finish(&self, page: Page, known: &mut Known, held: &mut Held) -> Result<(), RelayError> {
        self.mark_published(&page).await?;
        if let Some(error) = page.error {
            return Err(error);
        }
        // What the broker has, and is not marked since something after it was not taken, must not be published again.
        known.published.extend(page.unmarked);
        advance_positions(&mut known.reached, page.places);
        if let Some(error) = page.rejected {
            self.report(&error, held).await;
        }
        Ok(())
    }

    /// Reports that something is held back.
    async fn report(&self, error: &BrokerError, held: &mut Held) {
        self.metrics.failed(error.reason());
        if held.is_news() {
            tracing::warn!(%error, reason = error.reason(), "an event is held back; retrying it, while the others \
                 are published");
        }
        let recorded =
            self.store.record_events_trouble(EventsTask::Publishing, self.holder, error.reason()).await;
        if let Err(error) = recorded {
            tracing::debug!(%error, "why an event is held back is not recorded");
        }
    }

    /// Takes the steps of one ticket, until one fails or the round is over.
    async fn publish_line(&self, ticket: TicketId, line: Vec<Step>, now: Timestamp, at: Instant) -> Progress {
        let mut progress = Progress { ticket: Some(ticket), ..Progress::default() };
        // Where marking waits for the last messages, a line that is cut would begin anew each time.
        let is_whole = line.iter().any(|step| step.cleared.is_none());
        for (number, step) in line.into_iter().enumerate() {
            // Not before the first one, so that each round comes further.
            if number > 0 && at.elapsed() > PAGE_LASTS && !is_whole {
                progress.is_cut = true;
                break;
            }
            if let Some(message) = &step.message {
                match self.broker.publish(message, || self.lead.may_publish()).await {
                    Ok(ack) => {
                        let lag = step.since.map(|since| {
                            Duration::try_from(now.duration_since(since)).unwrap_or_default() + at.elapsed()
                        });
                        self.metrics.published(message.subject, lag.filter(|_| !ack.is_duplicate));
                        progress.acks.push(ack);
                        progress.unmarked.push(message.id.clone());
                    }
                    Err(error) => {
                        progress.error = Some(error.into());
                        break;
                    }
                }
            }
            if step.cleared.is_some() {
                // It is about everything before it, too.
                progress.unmarked.clear();
            }
            match step.cleared {
                Some(Cleared::Changes(published)) => {
                    // Only the last change of an order counts.
                    progress.published.retain(|earlier| earlier.id != published.id);
                    progress.published.push(published);
                }
                Some(Cleared::Refusal(order, payment)) => progress.refused.push((order, payment)),
                None => {}
            }
        }
        progress
    }

    /// If everything published is marked as such, has the lease say up to where, and until when: until now, unless
    /// something has `begun` since that is not marked.
    async fn advance(&self, known: &mut Known, begun: Option<Timestamp>) -> Result<(), StoreError> {
        if !known.published.is_empty() {
            return Ok(());
        }
        let until = match begun {
            Some(begun) => begun,
            None => self.store.clock().await?.reached(Instant::now()),
        };
        let mut lease = self.lead.known();
        advance_positions(&mut lease.positions, std::mem::take(&mut known.reached));
        lease.published_until = Some(until);
        self.lead.set_known(lease);
        Ok(())
    }
}

/// The order that a message is about, by its id; none if it is none of ours.
fn order_of(message: &str) -> Option<OrderId> {
    message.split(':').next()?.parse().ok()
}
