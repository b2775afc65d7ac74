//! Tells what is noted, and notes that it is told.
//!
//! It goes by rounds: read what is to be told, publish it, and note what the broker has acknowledged. If it is not known
//! whether a message has arrived, the relay ends, and whoever is next reads back from the broker what was published. What the
//! broker does not take is held back, with whatever is to be told of the same ticket, and everything else goes on.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use jiff::Timestamp;
use thiserror::Error;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    broker::{Ack, Broker, BrokerError, IN_FLIGHT, Marks},
    held::Held,
    lead::Lead,
    metrics::Metrics,
    plan::{self, Note, Step},
};
use crate::{
    order::{OrderId, TicketId},
    store::{EventsTask, Positions, Store, StoreError, Told},
};

/// The most orders of one round.
const ROUND: u32 = 2000;

/// How long a round goes on telling; the rest is for the next ones. The orders of one ticket are told one after the other, and
/// while the broker was away there may have been thousands: what is told is to be noted soon all the same, and a relay that is to
/// stop must not be in the middle of it.
const ROUND_LASTS: Duration = Duration::from_secs(1);

/// The shortest time between two looks, unless there is more to tell: changes that are made meanwhile share a round.
const GATHER: Duration = Duration::from_millis(20);

/// The longest: what other processes have noted is found by then.
const LOOK: Duration = Duration::from_secs(1);

/// How long a relay that is to stop goes on with what is left.
const LAST_ROUNDS: Duration = Duration::from_secs(2);

/// Why a relay has ended.
#[derive(Debug, Error)]
pub(super) enum RelayError {
    #[error(transparent)]
    Broker(BrokerError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("an event cannot be written: {0}")]
    Json(#[from] serde_json::Error),
    #[error(
        "another pod publishes by now, or may: the lease was not renewed in time, or the broker has refused an event"
    )]
    LeaseLost,
}

impl From<BrokerError> for RelayError {
    fn from(error: BrokerError) -> Self {
        match error {
            BrokerError::Superseded => Self::LeaseLost,
            error => Self::Broker(error),
        }
    }
}

impl RelayError {
    /// One word for it.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Broker(error) => error.reason(),
            Self::Store(error) => error.reason(),
            Self::Json(_) => "MalformedEvent",
            Self::LeaseLost => "LeaseLost",
        }
    }
}

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

/// What a round has done.
struct Round {
    /// Whether there may be more to tell at once.
    is_full: bool,
    /// How many orders it was about.
    orders: usize,
    /// Whether something was told or noted.
    has_progress: bool,
}

/// How far the steps of one ticket have come.
#[derive(Default)]
struct Progress {
    ticket: Option<TicketId>,
    told: Vec<Told>,
    refused: Vec<(OrderId, String)>,
    acks: Vec<Ack>,
    /// The ids of those messages that the broker has and that are not noted as told.
    unnoted: Vec<String>,
    /// Whether there are steps left for the next round.
    is_cut: bool,
    error: Option<RelayError>,
}

