//! How many logins may be left unfinished: each takes hashing, and a server that ends the connection in the middle of one
//! makes the driver begin another at once.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How many may be within [`PERIOD`]. An honest client begins two at a time for each server.
pub(super) const UNFINISHED: u32 = 64;

const PERIOD: Duration = Duration::from_secs(60);

/// The logins of one namespace: a client does not outlive an error by which its sweep begins anew.
#[derive(Debug)]
pub(super) struct Logins(Mutex<State>);

#[derive(Debug)]
struct State {
    unfinished: u32,
    since: Instant,
}

impl Default for Logins {
    fn default() -> Self {
        Self(Mutex::new(State { unfinished: 0, since: Instant::now() }))
    }
}

impl Logins {
    /// Whether another one may go on to its hashing.
    pub(super) fn begin(&self) -> bool {
        let mut state = self.state();
        if state.since.elapsed() > PERIOD {
            *state = State { unfinished: 0, since: Instant::now() };
        }
        let may = state.unfinished < UNFINISHED;
        state.unfinished += u32::from(may);
        may
    }

    /// One has come to its end.
    pub(super) fn finish(&self) {
        let mut state = self.state();
        state.unfinished = state.unfinished.saturating_sub(1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_end_make_room_and_those_that_do_not_wait_for_the_next_period() {
        let logins = Logins::default();
        for _ in 0..100 {
            assert!(logins.begin());
            logins.finish();
        }
        assert_eq!((0..100).filter(|_| logins.begin()).count(), UNFINISHED as usize);
        logins.state().since = Instant::now().checked_sub(2 * PERIOD).unwrap();
        assert!(logins.begin());
    }
}
