//! Hears what the neighbours tell, by durable consumers that all pods share. While the database is away nothing is
//! acknowledged, so nothing is lost; the broker delivers it again.

use std::time::Duration;

use async_nats::jetstream::{
    AckKind, Message as Delivered,
    consumer::{self, AckPolicy, DeliverPolicy, PullConsumer, pull},
};
use futures::{StreamExt, future::try_join_all};
use jiff::Timestamp;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    args::Settings,
    attempts::Attempts,
    broker::BrokerError,
    client_error::failed,
    connection::Connection,
    handle::{Handler, PAUSES, Received, Refusals, Verdict},
    jetstream::JetStream,
    metrics::Metrics,
    wire::Subject,
};
use crate::{
    order::ReservationTerms,
    runtime::exponential,
    store::{EventsTask, Store},
};

const JOINING: &str = "joining the consumers of a stream";
const HEARING: &str = "waiting for messages";
const ANSWERING: &str = "answering a payment";

/// The most messages that a pod takes at once.
const BATCH: usize = 200;

/// How long the broker waits for an acknowledgement before it delivers a message again.
const ACK_WAIT: Duration = Duration::from_secs(30);

/// How long one request for messages waits.
const EXPIRES: Duration = Duration::from_secs(5);

/// How much longer than that the broker may take to say that there are none.
const GRACE: Duration = Duration::from_secs(3);

/// Hears until `stop`; what was taken by then is finished.
pub(super) async fn run(
    store: &Store,
    settings: &Settings,
    terms: &ReservationTerms,
    metrics: &Metrics,
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
        let Err(error) = connected(store, settings, terms, metrics, stop).await else { return };
        let is_new = attempts.fail(error.reason());
        metrics.failed(error.reason());
        if let Err(error) = store.note_events_trouble(EventsTask::Hearing, error.reason()).await {
            tracing::debug!(%error, "why events are not heard is not noted");
        }
        if is_new {
            tracing::warn!(%error, reason = error.reason(), "events of others are not heard; trying again");
        }
        attempts.pause(stop).await;
    }
}

async fn connected(
    store: &Store,
    settings: &Settings,
    terms: &ReservationTerms,
    metrics: &Metrics,
    stop: &CancellationToken,
) -> Result<(), BrokerError> {
    let connection = Connection::open(settings).await?;
    let broker = JetStream::open(&connection, settings).await?;
    let handler = Handler { store, broker: &broker, terms, metrics, refusals: Refusals::default() };
    let streams = broker.streams_of(&Subject::HEARD);
    let mut hearing = Vec::new();
    for (stream, names) in streams {
        let heard = hear_stream(&broker, &handler, settings, stream, names, stop);
        hearing.push(heard);
    }
    let lost = || BrokerError::Unreachable("the connection is lost".into());
    tokio::select! {
        heard = try_join_all(hearing) => drop(heard?),
        () = connection.lost() => return Err(lost()),
    }
    // The last acknowledgements.
    connection.client.flush().await.map_err(|_| lost())
}

async fn hear_stream(
    broker: &JetStream,
    handler: &Handler<'_, JetStream>,
    settings: &Settings,
    stream: &str,
    names: Vec<String>,
    stop: &CancellationToken,
) -> Result<(), BrokerError> {
    let consumer = join(broker, stream, names, &settings.durable).await?;
    hear(&consumer, settings, handler, most_bytes(broker), stop).await
}

/// The most bytes that are asked for at once: more than any one message has.
fn most_bytes(broker: &JetStream) -> usize {
    broker.context.client().max_payload().max(1 << 20) * 2
}

/// The durable consumer of these subjects, which is made if there is none.
async fn join(
    broker: &JetStream,
    stream: &str,
    names: Vec<String>,
    durable: &str,
) -> Result<PullConsumer, BrokerError> {
    let stream = broker.context.get_stream(stream).await.map_err(|error| failed(JOINING, &error))?;
    let config = pull::Config {
        durable_name: Some(durable.to_owned()),
        description: Some("The orders service, by orders-operator".into()),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        filter_subjects: names.clone(),
        ..pull::Config::default()
    };
    let consumer: PullConsumer =
        stream.get_or_create_consumer(durable, config).await.map_err(|error| failed(JOINING, &error))?;
    let known = &consumer.cached_info().config;
    let mut has: Vec<_> = known.filter_subjects.iter().chain([&known.filter_subject]).cloned().collect();
    has.retain(|subject| !subject.is_empty());
    has.sort_unstable();
    let mut wanted = names;
    wanted.sort_unstable();
    let problem = if has == wanted { unfit(known) } else { Some("is for other subjects") };
    match problem {
        None => Ok(consumer),
        Some(problem) => Err(BrokerError::ConsumerOfOthers {
            durable: durable.to_owned(),
            stream: consumer.cached_info().stream_name.clone(),
            problem,
        }),
    }
}

