//! Tells what is noted, and notes that it is told.
//!
//! It goes by pages: read what is to be told, publish it, and note what the broker has acknowledged. While there is more than one page,
//! the next one is read and published while the one before it is noted: it is about tickets that come after all of that one, so
//! nothing is read twice, and the orders of a ticket are never in two of them. If it is not known
//! whether a message has arrived, the relay ends, and whoever is next reads back from the broker what was published, and tells
//! the rest of just those orders before any other. What the broker does not take is held back, with whatever is to be told of
//! the same ticket, and everything else goes on: while something is held back, what is read goes past it. As long as nothing is
//! known to be published and not noted, all that was published up to the end of a page is noted with it, and up to there, or until then,
//! nobody has to read again.

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
    plan::{self, Note, Step},
    relay_error::RelayError,
};
use crate::{
    order::{OrderId, TicketId},
    store::{EventsTask, Positions, RelayLease, Store, StoreError, Untold},
};

/// The most orders of one page.
const PAGE: u32 = 2000;

/// How long a page goes on telling; the rest is for the next ones. The orders of one ticket are told one after the other, and
/// while the broker was away there may have been thousands: what is told is to be noted soon all the same, and a relay that is to
/// stop must not be in the middle of it.
const PAGE_LASTS: Duration = Duration::from_secs(1);

/// The shortest time between two looks, unless there is more to tell: changes that are made meanwhile share a page.
const GATHER: Duration = Duration::from_millis(20);

/// The longest: what other processes have noted is found by then.
const LOOK: Duration = Duration::from_secs(1);

/// How long a relay that is to stop goes on with what is left.
const LAST_PAGES: Duration = Duration::from_secs(2);

/// The relay of the process that leads.
pub(super) struct Relay<'a, B> {
    pub(super) store: &'a Store,
    pub(super) broker: &'a B,
    pub(super) lead: &'a Lead,
    /// By what this process is told from others.
    pub(super) holder: &'a str,
    /// The last marks before this process has taken the lease.
    pub(super) marks: &'a Marks,
    pub(super) metrics: &'a Metrics,
}

/// What is to be told.
struct Look {
    untold: Untold,
    /// Whether that is all that there is.
    is_whole: bool,
    /// After which ticket the next look goes on; none if it begins anew.
    next: Option<TicketId>,
}

/// What is known of this process's own work, from one page to the next.
#[derive(Default)]
struct Known {
    /// The ids of messages that the broker has and that may not be noted as told.
    published: HashSet<String>,
    /// Up to where the broker has something of the pages that are noted, since all was noted.
    reached: Positions,
}

impl Known {
    /// What the broker has up to `places` is noted.
    fn reach(&mut self, places: Positions) {
        for (stream, sequence) in places {
            let position = self.reached.entry(stream).or_default();
            *position = sequence.max(*position);
        }
    }
}

