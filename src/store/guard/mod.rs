//! A guard between the driver and servers that nobody vouches for: a SOCKS5 proxy in this process, through which the driver
//! makes all its connections, and which checks each answer before the driver sees a byte of it.
//!
//! The driver parses whatever a server sends: by recursion, up to 48 MB at a time on every connection, and before the
//! server has proved anything. A process that connects to the databases of several tenants may not leave that to each
//! of them. So an answer is taken in parts that have a budget and a deadline, and passed on if it is one that a database
//! gives. Anything else becomes an error reply, which says what was wrong.
//!
//! ```text
//! budget    what all connections of a namespace may use at the same time
//! lookup    from a host name to addresses, as a pod of the namespace finds them
//! dial      from a host name to a connection, with TLS
//! relay     one connection: request, answer, request, ...
//! logins    how many logins may be left unfinished
//! named     what servers may name over time
//! command   which command a request is: pure
//! answer    what an answer may be: pure
//! greeting  answers to what belongs to connecting, made anew: pure
//! scram     what a server may ask for in a login: pure
//! ```

mod answer;
mod budget;
mod command;
mod dial;
mod greeting;
mod logins;
mod lookup;
mod named;
mod relay;
mod scram;
#[cfg(test)]
pub(super) mod test_dns;

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdTcpListener},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use fast_socks5::server::{Config, SimpleUserPassword};
use mongodb::options::Socks5Proxy;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::{
    net::TcpListener,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::sleep,
};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use self::{
    budget::{Budget, Budgets},
    dial::Dialer,
    lookup::Lookup,
    named::Names,
    relay::Relay,
};
use crate::runtime::hex;

const USER: &str = "driver";

/// The most servers that those of one connection string may name over time. A replica set has up to 50 members.
const MAX_HOSTS_EVER: usize = 256;

/// The most connections that have not said yet where they want to go.
const HANDSHAKES: usize = 64;

/// How long no connection is taken after that has failed, which it does when there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the guards of a process share.
#[derive(Debug, Default)]
pub(super) struct Guards {
    budgets: Budgets,
    lookup: Mutex<Option<Arc<Lookup>>>,
}

impl Guards {
    /// A guard for the servers that a namespace names. Each connection must be there, TLS included, within `timeout`.
    /// `login` is a digest of who logs in.
    ///
    /// # Errors
    /// When there is no port or no random number, or this machine has no settings for the DNS.
    pub(super) fn start(
        &self,
        namespace: Option<&str>,
        tls: Option<TlsConnector>,
        timeout: Duration,
        login: String,
    ) -> io::Result<Guard> {
        let dialer = Dialer { namespace: namespace.map(str::to_owned), tls, timeout, lookup: self.lookup()? };
        Guard::start(dialer, self.budgets.of(namespace), login)
    }

    /// Guards that look names up like this.
    #[cfg(test)]
    pub(super) fn with(lookup: Lookup) -> Self {
        Self { lookup: Mutex::new(Some(Arc::new(lookup))), ..Self::default() }
    }

    fn lookup(&self) -> io::Result<Arc<Lookup>> {
        // No code panics while it holds the lock.
        let mut lookup = self.lookup.lock().unwrap_or_else(PoisonError::into_inner);
        match &*lookup {
            Some(lookup) => Ok(lookup.clone()),
            None => Ok(lookup.insert(Arc::new(Lookup::of_this_machine()?)).clone()),
        }
    }
}

/// A proxy for one client of the driver. It ends with this value, and its connections with it.
pub(super) struct Guard {
    address: SocketAddr,
    /// Keeps out whoever else reaches the loopback interface.
    password: String,
    budget: Arc<Budget>,
    _task: AbortOnDropHandle<()>,
}

