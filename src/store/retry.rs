//! The deadline of every call to the database, and retries after transient errors.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt;
use mongodb::error::Result as DriverResult;
use tokio::time::{sleep, timeout};
use tracing::Instrument;

use super::error::{StoreError, is_transient};
use crate::runtime::traces;

/// The longest that any call of the store takes, retries included.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// The longest that one query of a whole collection takes.
const SLOW_DEADLINE: Duration = Duration::from_secs(600);

/// The most attempts of one operation; the deadline may end it earlier.
const MAX_ATTEMPTS: u32 = 8;

/// How often a conditional write that did not match is repeated when reading the order shows no reason for it.
pub(super) const ROUNDS: u32 = 3;

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
    retried(DEADLINE, doing, operation).await
}

async fn retried<T, F, Fut>(limit: Duration, doing: &'static str, mut operation: F) -> Result<T, StoreError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = DriverResult<T>>,
{
    within(limit, doing, async {
        let mut attempt = 1;
        loop {
            match operation().await {
                Ok(value) => return Ok(value),
                Err(error) if should_retry(is_transient(&error), attempt) => backoff(attempt).await,
                Err(error) => return Err(StoreError::from_driver(doing, &error)),
            }
            attempt += 1;
        }
    })
    .await
}

/// Like [`transient`], for what reads a whole collection: the limit is minutes.
pub(super) async fn slow<T, F, Fut>(doing: &'static str, operation: F) -> Result<T, StoreError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = DriverResult<T>>,
{
    retried(SLOW_DEADLINE, doing, operation).await
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

/// Whether to make another attempt after attempt number `attempt` has failed.
pub(super) fn should_retry(is_transient: bool, attempt: u32) -> bool {
    attempt < MAX_ATTEMPTS && is_transient
}

/// Waits before the next attempt, with exponential backoff and full jitter, so that writers that collided once do
/// not collide again.
pub(super) async fn backoff(attempt: u32) {
    let max = 8_u64 << attempt.min(6);
    sleep(Duration::from_millis(fastrand::u64(1..=max))).await;
}
