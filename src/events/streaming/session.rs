//! Being a client of a NATS Streaming server.
//!
//! The server knows a client by its id, which may be connected once, and asks now and then whether it is there. The client
//! asks in turn whether it is still known: a server that has restarted with nothing in memory does not know it, and says so.
//! Then the connection is given up, and whoever had it makes another.

use std::time::Duration;

use async_nats::{Client, RequestErrorKind, Subscriber};
use futures::StreamExt;
use prost::Message;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::protocol::{Answer, Close, ConnectRequest, ConnectResponse, PROTOCOL, Ping, Publish, Published};
use crate::{
    events::{
        broker::BrokerError,
        connection::{Connection, Denied, Loss, NO_RIGHT},
    },
    runtime::is_nats_subject,
};

const CONNECTING: &str = "connecting to the NATS Streaming server";
const PUBLISHING: &str = "publishing an event";
const CLOSING: &str = "taking leave of the NATS Streaming server";
const PINGING: &str = "asking the NATS Streaming server whether it knows this connection";

/// How often the server is asked.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// After how many questions without an answer the server is given up.
const MAX_UNANSWERED: u8 = 2;

/// The longest text of the server's that an error repeats.
const MAX_WORDS: usize = 200;

/// A connection that the server knows.
pub(super) struct Session {
    pub(super) client: Client,
    /// What the user may not publish.
    denied: Denied,
    pub(super) client_id: String,
    connection_id: Vec<u8>,
    pub(super) places: Places,
    /// Ends the task that answers the server, with the session.
    _answering: DropGuard,
}

/// The subjects on which the server is asked.
pub(super) struct Places {
    publish_prefix: String,
    pub(super) subscribe: String,
    pub(super) close_subscription: String,
    close: String,
    /// Old servers have none.
    ping: Option<String>,
}

impl Session {
    /// Connects as `client_id` to the servers of a cluster.
    pub(super) async fn open(
        connection: &Connection,
        cluster: &str,
        client_id: &str,
    ) -> Result<Self, BrokerError> {
        let client = connection.client.clone();
        let heartbeat_inbox = client.new_inbox();
        let heartbeats =
            client.subscribe(heartbeat_inbox.clone()).await.map_err(|error| failed(CONNECTING, error))?;
        let connection_id = format!("{:032x}", fastrand::u128(..)).into_bytes();
        let request = ConnectRequest {
            client_id: client_id.to_owned(),
            heartbeat_inbox,
            protocol: PROTOCOL,
            connection_id: connection_id.clone(),
            ping_interval: i32::try_from(PING_INTERVAL.as_secs()).unwrap_or(5),
            ping_max_out: i32::from(MAX_UNANSWERED),
        };
        // Whoever answers at once is another's connection of this name that is asked, so this is answered first.
        let answering = CancellationToken::new();
        let stop = answering.clone().drop_guard();
        tokio::spawn(answer(client.clone(), heartbeats, answering.clone()));
        let asked =
            ask::<_, ConnectResponse>(&client, CONNECTING, format!("_STAN.discover.{cluster}"), &request);
        let response = asked.await.map_err(|unanswered| match unanswered {
            Unanswered::Nobody | Unanswered::TimedOut => BrokerError::NoStreaming(cluster.to_owned()),
            Unanswered::Failed(error) => error,
        })?;
        if response.error.contains("already registered") {
            return Err(BrokerError::ClientIdTaken(client_id.to_owned()));
        }
        accepted(CONNECTING, &response.error)?;
        let places = Places::read(response)?;
        if let Some(subject) = places.ping.clone() {
            let ping = Ping { connection_id: connection_id.clone() };
            tokio::spawn(stay_known(client.clone(), subject, ping, connection.loss.clone(), answering));
        }
        let (denied, client_id) = (connection.denied.clone(), client_id.to_owned());
        Ok(Self { client, denied, client_id, connection_id, places, _answering: stop })
    }

    /// Publishes to a channel, and waits until the server keeps it.
    pub(super) async fn publish(&self, channel: &str, data: Vec<u8>) -> Result<(), BrokerError> {
        let message = Publish {
            client_id: self.client_id.clone(),
            guid: format!("{:032x}", fastrand::u128(..)),
            channel: channel.to_owned(),
            data,
            connection_id: self.connection_id.clone(),
        };
        let subject = format!("{}.{channel}", self.places.publish_prefix);
        let denied = self.denied.of(&subject);
        let rejected = |detail: String| Err(BrokerError::Rejected { subject: channel.to_owned(), detail });
        let published: Published = tokio::select! {
            published = self.ask(PUBLISHING, subject, &message) => published?,
            () = denied => return rejected(NO_RIGHT.to_owned()),
        };
        // It says so of whoever is not known any more.
        if published.error.contains("invalid publish request") {
            return Err(BrokerError::Forgotten(words(&published.error)));
        }
        match accepted(PUBLISHING, &published.error) {
            Err(BrokerError::Failed { detail, .. }) => return rejected(detail),
            kept => kept?,
        }
        if published.guid != message.guid {
            let detail = "the acknowledgement is that of another message".into();
            return Err(BrokerError::Failed { doing: PUBLISHING, detail });
        }
        Ok(())
    }

    /// Frees the client id, once the server has all that was sent.
    pub(super) async fn close(&self) -> Result<(), BrokerError> {
        let request = Close { client_id: self.client_id.clone() };
        let answer: Answer = self.ask(CLOSING, self.places.close.clone(), &request).await?;
        accepted(CLOSING, &answer.error)
    }

