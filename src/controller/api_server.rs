//! Requests to the API server: each is bounded in time, counted, and sent by the leader only if it writes.

use std::time::Duration;

use futures::{FutureExt, future::BoxFuture};
use kube::{Client, api::PatchParams};
use thiserror::Error;
use tokio::sync::Semaphore;

use super::metrics::Metrics;
use crate::{
    crd::{CONTROLLER_MANAGER, Reason},
    runtime::lease::Leadership,
};

/// The timeout of one request. Without it, kube's own retries could go on for minutes.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// How the controller applies an object. Of fields that are unknown or given twice there is nothing to be told, since what is
/// sent is made from types; and to look for them, the API server would parse each body a second time.
pub fn apply_params() -> PatchParams {
    PatchParams::apply(CONTROLLER_MANAGER).validation_ignore()
}

/// Why a request to the API server failed.
///
/// Its text has the API server's own words, for the administrator's log. Whoever may read a status or an event gets
/// [`Self::remedy`].
#[derive(Debug, Error)]
pub enum RequestError {
    /// The API server refused it for lack of permission.
    #[error("the operator lacks permission: {0}; check the chart's RBAC rules")]
    Forbidden(String),
    /// A ResourceQuota has no room for it.
    #[error("a ResourceQuota is exceeded: {0}")]
    QuotaExceeded(String),
    /// An admission plugin, webhook or policy refused it.
    #[error("admission denied it: {0}")]
    Denied(String),
    /// No response in time.
    #[error("the API server did not answer within {} s", REQUEST_TIMEOUT.as_secs())]
    Timeout,
    /// The API server refused it for another reason.
    #[error("the API server answered {code}: {message}")]
    Refused {
        /// The HTTP status code.
        code: u16,
        /// The API server's own words.
        message: String,
    },
    /// This process is not the leader, and so may not write.
    #[error("this controller does not lead any more")]
    NotLeading,
    /// The request did not get through.
    #[error("the API server cannot be reached: {0}")]
    Unreachable(#[source] kube::Error),
}

impl RequestError {
    /// The reason for a failed write.
    pub fn write_reason(&self) -> Reason {
        self.reason_or(Reason::ApplyFailed)
    }

    /// The reason for a failed read.
    pub fn read_reason(&self) -> Reason {
        self.reason_or(Reason::ReadFailed)
    }

    fn reason_or(&self, otherwise: Reason) -> Reason {
        match self {
            Self::Forbidden(_) => Reason::Forbidden,
            Self::QuotaExceeded(_)
            | Self::Denied(_)
            | Self::Timeout
            | Self::Refused { .. }
            | Self::NotLeading
            | Self::Unreachable(_) => otherwise,
        }
    }

    /// What is wrong and what to do about it, for whoever may read a status or an event but not the administrator's log.
    ///
    /// It has none of the API server's words: they name accounts, addresses and webhooks that are nobody's business in
    /// the namespace.
    pub fn remedy(&self) -> String {
        match self {
            Self::Forbidden(_) => {
                "the operator lacks permission; have its administrator restore the chart's RBAC \
                 rules"
                    .into()
            }
            Self::QuotaExceeded(_) => {
                "it would exceed a ResourceQuota of this namespace (see kubectl describe resourcequota); delete \
                 what is not needed, or have the quota raised"
                    .into()
            }
            Self::Denied(_) => {
                "an admission policy or webhook denies it; to see its reason, kubectl apply the output of \
                 `orders-operator render`, or ask the administrator for the operator's log"
                    .into()
            }
            Self::Refused { code, .. } => {
                format!(
                    "the API server rejects it (code {code}); the operator retries, and its log has the reason"
                )
            }
            Self::Unreachable(_) => {
                "the API server cannot be reached; the operator retries, and its log has the reason".into()
            }
            Self::Timeout | Self::NotLeading => self.to_string(),
        }
    }

