//! Marks in the streams of our events, by which the broker refuses what a former leader has sent and what arrives too late.
//!
//! A process may be frozen, or a network hold something up, between the moment at which a leader was still allowed to
//! publish and the arrival of what it has sent. No clock helps then. So whoever begins to lead publishes a mark, and each of
//! its events has the condition that this mark is still the last. What is stored before the next leader's mark, that one
//! reads back; what arrives later is refused.
//!
//! A mark is a message with a subject of its own in the same stream. The stream that we make has this subject; a stream of
//! others may not, and is never altered: then there are no marks, and the time between two leaders is all that helps.
//!
//! A mark says whose it is, so that two systems that were given the same subjects notice. It is JSON: a consumer that gets
//! it, since it asked for whatever is in the stream, can at least read it. And it leaves the stream like any message, because
//! of its age or since the stream has a limit; then whoever leads sets it again.

use std::sync::{Mutex, MutexGuard, PoisonError};

use async_nats::jetstream::{
    Context,
    context::GetStreamByNameErrorKind,
    message::PublishMessage,
    stream::{LastRawMessageErrorKind, RetentionPolicy, Stream},
};
use futures::future::try_join_all;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::publisher::Publisher;
use crate::events::{
    broker::{BrokerError, Marks},
    client_error::failed,
    system::System,
};

/// What the subjects of marks begin with; then comes the name of the first of our subjects that the stream has.
const PREFIX: &str = "orders-operator.fence";

/// Names the subject whose last message a condition is about; servers know it from 2.11 on.
const CONDITION_SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence-Subject";

/// How many subjects for marks a stream has that several servers keep: those take one message at a time with a condition on
/// the same subject.
const LANES: usize = 32;

const FINDING: &str = "looking for the subject of marks";
const READING: &str = "reading the marks of who publishes";

/// The subjects of the marks of a stream that has the subject `published`, for its configuration.
pub(super) fn subjects(published: &str) -> String {
    format!("{PREFIX}.{published}.*")
}

/// One subject for marks.
#[derive(Clone, Debug)]
struct Lane {
    subject: String,
    /// Our mark there; before it is set, the last one that is known.
    sequence: u64,
    is_set: bool,
}

/// The marks of one stream.
pub(super) struct Fence {
    stream: String,
    /// Their subjects.
    subjects: Vec<String>,
    /// Those that nobody uses now; none before this process begins to publish.
    lanes: Mutex<Vec<Lane>>,
    free: Semaphore,
    /// Held by whoever sets a mark that all use.
    setting: tokio::sync::Mutex<()>,
    system: System,
}

impl Fence {
    /// The marks of `stream`, if it can have any; `published` is the name of one of our subjects there.
    pub(super) async fn find(
        context: &Context,
        stream: &Stream,
        published: &str,
        system: &System,
    ) -> Result<Option<Self>, BrokerError> {
        let subject = |lane: usize| format!("{PREFIX}.{published}.{lane}");
        let config = &stream.cached_info().config;
        let has_subject = async {
            match context.stream_by_subject(subject(0)).await {
                Ok(name) => Ok(name == config.name),
                Err(error) if error.kind() == GetStreamByNameErrorKind::NotFound => Ok(false),
                // Whoever gets no answer does not know, and must not publish without marks where others have them.
                Err(error) => Err(failed(FINDING, &error)),
            }
        };
        // Where interest decides, what nobody asked for is not kept.
        let is_possible = config.retention != RetentionPolicy::Interest
            && context.client().is_server_compatible(2, 11, 0)
            && has_subject.await?;
        let lanes = if config.num_replicas > 1 { LANES } else { 1 };
        Ok(is_possible.then(|| Self {
            stream: config.name.clone(),
            subjects: (0..lanes).map(subject).collect(),
            lanes: Mutex::default(),
            free: Semaphore::new(lanes),
            setting: tokio::sync::Mutex::default(),
            system: system.clone(),
        }))
    }

    /// The last marks, which must not be those of another system.
    pub(super) async fn marks(&self, stream: &Stream) -> Result<Marks, BrokerError> {
        let last = self.subjects.iter().map(|subject| async {
            let sequence = self.last(stream, subject).await?.unwrap_or_default();
            Ok((subject.clone(), sequence))
        });
        Ok(try_join_all(last).await?.into_iter().collect())
    }

    /// That nobody else has set marks; the first ones show it.
    pub(super) async fn check(&self, stream: &Stream) -> Result<(), BrokerError> {
        match self.subjects.first() {
            Some(first) => self.last(stream, first).await.map(drop),
            None => Ok(()),
        }
    }

