//! The durable pull consumer of a stream, which all pods share.

use std::time::Duration;

use async_nats::jetstream::{
    AckKind, Message as Delivered,
    consumer::{
        self, AckPolicy, DeliverPolicy, PullConsumer,
        pull::{self, Batch},
    },
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
    wire::{Subject, Subjects},
};

const JOINING: &str = "joining the consumers of a stream";
const HEARING: &str = "waiting for messages";

/// How long the broker waits for an acknowledgement before it delivers a message again.
const ACK_WAIT: Duration = Duration::from_secs(30);

/// How long one request for messages waits.
const EXPIRES: Duration = Duration::from_secs(5);

/// How much longer than that the broker may take to say that there are none.
const GRACE: Duration = Duration::from_secs(3);

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
    pub(in crate::events) async fn inboxes(&self, durable: &str) -> Result<Vec<Pull>, BrokerError> {
        let bytes = self.context.client().max_payload().max(1 << 20) * 2;
        let mut inboxes = Vec::new();
        let mut consumers = vec![(durable.to_owned(), Subject::HEARD.to_vec())];
        for subject in Subject::OPTIONAL.into_iter().filter(|subject| self.subjects.has(*subject)) {
            // One of its own, so that it can be named or not while other pods still run as before.
            consumers.push((format!("{durable}-{}", subject.as_str().replace(':', "-")), vec![subject]));
        }
        for (durable, subjects) in &consumers {
            for (stream, names) in self.streams_of(subjects) {
                let consumer = self.join(stream, names, durable).await?;
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
        names: Vec<String>,
        durable: &str,
    ) -> Result<PullConsumer, BrokerError> {
        let stream = self.context.get_stream(stream).await.map_err(|error| failed(JOINING, &error))?;
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

fn broken(detail: impl ToString) -> BrokerError {
    BrokerError::Failed { doing: HEARING, detail: detail.to_string() }
}

impl Inbox for Pull {
    type Delivered = Delivered;

    async fn next(&mut self) -> Result<Vec<Delivered>, BrokerError> {
        if self.batch.is_none() {
            let request = self.consumer.batch().max_messages(BATCH).max_bytes(self.bytes).expires(EXPIRES);
            let batch = request.messages().await.map_err(|error| failed(HEARING, &error))?;
            (self.batch, self.is_new) = (Some(batch.ready_chunks(BATCH)), true);
        }
        let Some(batch) = &mut self.batch else { return Ok(Vec::new()) };
        let next = timeout(EXPIRES + GRACE, batch.next()).await;
        let Some(chunk) = next.map_err(|_| BrokerError::TimedOut { doing: HEARING })? else {
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
