//! Ends HTTP/2 streams whose client does not take the response.
//!
//! A client that gives a stream no room lets the connection be written and answers its pings, so no timeout of the
//! connection sees it, and hyper has none for a stream. But hyper runs each stream as a task that it gives to an executor.
//! This one drops the task when the response makes no progress, and then hyper resets the stream.

use std::{
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hyper::rt::Executor;
use prometheus_client::metrics::counter::Counter;
use tokio::{
    task_local,
    time::{Instant, timeout},
};

/// How long a response may make no progress.
const STALL_TIMEOUT: Duration = Duration::from_secs(20);

/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(5);

task_local! {
    /// The progress of the stream whose task this is.
    static PROGRESS: Arc<Progress>;
}

/// When the last part of a response was handed over, once it has begun.
#[derive(Debug, Default)]
pub(super) struct Progress(Mutex<Option<Instant>>);

impl Progress {
    /// That of the stream whose task this is; none for HTTP/1.1.
    pub(super) fn of_this_stream() -> Option<Arc<Self>> {
        PROGRESS.try_with(Arc::clone).ok()
    }

    /// A part of the response is asked for, since the client has taken those before it.
    pub(super) fn step(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn is_stalled(&self) -> bool {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|last| last.elapsed() >= STALL_TIMEOUT)
    }
}

/// Runs the tasks of hyper's HTTP/2 streams.
#[derive(Clone, Debug)]
pub(super) struct StreamExecutor {
    /// Streams that were ended.
    pub(super) stalled: Counter,
}

impl<F> Executor<F> for StreamExecutor
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, stream: F) {
        let (progress, stalled) = (Arc::new(Progress::default()), self.stalled.clone());
        let task = PROGRESS.scope(progress.clone(), async move {
            let mut stream = pin!(stream);
            while timeout(LOOK, &mut stream).await.is_err() {
                if progress.is_stalled() {
                    stalled.inc();
                    tracing::debug!("ended a stream whose client does not take the response");
                    return;
                }
            }
        });
        drop(tokio::spawn(task));
    }
}
