//! The settings of events, by the names that the Node.js service has where it has one.

use std::{fmt, path::PathBuf, time::Duration};

use clap::Args;
use thiserror::Error;

use super::wire::{InvalidSubjects, Subject, Subjects};
use crate::runtime::{is_nats_subject, percent_decoded, telemetry::path_or_nothing};

/// Events, which are off unless a server is named.
#[derive(Args, Clone)]
pub struct EventsArgs {
    /// NATS servers to publish events to and consume them from, separated by commas: nats://HOST:4222; with tls:// encrypted.
    /// A user and a password, or a token, may stand before the host. Default: no events
    #[arg(long, env = "NATS_URL", value_name = "URL", hide_env_values = true, help_heading = "Events")]
    pub nats_url: Option<String>,

    /// File with the CA that the certificates of the NATS servers must be signed by, as PEM. Default: the public CAs
    #[arg(long, env = "NATS_CA_FILE", value_name = "FILE", value_parser = path_or_nothing(), help_heading = "Events")]
    pub nats_ca_file: Option<PathBuf>,

    /// Id of a NATS Streaming cluster, which is used in place of JetStream then
    #[arg(long, env = "NATS_CLUSTER_ID", value_name = "ID", help_heading = "Events")]
    pub nats_cluster_id: Option<String>,

    /// Client id of this process at NATS Streaming, such as the name of the pod; it must be unique. Default: a random
    /// one
    #[arg(long, env = "NATS_CLIENT_ID", value_name = "ID", help_heading = "Events")]
    pub nats_client_id: Option<String>,

    /// File with the JWT and the seed of a user, as nsc writes it (.creds); read again for every connection. Default: the user
    /// and the password, or the token, of NATS_URL
    #[arg(long, env = "NATS_CREDS_FILE", value_name = "FILE", help_heading = "Events")]
    pub nats_creds_file: Option<PathBuf>,

    /// Name of the JetStream stream that is created for subjects that no stream has
    #[arg(
        long,
        env = "NATS_STREAM",
        value_name = "NAME",
        default_value = "ticketing",
        help_heading = "Events"
    )]
    pub nats_stream: String,

    /// Name of the durable consumer, or of the durable queue group of NATS Streaming, by which all pods of this service consume
    /// events of tickets and payments
    #[arg(
        long,
        env = "NATS_DURABLE",
        value_name = "NAME",
        default_value = "orders-service",
        help_heading = "Events"
    )]
    pub nats_durable: String,

    /// How many servers keep each event of that stream
    #[arg(long, env = "NATS_STREAM_REPLICAS", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=5), help_heading = "Events")]
    pub nats_stream_replicas: u32,

    /// How long that stream keeps an event, in seconds
    #[arg(long, env = "NATS_STREAM_MAX_AGE_SECONDS", value_name = "SECONDS", default_value_t = 1_209_600, value_parser = clap::value_parser!(u32).range(3600..=31_536_000), help_heading = "Events")]
    pub nats_stream_max_age_seconds: u32,

    /// Other names of subjects, separated by commas, such as order:created=orders.created
    #[arg(
        long,
        env = "NATS_SUBJECTS",
        value_name = "NAME=OTHER",
        default_value = "",
        help_heading = "Events"
    )]
    pub nats_subjects: String,

    /// Subject that says that a ticket is gone, such as ticket:deleted: its copy is deleted. Default: none is consumed
    #[arg(long, env = "NATS_TICKET_DELETED", value_name = "SUBJECT", help_heading = "Events")]
    pub nats_ticket_deleted: Option<String>,

    /// Subject that says that a payment has begun, such as payment:started: its order becomes awaiting:payment, which is
    /// published as order:updated. Default: none is consumed
    #[arg(long, env = "NATS_PAYMENT_STARTED", value_name = "SUBJECT", help_heading = "Events")]
    pub nats_payment_started: Option<String>,

    /// Marker of these settings, which is stored in the database with the state of events in this process: it tells
    /// the operator which pods have the current settings. Default: none
    #[arg(long, env = "NATS_SETTINGS_MARK", value_name = "MARK", help_heading = "Events")]
    pub nats_settings_mark: Option<String>,
}

