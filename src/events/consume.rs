//! Hears what the neighbours tell, by durable subscriptions that all pods share. While the database is away nothing is
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

/// Why nothing is heard for now.
#[derive(Debug, Error)]
enum HearError {
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl HearError {
    /// One word for it.
    fn reason(&self) -> &'static str {
        match self {
            Self::Broker(error) => error.reason(),
            Self::Store(error) => error.reason(),
        }
    }
}

/// Hears until `stop`; what was taken by then is finished. `me` is by what this process is told from the others.
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
                tracing::warn!(%error, "old dead letters are not deleted");
            }
        }
        attempts.begin();
        let hearer = Hearer { store, settings, terms, metrics, me, joined: &joined };
        let Err(error) = hearer.connected(stop).await else { return };
        let is_new = attempts.fail(error.reason());
        metrics.failed(error.reason());
        if let HearError::Broker(error) = &error
            && let Err(error) = store.note_events_trouble(EventsTask::Hearing, me, error.reason()).await
        {
            tracing::debug!(%error, "why events are not heard is not noted");
        }
        if is_new {
            tracing::warn!(%error, reason = error.reason(), "events of others are not heard; trying again");
        }
        attempts.pause(stop).await;
    }
}

/// What hearing needs beside a connection.
struct Hearer<'a> {
    store: &'a Store,
    settings: &'a Settings,
    terms: &'a ReservationTerms,
    metrics: &'a Metrics,
    me: &'a str,
    joined: &'a Joined,
}

impl Hearer<'_> {
    /// Hears while the connection lasts.
    async fn connected(&self, stop: &CancellationToken) -> Result<(), HearError> {
        let Self { store, settings, .. } = *self;
        let system = System::of(store).await?;
        let connection = Connection::open(settings).await?;
        let hears_of_deletions = settings.subjects.has(Subject::TicketDeleted);
        if hears_of_deletions && let Err(error) = store.ensure_deleted_tickets().await {
            tracing::warn!(%error, "tickets that are gone are never forgotten");
        }
        match &settings.way {
            Way::JetStream(stream) => {
                let broker = JetStream::open(&connection, settings, stream, &system).await?;
                let inboxes = broker.inboxes(&settings.durable, self.joined).await?;
                hear_all(&connection, &self.handler(&broker, hears_of_deletions), inboxes, stop).await?;
            }
            Way::Streaming(cluster) => {
                let broker = Streaming::open(&connection, settings, cluster, &cluster.client_id).await?;
                // Those are what does harm where they are another's.
                broker.claim(Subject::PaymentCreated, &system).await?;
                let inboxes = broker.inboxes(&settings.durable).await?;
                hear_all(&connection, &self.handler(&broker, hears_of_deletions), inboxes, stop).await?;
            }
        }
        Ok(())
    }

    fn handler<'b, B: Broker>(&'b self, broker: &'b B, hears_of_deletions: bool) -> Handler<'b, B> {
        let Self { store, terms, metrics, me, .. } = *self;
        Handler { store, broker, terms, metrics, me, refusals: Refusals::default(), hears_of_deletions }
    }
}

/// Hears from all of `inboxes`, and lets the broker have the last acknowledgements.
async fn hear_all<B: Broker, I: Inbox>(
    connection: &Connection,
    handler: &Handler<'_, B>,
    inboxes: Vec<I>,
    stop: &CancellationToken,
) -> Result<(), BrokerError> {
    if let Err(error) = handler.store.events_trouble_is_over(EventsTask::Hearing, handler.me).await {
        tracing::debug!(%error, "that events are heard again is not noted");
    }
    let hearing = inboxes.into_iter().map(|inbox| hear(inbox, handler, stop));
    tokio::select! {
        heard = try_join_all(hearing) => drop(heard?),
        error = connection.lost() => return Err(error),
    }
    handler.broker.close().await
}

async fn hear<B: Broker, I: Inbox>(
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

/// Handles messages, and tells the broker what has become of them. Whether all are done with.
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
        // If the broker does not hear of it, the message comes again, which changes nothing.
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
        let noted = handler.store.note_events_trouble(EventsTask::Hearing, handler.me, REJECTED).await;
        if let Err(error) = noted {
            tracing::debug!(%error, "that a message is held back is not noted");
        }
    }
    // Those that are held back delay no others.
    Ok(!verdicts.contains(&Verdict::Later))
}
