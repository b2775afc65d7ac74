//! A connection to NATS, which is not repaired but made again.
//!
//! The client would keep what could not be sent, and send it once it has another connection, minutes later: then somebody
//! else has published it long since, and a duplicate would come after later events. So a client is used for one connection.

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_nats::{
    Client, ConnectErrorKind, ConnectOptions, Event, ServerAddr, ServerError,
    rustls::{ClientConfig, crypto::ring},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    args::{Login, Settings},
    broker::BrokerError,
};
use crate::runtime::public_cas;

/// The longest that it may take to connect, unless there are so many addresses that each would have less than
/// [`PER_ADDRESS`].
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// The least time that each address of a server has. One that says nothing must leave some to the others.
const PER_ADDRESS: Duration = Duration::from_secs(1);

/// The longest that any request may take.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// How often the server is asked whether it is there; it is given up when it has not answered twice.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// A connection, and whether it is lost.
pub(super) struct Connection {
    pub(super) client: Client,
    pub(super) loss: Loss,
    pub(super) denied: Denied,
}

/// What is said of a message that the server has dropped for that.
pub(super) const NO_RIGHT: &str = "the user has no right to publish that";

/// What the user may not publish: the server drops it, and says so once for each message. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Denied(Arc<watch::Sender<HashMap<String, u64>>>);

impl Denied {
    /// Waits until the server has dropped a message for `subject` that was sent from now on.
    pub(super) fn of(&self, subject: &str) -> impl Future<Output = ()> + Send + use<> {
        let (mut counts, subject) = (self.0.subscribe(), subject.to_owned());
        let count = |counts: &HashMap<String, u64>, subject: &str| counts.get(subject).copied();
        let known = count(&counts.borrow(), &subject);
        async move {
            // The sender is there as long as the connection, and whatever waits for it.
            if counts.wait_for(|counts| count(counts, &subject) > known).await.is_err() {
                std::future::pending().await
            }
        }
    }

    /// Notes what the server says, if it is that.
    fn note(&self, error: &ServerError) {
        let ServerError::Other(words) = error else { return };
        let Some(subject) = denied_subject(words) else { return };
        self.0.send_modify(|counts| *counts.entry(subject.to_owned()).or_default() += 1);
    }
}

/// The subject in `Permissions Violation for Publish to "SUBJECT"`.
fn denied_subject(words: &str) -> Option<&str> {
    const BEFORE: &str = "permissions violation for publish to \"";
    let (before, subject) = words.split_at_checked(BEFORE.len())?;
    if before.eq_ignore_ascii_case(BEFORE) { subject.strip_suffix('"') } else { None }
}

/// Whether a connection is lost, and why. Clones share it.
#[derive(Clone)]
pub(super) struct Loss {
    is_lost: CancellationToken,
    why: Arc<OnceLock<BrokerError>>,
}

impl Loss {
    fn new() -> Self {
        Self { is_lost: CancellationToken::new(), why: Arc::default() }
    }

    /// Has the connection given up. The first reason counts.
    pub(super) fn report(&self, why: BrokerError) {
        drop(self.why.set(why));
        self.is_lost.cancel();
    }
}

impl Connection {
    pub(super) async fn open(settings: &Settings) -> Result<Self, BrokerError> {
        let loss = Loss::new();
        let addresses = addresses(&settings.servers).await;
        let per_address = (CONNECT_TIMEOUT / addresses).max(PER_ADDRESS);
        let (on_event, was_connected) = (loss.clone(), Arc::new(AtomicBool::new(false)));
        let on_reconnect = loss.clone();
        let (is_again, has_reported) = (was_connected.clone(), Arc::new(AtomicBool::new(false)));
        let denied = Denied::default();
        let on_denied = denied.clone();
        let mut options = ConnectOptions::new()
            .name("orders-operator")
            .connection_timeout(per_address)
            .request_timeout(Some(REQUEST_TIMEOUT))
            .ping_interval(PING_INTERVAL)
            // As few as the client allows, and late enough that whoever used it has dropped it by then.
            .max_reconnects(settings.servers.len().max(1))
            .reconnect_delay_callback(move |_| {
                if is_again.load(Ordering::SeqCst) {
                    // The event of it is dropped where too many others wait, such as what a server says of missing rights.
                    on_reconnect.report(lost());
                    REQUEST_TIMEOUT * 2
                } else {
                    Duration::ZERO
                }
            })
            .event_callback(move |event| {
                let (loss, has_reported) = (on_event.clone(), has_reported.clone());
                if let Event::ServerError(error) = &event {
                    on_denied.note(error);
                }
                async move {
                    match event {
                        Event::Disconnected | Event::Closed | Event::Draining => loss.report(lost()),
                        // Once for a connection: one about rights comes again and again.
                        Event::ServerError(error) if !has_reported.swap(true, Ordering::SeqCst) => {
                            tracing::warn!(%error, "the NATS server reports an error")
                        }
                        _ => {}
                    }
                }
            });
        if let Some(file) = &settings.credentials {
            // For every connection anew: what is in the file may have changed.
            options = options.credentials_file(file).await.map_err(|error| BrokerError::Credentials {
                file: file.clone(),
                detail: error.to_string(),
            })?;
        }
        match settings.login.clone().filter(|_| settings.credentials.is_none()) {
            Some(Login::User { name, password }) => options = options.user_and_password(name, password),
            Some(Login::Token(token)) => options = options.token(token),
            None => {}
        }
        options = match &settings.ca {
            Some(ca) => options.add_root_certificates(ca.clone()),
            // The client would look for those of the machine.
            None => options.tls_client_config(tls()?),
        };
        let connecting = options.connect(&settings.servers[..]);
        let client = match tokio::time::timeout(per_address * addresses, connecting).await {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => {
                let detail = error.to_string();
                return Err(match error.kind() {
                    ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                        BrokerError::Refused(detail)
                    }
                    _ => BrokerError::Unreachable(detail),
                });
            }
            Err(_) => return Err(BrokerError::Unreachable("no answer in time".into())),
        };
        was_connected.store(true, Ordering::SeqCst);
        Ok(Self { client, loss, denied })
    }

    /// Waits until the connection is lost.
    pub(super) async fn lost(&self) -> BrokerError {
        self.loss.is_lost.cancelled().await;
        let why = self.loss.why.get().cloned();
        why.unwrap_or_else(lost)
    }
}