/// The settings, if events are on.
#[derive(Clone)]
pub struct Settings {
    /// Without a user and a password.
    pub(super) servers: Vec<String>,
    pub(super) login: Option<Login>,
    pub(super) ca: Option<PathBuf>,
    pub(super) credentials: Option<PathBuf>,
    pub(super) way: Way,
    pub(super) durable: String,
    pub(super) subjects: Subjects,
    pub(super) mark: Option<String>,
}

/// Which of the two brokers it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    JetStream(Stream),
    Streaming(Cluster),
}

/// The stream that is made for subjects that have none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stream {
    pub(super) name: String,
    pub(super) replicas: usize,
    pub(super) max_age: Duration,
}

/// A cluster of NATS Streaming, and who this process is to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cluster {
    pub(super) id: String,
    pub(super) client_id: String,
}

/// Who this process is to the servers.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Login {
    User { name: String, password: String },
    Token(String),
}

/// Why the settings cannot work.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidSettings {
    /// A server that is none. The message does not have it, since it may have a password.
    #[error("server {position} of NATS_URL is invalid: {problem}; write nats://HOST:4222")]
    Server {
        /// Which of the servers, from 1 on.
        position: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A name of a stream that is none.
    #[error("NATS_STREAM is {0:?}, but the name of a stream must not have spaces, dots, *, > or slashes")]
    Stream(String),
    /// A name of a consumer that is none.
    #[error("NATS_DURABLE is {0:?}, but the name of a consumer must not have spaces, dots, *, > or slashes")]
    Durable(String),
    /// An id of a cluster that is none.
    #[error("NATS_CLUSTER_ID is {0:?}, but the id of a cluster must not have spaces, *, > or slashes")]
    ClusterId(String),
    /// An id of a client that is none.
    #[error("NATS_CLIENT_ID is {0:?}, but NATS Streaming allows only letters, digits, - and _, up to 255")]
    ClientId(String),
    /// A name that is none to NATS Streaming.
    #[error(
        "{0:?} cannot be a name in NATS Streaming: a durable must not have colons, nor a subject slashes"
    )]
    Streaming(String),
    /// Subjects that cannot work.
    #[error("NATS_SUBJECTS: {0}")]
    Subjects(#[from] InvalidSubjects),
    /// An optional subject that cannot work.
    #[error("{variable}: {problem}")]
    Subject {
        /// The variable that names it.
        variable: &'static str,
        /// What is wrong with it.
        problem: InvalidSubjects,
    },
}

impl EventsArgs {
    /// The settings; none if no server is named.
    ///
    /// # Errors
    /// When they cannot work.
    pub fn settings(&self) -> Result<Option<Settings>, InvalidSettings> {
        let Some(url) = named(self.nats_url.as_deref()) else { return Ok(None) };
        let listed = url.split(',').map(str::trim).filter(|server| !server.is_empty());
        let parsed: Result<Vec<_>, _> = (1..).zip(listed).map(|(at, server)| address(at, server)).collect();
        let (servers, logins): (Vec<_>, Vec<_>) = parsed?.into_iter().unzip();
        let subjects = self.subjects()?;
        let way = self.way(&subjects)?;
        if !is_stream(&self.nats_durable) {
            return Err(InvalidSettings::Durable(self.nats_durable.clone()));
        }
        Ok(Some(Settings {
            servers,
            // One for all, as the client has it.
            login: logins.into_iter().flatten().next(),
            ca: file(self.nats_ca_file.as_ref()),
            credentials: file(self.nats_creds_file.as_ref()),
            way,
            durable: self.nats_durable.clone(),
            subjects,
            mark: named(self.nats_settings_mark.as_deref()).map(str::to_owned),
        }))
    }

    /// NATS Streaming if its cluster is named, as in the manifests of the Node.js service.
    fn way(&self, subjects: &Subjects) -> Result<Way, InvalidSettings> {
        let Some(id) = named(self.nats_cluster_id.as_deref()) else {
            if !is_stream(&self.nats_stream) {
                return Err(InvalidSettings::Stream(self.nats_stream.clone()));
            }
            return Ok(Way::JetStream(Stream {
                name: self.nats_stream.clone(),
                replicas: usize::try_from(self.nats_stream_replicas).unwrap_or(1),
                max_age: Duration::from_secs(self.nats_stream_max_age_seconds.into()),
            }));
        };
        if !is_nats_subject(id) || id.contains('/') {
            return Err(InvalidSettings::ClusterId(id.to_owned()));
        }
        let random = || format!("orders-operator-{:016x}", fastrand::u64(..));
        let client_id = named(self.nats_client_id.as_deref()).map_or_else(random, str::to_owned);
        if !is_client_id(&client_id) {
            return Err(InvalidSettings::ClientId(client_id));
        }
        let mut names = subjects.all().map(|subject| subjects.name(subject));
        if let Some(name) = names.find(|name| name.contains('/')) {
            return Err(InvalidSettings::Streaming(name.to_owned()));
        }
        if self.nats_durable.contains(':') {
            return Err(InvalidSettings::Streaming(self.nats_durable.clone()));
        }
        Ok(Way::Streaming(Cluster { id: id.to_owned(), client_id }))
    }

