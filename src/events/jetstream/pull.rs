//! The durable pull consumer of a stream, which all pods share.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_nats::jetstream::{
    AckKind, Message as Delivered,
    consumer::{
        self, AckPolicy, DeliverPolicy, PullConsumer,
        pull::{self, Batch},
    },
    context::ConsumerInfoErrorKind,
    stream::{ConsumerCreateStrictErrorKind, LastRawMessageErrorKind, Stream},
};
use futures::{StreamExt, stream::ReadyChunks};
use jiff::Timestamp;
use tokio::time::timeout;

use super::streams::JetStream;
use crate::events::{
    broker::BrokerError,
    client_error::failed,
    handle::Received,
    inbox::{BATCH, Inbox},
    system::System,
    wire::{Subject, Subjects},
};

const JOINING: &str = "joining the consumers of a stream";
const WAITING: &str = "waiting for messages";

/// How long the broker waits for an acknowledgement before it delivers a message again.
const ACK_WAIT: Duration = Duration::from_secs(30);

/// How long one request for messages waits.
const EXPIRES: Duration = Duration::from_secs(5);

/// How much longer than that the broker may take to say that there are none.
const GRACE: Duration = Duration::from_secs(3);

/// Of what is found in a consumer that we have made.
const DESCRIPTION: &str = "The orders service, by orders-operator";

/// Under which names a consumer has the identity of a system among its metadata.
const SYSTEM: &str = "orders-operator.system";
const DATABASE: &str = "orders-operator.database";

/// How long a pod whose consumer was made anew for other subjects leaves it to those that have begun later. Longer than pods are
/// replaced one by one; then whoever is left is not the former one.
const LEAVE_IT: Duration = Duration::from_secs(300);

/// How often a consumer is looked for that others make and delete.
const ROUNDS: usize = 5;

/// The consumers by which this process has consumed, and since when they are for other subjects.
#[derive(Default)]
pub(in crate::events) struct Joined(Mutex<BTreeMap<(String, String), Option<Instant>>>);

impl Joined {
    /// This process consumes by a consumer.
    fn note(&self, stream: &str, durable: &str) {
        let mut joined = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        joined.insert((stream.to_owned(), durable.to_owned()), None);
    }

    /// Whether a consumer, which is for other subjects now, is to be left to others.
    fn is_to_be_left(&self, stream: &str, durable: &str) -> bool {
        let mut joined = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = joined.get_mut(&(stream.to_owned(), durable.to_owned()));
        since.is_some_and(|since| since.get_or_insert_with(Instant::now).elapsed() < LEAVE_IT)
    }
}

/// What the consumer of one stream delivers.
pub(in crate::events) struct Pull {
    consumer: PullConsumer,
    subjects: Subjects,
    /// The most bytes that are asked for at once: more than any one message has.
    bytes: usize,
    /// What is left of the last request.
    batch: Option<ReadyChunks<Batch>>,
    /// Whether it has brought nothing yet.
    is_new: bool,
}

impl JetStream {
    /// Joins the consumer of each stream that has something for this service, which is made if there is none.
    pub(in crate::events) async fn inboxes(
        &self,
        durable: &str,
        joined: &Joined,
    ) -> Result<Vec<Pull>, BrokerError> {
        let bytes = self.context.client().max_payload().max(1 << 20) * 2;
        let mut inboxes = Vec::new();
        let mut consumers = vec![(durable.to_owned(), Subject::CONSUMED.to_vec())];
        for subject in Subject::OPTIONAL.into_iter().filter(|subject| self.subjects.has(*subject)) {
            // One of its own, so that it can be named or not while other pods still run as before.
            consumers.push((format!("{durable}-{}", subject.as_str().replace(':', "-")), vec![subject]));
        }
        for (durable, subjects) in &consumers {
            for (stream, names) in self.streams_of(subjects) {
                let consumer = self.join(stream, &names, durable, joined).await?;
                inboxes.push(Pull {
                    consumer,
                    subjects: self.subjects.clone(),
                    bytes,
                    batch: None,
                    is_new: true,
                });
            }
        }
        Ok(inboxes)
    }