    /// Classifies the API server's refusal.
    fn refused(code: u16, message: String) -> Self {
        // After the name of the object, if it has one.
        let (_, words) = message.split_once(" is forbidden: ").unwrap_or(("", &message));
        if words.starts_with("exceeded quota: ") || words.starts_with("failed quota: ") {
            return Self::QuotaExceeded(message);
        }
        // A webhook may choose any code.
        if words.starts_with("admission webhook \"") || words.starts_with("ValidatingAdmissionPolicy '") {
            return Self::Denied(message);
        }
        match code {
            // The second is what OwnerReferencesPermissionEnforcement says; other plugins judge the object.
            403 if message.contains("User \"") || words.starts_with("cannot set ") => {
                Self::Forbidden(message)
            }
            403 => Self::Denied(message),
            _ => Self::Refused { code, message },
        }
    }
}

/// A request, boxed at once: kube's futures are several kB each, and a reconcile that held all of its requests inline
/// would be 85 kB, copied each time that it is moved.
type Request<'a, T> = BoxFuture<'a, Result<T, RequestError>>;

/// The API server as the controller uses it.
pub struct ApiServer {
    /// The client; requests go through [`Self::read`] and [`Self::write`], watches use it directly.
    pub client: Client,
    /// Whether this process is the leader.
    pub leadership: Leadership,
    metrics: Metrics,
    slots: Semaphore,
}

impl ApiServer {
    /// At most `concurrency` requests are in flight at the same time.
    pub fn new(client: Client, leadership: Leadership, metrics: Metrics, concurrency: usize) -> Self {
        Self { client, leadership, metrics, slots: Semaphore::new(concurrency) }
    }

    /// Sends a request that changes nothing.
    ///
    /// # Errors
    /// Any but [`RequestError::NotLeading`].
    pub fn read<'a, T>(
        &'a self,
        kind: &'static str,
        verb: &'static str,
        request: impl Future<Output = kube::Result<T>> + Send + 'a,
    ) -> Request<'a, T> {
        let read = async move {
            // The semaphore is never closed; if it were, one request too many would do no harm.
            let _slot = self.slots.acquire().await;
            self.metrics.request_sent(kind, verb);
            bounded(request).await
        };
        read.boxed()
    }

    /// As [`Self::write`], for what nobody tries again later: it is sent again a few times where the API server is too busy,
    /// each time only if this process still leads.
    ///
    /// # Errors
    /// Any.
    pub async fn write_again<T, R: Future<Output = kube::Result<T>> + Send>(
        &self,
        kind: &'static str,
        verb: &'static str,
        request: impl Fn() -> R,
    ) -> Result<T, RequestError> {
        for pause in [250, 500, 1000] {
            match self.write(kind, verb, request()).await {
                Err(RequestError::Refused { code: 429 | 503 | 504, .. }) => {}
                result => return result,
            }
            tokio::time::sleep(Duration::from_millis(pause).mul_f64(0.5 + fastrand::f64())).await;
        }
        self.write(kind, verb, request()).await
    }

    /// Sends a request that changes something, if this process is the leader.
    ///
    /// # Errors
    /// Any.
    pub fn write<'a, T>(
        &'a self,
        kind: &'static str,
        verb: &'static str,
        request: impl Future<Output = kube::Result<T>> + Send + 'a,
    ) -> Request<'a, T> {
        let write = async move {
            let _slot = self.slots.acquire().await;
            if !self.leadership.may_write() {
                return Err(RequestError::NotLeading);
            }
            self.metrics.request_sent(kind, verb);
            bounded(request).await
        };
        write.boxed()
    }
}

