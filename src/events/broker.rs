//! What is asked of a broker: that it keeps what is published, and says what was.

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    time::Duration,
};

use thiserror::Error;

use super::{system::OtherSystem, wire::Subject};
use crate::store::Positions;

/// The most messages that wait for their acknowledgement.
pub(super) const IN_FLIGHT: usize = 2000;

/// In one word, why something is held back that the broker does not take.
pub(super) const REJECTED: &str = "BrokerFailed";

/// One event, on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) subject: Subject,
    /// The same whenever the event is published again.
    pub(super) id: String,
    pub(super) data: Vec<u8>,
}

/// That a broker keeps a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ack {
    /// The stream and the sequence, where the broker says them.
    pub(super) place: Option<(String, u64)>,
    /// Whether it had the message already.
    pub(super) is_duplicate: bool,
}

/// The sequences of the last marks of those who have begun to publish, by subject.
pub(super) type Marks = BTreeMap<String, u64>;

/// A broker, by one connection to it. Every call ends; after an error the connection is not used again, unless it is that of one
/// [message](BrokerError::Rejected).
pub(super) trait Broker: Sync {
    /// The last marks of those who have begun to publish. They are read before the lease is taken.
    fn marks(&self) -> impl Future<Output = Result<Marks, BrokerError>> + Send;

    /// Marks that this process begins, if `known` are still the last marks. From then on what others have sent before is
    /// refused when it arrives, where the broker can do that.
    fn begin(&self, known: &Marks) -> impl Future<Output = Result<(), BrokerError>> + Send;

    /// Publishes a message, if and as long as `may_publish`, and waits until the broker keeps it. Whoever may not has been
    /// [superseded](BrokerError::Superseded).
    fn publish(
        &self,
        message: &Message,
        may_publish: impl Fn() -> bool + Send + Sync,
    ) -> impl Future<Output = Result<Ack, BrokerError>> + Send;

    /// Where the streams of our events end; nothing where what was published is not found by its place.
    fn ends(&self) -> impl Future<Output = Result<Positions, BrokerError>> + Send;

    /// The ids of the messages that were published after `positions`, or, where there are none, within `age`: so long ago
    /// the oldest change was made that may not be marked as published.
    fn published_since(
        &self,
        positions: &Positions,
        age: Duration,
    ) -> impl Future<Output = Result<HashSet<String>, BrokerError>> + Send;

    /// Takes leave, once everything that was sent has arrived.
    fn close(&self) -> impl Future<Output = Result<(), BrokerError>> + Send;
}

/// Why a broker cannot be used. What a server says is for the log only.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum BrokerError {
    #[error("the NATS servers cannot be reached: {0}")]
    Unreachable(String),
    #[error(
        "the NATS servers refuse the connection; check the credentials, the user and the password, or the token: {0}"
    )]
    Refused(String),
    #[error("the credentials in {} cannot be read: {detail}", file.display())]
    Credentials { file: PathBuf, detail: String },
    #[error(
        "the NATS server has no JetStream; start it with --jetstream, or name its cluster by NATS_CLUSTER_ID if it is a NATS Streaming server"
    )]
    NoJetStream,
    #[error(
        "no NATS Streaming server has the cluster id {0}; correct NATS_CLUSTER_ID, or leave it out if the NATS server has JetStream"
    )]
    NoStreaming(String),
    #[error(
        "another process is connected as {0}, and answers; give each its own NATS_CLIENT_ID, such as the pod's name"
    )]
    ClientIdTaken(String),
    #[error("the NATS Streaming server does not know this connection any more: {0}")]
    Forgotten(String),
    #[error(
        "no stream has the subject {subject}, and the stream {stream}, which is never altered, has other subjects; add it there, or name another stream"
    )]
    SubjectWithoutStream { subject: String, stream: String },
    #[error(
        "the consumer {durable} of the stream {stream} {problem}, so it is not used; set NATS_DURABLE to another \
         name, or delete it"
    )]
    ConsumerOfOthers { durable: String, stream: String, problem: &'static str },
    #[error(transparent)]
    SubjectsOfOthers(Box<OtherSystem>),
    /// Of one message: it was certainly not kept, and others may be.
    #[error("the broker rejects a message for {subject}: {detail}")]
    Rejected { subject: String, detail: String },
    #[error("another process has begun to publish since")]
    Superseded,
    #[error("failed while {doing}: {detail}")]
    Failed { doing: &'static str, detail: String },
    #[error("timed out while {doing}")]
    TimedOut { doing: &'static str },
}

impl BrokerError {
    /// One word for it.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "BrokerUnreachable",
            Self::Refused(_)
            | Self::Credentials { .. }
            | Self::NoJetStream
            | Self::NoStreaming(_)
            | Self::ClientIdTaken(_) => "BrokerRefused",
            Self::Superseded => "LeaseLost",
            Self::SubjectWithoutStream { .. } => "SubjectWithoutStream",
            Self::ConsumerOfOthers { .. } => "ConsumerOfOthers",
            Self::SubjectsOfOthers(_) => "SubjectsOfOthers",
            Self::Failed { .. } | Self::Rejected { .. } | Self::Forgotten(_) => REJECTED,
            Self::TimedOut { .. } => "BrokerTooSlow",
        }
    }
}
