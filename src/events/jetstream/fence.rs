//! Marks in the streams of our events, by which the broker refuses what a former leader has sent and what arrives too late.
//!
//! A process may be frozen, or a network hold something up, between the moment at which a leader was still allowed to
//! publish and the arrival of what it has sent. No clock helps then. So whoever begins to lead publishes a mark, and each of
//! its events has the condition that this mark is still the last. What is stored before the next leader's mark, that one
//! reads back; what arrives later is refused.
//!
//! A mark is a message with a subject of its own in the same stream. The stream that we make has this subject; a stream of
//! others may not, and is never altered: then there are no marks, and the time between two leaders is all that helps.

use std::sync::{Mutex, MutexGuard, PoisonError};

use async_nats::jetstream::{
    Context,
    context::PublishErrorKind,
    message::PublishMessage,
    stream::{LastRawMessageErrorKind, RetentionPolicy, Stream},
};
use futures::future::try_join_all;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::events::{
    broker::{BrokerError, Marks},
    client_error::failed,
};

/// What the subjects of marks begin with; then comes the name of the first of our subjects that the stream has.
const PREFIX: &str = "orders-operator.fence";

/// Names the subject whose last message a condition is about; servers know it from 2.11 on.
const CONDITION_SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence-Subject";

/// How many subjects for marks a stream has that several servers keep: those take one message at a time with a condition on
/// the same subject.
const LANES: usize = 32;

/// A neighbour that hears of a mark, since it asked for whatever is in the stream, can at least read it.
const DATA: &str = "{}";

const READING: &str = "reading the marks of who publishes";
const MARKING: &str = "marking who publishes";

/// The subjects of the marks of a stream that has `told`, for its configuration.
pub(super) fn subjects(told: &str) -> String {
    format!("{PREFIX}.{told}.*")
}

/// One subject for marks, and our mark there.
#[derive(Clone, Debug)]
struct Lane {
    subject: String,
    sequence: u64,
}

/// The marks of one stream.
pub(super) struct Fence {
    /// Their subjects.
    subjects: Vec<String>,
    /// Those that nobody uses now; none before our marks are set.
    lanes: Mutex<Vec<Lane>>,
    free: Semaphore,
}

impl Fence {
    /// The marks of `stream`, if it can have any; `told` is the name of one of our subjects there.
    pub(super) async fn find(context: &Context, stream: &Stream, told: &str) -> Option<Self> {
        let subject = |lane: usize| format!("{PREFIX}.{told}.{lane}");
        let config = &stream.cached_info().config;
        let has_subject = async {
            let found = context.stream_by_subject(subject(0)).await;
            found.is_ok_and(|name| name == config.name)
        };
        // Where interest decides, what nobody asked for is not kept.
        let is_possible = config.retention != RetentionPolicy::Interest
            && context.client().is_server_compatible(2, 11, 0)
            && has_subject.await;
        let lanes = if config.num_replicas > 1 { LANES } else { 1 };
        is_possible.then(|| Self {
            subjects: (0..lanes).map(subject).collect(),
            lanes: Mutex::default(),
            free: Semaphore::new(lanes),
        })
    }

    /// The last marks, whoever has set them.
    pub(super) async fn marks(&self, stream: &Stream) -> Result<Marks, BrokerError> {
        let last = self.subjects.iter().map(|subject| async {
            match stream.get_last_raw_message_by_subject(subject).await {
                Ok(mark) => Ok((subject.clone(), mark.sequence)),
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {
                    Ok((subject.clone(), 0))
                }
                Err(error) => Err(failed(READING, &error)),
            }
        });
        Ok(try_join_all(last).await?.into_iter().collect())
    }

    /// Sets ours, if `known` are still the last ones.
    pub(super) async fn set(&self, context: &Context, known: &Marks) -> Result<(), BrokerError> {
        let setting = self.subjects.iter().map(|subject| async {
            let known = known.get(subject).copied().unwrap_or_default();
            let first = set(context, subject, known).await?;
            // Where several servers keep the stream, something may be under way that was accepted before the first one. A
            // second one is accepted only after that, so it is stored after that too.
            let sequence = set(context, subject, first).await?;
            Ok(Lane { subject: subject.clone(), sequence })
        });
        let lanes = try_join_all(setting).await?;
        *self.lock() = lanes;
        Ok(())
    }

    /// The condition for one message; none before our marks are set. It is kept until the message is acknowledged.
    pub(super) async fn condition(&self) -> Option<Condition<'_>> {
        let is_shared = self.subjects.len() == 1;
        // It is never closed.
        let permit = if is_shared { None } else { self.free.acquire().await.ok() };
        let lane = if is_shared { self.lock().first().cloned() } else { self.lock().pop() };
        Some(Condition { fence: self, lane: lane?, permit })
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
    /// `message`, with this condition.
    pub(super) fn on(&self, message: PublishMessage) -> PublishMessage {
        on_last(message, &self.lane.subject, self.lane.sequence)
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

/// Sets one mark after the one with the sequence `known`, and returns its sequence.
async fn set(context: &Context, subject: &str, known: u64) -> Result<u64, BrokerError> {
    let mark = on_last(PublishMessage::build().payload(DATA.into()), subject, known);
    let ack = async { context.send_publish(subject.to_owned(), mark).await?.await };
    match ack.await {
        Ok(ack) => Ok(ack.sequence),
        Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Err(BrokerError::Superseded),
        Err(error) => Err(failed(MARKING, &error)),
    }
}
