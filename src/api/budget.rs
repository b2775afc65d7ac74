//! The memory that clients can have, all together: for what they have sent of requests, and for what they have not taken
//! yet of responses.
//!
//! It has two halves. The second is only for those who are signed in, so nobody can take it from them without a
//! session. What is small is not counted, since the number of requests in progress has a bound of its own.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::extract::Request;

use super::error::ApiError;
use crate::runtime::Resources;

/// The whole budget, if there is memory for it: three hundred of the largest bodies at the same time.
const MOST: usize = 32 * 1024 * 1024;

/// The part of the process's memory that it may be.
const FRACTION: u64 = 4;

/// A head of a request, or a body of a response, that is not counted.
pub(super) const SMALL: usize = 8 * 1024;

/// What a header takes beside its name and value. In HTTP/2 each may be sent as a single byte.
const HEADER: usize = 128;

/// The memory that clients can have. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Budget(Arc<Halves>);

#[derive(Debug)]
struct Halves {
    anyone: Half,
    signed_in: Half,
}

#[derive(Debug)]
struct Half {
    free: AtomicUsize,
}

impl Half {
    fn take(&self, bytes: usize) -> bool {
        let take = |free: usize| free.checked_sub(bytes);
        self.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.free.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        let half = || Half { free: AtomicUsize::new(bytes / 2) };
        Self(Arc::new(Halves { anyone: half(), signed_in: half() }))
    }

    /// The budget of a process that may use these resources.
    pub(super) fn of(resources: Resources) -> Self {
        let part = resources.memory.map(|memory| memory / FRACTION);
        Self::new(part.and_then(|part| usize::try_from(part).ok()).map_or(MOST, |part| part.min(MOST)))
    }

    /// An account for one request, of which nothing is counted yet.
    pub(super) fn account(&self) -> Account {
        Account { budget: self.clone(), anyone: 0, signed_in: 0 }
    }
}

/// What is counted for one request; given back when dropped.
#[derive(Debug)]
pub(super) struct Account {
    budget: Budget,
    anyone: usize,
    signed_in: usize,
}

impl Account {
    /// Counts so much more. Whether its client is signed in is asked only if there is no room for everyone.
    ///
    /// Where there is no room, only those who are signed in learn that: to all others the answer is what it would have
    /// been.
    pub(super) fn count(
        &mut self,
        bytes: usize,
        is_signed_in: impl FnOnce() -> bool,
    ) -> Result<(), ApiError> {
        let Halves { anyone, signed_in } = &*self.budget.0;
        if anyone.take(bytes) {
            self.anyone += bytes;
        } else if !is_signed_in() {
            return Err(ApiError::NotAuthorized);
        } else if signed_in.take(bytes) {
            self.signed_in += bytes;
        } else {
            return Err(ApiError::Unavailable);
        }
        Ok(())
    }

    /// Counts the head of a request, unless it is small.
    pub(super) fn count_head(
        &mut self,
        request: &Request,
        is_signed_in: impl FnOnce() -> bool,
    ) -> Result<(), ApiError> {
        let (path, query) = (request.uri().path().len(), request.uri().query().map_or(0, str::len));
        let headers =
            request.headers().iter().map(|(name, value)| HEADER + name.as_str().len() + value.len());
        let bytes = headers.sum::<usize>() + path + query;
        if bytes <= SMALL { Ok(()) } else { self.count(bytes, is_signed_in) }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.budget.0.anyone.give_back(self.anyone);
        self.budget.0.signed_in.give_back(self.signed_in);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_are_signed_in_have_a_half_of_their_own_and_everything_is_given_back() {
        let budget = Budget::new(2000);
        let free = || {
            let Halves { anyone, signed_in } = &*budget.0;
            (anyone.free.load(Ordering::Relaxed), signed_in.free.load(Ordering::Relaxed))
        };
        let mut stranger = budget.account();
        assert_eq!(stranger.count(900, || false), Ok(()));
        assert_eq!(stranger.count(101, || false), Err(ApiError::NotAuthorized));
        let mut user = budget.account();
        assert_eq!(user.count(50, || panic!("there is room for everyone")), Ok(()));
        assert_eq!(user.count(900, || true), Ok(()));
        assert_eq!(user.count(200, || true), Err(ApiError::Unavailable));
        assert_eq!(free(), (50, 100));
        drop((stranger, user));
        assert_eq!(free(), (1000, 1000));
    }

    #[test]
    fn a_head_counts_with_what_its_headers_take_and_a_usual_one_does_not() {
        let counted = |headers: usize| {
            let budget = Budget::new(2_000_000);
            let mut request = Request::new(axum::body::Body::empty());
            for _ in 0..headers {
                request.headers_mut().append("a", axum::http::HeaderValue::from_static("b"));
            }
            let mut account = budget.account();
            account.count_head(&request, || false).unwrap();
            account.anyone
        };
        assert_eq!(counted(40), 0);
        // With the path.
        assert_eq!(counted(100), 100 * (HEADER + 2) + 1);
    }

    #[test]
    fn it_is_a_part_of_the_memory_that_there_is() {
        let free = |memory| {
            Budget::of(Resources { open_files: 0, memory }).0.anyone.free.load(Ordering::Relaxed) * 2
        };
        assert_eq!(free(None), MOST);
        assert_eq!(free(Some(64 << 20)), 16 << 20);
        assert_eq!(free(Some(1 << 40)), MOST);
    }
}