    fn subjects(&self) -> Result<Subjects, InvalidSettings> {
        let optional = [
            (Subject::TicketDeleted, "NATS_TICKET_DELETED", &self.nats_ticket_deleted),
            (Subject::PaymentStarted, "NATS_PAYMENT_STARTED", &self.nats_payment_started),
        ];
        let mut subjects: Subjects = self.nats_subjects.parse()?;
        for (subject, variable, name) in optional {
            if let Some(name) = name.as_deref().filter(|name| !name.trim().is_empty()) {
                let with = subjects.with(subject, name);
                subjects = with.map_err(|problem| InvalidSettings::Subject { variable, problem })?;
            }
        }
        Ok(subjects)
    }
}

fn file(path: Option<&PathBuf>) -> Option<PathBuf> {
    path.filter(|path| !path.as_os_str().is_empty()).cloned()
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the login.
        f.debug_struct("Settings")
            .field("servers", &self.servers)
            .field("way", &self.way)
            .field("subjects", &self.subjects)
            .finish_non_exhaustive()
    }
}

/// An address as the client wants it, and the login that it has. `http://`, which copies of the Node.js service have, means the same there.
fn address(position: usize, server: &str) -> Result<(String, Option<Login>), InvalidSettings> {
    let problem = |problem| InvalidSettings::Server { position, problem };
    let (scheme, rest) = match server.split_once("://") {
        Some(("nats" | "http", rest)) => ("nats", rest),
        Some(("tls" | "https", rest)) => ("tls", rest),
        Some(_) => return Err(problem("its scheme is neither nats nor tls")),
        None => ("nats", server),
    };
    let rest = rest.trim_end_matches('/');
    let (login, host) = rest.rsplit_once('@').map_or((None, rest), |(login, host)| (Some(login), host));
    if host.is_empty() || host.contains(['/', ' ', '?', '#']) {
        return Err(problem("it has no host"));
    }
    let address = format!("{scheme}://{host}");
    if address.parse::<async_nats::ServerAddr>().is_err() {
        return Err(problem("it cannot be read"));
    }
    let login = match login {
        None | Some("") => None,
        Some(login) => Some(read_login(login).ok_or_else(|| problem("its login is not percent-encoded"))?),
    };
    Ok((address, login))
}

/// `USER:PASSWORD`, or a token alone.
fn read_login(text: &str) -> Option<Login> {
    match text.split_once(':') {
        Some((name, password)) => {
            Some(Login::User { name: percent_decoded(name)?, password: percent_decoded(password)? })
        }
        None => percent_decoded(text).map(Login::Token),
    }
}

fn is_stream(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_graphic() && !b".*>/\\".contains(&byte);
    !name.is_empty() && name.len() <= 255 && name.bytes().all(is_allowed)
}

fn is_client_id(id: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    id.len() <= 255 && id.bytes().all(is_allowed)
}

