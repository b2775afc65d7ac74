//! What is asked of a broker: that it keeps what is published, and tells what was.

use std::collections::HashSet;

use thiserror::Error;

use super::wire::Subject;
use crate::store::Positions;

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
    pub(super) stream: String,
    pub(super) sequence: u64,
    /// Whether it had the message already.
    pub(super) is_duplicate: bool,
}

/// A broker, by one connection to it. Every call ends; after an error the connection is not used again.
pub(super) trait Broker: Sync {
    /// Publishes a message, and waits until the broker keeps it.
    fn publish(&self, message: &Message) -> impl Future<Output = Result<Ack, BrokerError>> + Send;

    /// Where the streams of our events end.
    fn ends(&self) -> impl Future<Output = Result<Positions, BrokerError>> + Send;

    /// The ids of the messages that were published after `positions`.
    fn published_since(
        &self,
        positions: &Positions,
    ) -> impl Future<Output = Result<HashSet<String>, BrokerError>> + Send;
}

/// Why a broker cannot be used. What a server says is for the log only.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum BrokerError {
    #[error("the NATS servers cannot be reached: {0}")]
    Unreachable(String),
    #[error("the NATS servers refuse the connection; check the user and the password, or the token: {0}")]
    Refused(String),
    #[error(
        "the NATS server has no JetStream; start it with --jetstream (NATS Streaming is another program, and is not supported)"
    )]
    NoJetStream,
    #[error(
        "no stream has the subject {subject}, and the stream {stream}, which is never altered, has other subjects; add it there, or name another stream"
    )]
    SubjectWithoutStream { subject: String, stream: String },
    #[error(
        "the consumer {durable} of the stream {stream} {problem}, so it is another's; name one of your own by NATS_DURABLE, or delete it"
    )]
    ConsumerOfOthers { durable: String, stream: String, problem: &'static str },
    #[error("while {doing}: {detail}")]
    Failed { doing: &'static str, detail: String },
    #[error("while {doing}: no answer in time")]
    TimedOut { doing: &'static str },
}

impl BrokerError {
    /// One word for it.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "BrokerUnreachable",
            Self::Refused(_) | Self::NoJetStream => "BrokerRefused",
            Self::SubjectWithoutStream { .. } => "SubjectWithoutStream",
            Self::ConsumerOfOthers { .. } => "ConsumerOfOthers",
            Self::Failed { .. } => "BrokerFailed",
            Self::TimedOut { .. } => "BrokerTooSlow",
        }
    }
}
