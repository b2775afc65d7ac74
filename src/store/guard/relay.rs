//! One connection: a request of the driver, an answer of the server, and so on.
//!
//! The driver is trusted, the server is not: nothing is read of it that was not asked for.

use std::{io, sync::Arc, time::Duration};

use fast_socks5::{
    server::{Config, SimpleUserPassword, Socks5Socket},
    util::target_addr::TargetAddr,
};
use mongodb::bson::{RawDocument, rawdoc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
    time::timeout,
};

use super::{
    answer::{self, HEADER, OP_MSG, Refusal},
    budget::Budget,
    command::{self, Command},
    dial::{Connection, Dialer},
    greeting::Greeting,
    named::Names,
};
use crate::store::code;

/// How long the driver may take to say where it wants to go.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// How long a server may take to receive a request, or to send an answer that it has begun.
const MESSAGE: Duration = Duration::from_secs(10);

/// How much of a request tells which command it is.
const START: usize = 64;

/// The most of a greeting of the driver's that is read before it is passed on; they have less than a tenth of it.
const WHOLE: usize = 16 << 10;

/// The flags, and the kind of the section.
const BEFORE_DOCUMENT: usize = 4 + 1;

/// The field of a greeting with which a login begins.
const LOGIN: &str = "speculativeAuthenticate";

/// The answer of SOCKS5 that the connection is there, from an address that is nobody's business.
const SUCCEEDED: [u8; 10] = [5, 0, 0, 1, 0, 0, 0, 0, 0, 0];

type Header = [u8; HEADER];

/// What the connections of one client share.
pub(super) struct Relay {
    pub(super) socks: Arc<Config<SimpleUserPassword>>,
    pub(super) dialer: Dialer,
    pub(super) budget: Arc<Budget>,
    /// The servers that were named.
    pub(super) hosts: Names,
    /// Who logs in, as a digest.
    pub(super) login: String,
}

impl Relay {
    /// Serves a connection of the driver until one side ends it. `place` is its own until it has said where it wants to go.
    pub(super) async fn serve(&self, driver: TcpStream, place: OwnedSemaphorePermit) -> io::Result<()> {
        driver.set_nodelay(true)?;
        let socks = Socks5Socket::new(driver, self.socks.clone());
        let socks = timeout(HANDSHAKE, socks.upgrade_to_socks5()).await?.map_err(io::Error::other)?;
        let (host, port) = match socks.target_addr() {
            Some(TargetAddr::Ip(address)) => (address.ip().to_string(), address.port()),
            Some(TargetAddr::Domain(name, port)) => (name.clone(), *port),
            None => return Err(io::Error::other("the driver names no server")),
        };
        drop(place);
        let mut driver = socks.into_inner();
        let Some(_place) = self.budget.connection() else {
            return Err(io::Error::other("the namespace has too many connections"));
        };
        // A failure is told in MongoDB's own protocol, which has words for it.
        driver.write_all(&SUCCEEDED).await?;
        match self.dialer.dial(&host, port).await {
            Ok(server) => self.exchange(driver, server).await,
            Err(error) => {
                let request = timeout(HANDSHAKE, Request::read(&mut driver)).await??;
                driver.write_all(&request.refused(&unreachable(&error))).await
            }
        }
    }

    async fn exchange(&self, mut driver: TcpStream, mut server: Connection) -> io::Result<()> {
        let mut is_logging_in = false;
        loop {
            let request = tokio::select! {
                request = Request::read(&mut driver) => request?,
                // Between an answer and the next request a server has nothing to say.
                _ = server.read_u8() => return Ok(()),
            };
            if is_logging_in && request.command != Command::Login {
                // What the server has said of a login proves nothing; that the driver goes on does.
                self.budget.logins.finish();
                is_logging_in = false;
            }
            timeout(MESSAGE, request.forward(&mut driver, &mut server)).await??;
            let patience = request.command.patience();
            let answer = tokio::select! {
                answer = timeout(patience, self.answer(&mut server, &request)) => answer??,
                // It gives up the request, or is gone.
                _ = driver.read_u8() => return Ok(()),
            };
            match answer {
                Ok(Answer { message, has_salt }) => {
                    is_logging_in |= has_salt;
                    driver.write_all(&message).await?;
                }
                Err(refusal) => {
                    tracing::debug!(refusal.message, "an answer of a database is refused");
                    return driver.write_all(&request.refused(&refusal)).await;
                }
            }
        }
    }

