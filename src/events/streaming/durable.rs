//! The durable queue subscriptions by which all pods consume: the messages of a channel are shared among them, and if there is
//! no pod for a while, they go on where they were. They are those of the Node.js service, if they have its name.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;

use super::{
    channels::Streaming,
    protocol::Delivered,
    subscription::{From, Subscription, Terms},
};
use crate::events::{
    broker::BrokerError,
    handle::Received,
    inbox::{BATCH, Inbox},
    wire::Subject,
};

/// How long the server waits for an acknowledgement before it delivers a message again, perhaps to another pod.
const ACK_WAIT: Duration = Duration::from_secs(10);

/// How many messages of one channel a pod has at once. Few, since each may have as much as the server takes, and its memory
/// is small.
const IN_FLIGHT: i32 = 16;

/// How many bytes of messages make a batch, if one does not have more.
const BYTES: usize = 2 << 20;

/// The most that are looked at for one batch; the rest comes with the next.
const MOST: usize = 100 * BATCH;

/// What one channel delivers.
pub(in crate::events) struct Durable {
    subject: Subject,
    subscription: Subscription,
}

impl Streaming {
    /// Subscribes to the channels that have something for this service.
    pub(in crate::events) async fn inboxes(&self, durable: &str) -> Result<Vec<Durable>, BrokerError> {
        let terms =
            Terms { durable: Some(durable), from: From::First, in_flight: IN_FLIGHT, ack_wait: ACK_WAIT };
        let mut inboxes = Vec::new();
        let optional = Subject::OPTIONAL.into_iter().filter(|subject| self.subjects.has(*subject));
        for subject in Subject::CONSUMED.into_iter().chain(optional) {
            let subscription = self.session.subscribe(self.subjects.name(subject), terms).await?;
            inboxes.push(Durable { subject, subscription });
        }
        Ok(inboxes)
    }
}

impl Inbox for Durable {
    type Delivered = Delivered;

    /// A message that has come again while others were handled is taken once.
    async fn next(&mut self) -> Result<Vec<Delivered>, BrokerError> {
        let first = self.subscription.next().await?;
        let mut bytes = first.data.len();
        let mut batch = BTreeMap::from([(first.sequence, first)]);
        for _ in 0..MOST {
            if batch.len() >= BATCH || bytes >= BYTES {
                break;
            }
            let Some(message) = self.subscription.ready() else { break };
            bytes += message.data.len();
            batch.insert(message.sequence, message);
        }
        Ok(batch.into_values().collect())
    }

    fn read(&self, message: &Delivered) -> Result<Received, BrokerError> {
        Ok(Received {
            subject: self.subject,
            data: message.data.clone(),
            stream: self.subscription.channel.clone(),
            sequence: message.sequence,
            deliveries: message.redeliveries.saturating_add(1),
            published: Timestamp::from_nanosecond(message.published.into()).unwrap_or(Timestamp::MAX),
        })
    }

    async fn acknowledge(&self, message: &Delivered) -> Result<(), BrokerError> {
        self.subscription.acknowledge(message.sequence).await
    }

    /// The server delivers again whatever is not acknowledged, and cannot be asked for a time.
    async fn postpone(&self, _message: &Delivered, _pause: Duration) -> Result<(), BrokerError> {
        Ok(())
    }
}