impl Guard {
    /// Listens on the loopback interface, and connects with `dialer` to whatever the driver asks for, within `budget`.
    fn start(dialer: Dialer, budget: Arc<Budget>, login: String) -> io::Result<Self> {
        let loopback =
            [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), SocketAddr::from((Ipv6Addr::LOCALHOST, 0))];
        let listener = StdTcpListener::bind(&loopback[..])?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let listener = TcpListener::from_std(listener)?;
        let mut random = [0; 16];
        SystemRandom::new().fill(&mut random).map_err(|_| io::Error::other("no random numbers"))?;
        let password = hex(&random);
        let mut socks = Config::<SimpleUserPassword>::default()
            .with_authentication(SimpleUserPassword { username: USER.into(), password: password.clone() });
        socks.set_execute_command(false).set_dns_resolve(false);
        let relay = Relay {
            socks: Arc::new(socks),
            dialer,
            budget: budget.clone(),
            hosts: Names::at_most(MAX_HOSTS_EVER),
            login,
        };
        let task = AbortOnDropHandle::new(tokio::spawn(accept(listener, Arc::new(relay))));
        Ok(Self { address, password, budget, _task: task })
    }

    /// Room for one more large batch of orders of this namespace, if there is any.
    pub(super) fn large_batch(&self) -> Option<OwnedSemaphorePermit> {
        self.budget.large_batch()
    }

    /// How the driver finds it.
    pub(super) fn proxy(&self) -> Socks5Proxy {
        let host = match self.address {
            SocketAddr::V4(address) => address.ip().to_string(),
            SocketAddr::V6(address) => format!("[{}]", address.ip()),
        };
        Socks5Proxy::builder()
            .host(host)
            .port(self.address.port())
            .authentication((USER.to_owned(), self.password.clone()))
            .build()
    }
}

