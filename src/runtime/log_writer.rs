//! Writes log lines without ever waiting for whoever reads them.
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

/// How many bytes of lines may wait. A pipe has room for 64 KiB more.
const ROOM: usize = 1024 * 1024;

/// A log whose lines are written by a thread. Clones share it.
#[derive(Clone)]
pub(super) struct LogWriter(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    dropped: Counter,
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
    /// Starts the thread, which writes to `output`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn start(output: impl Write + Send + 'static, dropped: Counter) -> io::Result<Self> {
        let writer = Self(Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), dropped }));
        let shared = writer.0.clone();
        thread::Builder::new().name("log".into()).spawn(move || shared.write_to(output))?;
        Ok(writer)
    }

    /// Has a line written, or drops it.
    pub(super) fn push(&self, line: &[u8]) {
        let mut state = self.0.lock();
        if state.bytes + line.len() > ROOM {
            state.untold += 1;
            self.0.dropped.inc();
            return;
        }
        state.bytes += line.len();
        state.lines.push_back(line.to_vec());
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
                tracing::warn!(
                    lines = untold,
                    "log lines were dropped, since whoever reads the log is too slow"
                );
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
        self.push(line);
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
        let writer = LogWriter::start(Gate { passes, written }, dropped.clone()).unwrap();
        let line = [b'x'; 1024];
        for _ in 0..2 * ROOM / line.len() {
            writer.push(&line);
        }
        assert_eq!(dropped.get(), (ROOM / line.len()) as u64);
        // It does not wait for longer than it is told to.
        writer.flush(Duration::from_millis(1));
        // Once it reads again, all that was kept is written, in its order, and there is room again.
        drop((0..10).map(|_| pass.send(())).collect::<Result<Vec<_>, _>>().unwrap());
        writer.flush(Duration::from_secs(60));
        writer.push(b"last");
        writer.flush(Duration::from_secs(60));
        let written: Vec<u8> = output.try_iter().flatten().collect();
        assert_eq!(written.len(), ROOM + 4);
        assert!(written.ends_with(b"xlast"));
        assert_eq!(dropped.get(), (ROOM / line.len()) as u64);
    }
}
