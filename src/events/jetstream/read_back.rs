//! What a stream has of our events: a predecessor may have been killed after the broker had acknowledged them, and before
//! they were marked as published.

use std::{collections::HashSet, time::Duration};

use async_nats::jetstream::{
    Context,
    consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull},
    stream::RetentionPolicy,
};
use futures::{StreamExt, TryStreamExt};

use crate::events::{broker::BrokerError, client_error::failed, connection::REQUEST_TIMEOUT};

const READING: &str = "reading what was published";

/// How many messages are asked for at once.
const PER_REQUEST: usize = 1000;

/// How long the server keeps a consumer that nobody uses any more.
const IDLE: Duration = Duration::from_secs(10);

/// The ids of the messages of these `subjects` that the stream has after a sequence.
pub(super) async fn ids(
    context: &Context,
    stream: &str,
    subjects: Vec<String>,
    after: u64,
) -> Result<HashSet<String>, BrokerError> {
    let mut ids = HashSet::new();
    let found = context.get_stream(stream).await.map_err(|error| failed(READING, &error))?;
    let info = found.cached_info();
    // A stream that was made anew begins at 1 again.
    let start = if after > info.state.last_sequence { 1 } else { after + 1 };
    if start > info.state.last_sequence {
        return Ok(ids);
    }
    if info.config.retention == RetentionPolicy::WorkQueue {
        // Nobody else may read it, and what was read is gone. The server's own window for duplicates is left.
        tracing::debug!(stream, "this stream cannot be read back, since it is a work queue");
        return Ok(ids);
    }
    let consumer: PullConsumer = found
        .create_consumer(pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: start },
            ack_policy: AckPolicy::None,
            filter_subjects: subjects,
            headers_only: true,
            inactive_threshold: IDLE,
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        })
        .await
        .map_err(|error| failed(READING, &error))?;
    let mut left = consumer.cached_info().num_pending;
    while left > 0 {
        let request = consumer.fetch().max_messages(PER_REQUEST).expires(REQUEST_TIMEOUT);
        let messages = request.messages().await.map_err(|error| failed(READING, &error))?;
        let read =
            messages.map_err(|error| BrokerError::Failed { doing: READING, detail: error.to_string() });
        let mut read = Box::pin(read.take(PER_REQUEST));
        let mut count = 0;
        loop {
            let next = tokio::time::timeout(REQUEST_TIMEOUT, read.try_next()).await;
            let Some(message) = next.map_err(|_| BrokerError::TimedOut { doing: READING })?? else { break };
            count += 1;
            let id =
                message.headers.as_ref().and_then(|headers| headers.get(async_nats::header::NATS_MESSAGE_ID));
            ids.extend(id.map(|id| id.as_str().to_owned()));
        }
        if count == 0 {
            return Err(BrokerError::Failed {
                doing: READING,
                detail: format!("{left} messages of the stream {stream} did not arrive"),
            });
        }
        left = left.saturating_sub(count);
    }
    Ok(ids)
}
