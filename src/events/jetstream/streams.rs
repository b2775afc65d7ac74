//! JetStream as a broker.
//!
//! Streams are found by their subjects, and one that is there is never altered: it is somebody else's. Subjects that no
//! stream has get one of ours.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use async_nats::jetstream::{
    Context, ErrorCode,
    context::{ContextBuilder, CreateStreamErrorKind, GetStreamByNameErrorKind},
    message::PublishMessage,
    stream::{Config, StorageType, Stream as Found},
};

use super::{
    fence::{self, Fence},
    publisher::Publisher,
    read_back,
};
use crate::{
    events::{
        args::{Settings, Stream},
        broker::{Ack, Broker, BrokerError, IN_FLIGHT, Marks, Message},
        client_error::failed,
        connection::{Connection, REQUEST_TIMEOUT},
        system::System,
        wire::{Subject, Subjects},
    },
    store::Positions,
};

/// How long our stream knows a message again: longer than a server keeps the connection of a process that is frozen, which
/// may send what it has begun to send when it wakes.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(15 * 60);

const FINDING: &str = "looking for the streams";
const MAKING: &str = "making the stream";
const ASKING: &str = "asking for the end of a stream";
const CLOSING: &str = "sending the last acknowledgements";

/// How often a mark is set for one event. Where a stream keeps so few messages that it is gone again each time, others are to have
/// their turn.
const MOST_MARKS: usize = 100;

/// The streams of our subjects.
pub(in crate::events) struct JetStream {
    pub(super) context: Context,
    publisher: Publisher,
    pub(super) system: System,
    pub(super) subjects: Subjects,
    /// By subject, the stream that has it.
    streams: BTreeMap<Subject, String>,
    /// By stream, its marks, if it can have any.
    fences: BTreeMap<String, Fence>,
}

impl JetStream {
    /// Finds the streams, and makes one for the subjects that none has. That another system publishes what we do is an error.
    pub(in crate::events) async fn open(
        connection: &Connection,
        settings: &Settings,
        stream: &Stream,
        system: &System,
    ) -> Result<Self, BrokerError> {
        let context = ContextBuilder::new()
            .timeout(REQUEST_TIMEOUT)
            .max_ack_inflight(IN_FLIGHT)
            .build(connection.client.clone());
        let mut this = Self {
            publisher: Publisher { context: context.clone(), denied: connection.denied.clone() },
            context,
            system: system.clone(),
            subjects: settings.subjects.clone(),
            streams: BTreeMap::new(),
            fences: BTreeMap::new(),
        };
        let mut without = Vec::new();
        for subject in settings.subjects.all() {
            match this.find_stream(subject).await? {
                Some(stream) => drop(this.streams.insert(subject, stream)),
                None => without.push(subject),
            }
        }
        if !without.is_empty() {
            this.make_stream(&without, stream).await?;
        }
        this.find_fences().await?;
        Ok(this)
    }

    async fn find_fences(&mut self) -> Result<(), BrokerError> {
        let mut fences = BTreeMap::new();
        for (name, published) in self.streams_of(&Subject::PUBLISHED) {
            let stream = self.stream(name).await?;
            let Some(published) = published.first() else { continue };
            match Fence::find(&self.context, &stream, published, &self.system).await? {
                Some(fence) => {
                    fence.check(&stream).await?;
                    fences.insert(name.to_owned(), fence);
                }
                None => tracing::debug!(
                    stream = name,
                    subject = fence::subjects(published),
                    "this stream has no subject for marks, so what arrives late is not refused"
                ),
            }
        }
        self.fences = fences;
        Ok(())
    }

    pub(super) async fn stream(&self, name: &str) -> Result<Found, BrokerError> {
        self.context.get_stream(name).await.map_err(|error| failed(ASKING, &error))
    }

    async fn find_stream(&self, subject: Subject) -> Result<Option<String>, BrokerError> {
        match self.context.stream_by_subject(self.subjects.name(subject)).await {
            Ok(stream) => Ok(Some(stream)),
            Err(error) => match error.kind() {
                GetStreamByNameErrorKind::NotFound => Ok(None),
                _ => Err(failed(FINDING, &error)),
            },
        }
    }

