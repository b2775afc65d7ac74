//! The bodies of requests and responses, which show whom a connection waits for.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    Error,
    body::{Body, Bytes, HttpBody},
};
use hyper::body::{Frame, Incoming, SizeHint};

use super::{
    connections::{Busy, InProgress},
    streams::Progress,
};

/// The largest piece of a response that is handed to an HTTP/2 connection at once.
const PIECE: usize = 16 * 1024;

/// The body of a request. While it is waited for, the connection waits for its client.
pub(super) struct RequestBody {
    body: Incoming,
    busy: Arc<Busy>,
}

impl RequestBody {
    /// `busy` is that of the handler, which waits for the body while this does.
    pub(super) fn new(body: Incoming, busy: Arc<Busy>) -> Self {
        Self { body, busy }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.busy.set(frame.is_ready());
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a response. While its next part is being produced, the connection waits for the server; at other times it
/// waits for the client to take it.
pub(super) struct ResponseBody {
    body: Body,
    /// What is produced, and not yet handed over.
    rest: Bytes,
    /// For HTTP/2, where a client can take a connection's data and leave one stream's.
    progress: Option<Arc<Progress>>,
    /// Whether nothing more is produced, and all of it is handed over.
    is_ended: bool,
    busy: Busy,
    _request: InProgress,
}

impl ResponseBody {
    pub(super) fn new(body: Body, progress: Option<Arc<Progress>>, request: InProgress) -> Self {
        let busy = Busy::new(request.connection.clone(), false);
        let is_ended = body.is_end_stream();
        Self { body, rest: Bytes::new(), progress, is_ended, busy, _request: request }
    }

    /// The next piece of what is produced. HTTP/2 keeps a piece until the client has room for its first byte, and sends it
    /// from then on by itself: so the last byte of each part is a piece of its own, and until the client has
    /// taken all before it, the response is seen to be in progress.
    fn piece(&mut self) -> Bytes {
        match self.rest.len() {
            0 | 1 => std::mem::take(&mut self.rest),
            length => self.rest.split_to(PIECE.min(length - 1)),
        }
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Some(progress) = &self.progress {
            progress.step();
        }
        if self.rest.is_empty() {
            let frame = Pin::new(&mut self.body).poll_frame(context);
            self.busy.set(frame.is_pending());
            self.is_ended |= matches!(frame, Poll::Ready(None));
            match frame {
                Poll::Ready(Some(Ok(frame))) if self.progress.is_some() => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                frame => return frame,
            }
        }
        let piece = self.piece();
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    /// In HTTP/1.1 the end is not told together with the last data: with it hyper would drop this, and all that is held for
    /// the response, while the data are in its buffer. In HTTP/2 the last data wait for the client until the last byte.
    fn is_end_stream(&self) -> bool {
        self.is_ended || self.progress.is_some() && self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Only asked for before the first part is taken.
        self.body.size_hint()
    }
}