fn named(value: Option<&str>) -> Option<&str> {
    value.map(str::trim).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        events: EventsArgs,
    }

    fn settings(arguments: &[&str]) -> Result<Option<Settings>, InvalidSettings> {
        Program::parse_from(["program"].iter().chain(arguments)).events.settings()
    }

    #[test]
    fn without_a_server_events_are_off() {
        assert!(settings(&[]).unwrap().is_none());
        assert!(settings(&["--nats-url", " "]).unwrap().is_none());
    }

    #[test]
    fn servers_are_read_as_copies_of_the_node_service_write_them() {
        let servers = |url| settings(&["--nats-url", url]).unwrap().unwrap().servers;
        assert_eq!(servers("http://nats-srv:4222"), ["nats://nats-srv:4222"]);
        assert_eq!(servers("nats-srv"), ["nats://nats-srv"]);
        assert_eq!(servers("nats://u:p@a:4222/, tls://b"), ["nats://a:4222", "tls://b"]);
        assert_eq!(servers("nats://[::1]:4222"), ["nats://[::1]:4222"]);
    }

    #[test]
    fn a_login_stands_before_the_host_and_is_percent_encoded() {
        let login = |url| settings(&["--nats-url", url]).unwrap().unwrap().login;
        let user = |name: &str, password: &str| {
            Some(Login::User { name: name.to_owned(), password: password.to_owned() })
        };
        assert!(login("nats://h").is_none() && login("nats://@h").is_none());
        assert!(login("nats://u:p%40%25@a,nats://b") == user("u", "p@%"));
        assert!(login("nats://a,nats://u:p@b") == user("u", "p"));
        assert!(login("nats://s3cret@a") == Some(Login::Token("s3cret".into())));
    }

    #[test]
    fn a_cluster_id_selects_nats_streaming_as_in_the_manifests_of_the_node_service() {
        let way = |more: &[&str]| {
            let arguments = [&["--nats-url", "http://nats-srv:4222"], more].concat();
            settings(&arguments).unwrap().unwrap().way
        };
        assert!(matches!(way(&["--nats-cluster-id", ""]), Way::JetStream(_)));
        let Way::Streaming(cluster) =
            way(&["--nats-cluster-id", "ticketing", "--nats-client-id", "orders-7d4f-x2x"])
        else {
            panic!("it is JetStream")
        };
        assert_eq!((cluster.id.as_str(), cluster.client_id.as_str()), ("ticketing", "orders-7d4f-x2x"));
        // No two processes have the same.
        assert_ne!(way(&["--nats-cluster-id", "a"]), way(&["--nats-cluster-id", "a"]));
        // A stream is nothing to it.
        way(&["--nats-cluster-id", "a", "--nats-stream", "a.b"]);
    }

    #[test]
    fn names_that_nats_streaming_does_not_take_are_refused() {
        for (more, wanted) in [
            (["--nats-cluster-id", "a b"], "NATS_CLUSTER_ID is \"a b\""),
            (["--nats-client-id", "pod.1"], "NATS_CLIENT_ID is \"pod.1\""),
            (["--nats-subjects", "order:created=a/b"], "\"a/b\" cannot be"),
            (["--nats-durable", "a:b"], "\"a:b\" cannot be"),
        ] {
            let cluster = ["--nats-url", "h", "--nats-cluster-id", "ticketing"];
            let arguments = if more[0] == "--nats-cluster-id" { &cluster[..2] } else { &cluster[..] };
            let error = settings(&[arguments, &more[..]].concat()).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn settings_that_cannot_work_say_what_to_write_and_no_password() {
        for (arguments, wanted) in [
            (["--nats-url", "amqp://u:hunter2@host"], "neither nats nor tls; write nats://HOST:4222"),
            (["--nats-url", "nats://a,nats://u:hunter2@"], "server 2 of NATS_URL is invalid: it has no host"),
            (["--nats-url", "nats://u:hunter2@h:99999"], "cannot be read"),
            (["--nats-url", "nats://u:hunter2%@h"], "not percent-encoded"),
            (["--nats-stream", "a.b"], "NATS_STREAM is \"a.b\""),
            (["--nats-durable", "a b"], "NATS_DURABLE is \"a b\""),
            (["--nats-subjects", "order:made=x"], "NATS_SUBJECTS: \"order:made\" is not a subject"),
            (["--nats-ticket-deleted", "a b"], "NATS_TICKET_DELETED: \"a b\" cannot be a subject"),
            (["--nats-payment-started", "order:created"], "is used for two subjects"),
        ] {
            let arguments = [&["--nats-url", "nats://h"], &arguments[..]].concat();
            let arguments = if arguments[2] == "--nats-url" { &arguments[2..] } else { &arguments[..] };
            let error = settings(arguments).unwrap_err();
            assert!(error.to_string().contains(wanted), "{error}");
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
        let settings = settings(&["--nats-url", "nats://u:hunter2@h"]).unwrap().unwrap();
        assert!(!format!("{settings:?}").contains("hunter2"));
    }
}
