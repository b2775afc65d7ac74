//! Bounds how much of a request's head an HTTP/2 client may send before it ends it.
//!
//! A head may be cut into frames, and what has come of it is kept until the last one. The library bounds the number of frames,
//! but by far more than the size of a head. So the frames are followed here on their way to it: by their nine bytes of length,
//! type and flags, and nothing else. Many small frames that begin no request, such as pings, are a flood: each costs the library as much as
//! a large one, and a connection's worth of them keeps a thread busy.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

/// What an HTTP/2 connection begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const FRAME_HEAD: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// A frame below this many bytes counts as small. A window is opened, and a body sent, by far larger parts.
const SMALL: usize = 256;

/// How many small frames there may be in [`FLOOD_TIME`], between two requests.
const FLOOD: u32 = 2000;
const FLOOD_TIME: Duration = Duration::from_secs(10);

/// For so many bytes that are sent to a client, it may send one more, to open a window.
const SENT_FOR_ONE: usize = 1024;

/// A connection on which no head is larger than it may be.
pub(super) struct HeaderBlocks<S> {
    stream: S,
    frames: Frames,
}

impl<S> HeaderBlocks<S> {
    /// Where a head in several frames has `most` bytes at most.
    pub(super) fn new(stream: S, most: usize) -> Self {
        Self { stream, frames: Frames::new(most) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HeaderBlocks<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let read = buffer.filled().get(before..).unwrap_or_default();
        if self.frames.accept(read) {
            Poll::Ready(Ok(()))
        } else {
            Poll::Ready(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a head is too large, or frames are a flood",
            )))
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HeaderBlocks<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let sent = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.frames.sent += sent;
        Poll::Ready(Ok(sent))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let sent = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, parts))?;
        self.frames.sent += sent;
        Poll::Ready(Ok(sent))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// The frames that have come so far.
#[derive(Debug)]
struct Frames {
    most: usize,
    /// How much of the preface has come.
    preface: usize,
    is_http1: bool,
    /// The beginning of the next frame.
    head: Vec<u8>,
    /// What is left of the present one.
    rest: usize,
    /// How much of a head has been announced that has not ended.
    block: usize,
    /// How many small frames have come since the last request, or since `since`.
    small: u32,
    since: Instant,
    /// How much was sent to the client meanwhile.
    sent: usize,
}

impl Frames {
    fn new(most: usize) -> Self {
        Self {
            most,
            preface: 0,
            is_http1: false,
            head: Vec::new(),
            rest: 0,
            block: 0,
            small: 0,
            since: Instant::now(),
            sent: 0,
        }
    }

    /// Whether a connection may go on with these bytes.
    fn accept(&mut self, mut bytes: &[u8]) -> bool {
        while let Some(byte) = bytes.first() {
            if self.is_http1 {
                return true;
            } else if let Some(expected) = PREFACE.get(self.preface) {
                self.is_http1 = byte != expected;
                self.preface += 1;
                bytes = bytes.get(1..).unwrap_or_default();
            } else if self.rest > 0 {
                let part = self.rest.min(bytes.len());
                self.rest -= part;
                bytes = bytes.get(part..).unwrap_or_default();
            } else {
                self.head.push(*byte);
                bytes = bytes.get(1..).unwrap_or_default();
                if self.head.len() == FRAME_HEAD && !self.begin() {
                    return false;
                }
            }
        }
        true
    }

    /// Begins the frame whose head has come.
    fn begin(&mut self) -> bool {
        if let [high, middle, low, kind, flags, ..] = self.head[..] {
            self.rest = u32::from_be_bytes([0, high, middle, low]) as usize;
            self.block = match kind {
                HEADERS => self.rest,
                CONTINUATION => self.block + self.rest,
                _ => 0,
            };
            let is_too_large = self.block > self.most;
            if flags & END_HEADERS != 0 {
                self.block = 0;
            }
            if is_too_large || self.is_flood(kind) {
                return false;
            }
        }
        self.head.clear();
        true
    }