/// Bounds a request in time, and classifies its failure.
async fn bounded<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, RequestError> {
    match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Err(_) => Err(RequestError::Timeout),
        Ok(Ok(response)) => Ok(response),
        Ok(Err(kube::Error::Api(status))) => Err(RequestError::refused(status.code, status.message)),
        Ok(Err(error)) => Err(RequestError::Unreachable(error)),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::{Api, Config, config::AuthInfo};
    use tokio::{net::TcpListener, time::Instant};

    use super::*;

    /// A client of an API server that accepts connections, and never answers.
    async fn silent_api_server() -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((connection, _)) = listener.accept().await {
                held.push(connection);
            }
        });
        let mut config = Config::new(url);
        (config.auth_info, config.read_timeout) = (AuthInfo::default(), None);
        Client::try_from(config).unwrap()
    }

    #[test]
    fn a_refusal_has_its_kind_and_its_words_are_for_the_log_only() {
        let rbac =
            "services \"x\" is forbidden: User \"system:serviceaccount:ops:hunter2\" cannot patch resource";
        let plugin =
            "services \"x\" is forbidden: cannot set an ownerRef on a resource you can't delete: hunter2";
        let quota = "services \"x\" is forbidden: exceeded quota: hunter2, requested: services=1";
        let policy = "services \"x\" is forbidden: ValidatingAdmissionPolicy 'hunter2' with binding 'b' denied request: no";
        let webhook = "admission webhook \"hunter2.svc\" denied the request: no";
        let limit = "pods \"x\" is forbidden: maximum cpu usage per hunter2 is 1";
        let away = "Internal error occurred: failed calling webhook \"hunter2\": dial tcp 10.0.0.1:443: connect: refused";
        for (code, words, kind) in [
            (403, rbac, "Forbidden"),
            (403, plugin, "Forbidden"),
            (403, quota, "QuotaExceeded"),
            (422, policy, "Denied"),
            (403, webhook, "Denied"),
            (409, webhook, "Denied"),
            (403, limit, "Denied"),
            (500, away, "Refused"),
        ] {
            let error = RequestError::refused(code, words.to_owned());
            assert!(format!("{error:?}").starts_with(kind), "{error:?}");
            assert!(error.to_string().contains("hunter2"), "{error}");
            let remedy = error.remedy();
            assert!(!remedy.contains("hunter2") && !remedy.contains("10.0.0.1"), "{remedy}");
            assert_eq!(error.write_reason() == Reason::Forbidden, kind == "Forbidden");
        }
        let unreachable = RequestError::Unreachable(kube::Error::Service("hunter2".into()));
        assert!(unreachable.to_string().contains("hunter2") && !unreachable.remedy().contains("hunter2"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_tries_again_later_is_sent_again_where_the_api_server_is_too_busy() {
        let metrics = Metrics::register(&mut prometheus_client::registry::Registry::default());
        let server = ApiServer::new(silent_api_server().await, Leadership::alone(), metrics, 1);
        let refused = |code| kube::Error::Api(Box::new(kube::core::Status { code, ..Default::default() }));
        for (codes, expected_requests, is_written) in [
            (&[429, 503][..], 3, true),
            (&[429, 429, 504, 429], 4, false),
            (&[500], 1, false),
            (&[], 1, true),
        ] {
            let asked = std::cell::Cell::new(0);
            let request = || {
                let code = codes.get(asked.replace(asked.get() + 1)).copied();
                std::future::ready(code.map_or(Ok(()), |code| Err(refused(code))))
            };
            let written = server.write_again("Event", "create", request).await;
            assert_eq!((asked.get(), written.is_ok()), (expected_requests, is_written), "{codes:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_never_answered_ends_in_time_and_gives_its_slot_back() {
        let client = silent_api_server().await;
        let metrics = Metrics::register(&mut prometheus_client::registry::Registry::default());
        let server = ApiServer::new(client.clone(), Leadership::alone(), metrics, 1);
        let objects: Api<ConfigMap> = Api::namespaced(client, "default");
        let started = Instant::now();
        let read = server.read("ConfigMap", "get", objects.get("x")).await;
        assert!(matches!(read, Err(RequestError::Timeout)), "{read:?}");
        assert_eq!(started.elapsed().as_secs(), REQUEST_TIMEOUT.as_secs());
        let written = server.write("ConfigMap", "delete", objects.delete("x", &Default::default())).await;
        assert!(matches!(written, Err(RequestError::Timeout)), "{written:?}");
        assert_eq!(started.elapsed().as_secs(), 2 * REQUEST_TIMEOUT.as_secs());
    }
}