async fn accept(listener: TcpListener, relay: Arc<Relay>) {
    let (mut connections, handshakes) = (JoinSet::new(), Arc::new(Semaphore::new(HANDSHAKES)));
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                // Whoever has no place sees a connection that is closed.
                Ok((driver, _)) => if let Ok(place) = handshakes.clone().try_acquire_owned() {
                    let relay = relay.clone();
                    connections.spawn(async move {
                        if let Err(error) = relay.serve(driver, place).await {
                            tracing::debug!(%error, "a connection to a database ends");
                        }
                    });
                },
                Err(error) => {
                    tracing::warn!(%error, "cannot take a connection of the MongoDB driver");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use fast_socks5::client::{Config as ClientConfig, Socks5Stream};
    use mongodb::bson::{Binary, Document, doc, serialize_to_vec, spec::BinarySubtype};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::*;

    use crate::store::code;

    type Client = Socks5Stream<TcpStream>;

    fn guard() -> Guard {
        Guards::default().start(None, None, Duration::from_secs(5), String::new()).unwrap()
    }

    async fn connect(guard: &Guard, password: &str, port: u16) -> Result<Client, String> {
        let (user, password) = (USER.into(), password.into());
        let (host, config) = ("127.0.0.1".into(), ClientConfig::default());
        Socks5Stream::connect_with_password(guard.address, host, port, user, password, config)
            .await
            .map_err(|error| error.to_string())
    }

    /// A server, and a connection to it through the guard.
    async fn pair(guard: &Guard) -> (TcpStream, Client) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = connect(guard, &guard.password, port).await.unwrap();
        (listener.accept().await.unwrap().0, client)
    }

    fn message(document: &Document) -> Vec<u8> {
        let document = serialize_to_vec(document).unwrap();
        let words =
            [i32::try_from(21 + document.len()).unwrap(), 7, 0, 2013, 0].map(i32::to_le_bytes).concat();
        [&words[..], &[0], &document].concat()
    }

    /// What the client gets for a request, and whether the connection goes on.
    async fn answered(client: &mut Client) -> Document {
        let length = client.read_i32_le().await.unwrap();
        let mut rest = vec![0; usize::try_from(length).unwrap() - 4];
        client.read_exact(&mut rest).await.unwrap();
        Document::from_reader(&rest[17..]).unwrap()
    }

    async fn ask(client: &mut Client, server: &mut TcpStream, command: &str, answer: &Document) -> Document {
        let request = message(&doc! { command: 1 });
        client.write_all(&request).await.unwrap();
        let mut received = vec![0; request.len()];
        server.read_exact(&mut received).await.unwrap();
        assert_eq!(received, request);
        server.write_all(&message(answer)).await.unwrap();
        answered(client).await
    }

    #[tokio::test]
    async fn requests_and_answers_pass_one_after_the_other() {
        let guard = guard();
        let (mut server, mut client) = pair(&guard).await;
        for number in 0..3 {
            let answer = doc! { "ok": 1, "number": number, "hosts": ["a:1"] };
            assert_eq!(ask(&mut client, &mut server, "find", &answer).await, answer);
            let greeting = doc! { "ok": 1, "hosts": ["a:1"] };
            assert_eq!(ask(&mut client, &mut server, "hello", &answer).await, greeting);
        }
        // A large request comes in parts.
        let large = message(&doc! { "update": "x".repeat(1_000_000) });
        client.write_all(&large).await.unwrap();
        let mut received = vec![0; large.len()];
        server.read_exact(&mut received).await.unwrap();
        assert!(received == large);
        // What was not asked for ends the connection, as does the end of either side.
        server.write_all(&message(&doc! { "ok": 1 })).await.unwrap();
        assert_eq!(answered(&mut client).await, doc! { "ok": 1 });
        server.write_all(b"more").await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap_or(0), 0);
        let (server, mut client) = pair(&guard).await;
        drop(server);
        assert_eq!(client.read(&mut [0]).await.unwrap_or(0), 0);
        let (mut server, mut client) = pair(&guard).await;
        client.write_all(&message(&doc! { "find": 1 })).await.unwrap();
        server.read_u8().await.unwrap();
        drop(client);
        let mut rest = Vec::new();
        drop(server.read_to_end(&mut rest).await);
    }

    #[tokio::test]
    async fn names_are_counted_over_all_connections() {
        let guard = guard();
        for number in 0..MAX_HOSTS_EVER / 16 {
            let (mut server, mut client) = pair(&guard).await;
            let hosts: Vec<_> = (0..16).map(|host| format!("h{number}-{host}:1")).collect();
            let answer = doc! { "ok": 1, "hosts": hosts };
            assert_eq!(ask(&mut client, &mut server, "hello", &answer).await, answer);
        }
        let (mut server, mut client) = pair(&guard).await;
        let refused = ask(&mut client, &mut server, "hello", &doc! { "ok": 1, "hosts": ["new:1"] }).await;
        assert!(refused.get_str("errmsg").unwrap().contains("ever new servers"), "{refused}");
        assert_eq!(client.read(&mut [0]).await.unwrap_or(0), 0);
    }

    /// Asks for a login with this salt; whether it is passed on.
    async fn begins_login(guard: &Guard, salt: &str, ends: bool) -> bool {
        let payload = |text: String| Binary { subtype: BinarySubtype::Generic, bytes: text.into_bytes() };
        let (mut server, mut client) = pair(guard).await;
        let answer = doc! { "ok": 1, "payload": payload(format!("r={},s={salt},i=1", "n".repeat(48))) };
        let answer = ask(&mut client, &mut server, "saslStart", &answer).await;
        if ends && answer.get_str("errmsg").is_err() {
            let done = doc! { "ok": 1, "done": true, "payload": payload("v=x".into()) };
            assert_eq!(ask(&mut client, &mut server, "saslContinue", &done).await, done);
            // Only by this it shows that the driver takes it for ended.
            assert_eq!(ask(&mut client, &mut server, "find", &doc! { "ok": 1 }).await, doc! { "ok": 1 });
        }
        answer.get_str("errmsg").is_err()
    }

    #[tokio::test]
    async fn logins_are_bounded_in_what_they_name_and_in_how_many_do_not_end() {
        let guard = guard();
        for number in 0..300 {
            assert_eq!(begins_login(&guard, &number.to_string(), true).await, number < 256, "{number}");
        }
        let guard = Guards::default().start(None, None, Duration::from_secs(5), String::new()).unwrap();
        let mut passed = 0;
        while begins_login(&guard, "same", false).await {
            passed += 1;
        }
        assert_eq!(passed, logins::UNFINISHED);
    }

    #[tokio::test]
    async fn who_has_no_password_gets_nowhere_and_an_unreachable_server_is_told_as_such() {
        let guard = guard();
        assert!(connect(&guard, "guessed", 1).await.is_err());
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let mut client = connect(&guard, &guard.password, closed).await.unwrap();
        client.write_all(&message(&doc! { "hello": 1 })).await.unwrap();
        let answer = answered(&mut client).await;
        assert_eq!(answer.get_i32("code").unwrap(), code::HOST_UNREACHABLE, "{answer}");
        let address = guard.address;
        drop((guard, client));
        // Its port is given up when its task has ended.
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }
}
