//! Sends to a stream, and distinguishes what was certainly not kept from what may have been.

use std::error::Error;

use async_nats::jetstream::{
    self, Context, context::PublishErrorKind, message::PublishMessage, publish::PublishAck,
};

use crate::events::{
    broker::BrokerError,
    client_error::failed,
    connection::{Denied, NO_RIGHT},
};

const PUBLISHING: &str = "publishing an event";

/// By which messages are sent.
pub(super) struct Publisher {
    pub(super) context: Context,
    /// What the user may not publish.
    pub(super) denied: Denied,
}

impl Publisher {
    /// Sends a message, and waits until `stream` keeps it.
    pub(super) async fn send(
        &self,
        stream: &str,
        subject: &str,
        message: PublishMessage,
    ) -> Result<PublishAck, BrokerError> {
        let rejected = |detail: String| Err(BrokerError::Rejected { subject: subject.to_owned(), detail });
        let denied = self.denied.of(subject);
        let ack = async { self.context.send_publish(subject.to_owned(), message).await?.await };
        let error = tokio::select! {
            ack = ack => match ack {
                Ok(ack) => return Ok(ack),
                Err(error) => error,
            },
            () = denied => return rejected(NO_RIGHT.to_owned()),
        };
        match error.kind() {
            PublishErrorKind::TimedOut => Err(BrokerError::TimedOut { doing: PUBLISHING }),
            PublishErrorKind::WrongLastSequence => Err(BrokerError::Superseded),
            // It was there a while ago.
            PublishErrorKind::StreamNotFound => Err(BrokerError::SubjectWithoutStream {
                subject: subject.to_owned(),
                stream: stream.to_owned(),
            }),
            PublishErrorKind::MaxPayloadExceeded => rejected(error.to_string()),
            _ => match error.source().and_then(|source| source.downcast_ref::<jetstream::Error>()) {
                // The server's own answer.
                Some(refusal) => rejected(refusal.to_string()),
                None => Err(failed(PUBLISHING, &error)),
            },
        }
    }
}
