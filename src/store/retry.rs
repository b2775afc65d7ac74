//! The deadline of every call to the database, and retries after transient errors.
//!
//! A call waits out an election: it is repeated while the database has no primary, until [`PATIENCE`] is over. Each
//! attempt has a deadline of its own, so that a reply that was lost delays it, but does not fail it.

use std::{
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};

use futures::FutureExt;
use mongodb::error::Result as DriverResult;
use tokio::time::{sleep, timeout};
use tracing::Instrument;

use super::{driver_error::is_transient, error::StoreError};
use crate::runtime::traces;

/// The longest that one attempt takes, with the retries of its commands.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// The longest that any call of the store takes: as long as a request of the API may take, and an election. Within
/// [`ending_by`] it ends by then.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The longest that one query of a whole collection takes.
pub(super) const SLOW_DEADLINE: Duration = Duration::from_secs(600);

/// The most attempts of such a query.
const SLOW_ATTEMPTS: u32 = 8;

/// How often a conditional write that did not match is repeated when reading the order shows no reason for it.
pub(super) const ROUNDS: u32 = 3;

tokio::task_local! {
    /// When the calls of the current task end at the latest.
    static END: Instant;
}

/// Does `work`, whose calls of the store end by `end`: whoever gives up `work` soon after that knows why they have failed. What it
/// leaves to other tasks is not meant.
pub async fn ending_by<T>(end: Instant, work: impl Future<Output = T>) -> T {
    END.scope(end, work).await
}

/// How long whatever begins now may wait.
#[must_use]
pub fn patience() -> Duration {
    END.try_with(|end| end.saturating_duration_since(Instant::now()))
        .map_or(PATIENCE, |left| left.min(PATIENCE))
}

/// An error of which it is known whether it may be over soon.
pub(super) trait Passing: From<StoreError> {
    /// The error of the database, if it is one.
    fn of_database(&self) -> Option<&StoreError>;
}

impl Passing for StoreError {
    fn of_database(&self) -> Option<&StoreError> {
        Some(self)
    }
}

/// Runs `operation` once, within the deadline.
pub(super) async fn once<T>(
    doing: &'static str,
    operation: impl Future<Output = DriverResult<T>>,
) -> Result<T, StoreError> {
    within(DEADLINE, doing, async { operation.await.map_err(|error| StoreError::from_driver(doing, &error)) })
        .await
}

/// Runs `operation`, and retries it while its errors are transient, all within the deadline.
///
/// The operation must be idempotent: a lost reply cannot be told from a lost request.
pub(super) async fn transient<T, F, Fut>(doing: &'static str, operation: F) -> Result<T, StoreError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = DriverResult<T>>,
{
    retried(DEADLINE, u32::MAX, doing, operation).await
}

/// Like [`transient`], for what reads a whole collection: the limit is minutes.
pub(super) async fn slow<T, F, Fut>(doing: &'static str, operation: F) -> Result<T, StoreError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = DriverResult<T>>,
{
    retried(SLOW_DEADLINE, SLOW_ATTEMPTS, doing, operation).await
}

async fn retried<T, F, Fut>(
    limit: Duration,
    attempts: u32,
    doing: &'static str,
    mut operation: F,
) -> Result<T, StoreError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = DriverResult<T>>,
{
    let mut last = None;
    let result = within(limit, doing, async {
        let mut attempt = 1;
        loop {
            match operation().await {
                Ok(value) => return Ok(value),
                Err(error) if attempt < attempts && is_transient(&error) => {
                    last = Some(StoreError::from_driver(doing, &error));
                    backoff(attempt).await;
                }
                Err(error) => return Err(StoreError::from_driver(doing, &error)),
            }
            attempt += 1;
        }
    })
    .await;
    match result {
        // The error of the last attempt says more than that the time is over.
        Err(StoreError::TimedOut { doing, after }) => {
            Err(last.unwrap_or(StoreError::TimedOut { doing, after }))
        }
        result => result,
    }
}

/// Makes attempts within the deadline of each, while the database is away or too slow, until the patience is over.
///
/// An attempt must be safe to repeat.
pub(super) async fn patiently<T, E, F, Fut>(doing: &'static str, mut attempt: F) -> Result<T, E>
where
    E: Passing,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    patiently_until(doing, |_| attempt()).await
}

/// The same; each attempt is told when it is given up.
pub(super) async fn patiently_until<T, E, F, Fut>(doing: &'static str, mut attempt: F) -> Result<T, E>
where
    E: Passing,
    F: FnMut(tokio::time::Instant) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let (started, patience) = (Instant::now(), patience());
    let (mut number, mut last) = (0, None);
    loop {
        number += 1;
        let limit = DEADLINE.min(patience.saturating_sub(started.elapsed()));
        let error = match within(limit, doing, attempt(tokio::time::Instant::now() + limit)).await {
            Err(error) if error.of_database().is_some_and(StoreError::is_passing) => error,
            result => return result,
        };
        if started.elapsed() >= patience {
            // An attempt that was cut short says less than the one before it.
            return Err(if limit < DEADLINE { last.unwrap_or(error) } else { error });
        }
        last = Some(error);
        backoff(number).await;
    }
}

/// One operation of the driver, patiently: each attempt is [`transient`].
pub(super) async fn patiently_transient<T, F, Fut>(doing: &'static str, operation: F) -> Result<T, StoreError>
where
    F: Fn() -> Fut,
    Fut: Future<Output = DriverResult<T>>,
{
    patiently(doing, || transient(doing, &operation)).await
}

/// Runs `work` with a time limit, as a span of the current trace.
///
/// The driver panics at some answers that no honest server gives, and passes the panic of a task of its own on to whoever
/// waits for that: here it becomes an error. What `work` leaves behind is dropped, as when its time is over.
pub(super) async fn within<T, E: From<StoreError>>(
    limit: Duration,
    doing: &'static str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let work = AssertUnwindSafe(work).catch_unwind();
    match timeout(limit, work).instrument(traces::step(doing)).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => {
            let detail = "the driver panicked at an answer; the log has its message".to_owned();
            Err(StoreError::Failed { doing, detail }.into())
        }
        Err(_) => Err(StoreError::TimedOut { doing, after: limit }.into()),
    }
}

/// Waits before the next attempt, with exponential backoff and full jitter, so that writers that collided once do
/// not collide again.
pub(super) async fn backoff(attempt: u32) {
    let max = 8_u64 << attempt.min(6);
    sleep(Duration::from_millis(fastrand::u64(1..=max))).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_ends_by_the_end_of_the_work_that_it_is_part_of() {
        let end = Instant::now() + Duration::from_millis(300);
        let away = || async {
            sleep(Duration::from_millis(20)).await;
            Err::<(), _>(StoreError::Unavailable { doing: "asking", detail: "it is away".into() })
        };
        let error = ending_by(end, patiently("asking", away)).await.unwrap_err();
        assert!(error.to_string().contains("it is away"), "{error}");
        assert!((end..end + PATIENCE / 2).contains(&Instant::now()));
        assert_eq!(patience(), PATIENCE);
    }

    #[tokio::test]
    async fn a_panic_of_the_driver_is_an_error() {
        let text = String::from("x");
        let work = async { Ok::<_, StoreError>(text.split_at(9).0.len()) };
        let error = within(DEADLINE, "asking", work).await.unwrap_err();
        assert!(error.to_string().contains("the driver panicked at an answer"), "{error}");
    }
}
