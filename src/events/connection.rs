//! A connection to NATS, which is not repaired but made again.
//!
//! The client would keep what could not be sent, and send it once it has another connection, minutes later: then somebody
//! else has told it long since, and a duplicate would come after later events. So a client is used for one connection.

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_nats::{
    Client, ConnectErrorKind, ConnectOptions, Event, ServerError,
    rustls::{ClientConfig, crypto::ring},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    args::{Login, Settings},
    broker::BrokerError,
};
use crate::runtime::public_cas;

/// The longest that it may take to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

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
        let (on_event, was_connected) = (loss.clone(), Arc::new(AtomicBool::new(false)));
        let (is_again, has_reported) = (was_connected.clone(), Arc::new(AtomicBool::new(false)));
        let denied = Denied::default();
        let on_denied = denied.clone();
        let mut options = ConnectOptions::new()
            .name("orders-operator")
            .connection_timeout(CONNECT_TIMEOUT)
            .request_timeout(Some(REQUEST_TIMEOUT))
            .ping_interval(PING_INTERVAL)
            // As few as the client allows, and late enough that whoever used it has dropped it by then.
            .max_reconnects(settings.servers.len().max(1))
            .reconnect_delay_callback(move |_| {
                if is_again.load(Ordering::SeqCst) { REQUEST_TIMEOUT * 2 } else { Duration::ZERO }
            })
            .event_callback(move |event| {
                let (loss, has_reported) = (on_event.clone(), has_reported.clone());
                if let Event::ServerError(error) = &event {
                    on_denied.note(error);
                }
                async move {
                    match event {
                        Event::Disconnected | Event::Closed | Event::Draining => {
                            loss.report(BrokerError::Unreachable("the connection is lost".into()))
                        }
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
        let client = match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
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
        why.unwrap_or_else(|| BrokerError::Unreachable("the connection is lost".into()))
    }
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
    use futures::FutureExt;

    use super::*;

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
