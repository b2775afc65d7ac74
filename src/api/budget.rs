//! The memory that clients can have, all together: for what they have sent of requests, and for what they have not taken
//! yet of responses.
//!
//! It has two halves. The second is only for those who are signed in, so nobody can take it from them without a
//! session, and what they are answered is taken from it first. Of what is counted for a user, nobody has more than a
//! fraction. What is small is not counted, since the number of requests in progress has a bound of its own: so
//! whatever others do, a usual request is received.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::extract::Request;

use super::error::ApiError;
use crate::{order::UserId, runtime::Resources};

/// The whole budget, if there is memory for it: three hundred of the largest bodies at the same time.
const MOST: usize = 32 * 1024 * 1024;

/// The part of the process's memory that it may be.
const FRACTION: u64 = 4;

/// The part of the budget that one user may have.
const USER_FRACTION: usize = 8;

/// A head or a body of a request, or a body of a response, that is not counted.
pub(super) const SMALL: usize = 8 * 1024;

/// What a header takes beside its name and value. In HTTP/2 each may be sent as a single byte.
const HEADER: usize = 128;

/// The memory that clients can have. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Budget(Arc<Shares>);

#[derive(Debug)]
struct Shares {
    anyone: Half,
    signed_in: Half,
    /// What each user has who has anything.
    users: Mutex<HashMap<UserId, usize>>,
    most_of_user: usize,
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

impl Shares {
    fn users(&self) -> MutexGuard<'_, HashMap<UserId, usize>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `user` may have so much more; then it is noted.
    fn take_of_user(&self, user: &UserId, bytes: usize) -> bool {
        let mut users = self.users();
        let more = users.get(user).copied().unwrap_or_default().saturating_add(bytes);
        let may_have = more <= self.most_of_user;
        if may_have {
            users.insert(user.clone(), more);
        }
        may_have
    }

    fn give_back_of_user(&self, user: &UserId, bytes: usize) {
        let mut users = self.users();
        let left = users.get(user).copied().unwrap_or_default().saturating_sub(bytes);
        if left == 0 {
            users.remove(user);
        } else {
            users.insert(user.clone(), left);
        }
    }
}

/// How much memory the budget is of a process that may use these resources.
pub(super) fn bytes_of(resources: Resources) -> usize {
    let part = resources.memory.map(|memory| memory / FRACTION);
    part.and_then(|part| usize::try_from(part).ok()).map_or(MOST, |part| part.min(MOST))
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        let half = || Half { free: AtomicUsize::new(bytes / 2) };
        let most_of_user = bytes / USER_FRACTION;
        Self(Arc::new(Shares { anyone: half(), signed_in: half(), users: Mutex::default(), most_of_user }))
    }

    /// An account for what is received of one request, of which nothing is counted yet.
    pub(super) fn account(&self) -> Account {
        Account { budget: self.clone(), anyone: 0, signed_in: 0, user: None, of_user: 0 }
    }

    /// An account for what `user` is answered to one request, of which nothing is counted yet.
    pub(super) fn account_of(&self, user: UserId) -> Account {
        let mut account = self.account();
        account.user = Some(user);
        account
    }
}

/// What is counted for one request; given back when dropped.
#[derive(Debug)]
pub(super) struct Account {
    budget: Budget,
    anyone: usize,
    signed_in: usize,
    user: Option<UserId>,
    of_user: usize,
}

impl Account {
    /// Counts so much more of what is received. Who its client is, is asked only if there is no room for everyone.
    ///
    /// Where there is no room, only those who are signed in learn that: to all others the answer is what it would have
    /// been.
    pub(super) fn count(
        &mut self,
        bytes: usize,
        user: impl FnOnce() -> Option<UserId>,
    ) -> Result<(), ApiError> {
        if self.budget.0.anyone.take(bytes) {
            self.anyone += bytes;
            return Ok(());
        }
        self.user = self.user.take().or_else(user);
        if self.user.is_none() {
            return Err(ApiError::NotAuthorized);
        }
        self.count_of_user(bytes, false)
    }

    /// Counts the head of a request, unless it is small.
    pub(super) fn count_head(
        &mut self,
        request: &Request,
        user: impl FnOnce() -> Option<UserId>,
    ) -> Result<(), ApiError> {
        let (path, query) = (request.uri().path().len(), request.uri().query().map_or(0, str::len));
        let headers =
            request.headers().iter().map(|(name, value)| HEADER + name.as_str().len() + value.len());
        let bytes = headers.sum::<usize>() + path + query;
        if bytes <= SMALL { Ok(()) } else { self.count(bytes, user) }
    }

    /// Counts what the user is answered up to this size, unless it is small, or that much is counted already.
    pub(super) fn grow_to(&mut self, bytes: usize) -> Result<(), ApiError> {
        let more = bytes.saturating_sub(self.of_user);
        if bytes <= SMALL || more == 0 { Ok(()) } else { self.count_of_user(more, true) }
    }