    /// The server's answer, or why it is refused.
    async fn answer(
        &self,
        server: &mut Connection,
        request: &Request,
    ) -> io::Result<Result<Answer, Refusal>> {
        let first = server.read_u8().await?;
        // From here on, it is the server's turn.
        timeout(MESSAGE, async {
            let mut header = [first; HEADER];
            let (_, rest) = header.split_at_mut(1);
            server.read_exact(rest).await?;
            let length = match answer::length(&header, answer::limit(request.command)) {
                Ok(length) => length,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let permit = self.budget.bytes(u32::try_from(length).unwrap_or(u32::MAX)).await;
            let permit = permit.map_err(io::Error::other)?;
            let mut message = vec![0; length];
            let (start, body) = message.split_at_mut(HEADER);
            start.copy_from_slice(&header);
            server.read_exact(body).await?;
            let checked = match answer::check(body) {
                Ok(document) => self.admit(request, document),
                Err(refusal) => Err(refusal),
            };
            drop(permit);
            Ok(checked.map(|made| made.unwrap_or(Answer { message, has_salt: false })))
        })
        .await?
    }

    /// Checks an answer further by the command that it belongs to. Returns the message that takes its place, if one does.
    fn admit(&self, request: &Request, document: &RawDocument) -> Result<Option<Answer>, Refusal> {
        if !matches!(request.command, Command::Hello | Command::Login) {
            return Ok(None);
        }
        let greeting = Greeting::of(request.command, request.begins_login, document)?;
        if !self.hosts.admit(greeting.hosts.iter().map(String::as_str)) {
            return Err(Refusal::new("it names ever new servers"));
        }
        if let Some(salt) = &greeting.salt {
            // The driver remembers each with the password.
            if !self.budget.salts.admit([format!("{},{salt}", self.login).as_str()]) {
                return Err(Refusal::login("the databases of this namespace name ever new salts"));
            }
            if !self.budget.logins.begin() {
                return Err(Refusal::login("the logins of this namespace do not end"));
            }
        }
        let message = request.answered(&greeting.document);
        Ok(Some(Answer { message, has_salt: greeting.salt.is_some() }))
    }
}

/// An answer that is passed on.
struct Answer {
    message: Vec<u8>,
    /// Whether the driver goes on with a login.
    has_salt: bool,
}

async fn header(stream: &mut (impl AsyncReadExt + Unpin)) -> io::Result<Header> {
    let mut header = [0; HEADER];
    stream.read_exact(&mut header).await?;
    Ok(header)
}

/// A request of the driver.
struct Request {
    header: Header,
    /// The first bytes after the header.
    start: Vec<u8>,
    command: Command,
    /// Whether a login begins with it.
    begins_login: bool,
}

impl Request {
    /// Reads its beginning.
    async fn read(driver: &mut TcpStream) -> io::Result<Self> {
        let header = header(driver).await?;
        let mut start = vec![0; START.min(body_length(&header))];
        driver.read_exact(&mut start).await?;
        // The driver writes a request in two parts, and waits with the second until the first is acknowledged.
        driver.set_quickack(true)?;
        let command = Command::of(&start);
        let begins_login = match command {
            Command::Hello => {
                let read = start.len();
                start.resize(body_length(&header).min(WHOLE), 0);
                driver.read_exact(&mut start[read..]).await?;
                has_login(&start)
            }
            Command::Login => command::is_first_of_login(&start),
            _ => false,
        };
        Ok(Self { header, start, command, begins_login })
    }

    /// Passes it on, with the rest of it.
    async fn forward(&self, driver: &mut TcpStream, server: &mut Connection) -> io::Result<()> {
        server.write_all(&[self.header.as_slice(), &self.start].concat()).await?;
        let rest = body_length(&self.header).saturating_sub(self.start.len());
        copy(&mut driver.take(rest as u64), server).await?;
        server.flush().await
    }

    /// An error of the server's kind, in answer to this request.
    fn refused(&self, refusal: &Refusal) -> Vec<u8> {
        self.answered(&rawdoc! { "ok": 0.0, "code": refusal.code, "errmsg": refusal.message.as_str() })
    }

    /// A message with this document, in answer to this request.
    fn answered(&self, document: &RawDocument) -> Vec<u8> {
        let document = document.as_bytes();
        let [_, _, _, _, id @ ..] = self.header;
        let length = i32::try_from(HEADER + 5 + document.len()).unwrap_or(i32::MAX);
        let mut message = length.to_le_bytes().to_vec();
        // Its id, that of the request, the opcode, no flags, and one section, which is a document.
        message.extend([0; 4]);
        message.extend(&id[..4]);
        message.extend(OP_MSG.to_le_bytes());
        message.extend([0; 5]);
        message.extend(document);
        message
    }
}

/// Whether a login comes with this greeting.
fn has_login(body: &[u8]) -> bool {
    let document = body.get(BEFORE_DOCUMENT..).and_then(|document| RawDocument::from_bytes(document).ok());
    document.is_some_and(|document| matches!(document.get(LOGIN), Ok(Some(_))))
}

/// The length of what follows a header of the driver's.
fn body_length(header: &Header) -> usize {
    let [a, b, c, d, ..] = *header;
    usize::try_from(i32::from_le_bytes([a, b, c, d])).unwrap_or_default().saturating_sub(HEADER)
}

fn unreachable(error: &io::Error) -> Refusal {
    Refusal { code: code::HOST_UNREACHABLE, message: error.to_string() }
}
