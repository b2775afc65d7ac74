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
//! dial      from a host name to a connection, with TLS
//! relay     one connection: request, answer, request, ...
//! named     what servers may name over time
//! answer    what an answer may be: pure
//! scram     what a server may ask for in a login: pure
//! ```

mod answer;
mod budget;
mod dial;
mod named;
mod relay;
mod scram;

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdTcpListener},
    sync::Arc,
    time::Duration,
};

use fast_socks5::server::{Config, SimpleUserPassword};
use mongodb::options::Socks5Proxy;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::{net::TcpListener, task::JoinSet, time::sleep};
use tokio_util::task::AbortOnDropHandle;

pub(super) use self::{
    budget::{Budget, Budgets},
    dial::Dialer,
};
use self::{named::Names, relay::Relay};

const USER: &str = "driver";

/// The most servers that those of one connection string may name over time, and the most salts. A replica set has up to 50
/// members, and a user has one salt, for all servers.
const MAX_HOSTS_EVER: usize = 256;
const MAX_SALTS_EVER: usize = 16;

/// How long no connection is taken after that has failed, which it does when there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A proxy for one client of the driver. It ends with this value, and its connections with it.
pub(super) struct Guard {
    address: SocketAddr,
    /// Keeps out whoever else reaches the loopback interface.
    password: String,
    _task: AbortOnDropHandle<()>,
}

impl Guard {
    /// Listens on the loopback interface, and connects with `dialer` to whatever the driver asks for, within `budget`.
    ///
    /// # Errors
    /// When there is no port or no random number.
    pub(super) fn start(dialer: Dialer, budget: Arc<Budget>) -> io::Result<Self> {
        let loopback =
            [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), SocketAddr::from((Ipv6Addr::LOCALHOST, 0))];
        let listener = StdTcpListener::bind(&loopback[..])?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let listener = TcpListener::from_std(listener)?;
        let mut random = [0; 16];
        SystemRandom::new().fill(&mut random).map_err(|_| io::Error::other("no random numbers"))?;
        let password = random.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let mut socks = Config::<SimpleUserPassword>::default()
            .with_authentication(SimpleUserPassword { username: USER.into(), password: password.clone() });
        socks.set_execute_command(false).set_dns_resolve(false);
        let (hosts, salts) = (Names::at_most(MAX_HOSTS_EVER), Names::at_most(MAX_SALTS_EVER));
        let relay = Relay { socks: Arc::new(socks), dialer, budget, hosts, salts };
        let task = AbortOnDropHandle::new(tokio::spawn(accept(listener, Arc::new(relay))));
        Ok(Self { address, password, _task: task })
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
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                // Without a place in the budget, the driver sees a connection that is closed.
                Ok((driver, _)) => if let Some(place) = relay.budget.connection() {
                    let relay = relay.clone();
                    connections.spawn(async move {
                        if let Err(error) = relay.serve(driver).await {
                            tracing::debug!(%error, "a connection to a database ends");
                        }
                        drop(place);
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
    use mongodb::bson::{Document, doc, serialize_to_vec};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::*;

    use crate::store::code;

    type Client = Socks5Stream<TcpStream>;

    fn guard() -> Guard {
        let dialer = Dialer { namespace: None, tls: None, timeout: Duration::from_secs(5) };
        Guard::start(dialer, Arc::default()).unwrap()
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

    async fn ask(client: &mut Client, server: &mut TcpStream, answer: &Document) -> Document {
        let request = message(&doc! { "hello": 1 });
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
            assert_eq!(ask(&mut client, &mut server, &answer).await, answer);
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
        for number in 0..MAX_HOSTS_EVER / 32 {
            let (mut server, mut client) = pair(&guard).await;
            let hosts: Vec<_> = (0..32).map(|host| format!("h{number}-{host}:1")).collect();
            let answer = doc! { "ok": 1, "hosts": hosts };
            assert_eq!(ask(&mut client, &mut server, &answer).await, answer);
        }
        let (mut server, mut client) = pair(&guard).await;
        let refused = ask(&mut client, &mut server, &doc! { "ok": 1, "hosts": ["new:1"] }).await;
        assert!(refused.get_str("errmsg").unwrap().contains("ever new servers"), "{refused}");
        assert_eq!(client.read(&mut [0]).await.unwrap_or(0), 0);
        for number in 0..MAX_SALTS_EVER + 1 {
            let (mut server, mut client) = pair(&guard).await;
            let answer = doc! { "ok": 1, "payload": format!("r=x,s={number},i=1") };
            let answer = ask(&mut client, &mut server, &answer).await;
            assert_eq!(answer.get_str("errmsg").is_ok(), number == MAX_SALTS_EVER, "{answer}");
        }
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