impl<B: Broker> Relay<'_, B> {
    /// Tells what is noted until `stop`. `woken` ends the wait for something new.
    pub(super) async fn run<F: Future<Output = ()>>(
        &self,
        mut woken: impl FnMut() -> F,
        stop: &CancellationToken,
    ) -> Result<(), RelayError> {
        let mut published = self.catch_up().await?;
        let (mut held, mut stops_at) = (Held::default(), None);
        loop {
            let started = Instant::now();
            let round = self.round(&mut published, &mut held).await?;
            if stop.is_cancelled() {
                let stops_at = *stops_at.get_or_insert(started + LAST_ROUNDS);
                if !round.has_progress || Instant::now() > stops_at {
                    return Ok(());
                }
                continue;
            }
            if round.is_full && round.has_progress {
                continue;
            }
            if round.orders == 0 {
                published.clear();
            }
            // Dropped while the lease is kept, so it waits for nothing that has to be finished.
            sleep(GATHER.saturating_sub(started.elapsed())).await;
            tokio::select! {
                () = woken() => {}
                () = self.store.changed() => {}
                () = sleep(LOOK) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// The ids of what was published and may not be noted as told: a predecessor, or this process before its connection
    /// was lost, did not get that far.
    async fn catch_up(&self) -> Result<HashSet<String>, RelayError> {
        // First of all: what a predecessor has sent is read back now, or refused when it arrives.
        self.broker.begin(self.marks).await?;
        let known = self.lead.positions();
        let positions: Positions = self
            .broker
            .ends()
            .await?
            .into_iter()
            .map(|(stream, end)| {
                let position = known.get(&stream).copied().unwrap_or(end);
                // Beyond its end: it was made anew, and has begun at 1 again.
                (stream, if position > end { 0 } else { position })
            })
            .collect();
        if positions != known {
            // Before anything is published: otherwise nobody would know from where on to look for it.
            self.lead.set_positions(positions.clone());
            if !self.lead.renew().await? {
                return Err(RelayError::LeaseLost);
            }
        }
        match self.store.oldest_untold().await? {
            Some(age) => Ok(self.broker.published_since(&positions, age).await?),
            None => Ok(HashSet::new()),
        }
    }

    async fn round(&self, published: &mut HashSet<String>, held: &mut Held) -> Result<Round, RelayError> {
        let untold = self.store.untold(ROUND).await?;
        let mut round = Round { is_full: untold.is_full, orders: untold.orders.len(), has_progress: false };
        if round.orders == 0 {
            held.clear();
            return Ok(round);
        }
        let now = self.store.clock().await?.not_passed(Instant::now());
        let started = Instant::now();
        let mut lines = plan::steps(&untold, published)?;
        held.keep_back(&mut lines);
        // Where a holder is told again, there may be former orders that did not fit before it.
        round.is_full |= lines.values().flatten().any(|step| step.note.is_none());
        let telling = stream::iter(lines).map(|(ticket, line)| self.tell(ticket, line, now, started));
        let (mut all, mut rejected) = (Progress::default(), None);
        let mut telling = Box::pin(telling.buffer_unordered(IN_FLIGHT));
        while let Some(progress) = telling.next().await {
            let Some(ticket) = progress.ticket else { continue };
            match progress.error {
                Some(RelayError::Broker(error @ BrokerError::Rejected { .. })) => {
                    held.hold(ticket, !progress.unnoted.is_empty());
                    rejected = rejected.or(Some(error));
                }
                Some(error) => all.error = all.error.or(Some(error)),
                None => held.release(ticket),
            }
            all.told.extend(progress.told);
            all.refused.extend(progress.refused);
            all.acks.extend(progress.acks);
            all.unnoted.extend(progress.unnoted);
            round.is_full |= progress.is_cut;
        }
        round.has_progress = !(all.told.is_empty() && all.refused.is_empty() && all.acks.is_empty());
        self.store.note_told(&all.told).await?;
        for (order, payment) in &all.refused {
            self.store.note_refusal_told(*order, payment).await?;
        }
        if let Some(error) = all.error {
            return Err(error);
        }
        // What the broker has, and is not noted since something after it was not taken, is not to be told again.
        published.extend(all.unnoted);
        if !held.has_unnoted() {
            self.advance(&all.acks);
        }
        if let Some(error) = rejected {
            self.report(&error, held).await;
        }
        Ok(round)
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
            if number > 0 && at.elapsed() > ROUND_LASTS && !is_whole {
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

    /// Everything that was published up to these acknowledgements is noted as told.
    fn advance(&self, acks: &[Ack]) {
        let mut positions = self.lead.positions();
        for (stream, sequence) in acks.iter().filter_map(|ack| ack.place.clone()) {
            let position = positions.entry(stream).or_default();
            *position = sequence.max(*position);
        }
        self.lead.set_positions(positions);
    }
}