    /// Counts so much more for the user: in the half of those who are signed in, or else perhaps in the other one.
    fn count_of_user(&mut self, bytes: usize, or_of_anyone: bool) -> Result<(), ApiError> {
        let shares = &*self.budget.0;
        let Some(user) = self.user.as_ref().filter(|user| shares.take_of_user(user, bytes)) else {
            return Err(ApiError::Unavailable);
        };
        if shares.signed_in.take(bytes) {
            self.signed_in += bytes;
        } else if or_of_anyone && shares.anyone.take(bytes) {
            self.anyone += bytes;
        } else {
            shares.give_back_of_user(user, bytes);
            return Err(ApiError::Unavailable);
        }
        self.of_user += bytes;
        Ok(())
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let shares = &*self.budget.0;
        shares.anyone.give_back(self.anyone);
        shares.signed_in.give_back(self.signed_in);
        if let Some(user) = self.user.as_ref().filter(|_| self.of_user > 0) {
            shares.give_back_of_user(user, self.of_user);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: &str) -> UserId {
        UserId::new(id).unwrap()
    }

    fn free(budget: &Budget) -> (usize, usize) {
        let Shares { anyone, signed_in, .. } = &*budget.0;
        (anyone.free.load(Ordering::Relaxed), signed_in.free.load(Ordering::Relaxed))
    }

    #[test]
    fn those_who_are_signed_in_have_a_half_of_their_own_and_everything_is_given_back() {
        let budget = Budget::new(2000);
        let mut stranger = budget.account();
        assert_eq!(stranger.count(900, || None), Ok(()));
        assert_eq!(stranger.count(101, || None), Err(ApiError::NotAuthorized));
        let mut ada = budget.account();
        assert_eq!(ada.count(50, || panic!("there is room for everyone")), Ok(()));
        assert_eq!(ada.count(200, || Some(user("ada"))), Ok(()));
        let mut others: Vec<_> = (0..3).map(|_| budget.account()).collect();
        for (number, other) in others.iter_mut().enumerate() {
            assert_eq!(other.count(250, || Some(user(&number.to_string()))), Ok(()));
        }
        assert_eq!(budget.account().count(51, || Some(user("eve"))), Err(ApiError::Unavailable));
        assert_eq!(free(&budget), (50, 50));
        drop((stranger, ada, others));
        assert_eq!(free(&budget), (1000, 1000));
        assert!(budget.0.users().is_empty());
    }

    #[test]
    fn one_user_has_an_eighth_at_most_and_what_they_are_answered_is_of_their_own_half_first() {
        let budget = Budget::new(160 * SMALL);
        let answer = |id: &str| {
            let mut account = budget.account_of(user(id));
            account.grow_to(11 * SMALL).map(|()| account)
        };
        let eve = answer("eve").unwrap();
        assert_eq!(free(&budget), (80 * SMALL, 69 * SMALL));
        assert!(answer("eve").is_err(), "22 of 20");
        let others: Vec<_> =
            ["a", "b", "c", "d", "e", "f"].into_iter().map(|id| answer(id).unwrap()).collect();
        assert_eq!(free(&budget), (80 * SMALL, 3 * SMALL));
        // Then of the other half, for as long as there is something of it.
        let more: Vec<_> = (0..7).map(|number| answer(&number.to_string()).unwrap()).collect();
        assert_eq!(free(&budget), (3 * SMALL, 3 * SMALL));
        assert!(answer("z").is_err());
        assert_eq!(budget.0.users().len(), 14, "nothing is noted of a refusal");
        drop((eve, others));
        assert!(answer("eve").is_ok());
        drop(more);
        assert_eq!(free(&budget), (80 * SMALL, 80 * SMALL));
    }

    #[test]
    fn what_is_answered_is_counted_once_it_is_not_small_and_only_as_it_grows() {
        let budget = Budget::new(1_000_000);
        let mut account = budget.account_of(user("ada"));
        for (bytes, counted) in [(SMALL, 0), (SMALL + 1, SMALL + 1), (100, SMALL + 1), (20_000, 20_000)] {
            account.grow_to(bytes).unwrap();
            assert_eq!(free(&budget), (500_000, 500_000 - counted), "{bytes}");
        }
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
            account.count_head(&request, || None).unwrap();
            account.anyone
        };
        assert_eq!(counted(40), 0);
        // With the path.
        assert_eq!(counted(100), 100 * (HEADER + 2) + 1);
    }

    #[test]
    fn it_is_a_part_of_the_memory_that_there_is() {
        let bytes = |memory| bytes_of(Resources { open_files: 0, memory });
        assert_eq!(bytes(None), MOST);
        assert_eq!(bytes(Some(64 << 20)), 16 << 20);
        assert_eq!(bytes(Some(1 << 40)), MOST);
    }
}
