//! A subscription to a channel: what the channel has from some place on, and what comes to it.

use std::time::Duration;

use async_nats::{Client, Subscriber};
use futures::{FutureExt, StreamExt};
use prost::Message;
use tokio::task::unconstrained;

use super::{
    protocol::{Ack, CloseSubscription, Delivered, Start, Subscribe, Subscribed},
    session::{Session, accepted, failed},
};
use crate::{events::broker::BrokerError, runtime::is_nats_subject};

const SUBSCRIBING: &str = "subscribing to a channel";
const WAITING: &str = "waiting for messages";
const ACKNOWLEDGING: &str = "acknowledging a message";
const CLOSING: &str = "closing a subscription";

/// What a subscription is to be like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms<'a> {
    /// Subscriptions with the same name share the messages, and go on together where they were.
    pub(super) durable: Option<&'a str>,
    /// Where one begins that does not go on.
    pub(super) from: From,
    /// The most messages that wait for their acknowledgement.
    pub(super) in_flight: i32,
    /// How long the server waits for an acknowledgement before it delivers a message again.
    pub(super) ack_wait: Duration,
}

/// A place in a channel.
#[derive(Clone, Copy, Debug)]
pub(super) enum From {
    First,
    Last,
    /// What was published within this time.
    Ago(Duration),
}

/// A subscription.
pub(super) struct Subscription {
    client: Client,
    client_id: String,
    pub(super) channel: String,
    close: String,
    messages: Subscriber,
    ack_inbox: String,
}

impl Session {
    pub(super) async fn subscribe(
        &self,
        channel: &str,
        terms: Terms<'_>,
    ) -> Result<Subscription, BrokerError> {
        let inbox = self.client.new_inbox();
        let messages =
            self.client.subscribe(inbox.clone()).await.map_err(|error| failed(SUBSCRIBING, error))?;
        let (start, ago) = match terms.from {
            From::First => (Start::First, Duration::ZERO),
            From::Last => (Start::Last, Duration::ZERO),
            From::Ago(ago) => (Start::Ago, ago),
        };
        let name = terms.durable.unwrap_or_default().to_owned();
        let request = Subscribe {
            client_id: self.client_id.clone(),
            channel: channel.to_owned(),
            queue: name.clone(),
            inbox,
            max_in_flight: terms.in_flight,
            ack_wait_seconds: i32::try_from(terms.ack_wait.as_secs()).unwrap_or(i32::MAX),
            durable: name,
            start: start.into(),
            start_ago: i64::try_from(ago.as_nanos()).unwrap_or(i64::MAX),
        };
        let subscribed: Subscribed = self.ask(SUBSCRIBING, self.places.subscribe.clone(), &request).await?;
        accepted(SUBSCRIBING, &subscribed.error)?;
        if !is_nats_subject(&subscribed.ack_inbox) {
            return Err(failed(SUBSCRIBING, "the server names no place for acknowledgements"));
        }
        Ok(Subscription {
            client: self.client.clone(),
            client_id: self.client_id.clone(),
            channel: channel.to_owned(),
            close: self.places.close_subscription.clone(),
            messages,
            ack_inbox: subscribed.ack_inbox,
        })
    }
}

impl Subscription {
    /// Waits for the next message.
    pub(super) async fn next(&mut self) -> Result<Delivered, BrokerError> {
        loop {
            let message = self.messages.next().await;
            let message = message.ok_or_else(|| failed(WAITING, "the connection is closed"))?;
            if let Some(delivered) = self.read(message) {
                return Ok(delivered);
            }
        }
    }

    /// The next message that has arrived by now.
    pub(super) fn ready(&mut self) -> Option<Delivered> {
        loop {
            // Not by turns with other tasks, or nothing would seem to have arrived now and then.
            let message = unconstrained(self.messages.next()).now_or_never()??;
            if let Some(delivered) = self.read(message) {
                return Some(delivered);
            }
        }
    }

    /// Whatever else is sent to the inbox is no message.
    fn read(&self, message: async_nats::Message) -> Option<Delivered> {
        let delivered = Delivered::decode(message.payload).ok();
        let delivered =
            delivered.filter(|delivered| delivered.channel == self.channel && delivered.sequence > 0);
        if delivered.is_none() {
            tracing::debug!(channel = self.channel, "what has arrived is no message of this channel");
        }
        delivered
    }

    /// Says that a message is done with.
    pub(super) async fn acknowledge(&self, sequence: u64) -> Result<(), BrokerError> {
        let ack = Ack { channel: self.channel.clone(), sequence };
        let sent = self.client.publish(self.ack_inbox.clone(), ack.encode_to_vec().into()).await;
        sent.map_err(|error| failed(ACKNOWLEDGING, error))
    }

    /// Ends it, without an answer: if the request is lost, the server ends it with the connection.
    pub(super) async fn close(self) -> Result<(), BrokerError> {
        let request = CloseSubscription {
            client_id: self.client_id.clone(),
            channel: self.channel.clone(),
            ack_inbox: self.ack_inbox.clone(),
        };
        let sent = self.client.publish(self.close.clone(), request.encode_to_vec().into()).await;
        sent.map_err(|error| failed(CLOSING, error))
    }
}