    /// The sequence of the last mark.
    async fn last(&self, stream: &Stream, subject: &str) -> Result<Option<u64>, BrokerError> {
        match stream.get_last_raw_message_by_subject(subject).await {
            Ok(mark) => {
                let place = || format!("the stream {}", self.stream);
                let theirs = System::parse(&mark.payload);
                self.system.must_be(theirs, place).map_err(BrokerError::SubjectsOfOthers)?;
                Ok(Some(mark.sequence))
            }
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(failed(READING, &error)),
        }
    }

    /// Begins to publish: sets our marks, if `known` are still the last ones. A stream that does not take them takes no events
    /// either, and each of those tries it again.
    pub(super) async fn begin(&self, publisher: &Publisher, known: &Marks) -> Result<(), BrokerError> {
        let setting = self.subjects.iter().map(|subject| async {
            let sequence = known.get(subject).copied().unwrap_or_default();
            let mut lane = Lane { subject: subject.clone(), sequence, is_set: false };
            match self.set(publisher, &mut lane).await {
                Err(BrokerError::Rejected { subject, detail }) => {
                    tracing::debug!(
                        stream = self.stream,
                        subject,
                        detail,
                        "the stream does not take our mark"
                    );
                }
                set => set?,
            }
            Ok(lane)
        });
        let lanes = try_join_all(setting).await?;
        *self.lock() = lanes;
        Ok(())
    }

    /// Sets the mark of a lane after the one that is known.
    async fn set(&self, publisher: &Publisher, lane: &mut Lane) -> Result<(), BrokerError> {
        // Where several servers keep the stream, something may be under way that was accepted before the first one. A
        // second one is accepted only after that, so it is stored after that too.
        for is_set in [false, true] {
            let mark = PublishMessage::build().payload(self.system.json().into());
            let mark = on_last(mark, &lane.subject, lane.sequence);
            lane.sequence = publisher.send(&self.stream, &lane.subject, mark).await?.sequence;
            lane.is_set = is_set;
        }
        Ok(())
    }

    /// The condition for one message; none before this process begins to publish. It is kept until the message is acknowledged.
    pub(super) async fn condition(&self) -> Option<Condition<'_>> {
        // It is never closed.
        let permit = if self.is_shared() { None } else { self.free.acquire().await.ok() };
        let lane = if self.is_shared() { self.lock().first().cloned() } else { self.lock().pop() };
        Some(Condition { fence: self, lane: lane?, permit })
    }

    /// Whether all messages have the condition on one lane.
    fn is_shared(&self) -> bool {
        self.subjects.len() == 1
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// That our mark is still the last one.
pub(super) struct Condition<'a> {
    fence: &'a Fence,
    lane: Lane,
    permit: Option<SemaphorePermit<'a>>,
}

impl Condition<'_> {
    /// Whether our mark was set; otherwise it has to be [restored](Self::restore) first.
    pub(super) fn is_set(&self) -> bool {
        self.lane.is_set
    }

    /// `message`, with this condition.
    pub(super) fn on(&self, message: PublishMessage) -> PublishMessage {
        on_last(message, &self.lane.subject, self.lane.sequence)
    }

    /// Sets our mark again, which has left the stream because of its age or for newer messages: only then there is none at all.
    /// If another process has set one, that is [an error](BrokerError::Superseded).
    ///
    /// What a former leader has sent is refused without any mark too, so nothing is missed while there is none.
    pub(super) async fn restore(&mut self, publisher: &Publisher) -> Result<(), BrokerError> {
        let fence = self.fence;
        let _setting = if fence.is_shared() { Some(fence.setting.lock().await) } else { None };
        let known = if fence.is_shared() { fence.lock().first().cloned() } else { None };
        if let Some(known) = known.filter(|known| known.is_set && known.sequence != self.lane.sequence) {
            // Another message was first.
            self.lane = known;
            return Ok(());
        }
        if self.lane.is_set {
            let stream = publisher.context.get_stream(&fence.stream).await;
            let stream = stream.map_err(|error| failed(READING, &error))?;
            if fence.last(&stream, &self.lane.subject).await?.is_some() {
                return Err(BrokerError::Superseded);
            }
            (self.lane.sequence, self.lane.is_set) = (0, false);
        }
        let set = fence.set(publisher, &mut self.lane).await;
        if fence.is_shared()
            && let Some(shared) = fence.lock().first_mut()
        {
            *shared = self.lane.clone();
        }
        set
    }
}

impl Drop for Condition<'_> {
    fn drop(&mut self) {
        // Then nobody else has it.
        if self.permit.is_some() {
            self.fence.lock().push(self.lane.clone());
        }
    }
}

fn on_last(message: PublishMessage, subject: &str, sequence: u64) -> PublishMessage {
    message.expected_last_subject_sequence(sequence).header(CONDITION_SUBJECT, subject)
}
