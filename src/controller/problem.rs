//! What is wrong with an OrdersService, as its conditions and events say it; and calls to the API
//! server, which may be what is wrong.

use std::{fmt, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use kube::Client;
use thiserror::Error;
use tokio::sync::Semaphore;

use super::metrics::Metrics;
use crate::{crd::Reason, runtime::lease::Leadership};

/// The longest that one call to the API server may take. kube's own retries alone could last for minutes.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// One problem: a category for machines, and a message that says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The category: condition reason, event reason and metric label.
    pub reason: Reason,
    /// What is wrong, with which value, and what to do.
    pub message: String,
}

impl Problem {
    /// A problem of a category.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.reason.as_str(), self.message)
    }
}

/// Why a call to the API server failed.
#[derive(Debug, Error)]
pub enum CallError {
    /// The API server refused it for lack of permission.
    #[error("the operator is not allowed to: {0}; check the chart's RBAC rules")]
    Forbidden(String),
    /// No answer in time.
    #[error("the API server did not answer within {} s", CALL_TIMEOUT.as_secs())]
    Timeout,
    /// The API server refused it for another reason.
    #[error("the API server answered {code}: {message}")]
    Refused {
        /// The HTTP status code.
        code: u16,
        /// The API server's own words.
        message: String,
    },
    /// This process does not lead, and so may not write.
    #[error("this controller does not lead any more")]
    NotLeading,
    /// The call did not come through.
    #[error("the API server cannot be reached: {0}")]
    Failed(#[source] kube::Error),
}

impl CallError {
    /// The category of the problem that this failure is.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Forbidden(_) => Reason::Forbidden,
            Self::Timeout | Self::Refused { .. } | Self::NotLeading | Self::Failed(_) => Reason::ApplyFailed,
        }
    }
}

/// A call to the API server, boxed at once: kube's are of some kB each, and a reconcile that had all of its calls
/// within itself came to 85 kB, which were copied whenever it was passed on.
type Call<'a, T> = BoxFuture<'a, Result<T, CallError>>;

/// Bounds a call to the API server in time and sorts its failure.
///
/// # Errors
/// Those of the call, and [`CallError::Timeout`].
async fn call<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, CallError> {
    match tokio::time::timeout(CALL_TIMEOUT, request).await {
        Err(_) => Err(CallError::Timeout),
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) if status.code == 403 => Err(CallError::Forbidden(status.message)),
        Ok(Err(kube::Error::Api(status))) => {
            Err(CallError::Refused { code: status.code, message: status.message })
        }
        Ok(Err(error)) => Err(CallError::Failed(error)),
    }
}

/// The API server, which only the leading controller writes to. Every request is counted.
pub struct Cluster {
    /// The client; requests go through [`Self::read`] and [`Self::write`].
    pub client: Client,
    /// Whether this process leads.
    pub leadership: Leadership,
    /// Counts.
    pub metrics: Metrics,
    calls: Semaphore,
}

impl Cluster {
    /// At most so many `calls` are under way at the same time.
    pub fn new(client: Client, leadership: Leadership, metrics: Metrics, calls: usize) -> Self {
        Self { client, leadership, metrics, calls: Semaphore::new(calls) }
    }

    /// [`call`] for a request that changes nothing.
    ///
    /// # Errors
    /// Those of the call.
    pub fn read<'a, T>(
        &'a self,
        kind: &'static str,
        verb: &'static str,
        request: impl Future<Output = kube::Result<T>> + Send + 'a,
    ) -> Call<'a, T> {
        let read = async move {
            // It is never closed; were it, one more call would do no harm.
            let _turn = self.calls.acquire().await;
            self.metrics.requested(kind, verb);
            call(request).await
        };
        read.boxed()
    }

    /// [`call`] for a request that changes something.
    ///
    /// # Errors
    /// Those of the call, and [`CallError::NotLeading`].
    pub fn write<'a, T>(
        &'a self,
        kind: &'static str,
        verb: &'static str,
        request: impl Future<Output = kube::Result<T>> + Send + 'a,
    ) -> Call<'a, T> {
        let write = async move {
            let _turn = self.calls.acquire().await;
            if !self.leadership.may_write() {
                return Err(CallError::NotLeading);
            }
            self.metrics.requested(kind, verb);
            call(request).await
        };
        write.boxed()
    }
}