    async fn make_stream(&mut self, subjects: &[Subject], settings: &Stream) -> Result<(), BrokerError> {
        let name = |subject: &Subject| self.subjects.name(*subject);
        let published = Subject::PUBLISHED
            .iter()
            .find(|published| subjects.contains(published))
            .map(|published| fence::subjects(name(published)));
        let names = subjects.iter().map(|subject| name(subject).to_owned()).chain(published).collect();
        let config = Config {
            name: settings.name.clone(),
            description: Some("Events of a ticketing system, made by orders-operator".into()),
            subjects: names,
            storage: StorageType::File,
            num_replicas: settings.replicas,
            max_age: settings.max_age,
            duplicate_window: DUPLICATE_WINDOW,
            ..Config::default()
        };
        if let Err(error) = self.context.create_stream(config).await {
            match error.kind() {
                // It has other subjects, or another pod has just made it.
                CreateStreamErrorKind::JetStream(error) if is_there_already(&error) => {}
                _ => return Err(failed(MAKING, &error)),
            }
        } else {
            tracing::info!(stream = settings.name, subjects = subjects.len(), "made a stream for events");
        }
        for subject in subjects {
            match self.find_stream(*subject).await? {
                Some(stream) => drop(self.streams.insert(*subject, stream)),
                None => {
                    return Err(BrokerError::SubjectWithoutStream {
                        subject: self.subjects.name(*subject).to_owned(),
                        stream: settings.name.clone(),
                    });
                }
            }
        }
        Ok(())
    }

    /// The streams of some subjects, each with the names of those that it has.
    pub(super) fn streams_of(&self, subjects: &[Subject]) -> BTreeMap<&str, Vec<String>> {
        let mut streams = BTreeMap::<&str, Vec<String>>::new();
        for subject in subjects {
            if let Some(stream) = self.streams.get(subject) {
                streams.entry(stream).or_default().push(self.subjects.name(*subject).to_owned());
            }
        }
        streams
    }
}

impl Broker for JetStream {
    async fn marks(&self) -> Result<Marks, BrokerError> {
        let mut marks = Marks::new();
        for (name, fence) in &self.fences {
            marks.extend(fence.marks(&self.stream(name).await?).await?);
        }
        Ok(marks)
    }

    async fn begin(&self, known: &Marks) -> Result<(), BrokerError> {
        for fence in self.fences.values() {
            fence.begin(&self.publisher, known).await?;
        }
        Ok(())
    }

    async fn publish(
        &self,
        message: &Message,
        may_publish: impl Fn() -> bool + Send + Sync,
    ) -> Result<Ack, BrokerError> {
        let stream = self.streams.get(&message.subject).map(String::as_str).unwrap_or_default();
        let mut condition = match self.fences.get(stream) {
            Some(fence) => fence.condition().await,
            None => None,
        };
        let subject = self.subjects.name(message.subject);
        let publish = || PublishMessage::build().payload(message.data.clone().into()).message_id(&message.id);
        for _ in 0..MOST_MARKS {
            if !may_publish() {
                return Err(BrokerError::Superseded);
            }
            let sent = match &mut condition {
                Some(condition) if condition.is_set() => {
                    self.publisher.send(stream, subject, condition.on(publish())).await
                }
                Some(condition) => {
                    condition.restore(&self.publisher).await?;
                    continue;
                }
                None => self.publisher.send(stream, subject, publish()).await,
            };
            match (sent, &mut condition) {
                (Ok(ack), _) => {
                    return Ok(Ack { place: Some((ack.stream, ack.sequence)), is_duplicate: ack.duplicate });
                }
                (Err(BrokerError::Superseded), Some(condition)) if may_publish() => {
                    condition.restore(&self.publisher).await?;
                }
                (Err(error), _) => return Err(error),
            }
        }
        let detail =
            "the stream keeps so few messages that the marker of who publishes is removed at once".into();
        Err(BrokerError::Rejected { subject: subject.to_owned(), detail })
    }

    async fn ends(&self) -> Result<Positions, BrokerError> {
        let mut ends = Positions::new();
        for stream in self.streams_of(&Subject::PUBLISHED).into_keys() {
            let found = self.stream(stream).await?;
            ends.insert(stream.to_owned(), found.cached_info().state.last_sequence);
        }
        Ok(ends)
    }

    async fn published_since(
        &self,
        positions: &Positions,
        _age: Duration,
    ) -> Result<HashSet<String>, BrokerError> {
        let mut published = HashSet::new();
        for (stream, subjects) in self.streams_of(&Subject::PUBLISHED) {
            let after = positions.get(stream).copied().unwrap_or_default();
            published.extend(read_back::ids(&self.context, stream, subjects, after).await?);
        }
        Ok(published)
    }

    async fn close(&self) -> Result<(), BrokerError> {
        self.context.client().flush().await.map_err(|error| failed(CLOSING, &error))
    }
}

fn is_there_already(error: &async_nats::jetstream::Error) -> bool {
    [ErrorCode::STREAM_NAME_EXIST, ErrorCode::STREAM_SUBJECT_OVERLAP].contains(&error.error_code())
}
