//! Bounds every call to the database in time, and tries again what a rival or a failover disturbed.

use std::time::Duration;

use mongodb::error::Result as DriverResult;
use tokio::time::{sleep, timeout};
use tracing::Instrument;

use super::error::{StoreError, is_transient};
use crate::runtime::traces;

/// How long any call of the store takes at most, its retries included.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// How often a disturbed write is attempted at most; the deadline may come first.
const ATTEMPTS: u32 = 8;

/// How often a conditional write is tried when the order changed between the write and the read that explains it.
pub(super) const ROUNDS: u32 = 3;

/// Runs `operation` once, within the deadline.
pub(super) async fn once<T>(
    doing: &'static str,
    operation: impl Future<Output = DriverResult<T>>,
) -> Result<T, StoreError> {
    within(DEADLINE, doing, async { operation.await.map_err(|error| StoreError::from_driver(doing, &error)) })
        .await
}

/// Runs `operation`, and again while its errors are transient, within the deadline in all.
///
/// The operation must be harmless when it is repeated, for a lost reply looks like a lost request.
pub(super) async fn transient<T, F, Fut>(doing: &'static str, mut operation: F) -> Result<T, StoreError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = DriverResult<T>>,
{
    within(DEADLINE, doing, async {
        let mut attempt = 1;
        loop {
            match operation().await {
                Ok(value) => return Ok(value),
                Err(error) if again(is_transient(&error), attempt) => pause(attempt).await,
                Err(error) => return Err(StoreError::from_driver(doing, &error)),
            }
            attempt += 1;
        }
    })
    .await
}

/// Bounds anything that calls the store by `limit`; it is a step of whatever trace it is part of.
pub(super) async fn within<T, E: From<StoreError>>(
    limit: Duration,
    doing: &'static str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    match timeout(limit, work).instrument(traces::step(doing)).await {
        Ok(result) => result,
        Err(_) => Err(StoreError::TimedOut { doing, after: limit }.into()),
    }
}

/// Whether attempt number `attempt`, whose failure was transient or not, should be followed by another.
pub(super) fn again(is_transient: bool, attempt: u32) -> bool {
    attempt < ATTEMPTS && is_transient
}

/// Waits before the next attempt, with full jitter: rivals that collided once must not collide in step.
pub(super) async fn pause(attempt: u32) {
    let most = 8_u64 << attempt.min(6);
    sleep(Duration::from_millis(fastrand::u64(1..=most))).await;
}