fn lost() -> BrokerError {
    BrokerError::Unreachable("the connection is lost".into())
}

/// How many addresses the servers have in all. One whose name cannot be resolved counts too: that takes some of the time.
async fn addresses(servers: &[String]) -> u32 {
    let count = |server: &String| {
        let server = server.parse::<ServerAddr>();
        async move {
            let Ok(server) = server else { return 1 };
            let found = tokio::time::timeout(PER_ADDRESS, server.socket_addrs()).await;
            found.ok().and_then(Result::ok).map_or(1, |found| found.count().max(1))
        }
    };
    let counts = futures::future::join_all(servers.iter().map(count)).await;
    u32::try_from(counts.into_iter().sum::<usize>()).unwrap_or(u32::MAX).max(1)
}

/// TLS to servers whose certificate is signed by a public CA.
fn tls() -> Result<ClientConfig, BrokerError> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| BrokerError::Unreachable(error.to_string()))?;
    Ok(config.with_root_certificates(public_cas()).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use futures::{FutureExt, future::join_all};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
        task::JoinSet,
        time::timeout,
    };

    use super::*;
    use crate::events::EventsArgs;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        events: EventsArgs,
    }

    fn settings(servers: &[u16]) -> Settings {
        let servers: Vec<_> = servers.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
        let program = Program::parse_from(["program", "--nats-url", &servers.join(",")]);
        program.events.settings().unwrap().unwrap()
    }

    /// A listener that does with each connection what `serve` says, and its port.
    async fn listen<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> (u16, JoinSet<()>)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, mut tasks) = (listener.local_addr().unwrap().port(), JoinSet::new());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((connection, _)) = listener.accept().await {
                connections.spawn(serve(connection));
            }
        });
        (port, tasks)
    }

    /// What a server does until the client has its first answer.
    async fn greet(connection: &mut TcpStream) {
        let info = r#"{"server_id":"S","server_name":"s","version":"2.11.0","go":"go","host":"h","port":1,"headers":true,"max_payload":1048576,"proto":1}"#;
        connection.write_all(format!("INFO {info}\r\n").as_bytes()).await.unwrap();
        let (mut heard, mut buffer) = (String::new(), [0; 4096]);
        while !heard.contains("PING\r\n") {
            let count = connection.read(&mut buffer).await.unwrap();
            assert!(count > 0, "{heard}");
            heard.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        connection.write_all(b"PONG\r\n").await.unwrap();
    }

    #[tokio::test]
    async fn a_server_that_says_nothing_leaves_time_for_the_others() {
        let (silent, _silent) = listen(|connection| async move {
            std::future::pending::<()>().await;
            drop(connection);
        })
        .await;
        let (well, _well) = listen(|mut connection| async move {
            greet(&mut connection).await;
            std::future::pending::<()>().await;
        })
        .await;
        // The client tries them in any order.
        let settings = settings(&[silent, well]);
        let opened = join_all((0..20).map(|_| Connection::open(&settings))).await;
        let failed: Vec<_> = opened.into_iter().filter_map(Result::err).collect();
        assert_eq!(failed, []);
    }

    // The client has this thread to itself until it has read everything, so the event of the loss finds no place.
    #[tokio::test]
    async fn a_connection_that_ends_after_very_many_errors_is_known_to_be_lost() {
        let (port, _server) = listen(|mut connection| async move {
            greet(&mut connection).await;
            let denied = "-ERR 'Permissions Violation for Publish to \"a\"'\r\n".repeat(400);
            connection.write_all(denied.as_bytes()).await.unwrap();
            connection.shutdown().await.unwrap();
            // What is not read would have what was written thrown away.
            let mut buffer = [0; 4096];
            while connection.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
            std::future::pending::<()>().await;
        })
        .await;
        let connection = Connection::open(&settings(&[port])).await.unwrap();
        let lost = timeout(CONNECT_TIMEOUT, connection.lost()).await;
        assert_eq!(lost, Ok(super::lost()));
    }

    #[test]
    fn whoever_has_sent_what_the_server_drops_hears_of_it_and_nobody_else() {
        let denied = Denied::default();
        let says = |words: &str| denied.note(&ServerError::Other(words.to_owned()));
        says("Permissions Violation for Publish to \"a\"");
        let (mut later, mut other) = (Box::pin(denied.of("a")), Box::pin(denied.of("b")));
        assert!((&mut later).now_or_never().is_none(), "it was sent afterwards");
        says("Permissions Violation for Subscription to \"a\"");
        says("é");
        assert!((&mut later).now_or_never().is_none());
        says("permissions violation for publish to \"a\"");
        assert!((&mut later).now_or_never().is_some() && (&mut other).now_or_never().is_none());
    }
}
