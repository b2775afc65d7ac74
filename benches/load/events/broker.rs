//! The streams of one turn, by the bare client. They are deleted with it.

use std::{env, time::Duration};

use async_nats::{
    Client,
    jetstream::{self, Context, message::PublishMessage, stream},
};
use futures::{StreamExt, stream as streams};
use orders_operator::crd::SUBJECTS;

use crate::Result;

/// As many as the product has waiting for their acknowledgement.
const IN_FLIGHT: usize = 2000;

/// The durable consumer of the pods.
const DURABLE: &str = "orders-service";

/// A stream of its own, with subjects of its own.
pub struct Broker {
    pub client: Client,
    pub context: Context,
    pub url: String,
    pub stream: String,
}

impl Broker {
    pub async fn open() -> Result<Self> {
        let url =
            env::var("TEST_NATS_URL").map_err(|_| "TEST_NATS_URL is not set: run `make bench-events`")?;
        Self::at(url).await
    }

    /// The same at another server than that of the test bed.
    pub async fn at(url: String) -> Result<Self> {
        let client = async_nats::connect(&url).await?;
        let mut context = jetstream::new(client.clone());
        context.set_timeout(Duration::from_secs(30));
        let stream = format!("bench-{:08x}", fastrand::u32(..));
        Ok(Self { client, context, url, stream })
    }

    /// The name that a subject has in this turn.
    pub fn subject(&self, name: &str) -> String {
        format!("{}.{name}", self.stream)
    }

    /// The settings of the pods.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let renamed: Vec<_> = SUBJECTS.iter().map(|name| format!("{name}={}", self.subject(name))).collect();
        vec![
            ("NATS_URL", self.url.clone()),
            ("NATS_STREAM", self.stream.clone()),
            ("NATS_SUBJECTS", renamed.join(",")),
        ]
    }

    /// Makes the stream, as the pods would, for subjects that are published before there is one.
    pub async fn make(&self) -> Result<()> {
        let mut subjects: Vec<_> = SUBJECTS.iter().map(|name| self.subject(name)).collect();
        subjects.push(format!("orders-operator.fence.{}.*", self.subject("order:created")));
        let config = stream::Config { name: self.stream.clone(), subjects, ..stream::Config::default() };
        self.context.create_stream(config).await?;
        Ok(())
    }

    /// Publishes messages, each with its id, thousands in flight.
    pub async fn publish(
        &self,
        subject: &str,
        messages: impl Iterator<Item = (String, Vec<u8>)>,
    ) -> Result<()> {
        let subject = self.subject(subject);
        let publishing = messages.map(|(id, data)| async {
            let message = PublishMessage::build().payload(data.into()).message_id(id);
            self.context.send_publish(subject.clone(), message).await?.await
        });
        let mut published = Box::pin(streams::iter(publishing).buffer_unordered(IN_FLIGHT));
        while let Some(ack) = published.next().await {
            ack?;
        }
        Ok(())
    }

    /// How many messages the pods have not acknowledged; none before they listen.
    pub async fn unheard(&self) -> Option<u64> {
        let stream = self.context.get_stream(&self.stream).await.ok()?;
        let info = stream.consumer_info(DURABLE).await.ok()?;
        Some(info.num_pending + u64::try_from(info.num_ack_pending).unwrap_or(u64::MAX))
    }

    pub async fn delete(&self) {
        // It is the server of the test bed.
        drop(self.context.delete_stream(&self.stream).await);
    }
}