    fn is_flood(&mut self, kind: u8) -> bool {
        if kind == HEADERS {
            (self.small, self.sent) = (0, 0);
            return false;
        }
        if self.rest >= SMALL {
            return false;
        }
        self.small += 1;
        let more = u32::try_from(self.sent / SENT_FOR_ONE).unwrap_or(u32::MAX);
        if self.small <= FLOOD.saturating_add(more) {
            return false;
        }
        let is_flood = self.since.elapsed() < FLOOD_TIME;
        (self.small, self.sent, self.since) = (0, 0, Instant::now());
        is_flood
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let [.., high, middle, low] = (length as u32).to_be_bytes();
        let head = [high, middle, low, kind, flags, 0, 0, 0, 1];
        [head.as_slice(), &vec![CONTINUATION; length]].concat()
    }

    /// Whether a connection with these frames may go on, in whatever pieces they come.
    fn is_accepted(frames: &[(u8, u8, usize)]) -> bool {
        let frames = frames.iter().flat_map(|(kind, flags, length)| frame(*kind, *flags, *length));
        let bytes: Vec<u8> = PREFACE.iter().copied().chain(frames).collect();
        let in_pieces = |size: usize| {
            let mut frames = Frames::new(1000);
            bytes.chunks(size).all(|piece| frames.accept(piece))
        };
        let accepted = in_pieces(bytes.len());
        for size in [1, 2, 7, 100] {
            assert_eq!(in_pieces(size), accepted, "{size}");
        }
        accepted
    }

    #[test]
    fn a_head_has_a_bound_over_all_of_its_frames_and_bodies_have_none() {
        assert!(is_accepted(&[(4, 0, 6), (HEADERS, END_HEADERS, 1000), (0, 0, 5000), (HEADERS, 5, 1000)]));
        assert!(is_accepted(&[(HEADERS, 0, 400), (CONTINUATION, 0, 300), (CONTINUATION, END_HEADERS, 300)]));
        assert!(is_accepted(&[(HEADERS, 0, 900), (CONTINUATION, 4, 100), (HEADERS, 0, 900), (9, 4, 100)]));
        assert!(!is_accepted(&[(HEADERS, 0, 400), (CONTINUATION, 0, 300), (CONTINUATION, 0, 301)]));
        assert!(!is_accepted(&[(HEADERS, 0, 1), (CONTINUATION, END_HEADERS, 1000)]));
        assert!(!is_accepted(&[(HEADERS, END_HEADERS, 1001)]));
    }

    #[tokio::test(start_paused = true)]
    async fn many_small_frames_without_a_request_are_a_flood_unless_they_take_their_time_or_open_windows() {
        let ping = frame(6, 0, 8);
        let connection = || {
            let mut frames = Frames::new(1000);
            assert!(frames.accept(PREFACE));
            frames
        };
        let pings = |frames: &mut Frames, count: u32| (0..count).all(|_| frames.accept(&ping));
        assert!(!pings(&mut connection(), FLOOD + 1));
        let mut frames = connection();
        for _ in 0..3 {
            assert!(pings(&mut frames, FLOOD) && frames.accept(&frame(HEADERS, END_HEADERS, 10)));
        }
        frames.sent = 1000 * SENT_FOR_ONE;
        assert!(pings(&mut frames, FLOOD + 1000) && !pings(&mut frames, 1));
        let mut frames = connection();
        assert!(pings(&mut frames, FLOOD));
        tokio::time::advance(FLOOD_TIME).await;
        assert!(pings(&mut frames, FLOOD + 1) && !pings(&mut frames, FLOOD));
        let large = frame(0, 0, SMALL);
        assert!((0..2 * FLOOD).all(|_| frames.accept(&large)));
    }

    #[test]
    fn http_1_is_not_looked_at() {
        for text in ["GET / HTTP/1.1\r\n", "PRI / HTTP/1.1\r\n", "P"] {
            let mut frames = Frames::new(1);
            assert!(frames.accept(text.as_bytes()) && frames.accept(&[CONTINUATION; 100_000]), "{text}");
        }
    }
}
