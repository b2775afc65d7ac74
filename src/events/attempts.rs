//! Attempts at what is to last as long as the process: the pauses between them, and which failures are logged.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::runtime::exponential;

/// The attempts at one thing.
pub(super) struct Attempts {
    /// The first and the longest pause.
    pauses: (Duration, Duration),
    started: Instant,
    failures: u32,
    logged: Option<&'static str>,
}

impl Attempts {
    pub(super) fn new(pauses: (Duration, Duration)) -> Self {
        Self { pauses, started: Instant::now(), failures: 0, logged: None }
    }

    /// One begins.
    pub(super) fn begin(&mut self) {
        self.started = Instant::now();
    }

    /// It has failed. Whether the one before failed for another reason, or so long ago that this one is new.
    pub(super) fn fail(&mut self, reason: &'static str) -> bool {
        if self.started.elapsed() > self.pauses.1 * 2 {
            (self.failures, self.logged) = (0, None);
        }
        self.logged.replace(reason) != Some(reason)
    }

    /// Waits before the next, or until `stop`.
    pub(super) async fn pause(&mut self, stop: &CancellationToken) {
        let (first, longest) = self.pauses;
        let pause = exponential(first, longest, self.failures).mul_f64(fastrand::f64().mul_add(0.5, 0.5));
        self.failures += 1;
        tokio::select! {
            () = sleep(pause) => {}
            () = stop.cancelled() => {}
        }
    }
}
