//! The cheapest HTTP client that keeps its connection and checks its answers.
//!
//! Generator, API and database share the machine, so what the generator spends is missing in the
//! rate: it writes requests that are ready, and looks at no more of an answer than status and length.

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
    answer: Vec<u8>,
}

impl Connection {
    /// Connects to `address`, to send what `source` has and be answered `expected`.
    pub async fn open(address: SocketAddr, expected: u16, source: Source) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, source, expected, request: Vec::new(), answer: Vec::new() })
    }

    /// The size of the last answer, its head included.
    pub fn received(&self) -> usize {
        self.answer.len()
    }
}

impl Client for Connection {
    async fn ask(&mut self) -> Result<bool> {
        self.request.clear();
        self.answer.clear();
        if !(self.source)(&mut self.request) {
            return Ok(false);
        }
        self.stream.write_all(&self.request).await?;
        let mut end = None;
        while !is_whole(&self.answer, &mut end) {
            if self.stream.read_buf(&mut self.answer).await? == 0 {
                return Err("the API closed a connection".into());
            }
        }
        if status(&self.answer) == Some(self.expected) {
            return Ok(true);
        }
        let answer = String::from_utf8_lossy(&self.answer);
        Err(format!("expected {}, got: {}", self.expected, answer.chars().take(400).collect::<String>())
            .into())
    }
}

/// Where an answer ends.
enum End {
    At(usize),
    LastChunk,
}

fn is_whole(answer: &[u8], end: &mut Option<End>) -> bool {
    if end.is_none()
        && let Some(head) = answer.windows(4).position(|four| four == b"\r\n\r\n")
    {
        *end = Some(length(&answer[..head]).map_or(End::LastChunk, |length| End::At(head + 4 + length)));
    }
    match end {
        None => false,
        Some(End::At(end)) => answer.len() >= *end,
        // JSON has no line ends of its own, so nothing else looks like this.
        Some(End::LastChunk) => answer.ends_with(b"\r\n0\r\n\r\n"),
    }
}

fn length(head: &[u8]) -> Option<usize> {
    let head = std::str::from_utf8(head).ok()?;
    head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    })
}

fn status(answer: &[u8]) -> Option<u16> {
    std::str::from_utf8(answer.get(9..12)?).ok()?.parse().ok()
}
