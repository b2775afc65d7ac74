//! The database server's clock, as seen from here: the one clock by which orders expire.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

/// One reading of the server's clock. It goes on by the monotonic clock of this machine, so that a
/// wrong or jumping wall clock here changes nothing.
#[derive(Clone, Copy, Debug)]
pub struct ServerClock {
    /// The server said this …
    said: Timestamp,
    /// … at some moment between asking and this one.
    heard: Instant,
    /// How long the answer took: by so much at most was it old when it was heard.
    error: Duration,
}

impl ServerClock {
    /// A reading: asked at `asked`, the answer `said` was heard at `heard`.
    pub fn new(said: Timestamp, asked: Instant, heard: Instant) -> Self {
        Self { said, heard, error: heard.saturating_duration_since(asked) }
    }

    /// A time that the server's clock has reached for certain at `at`: never too late, too early by
    /// [`Self::error`] at most.
    pub fn reached(&self, at: Instant) -> Timestamp {
        let since =
            SignedDuration::try_from(at.saturating_duration_since(self.heard)).unwrap_or(SignedDuration::MAX);
        self.said.saturating_add(since).unwrap_or(Timestamp::MAX)
    }

    /// The bound of the error.
    pub fn error(&self) -> Duration {
        self.error
    }

    /// Whether it is so old at `at` that the two machines' clocks may have drifted apart.
    pub fn is_stale(&self, at: Instant) -> bool {
        at.saturating_duration_since(self.heard) > Duration::from_secs(30)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_never_ahead_of_the_server_and_goes_on_by_itself() {
        let (asked, said) = (Instant::now(), Timestamp::UNIX_EPOCH);
        let heard = asked + Duration::from_millis(40);
        let clock = ServerClock::new(said, asked, heard);
        assert_eq!(clock.reached(heard), said);
        assert_eq!(clock.error(), Duration::from_millis(40));
        assert_eq!(clock.reached(heard + Duration::from_secs(2)), said + SignedDuration::from_secs(2));
        assert!(
            !clock.is_stale(heard + Duration::from_secs(29))
                && clock.is_stale(heard + Duration::from_secs(31))
        );
    }
}
