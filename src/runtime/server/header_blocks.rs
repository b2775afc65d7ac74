//! Bounds how much of a request's head an HTTP/2 client may send before it ends it.
//!
//! A head may be cut into frames, and what has come of it is kept until the last one. The library bounds the number of frames,
//! but by far more than the size of a head. So the frames are followed here on their way to it: by their nine bytes of length,
//! type and flags, and nothing else.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What an HTTP/2 connection begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const FRAME_HEAD: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// A connection on which no head is larger than it may be.
pub(super) struct HeaderBlocks<S> {
    stream: S,
    frames: Frames,
}

impl<S> HeaderBlocks<S> {
    /// Where a head in several frames has `most` bytes at most.
    pub(super) fn new(stream: S, most: usize) -> Self {
        Self { stream, frames: Frames { most, ..Frames::default() } }
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
            Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "the head of a request is too large")))
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HeaderBlocks<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
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
#[derive(Debug, Default)]
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
}

impl Frames {
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
            if is_too_large {
                return false;
            }
        }
        self.head.clear();
        true
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
            let mut frames = Frames { most: 1000, ..Frames::default() };
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

    #[test]
    fn http_1_is_not_looked_at() {
        for text in ["GET / HTTP/1.1\r\n", "PRI / HTTP/1.1\r\n", "P"] {
            let mut frames = Frames { most: 1, ..Frames::default() };
            assert!(frames.accept(text.as_bytes()) && frames.accept(&[CONTINUATION; 100_000]), "{text}");
        }
    }
}
