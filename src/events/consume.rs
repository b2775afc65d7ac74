//! Consumes the events of other services, by durable subscriptions that all pods share. While the database is away nothing is
//! acknowledged, so nothing is lost; the broker delivers it again.

use futures::future::try_join_all;
use thiserror::Error;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    args::{Settings, Way},
    attempts::Attempts,
    broker::{Broker, BrokerError, REJECTED},
    connection::Connection,
    handle::{Handler, PAUSES, Refusals, Verdict},
    inbox::Inbox,
    jetstream::{JetStream, Joined},
    metrics::Metrics,
    streaming::Streaming,
    system::System,
    wire::Subject,
};
use crate::{
    order::ReservationTerms,
    runtime::exponential,
    store::{EventsTask, Store, StoreError},
};

const ANSWERING: &str = "answering a payment";

/// Why nothing is consumed for now.
#[derive(Debug, Error)]
enum ConsumeError {
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ConsumeError {
    /// One word for it.
    fn reason(&self) -> &'static str {
        match self {
            Self::Broker(error) => error.reason(),
            Self::Store(error) => error.reason(),
        }
    }
}

/// Consumes until `stop`; what was taken by then is finished. `me` is the name of this process, which no other has.
pub(super) async fn run(
    store: &Store,
    settings: &Settings,
    terms: &ReservationTerms,
    metrics: &Metrics,
    me: &str,
    stop: &CancellationToken,
) {
    let mut attempts = Attempts::new(PAUSES);
    let (mut are_letters_bounded, joined) = (false, Joined::default());
    while !stop.is_cancelled() {
        if !are_letters_bounded {
            let bounded = store.ensure_dead_letters().await;
            are_letters_bounded = bounded.is_ok();
            if let Err(error) = bounded {
                tracing::warn!(%error, "cannot create the TTL index of deadLetters: old letters are not deleted");
            }
        }
        attempts.begin();
        let consumer = Consumer { store, settings, terms, metrics, me, joined: &joined };
        let Err(error) = consumer.connected(stop).await else { return };
        let is_new = attempts.fail(error.reason());
        metrics.failed(error.reason());
        if let ConsumeError::Broker(error) = &error
            && let Err(error) = store.record_events_trouble(EventsTask::Consuming, me, error.reason()).await
        {
            tracing::debug!(%error, "why events are not consumed is not recorded");
        }
        if is_new {
            tracing::warn!(%error, reason = error.reason(), "cannot consume events from other services; retrying");
        }
        attempts.pause(stop).await;
    }
}

/// What consuming needs beside a connection.
struct Consumer<'a> {
    store: &'a Store,
    settings: &'a Settings,
    terms: &'a ReservationTerms,
    metrics: &'a Metrics,
    me: &'a str,
    joined: &'a Joined,
}

impl Consumer<'_> {
    /// Consumes while the connection lasts.
    async fn connected(&self, stop: &CancellationToken) -> Result<(), ConsumeError> {
        let Self { store, settings, .. } = *self;
        let system = System::of(store).await?;
        let connection = Connection::open(settings).await?;
        let consumes_deletions = settings.subjects.has(Subject::TicketDeleted);
        if consumes_deletions && let Err(error) = store.ensure_deleted_tickets().await {
            tracing::warn!(%error, "cannot create the TTL index of deletedTickets: its entries never expire");
        }
        match &settings.way {
            Way::JetStream(stream) => {
                let broker = JetStream::open(&connection, settings, stream, &system).await?;
                let inboxes = broker.inboxes(&settings.durable, self.joined).await?;
                consume_all(&connection, &self.handler(&broker, consumes_deletions), inboxes, stop).await?;
            }
            Way::Streaming(cluster) => {
                let broker = Streaming::open(&connection, settings, cluster, &cluster.client_id).await?;
                // Those are what does harm where they are another's.
                broker.claim(Subject::PaymentCreated, &system).await?;
                let inboxes = broker.inboxes(&settings.durable).await?;
                consume_all(&connection, &self.handler(&broker, consumes_deletions), inboxes, stop).await?;
            }
        }
        Ok(())
    }

    fn handler<'b, B: Broker>(&'b self, broker: &'b B, consumes_deletions: bool) -> Handler<'b, B> {
        let Self { store, terms, metrics, me, .. } = *self;
        Handler { store, broker, terms, metrics, me, refusals: Refusals::default(), consumes_deletions }
    }
}

/// Consumes from all of `inboxes`, and lets the broker have the last acknowledgements.
async fn consume_all<B: Broker, I: Inbox>(
    connection: &Connection,
    handler: &Handler<'_, B>,
    inboxes: Vec<I>,
    stop: &CancellationToken,
) -> Result<(), BrokerError> {
    if let Err(error) = handler.store.events_trouble_is_over(EventsTask::Consuming, handler.me).await {
        tracing::debug!(%error, "that events are consumed again is not recorded");
    }
    let consuming = inboxes.into_iter().map(|inbox| consume(inbox, handler, stop));
    tokio::select! {
        consumed = try_join_all(consuming) => drop(consumed?),
        error = connection.lost() => return Err(error),
    }
    handler.broker.close().await
}

async fn consume<B: Broker, I: Inbox>(
    mut inbox: I,
    handler: &Handler<'_, B>,
    stop: &CancellationToken,
) -> Result<(), BrokerError> {
    let mut failures = 0;
    while !stop.is_cancelled() {
        let delivered = tokio::select! {
            delivered = inbox.next() => delivered?,
            () = stop.cancelled() => return Ok(()),
        };
        if delivered.is_empty() {
            continue;
        }
        if take(&inbox, &delivered, handler, failures).await? {
            failures = 0;
        } else {
            tokio::select! {
                () = sleep(exponential(PAUSES.0, PAUSES.1, failures)) => {}
                () = stop.cancelled() => return Ok(()),
            }
            failures += 1;
        }
    }
    Ok(())
}

/// Handles messages, and acknowledges or postpones each. Whether all are done with.
async fn take<B: Broker, I: Inbox>(
    inbox: &I,
    delivered: &[I::Delivered],
    handler: &Handler<'_, B>,
    failures: u32,
) -> Result<bool, BrokerError> {
    let received: Result<Vec<_>, _> = delivered.iter().map(|message| inbox.read(message)).collect();
    let received = received?;
    let verdicts = handler.handle(&received).await;
    let pause = exponential(PAUSES.0, PAUSES.1, failures);
    for ((message, verdict), received) in delivered.iter().zip(&verdicts).zip(&received) {
        // If that does not reach the broker, the message comes again, which changes nothing.
        match verdict {
            Verdict::Done => inbox.acknowledge(message).await?,
            Verdict::Later | Verdict::Unanswered => inbox.postpone(message, pause).await?,
            Verdict::Held => {
                let pause = exponential(PAUSES.0, PAUSES.1, received.deliveries.saturating_sub(1));
                inbox.postpone(message, pause).await?;
            }
        }
    }
    if verdicts.contains(&Verdict::Unanswered) {
        // By another connection, which looks for the streams again.
        return Err(BrokerError::Failed {
            doing: ANSWERING,
            detail: "the broker does not keep the answer".into(),
        });
    }
    if verdicts.contains(&Verdict::Held) {
        let recorded = handler.store.record_events_trouble(EventsTask::Consuming, handler.me, REJECTED).await;
        if let Err(error) = recorded {
            tracing::debug!(%error, "that a message is held back is not recorded");
        }
    }
    // Those that are held back delay no others.
    Ok(!verdicts.contains(&Verdict::Later))
}