    /// Ends the connection of another client, if there is one.
    pub(super) async fn end(&self, client_id: &str) -> Result<(), BrokerError> {
        let request = Close { client_id: client_id.to_owned() };
        let answer: Answer = self.ask(CLOSING, self.places.close.clone(), &request).await?;
        match accepted(CLOSING, &answer.error) {
            // Who is not known has no connection.
            Err(BrokerError::Forgotten(_)) => Ok(()),
            ended => ended,
        }
    }

    /// Asks the server for something.
    pub(super) async fn ask<Q: Message, A: Message + Default>(
        &self,
        doing: &'static str,
        subject: String,
        question: &Q,
    ) -> Result<A, BrokerError> {
        ask(&self.client, doing, subject, question).await.map_err(|unanswered| match unanswered {
            Unanswered::Nobody => BrokerError::Forgotten("nobody answers".into()),
            Unanswered::TimedOut => BrokerError::TimedOut { doing },
            Unanswered::Failed(error) => error,
        })
    }
}

impl Places {
    /// What the server says is only used if it can be a subject.
    fn read(response: ConnectResponse) -> Result<Self, BrokerError> {
        let subject = |name: String| {
            if is_nats_subject(&name) {
                Ok(name)
            } else {
                let detail = format!("the server names an invalid subject: {:?}", words(&name));
                Err(BrokerError::Failed { doing: CONNECTING, detail })
            }
        };
        Ok(Self {
            publish_prefix: subject(response.publish_prefix)?,
            subscribe: subject(response.subscribe)?,
            close_subscription: subject(response.close_subscription)?,
            close: subject(response.close)?,
            ping: if response.ping.is_empty() { None } else { Some(subject(response.ping)?) },
        })
    }
}

/// Answers the server, whenever it asks, that this client is there.
async fn answer(client: Client, mut heartbeats: Subscriber, stop: CancellationToken) {
    let answering = async {
        while let Some(heartbeat) = heartbeats.next().await {
            if let Some(reply) = heartbeat.reply {
                drop(client.publish(reply, Vec::new().into()).await);
            }
        }
    };
    tokio::select! {
        () = answering => {}
        () = stop.cancelled() => {}
    }
}

/// Asks the server whether it still knows this connection, and gives the connection up once it does not.
async fn stay_known(client: Client, subject: String, ping: Ping, loss: Loss, stop: CancellationToken) {
    let asking = async {
        let mut unanswered = 0;
        loop {
            tokio::time::sleep(PING_INTERVAL).await;
            match ask::<_, Answer>(&client, PINGING, subject.clone(), &ping).await {
                Ok(answer) if answer.error.is_empty() => unanswered = 0,
                Ok(answer) => return BrokerError::Forgotten(words(&answer.error)),
                Err(_) if unanswered + 1 < MAX_UNANSWERED => unanswered += 1,
                Err(_) => return BrokerError::TimedOut { doing: PINGING },
            }
        }
    };
    tokio::select! {
        why = asking => loss.report(why),
        () = stop.cancelled() => {}
    }
}

/// Why there is no answer.
enum Unanswered {
    /// Nobody is there who could.
    Nobody,
    TimedOut,
    Failed(BrokerError),
}

async fn ask<Q: Message, A: Message + Default>(
    client: &Client,
    doing: &'static str,
    subject: String,
    question: &Q,
) -> Result<A, Unanswered> {
    let asked = client.request(subject, question.encode_to_vec().into()).await;
    let reply = asked.map_err(|error| match error.kind() {
        RequestErrorKind::NoResponders => Unanswered::Nobody,
        RequestErrorKind::TimedOut => Unanswered::TimedOut,
        _ => Unanswered::Failed(failed(doing, error)),
    })?;
    A::decode(reply.payload).map_err(|error| Unanswered::Failed(failed(doing, error)))
}

/// An error of the server's; it is empty where there is none.
pub(super) fn accepted(doing: &'static str, error: &str) -> Result<(), BrokerError> {
    match error {
        "" => Ok(()),
        unknown if unknown.contains("unknown clientID") => Err(BrokerError::Forgotten(words(unknown))),
        error => Err(BrokerError::Failed { doing, detail: words(error) }),
    }
}

pub(super) fn failed(doing: &'static str, error: impl std::fmt::Display) -> BrokerError {
    BrokerError::Failed { doing, detail: error.to_string() }
}

/// The beginning of a text of the server's.
fn words(text: &str) -> String {
    text.chars().take(MAX_WORDS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response() -> ConnectResponse {
        ConnectResponse {
            publish_prefix: "_STAN.pub.X".into(),
            subscribe: "_STAN.sub.X".into(),
            close: "_STAN.close.X".into(),
            error: String::new(),
            close_subscription: "_STAN.subclose.X".into(),
            ping: "_STAN.discover.ticketing.pings".into(),
        }
    }

    #[test]
    fn subjects_that_a_server_names_are_used_only_if_they_are_such() {
        assert!(Places::read(response()).unwrap().ping.is_some());
        let old = ConnectResponse { ping: String::new(), ..response() };
        assert!(Places::read(old).unwrap().ping.is_none());
        for spoilt in ["", "a b", "a\r\nPUB b 0", "a.*", ">", &"a".repeat(300)] {
            let response = ConnectResponse { close: spoilt.into(), ..response() };
            assert!(Places::read(response).is_err(), "{spoilt:?}");
        }
    }

    #[test]
    fn what_a_server_answers_says_whether_it_still_knows_the_client() {
        assert_eq!(accepted(CONNECTING, ""), Ok(()));
        let unknown = accepted(CONNECTING, "stan: unknown clientID").unwrap_err();
        assert!(matches!(unknown, BrokerError::Forgotten(_)));
        let long = accepted(CONNECTING, &"é".repeat(1000)).unwrap_err();
        assert!(long.to_string().chars().count() < 300, "{long}");
    }
}
