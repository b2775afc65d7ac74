//! A minimal HTTP client, which keeps its connection and checks the status of every response.
//!
//! It shares the machine with the API and the database, so its CPU time reduces the measured rate: it sends prepared
//! requests, and reads no more of a response than its status and length.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{Result, measure::Client};

/// Writes the next request into the buffer; `false` when there is none.
pub type Source = Box<dyn FnMut(&mut Vec<u8>) -> bool + Send>;

/// One connection.
pub struct Connection {
    stream: TcpStream,
    source: Source,
    expected: u16,
    request: Vec<u8>,
    response: Vec<u8>,
}

impl Connection {
    /// Connects to `address`, to send the requests of `source` and expect the status `expected`.
    pub async fn open(address: SocketAddr, expected: u16, source: Source) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, source, expected, request: Vec::new(), response: Vec::new() })
    }

    /// The body of the last response, which has a length.
    pub fn body(&self) -> &[u8] {
        let head = self.response.windows(4).position(|four| four == b"\r\n\r\n");
        head.and_then(|head| self.response.get(head + 4..)).unwrap_or_default()
    }

    /// The size of the last response, including its head.
    pub fn response_size(&self) -> usize {
        self.response.len()
    }
}

impl Client for Connection {
    async fn request(&mut self) -> Result<bool> {
        self.request.clear();
        self.response.clear();
        if !(self.source)(&mut self.request) {
            return Ok(false);
        }
        self.stream.write_all(&self.request).await?;
        let mut end = None;
        while !is_whole(&self.response, &mut end) {
            if self.stream.read_buf(&mut self.response).await? == 0 {
                return Err("the API closed a connection".into());
            }
        }
        if status(&self.response) == Some(self.expected) {
            return Ok(true);
        }
        let response = String::from_utf8_lossy(&self.response);
        Err(format!("expected {}, got: {}", self.expected, response.chars().take(400).collect::<String>())
            .into())
    }
}

/// How the end of a response is found.
enum End {
    At(usize),
    LastChunk,
}

fn is_whole(response: &[u8], end: &mut Option<End>) -> bool {
    if end.is_none()
        && let Some(head) = response.windows(4).position(|four| four == b"\r\n\r\n")
    {
        *end = Some(length(&response[..head]).map_or(End::LastChunk, |length| End::At(head + 4 + length)));
    }
    match end {
        None => false,
        Some(End::At(end)) => response.len() >= *end,
        // The API's JSON has no line breaks, so nothing else ends like this.
        Some(End::LastChunk) => response.ends_with(b"\r\n0\r\n\r\n"),
    }
}

fn length(head: &[u8]) -> Option<usize> {
    if status(head) == Some(204) {
        return Some(0);
    }
    let head = std::str::from_utf8(head).ok()?;
    head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    })
}

fn status(response: &[u8]) -> Option<u16> {
    std::str::from_utf8(response.get(9..12)?).ok()?.parse().ok()
}
