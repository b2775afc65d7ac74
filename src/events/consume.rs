//! Hears what the neighbours tell, by durable subscriptions that all pods share. While the database is away nothing is
//! acknowledged, so nothing is lost; the broker delivers it again.

use futures::future::try_join_all;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    args::{Settings, Way},
    attempts::Attempts,
    broker::{Broker, BrokerError},
    connection::Connection,
    handle::{Handler, PAUSES, Refusals, Verdict},
    inbox::Inbox,
    jetstream::JetStream,
    metrics::Metrics,
    streaming::Streaming,
    wire::Subject,
};
use crate::{
    order::ReservationTerms,
    runtime::exponential,
    store::{EventsTask, Store},
};

const ANSWERING: &str = "answering a payment";

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
    let mut are_letters_bounded = false;
    while !stop.is_cancelled() {
        if !are_letters_bounded {
            let bounded = store.ensure_dead_letters().await;
            are_letters_bounded = bounded.is_ok();
            if let Err(error) = bounded {
                tracing::warn!(%error, "old dead letters are not deleted");
            }
        }
        attempts.begin();
        let Err(error) = connected(store, settings, terms, metrics, me, stop).await else { return };
        let is_new = attempts.fail(error.reason());
        metrics.failed(error.reason());
        if let Err(error) = store.note_events_trouble(EventsTask::Hearing, me, error.reason()).await {
            tracing::debug!(%error, "why events are not heard is not noted");
        }
        if is_new {
            tracing::warn!(%error, reason = error.reason(), "events of others are not heard; trying again");
        }
        attempts.pause(stop).await;
    }
}

/// Hears while the connection lasts.
async fn connected(
    store: &Store,
    settings: &Settings,
    terms: &ReservationTerms,
    metrics: &Metrics,
    me: &str,
    stop: &CancellationToken,
) -> Result<(), BrokerError> {
    let connection = Connection::open(settings).await?;
    let hears_of_deletions = settings.subjects.has(Subject::TicketDeleted);
    if hears_of_deletions && let Err(error) = store.ensure_deleted_tickets().await {
        tracing::warn!(%error, "tickets that are gone are never forgotten");
    }
    let refusals = Refusals::default();
    match &settings.way {
        Way::JetStream(stream) => {
            let broker = JetStream::open(&connection, settings, stream).await?;
            let inboxes = broker.inboxes(&settings.durable).await?;
            let handler = Handler { store, broker: &broker, terms, metrics, refusals, hears_of_deletions };
            hear_all(&connection, &handler, inboxes, me, stop).await
        }
        Way::Streaming(cluster) => {
            let broker = Streaming::open(&connection, settings, cluster, &cluster.client_id).await?;
            let inboxes = broker.inboxes(&settings.durable).await?;
            let handler = Handler { store, broker: &broker, terms, metrics, refusals, hears_of_deletions };
            hear_all(&connection, &handler, inboxes, me, stop).await
        }
    }
}

/// Hears from all of `inboxes`, and lets the broker have the last acknowledgements.
async fn hear_all<B: Broker, I: Inbox>(
    connection: &Connection,
    handler: &Handler<'_, B>,
    inboxes: Vec<I>,
    me: &str,
    stop: &CancellationToken,
) -> Result<(), BrokerError> {
    if let Err(error) = handler.store.events_trouble_is_over(EventsTask::Hearing, me).await {
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
    let verdicts = handler.handle(&received?).await;
    let pause = exponential(PAUSES.0, PAUSES.1, failures);
    for (message, verdict) in delivered.iter().zip(&verdicts) {
        // If the broker does not hear of it, the message comes again, which changes nothing.
        match verdict {
            Verdict::Done => inbox.acknowledge(message).await?,
            Verdict::Later | Verdict::Unanswered => inbox.postpone(message, pause).await?,
        }
    }
    if verdicts.contains(&Verdict::Unanswered) {
        // By another connection, which looks for the streams again.
        return Err(BrokerError::Failed {
            doing: ANSWERING,
            detail: "the broker does not keep the answer".into(),
        });
    }
    Ok(verdicts.iter().all(|verdict| *verdict == Verdict::Done))
}