/// Why messages would be lost with a consumer that somebody else has made; none if they would not.
fn unfit(config: &consumer::Config) -> Option<&'static str> {
    if config.ack_policy != AckPolicy::Explicit {
        Some("does not wait for the acknowledgement of each message")
    } else if config.max_deliver > 0 {
        Some("delivers a message only a number of times")
    } else if config.headers_only {
        Some("delivers headers only")
    } else {
        None
    }
}

async fn hear(
    consumer: &PullConsumer,
    settings: &Settings,
    handler: &Handler<'_, JetStream>,
    bytes: usize,
    stop: &CancellationToken,
) -> Result<(), BrokerError> {
    let mut failures = 0;
    while !stop.is_cancelled() {
        let request = consumer.batch().max_messages(BATCH).max_bytes(bytes).expires(EXPIRES);
        let messages = request.messages().await.map_err(|error| failed(HEARING, &error))?;
        let mut ready = messages.ready_chunks(BATCH);
        let mut is_first = true;
        loop {
            let next = tokio::select! {
                next = timeout(EXPIRES + GRACE, ready.next()) => next,
                () = stop.cancelled() => return Ok(()),
            };
            let Some(chunk) = next.map_err(|_| BrokerError::TimedOut { doing: HEARING })? else { break };
            let (mut delivered, mut ended) = (Vec::with_capacity(chunk.len()), None);
            for message in chunk {
                match message {
                    Ok(message) => delivered.push(message),
                    Err(error) => ended = Some(error),
                }
            }
            let is_done = take(&delivered, settings, handler, failures).await?;
            if let Some(error) = ended {
                // The client calls it an error too that the next message does not fit into what was asked for. What is one
                // comes again, without a message.
                if is_first && delivered.is_empty() {
                    return Err(BrokerError::Failed { doing: HEARING, detail: error.to_string() });
                }
                break;
            }
            is_first = false;
            if is_done {
                failures = 0;
            } else {
                tokio::select! {
                    () = sleep(exponential(PAUSES.0, PAUSES.1, failures)) => {}
                    () = stop.cancelled() => return Ok(()),
                }
                failures += 1;
            }
        }
    }
    Ok(())
}

/// Handles messages, and tells the broker what has become of them. Whether all are done with.
async fn take(
    delivered: &[Delivered],
    settings: &Settings,
    handler: &Handler<'_, JetStream>,
    failures: u32,
) -> Result<bool, BrokerError> {
    let mut received = Vec::with_capacity(delivered.len());
    for message in delivered {
        received.push(read(message, settings)?);
    }
    let verdicts = handler.handle(&received).await;
    let later = AckKind::Nak(Some(exponential(PAUSES.0, PAUSES.1, failures)));
    for (message, verdict) in delivered.iter().zip(&verdicts) {
        let told = match verdict {
            Verdict::Done => message.ack().await,
            Verdict::Later | Verdict::Unanswered => message.ack_with(later).await,
        };
        // It is delivered again, which changes nothing.
        told.map_err(|error| BrokerError::Failed { doing: HEARING, detail: error.to_string() })?;
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

fn read(message: &Delivered, settings: &Settings) -> Result<Received, BrokerError> {
    let broken = |detail: String| BrokerError::Failed { doing: HEARING, detail };
    let info = message.info().map_err(|error| broken(error.to_string()))?;
    let subject = settings.subjects.find(&message.subject).ok_or_else(|| {
        broken(format!("a message has the subject {}, which was not asked for", message.subject))
    })?;
    Ok(Received {
        subject,
        data: message.payload.to_vec(),
        stream: info.stream.to_owned(),
        sequence: info.stream_sequence,
        published: Timestamp::from_nanosecond(info.published.unix_timestamp_nanos())
            .unwrap_or(Timestamp::MAX),
    })
}