    async fn join(
        &self,
        stream: &str,
        names: &[String],
        durable: &str,
        joined: &Joined,
    ) -> Result<PullConsumer, BrokerError> {
        let stream = self.stream(stream).await?;
        let name = stream.cached_info().config.name.clone();
        for _ in 0..ROUNDS {
            let info = match stream.consumer_info(durable).await {
                Ok(info) => info,
                Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => {
                    self.make(&stream, names, durable, DeliverPolicy::All).await?;
                    continue;
                }
                Err(error) => return Err(failed(JOINING, &error)),
            };
            let config = &info.config;
            let theirs = system_of(config);
            self.system
                .must_be(theirs.clone(), || format!("the consumer {durable} of the stream {name}"))
                .map_err(BrokerError::SubjectsOfOthers)?;
            let others = |problem| BrokerError::ConsumerOfOthers {
                durable: durable.to_owned(),
                stream: name.clone(),
                problem,
            };
            let (has, wanted) = (subjects_of(config), names.iter().map(String::as_str).collect());
            if has == wanted {
                if let Some(problem) = unfit(config) {
                    return Err(others(problem));
                }
                if theirs.is_none() {
                    self.adopt(&stream, config).await;
                }
                joined.note(&name, durable);
                return stream.get_consumer(durable).await.map_err(|error| failed(JOINING, &*error));
            }
            if config.description.as_deref() != Some(DESCRIPTION) {
                return Err(others("is for other subjects"));
            }
            if joined.is_to_be_left(&name, durable) {
                return Err(others("was recreated for other subjects by a pod that started later"));
            }
            // A consumer cannot be moved to begin elsewhere. If this process is killed in between there is none, and the next
            // one begins with everything.
            let added: Vec<_> = wanted.difference(&has).copied().collect();
            let begin = begin(&stream, &info, &added).await?;
            tracing::info!(
                durable,
                stream = name,
                ?has,
                ?wanted,
                "recreating the consumer for other subjects"
            );
            stream.delete_consumer(durable).await.map_err(|error| failed(JOINING, &error))?;
            self.make(&stream, names, durable, begin).await?;
        }
        Err(broken(format!("the consumer {durable} of the stream {name} keeps being created and deleted")))
    }

    /// Makes a consumer, unless there is one.
    async fn make(
        &self,
        stream: &Stream,
        names: &[String],
        durable: &str,
        deliver_policy: DeliverPolicy,
    ) -> Result<(), BrokerError> {
        let config = pull::Config {
            durable_name: Some(durable.to_owned()),
            description: Some(DESCRIPTION.into()),
            deliver_policy,
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            filter_subjects: names.to_vec(),
            metadata: metadata(&self.system).into(),
            ..pull::Config::default()
        };
        match stream.create_consumer_strict(config).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ConsumerCreateStrictErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(failed(JOINING, &error)),
        }
    }

    /// Writes our identity into a consumer that has none: somebody else, or an older version, has made it for this service.
    /// Without the right to, it serves as it is.
    async fn adopt(&self, stream: &Stream, config: &consumer::Config) {
        let mut config = config.clone();
        // The server's own entries.
        config.metadata.retain(|key, _| !key.starts_with("_nats."));
        config.metadata.extend(metadata(&self.system));
        if let Err(error) = stream.update_consumer(config).await {
            tracing::debug!(%error, "the consumer does not say whose it is");
        }
    }
}

fn metadata(system: &System) -> [(String, String); 2] {
    [(SYSTEM, system.id()), (DATABASE, system.database())]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
}

/// Whose a consumer is, if it says that.
fn system_of(config: &consumer::Config) -> Option<System> {
    let database = config.metadata.get(DATABASE).map(String::as_str).unwrap_or_default();
    System::new(config.metadata.get(SYSTEM)?, database)
}