impl<B: Broker> Relay<'_, B> {
    /// Tells what is noted until `stop`. `woken` ends the wait for something new.
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
        // From which ticket on the next look goes, and whether something was told since the looks have begun at the first one.
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
                let (noted, next) = join(self.note(&page), self.next(&mut held, from, &known)).await;
                noted?;
                known.reach(page.places);
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
            // What has come before a ticket that a look began after, the next one finds, which begins at the first.
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

    /// What is to be told now: all but what is held back, from the ticket `after` on if something is, and what of it is to be
    /// tried again.
    async fn look(&self, held: &mut Held, after: Option<TicketId>) -> Result<Look, StoreError> {
        if held.is_empty() {
            let (untold, next) = self.store.untold_after(after, PAGE).await?;
            return Ok(Look { is_whole: after.is_none() && !untold.is_full, untold, next });
        }
        let due = held.due();
        let (mut untold, next) = self.store.untold_past(after, PAGE, |ticket| held.has(ticket)).await?;
        if !due.is_empty() {
            let (again, is_all) = self.store.untold_of_tickets(&due, PAGE).await?;
            let pending: HashSet<_> = again.orders.iter().map(|order| order.ticket).collect();
            // Somebody else has told of the others.
            due.iter()
                .filter(|ticket| is_all && !pending.contains(ticket))
                .for_each(|ticket| held.release(*ticket));
            untold.orders.extend(again.orders);
            untold.holders.extend(again.holders);
            untold.is_full |= again.is_full;
        }
        Ok(Look { untold, next, is_whole: false })
    }

    /// Tells the rest of the orders of which something was published and may not be noted: a predecessor, or this process
    /// before its connection was lost, did not get that far. Once all of these are noted, nothing published is unknown any
    /// more; some are not if the broker does not take what is left of them, or if it is to stop.
    async fn settle(&self, known: &mut Known, stop: &CancellationToken) -> Result<(), RelayError> {
        let orders: BTreeSet<_> = known.published.iter().filter_map(|id| order_of(id)).collect();
        let orders = Vec::from_iter(orders);
        for some in orders.chunks(PAGE as usize) {
            // What one round does not come to, the next does.
            loop {
                let untold = self.store.untold_of_orders(some).await?;
                if untold.orders.is_empty() {
                    break;
                }
                let mut held = Held::default();
                let page = self.publish(&untold, &known.published, &mut held).await?;
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

    /// The ids of what was published and may not be noted as told.
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
        if !self.store.has_untold().await? {
            return Ok(HashSet::new());
        }
        // What is found by its place needs no time.
        let age = if positions.is_empty() { self.age(known.told_until).await? } else { Duration::ZERO };
        Ok(self.broker.published_since(&positions, age).await?)
    }

    /// How long ago the first message may have been published that is not noted as told.
    async fn age(&self, told_until: Option<Timestamp>) -> Result<Duration, StoreError> {
        let now = self.store.clock().await?.not_passed(Instant::now());
        match told_until.map(|until| Duration::try_from(now.duration_since(until))) {
            Some(Ok(age)) => Ok(age),
            // Nobody has said it yet, or the clock was set back.
            None | Some(Err(_)) => Ok(self.store.oldest_untold().await?.unwrap_or_default()),
        }
    }

    /// The next page: reads what is to be told, and publishes it.
    async fn next(
        &self,
        held: &mut Held,
        after: Option<TicketId>,
        known: &Known,
    ) -> Result<(Look, Page), RelayError> {
        let look = self.look(held, after).await?;
        let page = self.publish(&look.untold, &known.published, held).await?;
        Ok((Look { untold: Untold::default(), ..look }, page))
    }

    /// Publishes what is to be told, but for what is `published` already.
    async fn publish(
        &self,
        untold: &Untold,
        published: &HashSet<String>,
        held: &mut Held,
    ) -> Result<Page, RelayError> {
        let mut page = Page::of(untold);
        if page.orders == 0 {
            return Ok(page);
        }
        let clock = self.store.clock().await?;
        let started = Instant::now();
        let now = clock.not_passed(started);
        page.begun = Some(clock.reached(started));
        let lines = plan::steps(untold, published)?;
        // Where a holder is told again, there may be former orders that did not fit before it.
        page.is_full |= lines.values().flatten().any(|step| step.note.is_none());
        let telling = stream::iter(lines).map(|(ticket, line)| self.tell(ticket, line, now, started));
        let mut telling = Box::pin(telling.buffer_unordered(IN_FLIGHT));
        while let Some(mut progress) = telling.next().await {
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

    /// Notes what has been told.
    async fn note(&self, page: &Page) -> Result<(), StoreError> {
        self.store.note_told(&page.told).await?;
        for (order, payment) in &page.refused {
            self.store.note_refusal_told(*order, payment).await?;
        }
        Ok(())
    }

    /// Notes what has been told, and knows what has not.
    async fn finish(&self, page: Page, known: &mut Known, held: &mut Held) -> Result<(), RelayError> {
        self.note(&page).await?;
        if let Some(error) = page.error {
            return Err(error);
        }
        // What the broker has, and is not noted since something after it was not taken, is not to be told again.
        known.published.extend(page.unnoted);
        known.reach(page.places);
        if let Some(error) = page.rejected {
            self.report(&error, held).await;
        }
        Ok(())
    }

    /// Says that something is held back.
    async fn report(&self, error: &BrokerError, held: &mut Held) {
        self.metrics.failed(error.reason());
        if held.is_news() {
            tracing::warn!(%error, reason = error.reason(), "an event is held back; trying again, and going on with the others");
        }
        let noted = self.store.note_events_trouble(EventsTask::Telling, self.holder, error.reason()).await;
        if let Err(error) = noted {
            tracing::debug!(%error, "why an event is held back is not noted");
        }
    }

    /// Takes the steps of one ticket, until one fails or the round is over.
    async fn tell(&self, ticket: TicketId, line: Vec<Step>, now: Timestamp, at: Instant) -> Progress {
        let mut progress = Progress { ticket: Some(ticket), ..Progress::default() };
        // Where notes wait for the last messages, a line that is cut would begin anew each time.
        let is_whole = line.iter().any(|step| step.note.is_none());
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
                        progress.unnoted.push(message.id.clone());
                    }
                    Err(error) => {
                        progress.error = Some(error.into());
                        break;
                    }
                }
            }
            if step.note.is_some() {
                // It is about everything before it, too.
                progress.unnoted.clear();
            }
            match step.note {
                Some(Note::Told(told)) => {
                    // Only the last change of an order counts.
                    progress.told.retain(|earlier| earlier.id != told.id);
                    progress.told.push(told);
                }
                Some(Note::Refused(order, payment)) => progress.refused.push((order, payment)),
                None => {}
            }
        }
        progress
    }

    /// If all that is published is noted as told: up to where that is, and until when.
    /// Until now, if nothing has `begun` since that is not noted.
    async fn advance(&self, known: &mut Known, begun: Option<Timestamp>) -> Result<(), StoreError> {
        if !known.published.is_empty() {
            return Ok(());
        }
        let until = match begun {
            Some(begun) => begun,
            None => self.store.clock().await?.reached(Instant::now()),
        };
        let mut lease = self.lead.known();
        for (stream, sequence) in std::mem::take(&mut known.reached) {
            let position = lease.positions.entry(stream).or_default();
            *position = sequence.max(*position);
        }
        lease.told_until = Some(until);
        self.lead.set_known(lease);
        Ok(())
    }
}

/// The order that a message is about, by its id; none if it is none of ours.
fn order_of(message: &str) -> Option<OrderId> {
    message.split(':').next()?.parse().ok()
}
