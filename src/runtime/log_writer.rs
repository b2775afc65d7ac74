//! Writes log lines without ever waiting for whoever reads them, and sees that each is one line.
//!
//! A container's log is a pipe. If the other end stops reading, a write to it never returns, and a program that logs in
//! the middle of its work stops with it. So a thread does the writing, and lines that find no room to wait are dropped and
//! counted.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;
use tracing_subscriber::fmt::MakeWriter;

use super::escape::Escape;

/// How many bytes of lines may wait. A pipe has room for 64 KiB more.
const ROOM: usize = 1024 * 1024;

/// A log whose lines are written by a thread. Clones share it.
#[derive(Clone)]
pub(super) struct LogWriter(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    dropped: Counter,
    escape: Escape,
}

#[derive(Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    /// The bytes that wait, and those that are being written.
    bytes: usize,
    /// How many lines were dropped since the log last said so.
    untold: u64,
}

impl LogWriter {
    /// Starts the thread, which writes to `output`, with what others wrote in the lines escaped.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn start(
        output: impl Write + Send + 'static,
        escape: Escape,
        dropped: Counter,
    ) -> io::Result<Self> {
        let (state, changed) = (Mutex::default(), Condvar::new());
        let writer = Self(Arc::new(Shared { state, changed, dropped, escape }));
        let shared = writer.0.clone();
        thread::Builder::new().name("log".into()).spawn(move || shared.write_to(output))?;
        Ok(writer)
    }

    /// Has a line written, or drops it. It has no line break.
    pub(super) fn push(&self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        let text = self.0.escape.line(&text);
        let line = [text.as_bytes(), b"\n"].concat();
        let mut state = self.0.lock();
        if state.bytes + line.len() > ROOM {
            state.untold += 1;
            self.0.dropped.inc();
            return;
        }
        state.bytes += line.len();
        state.lines.push_back(line);
        drop(state);
        self.0.changed.notify_all();
    }

    /// Waits until every line is written, for `limit` at most.
    pub(super) fn flush(&self, limit: Duration) {
        let state = self.0.lock();
        drop(self.0.changed.wait_timeout_while(state, limit, |state| state.bytes > 0));
    }
}

impl Shared {
    fn write_to(&self, mut output: impl Write) {
        loop {
            let state = self.lock();
            let waited = self.changed.wait_while(state, |state| state.lines.is_empty());
            let mut state = waited.unwrap_or_else(PoisonError::into_inner);
            // In one piece, since each write takes as long as many lines do.
            let lines: Vec<u8> = state.lines.drain(..).flatten().collect();
            drop(state);
            // If nobody can read it any more, there is nobody to tell.
            let _ = output.write_all(&lines).and_then(|()| output.flush());
            let mut state = self.lock();
            state.bytes -= lines.len();
            let untold = std::mem::take(&mut state.untold);
            drop(state);
            self.changed.notify_all();
            if untold > 0 {
                tracing::warn!(lines = untold, "log lines were dropped because the log reader is too slow");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for &LogWriter {
    /// The subscriber writes each line by one call.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line.strip_suffix(b"\n").unwrap_or(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// An output that writes only while it is let.
    struct Gate {
        passes: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.passes.recv().map_err(io::Error::other)?;
            self.written.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stalls_makes_nobody_wait_and_what_it_misses_is_counted() {
        let ((pass, passes), (written, output)) = (channel(), channel());
        let dropped = Counter::default();
        let writer = LogWriter::start(Gate { passes, written }, Escape::Text, dropped.clone()).unwrap();
        // With its line break.
        let (line, length) = ([b'x'; 1023], 1024);
        for _ in 0..2 * ROOM / length {
            writer.push(&line);
        }
        assert_eq!(dropped.get(), (ROOM / length) as u64);
        // It does not wait for longer than it is told to.
        writer.flush(Duration::from_millis(1));
        // Once it reads again, all that was kept is written, in its order, and there is room again.
        drop((0..10).map(|_| pass.send(())).collect::<Result<Vec<_>, _>>().unwrap());
        writer.flush(Duration::from_secs(60));
        writer.push(b"last");
        writer.flush(Duration::from_secs(60));
        let written: Vec<u8> = output.try_iter().flatten().collect();
        assert_eq!(written.len(), ROOM + 5);
        assert!(written.ends_with(b"x\nlast\n"));
        assert_eq!(dropped.get(), (ROOM / length) as u64);
    }
}