fn subjects_of(config: &consumer::Config) -> BTreeSet<&str> {
    let all = config.filter_subjects.iter().chain([&config.filter_subject]);
    all.map(String::as_str).filter(|subject| !subject.is_empty()).collect()
}

/// Where a consumer has to begin that takes the place of one without these subjects, for no message to be missed: where that has
/// come to, or with the first message of these subjects, since they may have had messages before anybody asked for them. What
/// comes twice changes nothing.
async fn begin(
    stream: &Stream,
    known: &consumer::Info,
    added: &[&str],
) -> Result<DeliverPolicy, BrokerError> {
    let mut start_sequence = known.ack_floor.stream_sequence + 1;
    for subject in added {
        match stream.get_first_raw_message_by_subject(subject, 1).await {
            Ok(first) => start_sequence = start_sequence.min(first.sequence),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {}
            Err(error) => return Err(failed(JOINING, &error)),
        }
    }
    Ok(DeliverPolicy::ByStartSequence { start_sequence })
}

/// Why messages would be lost with a consumer that somebody else has made; none if they would not.
fn unfit(config: &consumer::Config) -> Option<&'static str> {
    if config.ack_policy != AckPolicy::Explicit {
        Some("does not wait for the acknowledgement of each message")
    } else if config.max_deliver > 0 {
        Some("limits how often it delivers a message")
    } else if config.headers_only {
        Some("delivers headers only")
    } else {
        None
    }
}

fn broken(detail: impl ToString) -> BrokerError {
    BrokerError::Failed { doing: WAITING, detail: detail.to_string() }
}

impl Inbox for Pull {
    type Delivered = Delivered;

    async fn next(&mut self) -> Result<Vec<Delivered>, BrokerError> {
        if self.batch.is_none() {
            let request = self.consumer.batch().max_messages(BATCH).max_bytes(self.bytes).expires(EXPIRES);
            let batch = request.messages().await.map_err(|error| failed(WAITING, &error))?;
            (self.batch, self.is_new) = (Some(batch.ready_chunks(BATCH)), true);
        }
        let Some(batch) = &mut self.batch else { return Ok(Vec::new()) };
        let next = timeout(EXPIRES + GRACE, batch.next()).await;
        let Some(chunk) = next.map_err(|_| BrokerError::TimedOut { doing: WAITING })? else {
            self.batch = None;
            return Ok(Vec::new());
        };
        let (mut delivered, mut ended) = (Vec::with_capacity(chunk.len()), None);
        for message in chunk {
            match message {
                Ok(message) => delivered.push(message),
                Err(error) => ended = Some(error),
            }
        }
        if let Some(error) = ended {
            // The client calls it an error too that the next message does not fit into what was asked for. What is one comes
            // again, without a message.
            if self.is_new && delivered.is_empty() {
                return Err(broken(error));
            }
            self.batch = None;
        }
        self.is_new = false;
        Ok(delivered)
    }

    fn read(&self, message: &Delivered) -> Result<Received, BrokerError> {
        let info = message.info().map_err(broken)?;
        let subject = self.subjects.find(&message.subject).ok_or_else(|| {
            broken(format!("a message has the subject {}, which was not asked for", message.subject))
        })?;
        Ok(Received {
            subject,
            data: message.payload.to_vec(),
            stream: info.stream.to_owned(),
            sequence: info.stream_sequence,
            deliveries: u32::try_from(info.delivered).unwrap_or(1),
            published: Timestamp::from_nanosecond(info.published.unix_timestamp_nanos())
                .unwrap_or(Timestamp::MAX),
        })
    }

    async fn acknowledge(&self, message: &Delivered) -> Result<(), BrokerError> {
        message.ack().await.map_err(broken)
    }

    async fn postpone(&self, message: &Delivered, pause: Duration) -> Result<(), BrokerError> {
        message.ack_with(AckKind::Nak(Some(pause))).await.map_err(broken)
    }
}
