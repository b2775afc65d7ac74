//! What the channels have of our events: a predecessor may have been killed after the server had acknowledged them, and
//! before they were marked as published.
//!
//! They are looked for by time, as long ago as the oldest change was made that is still pending; the server's own clock
//! decides, so no other has to agree with it. A channel does not say where it ends. But the server begins subscriptions one
//! after the other, so once a later one has brought its message, whatever the earlier ones had for us has arrived. For that
//! message there is a channel of ours.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use tokio::time::timeout;

use super::{
    protocol::Delivered,
    session::Session,
    subscription::{From, Subscription, Terms},
};
use crate::events::{
    broker::{self, BrokerError},
    connection::REQUEST_TIMEOUT,
    wire::{Subject, Subjects, message_id},
};

const READING: &str = "reading what was published";

/// The channel of the message that shows that all others have arrived.
const MARKS: &str = "orders-operator.marks";

/// What is in it, for whoever wonders.
const MARK: &str = "orders-operator looks at what was published before it publishes";

/// How much further back than the oldest change is read.
const MARGIN: Duration = Duration::from_secs(60);

/// How many messages are sent before one is acknowledged: more than a relay has on their way, so that whatever arrives before
/// the mark is sent before it too.
const IN_FLIGHT: i32 = 2 * broker::IN_FLIGHT as i32 + 1;

/// Longer than anything is read, so that nothing comes twice.
const ACK_WAIT: Duration = Duration::from_secs(3600);

/// The ids of the events that were published within `age`, or a little earlier.
pub(super) async fn ids(
    session: &Session,
    subjects: &Subjects,
    age: Duration,
) -> Result<HashSet<String>, BrokerError> {
    let age = age.saturating_add(MARGIN);
    let mut lasts = Vec::new();
    for subject in Subject::PUBLISHED {
        let last = session.subscribe(subjects.name(subject), terms(From::Last)).await?;
        lasts.push((subject, last));
    }
    let (mark, marked) = (mark(session).await?, Instant::now());
    let since = mark.published.saturating_sub(i64::try_from(age.as_nanos()).unwrap_or(i64::MAX));
    let mut ids = HashSet::new();
    for (subject, mut last) in lasts {
        let found = std::iter::from_fn(|| last.ready()).last();
        last.close().await?;
        if let Some(found) = found.filter(|found| found.published >= since) {
            // The time goes on, and what was found must not be before the beginning.
            let ago = age.saturating_add(marked.elapsed()).saturating_add(MARGIN);
            let channel = session.subscribe(subjects.name(subject), terms(From::Ago(ago))).await?;
            read(channel, subject, found.sequence, &mut ids).await?;
        }
    }
    Ok(ids)
}

/// Publishes a mark, and waits for it: what earlier subscriptions had then has arrived.
pub(super) async fn mark(session: &Session) -> Result<Delivered, BrokerError> {
    session.publish(MARKS, MARK.into()).await?;
    let mut marks = session.subscribe(MARKS, terms(From::Last)).await?;
    let mark = within(marks.next()).await?;
    marks.close().await?;
    Ok(mark)
}

/// Reads what a channel has up to a sequence.
async fn read(
    mut channel: Subscription,
    subject: Subject,
    up_to: u64,
    ids: &mut HashSet<String>,
) -> Result<(), BrokerError> {
    let mut last = 0;
    loop {
        let message = within(channel.next()).await?;
        if message.sequence <= last {
            // Otherwise it could go on for ever.
            return Err(BrokerError::Failed {
                doing: READING,
                detail: "its messages are not in order".into(),
            });
        }
        last = message.sequence;
        channel.acknowledge(message.sequence).await?;
        ids.extend(message_id(subject, &message.data));
        if message.sequence >= up_to {
            return channel.close().await;
        }
    }
}

pub(super) fn terms(from: From) -> Terms<'static> {
    Terms { durable: None, from, in_flight: IN_FLIGHT, ack_wait: ACK_WAIT }
}

async fn within<T>(reading: impl Future<Output = Result<T, BrokerError>>) -> Result<T, BrokerError> {
    timeout(REQUEST_TIMEOUT, reading).await.map_err(|_| BrokerError::TimedOut { doing: READING })?
}
