//! The admin server: `/livez`, `/readyz` and `/metrics` on a separate port.
//!
//! It is the first thing to start, so that probes are answered from the beginning. `/readyz` fails until every declared
//! condition holds; `/livez` fails only if a declared heartbeat has stopped.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::server::{self, GracefulStop, Limits, ServerMetrics};

/// The readiness and liveness of the process. Clones share one state.
#[derive(Clone, Default)]
pub struct Health(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    conditions: BTreeMap<&'static str, Result<(), String>>,
    heartbeats: BTreeMap<&'static str, (Instant, Duration)>,
}

impl Health {
    /// Declares a condition that must hold before the process is ready. It does not hold until the first
    /// [`Readiness::set`].
    pub fn readiness(&self, name: &'static str) -> Readiness {
        let readiness = Readiness { health: self.clone(), name };
        readiness.set(Err("not yet known".into()));
        readiness
    }

    /// Declares a loop that must iterate at least every `limit`; if it does not, the process is not alive.
    pub fn heartbeat(&self, name: &'static str, limit: Duration) -> Heartbeat {
        let heartbeat = Heartbeat { health: self.clone(), name, limit };
        heartbeat.beat();
        heartbeat
    }

    /// Whether every readiness condition holds.
    pub fn is_ready(&self) -> bool {
        self.lock().conditions.values().all(Result::is_ok)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while holding the lock, and if it did, the data would still be consistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn readyz(&self) -> Response {
        let state = self.lock();
        report(state.conditions.iter().map(|(name, condition)| (*name, condition.clone())))
    }

    /// The response of `/livez`.
    pub(crate) fn livez(&self) -> Response {
        let state = self.lock();
        report(state.heartbeats.iter().map(|(name, (last, limit))| {
            let silent = last.elapsed();
            let alive = if silent <= *limit {
                Ok(())
            } else {
                Err(format!(
                    "no heartbeat for {} s; expected one at least every {} s",
                    silent.as_secs(),
                    limit.as_secs()
                ))
            };
            (*name, alive)
        }))
    }
}

/// One readiness condition of a [`Health`].
#[derive(Clone)]
pub struct Readiness {
    health: Health,
    name: &'static str,
}

impl Readiness {
    /// Sets that the condition holds, or why it does not.
    pub fn set(&self, condition: Result<(), String>) {
        self.health.lock().conditions.insert(self.name, condition);
    }
}

/// The heartbeat of one loop of a [`Health`].
#[derive(Clone)]
pub struct Heartbeat {
    health: Health,
    name: &'static str,
    limit: Duration,
}

impl Heartbeat {
    /// Records that the loop has iterated.
    pub fn beat(&self) {
        self.health.lock().heartbeats.insert(self.name, (Instant::now(), self.limit));
    }
}

/// One line per check, in the format of the API server's own `/readyz?verbose`.
fn report(checks: impl Iterator<Item = (&'static str, Result<(), String>)>) -> Response {
    let mut status = StatusCode::OK;
    let mut body = String::new();
    for (name, check) in checks {
        match check {
            Ok(()) => body.push_str(&format!("[+]{name} ok\n")),
            Err(why) => {
                status = StatusCode::SERVICE_UNAVAILABLE;
                body.push_str(&format!("[-]{name}: {why}\n"));
            }
        }
    }
    let _ = writeln!(body, "{}", if status == StatusCode::OK { "ok" } else { "failed" });
    (status, body).into_response()
}

/// How long the last answers may take after the shutdown.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Serves the admin endpoints until `shutdown`; requests in flight are still answered.
///
/// # Errors
/// When `address` cannot be bound; the message names it.
pub async fn serve(
    address: SocketAddr,
    health: Health,
    metrics: Arc<Registry>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let listener = server::listen(address)?;
    tracing::info!(address = %listener.local_addr()?, "serving the admin endpoints");
    let (live, ready) = (health.clone(), health);
    let router = Router::new()
        .route("/livez", get(move || async move { live.livez() }))
        .route("/readyz", get(move || async move { ready.readyz() }))
        .route("/metrics", get(move || async move { metrics_page(&metrics) }));
    let stop = GracefulStop { closing: shutdown.clone(), ..GracefulStop::default() };
    let serving = server::serve(listener, router, Limits::admin(), ServerMetrics::default(), stop);
    let too_late = async {
        shutdown.cancelled().await;
        sleep(SHUTDOWN_TIMEOUT).await;
    };
    tokio::select! {
        () = serving => {}
        () = too_late => tracing::debug!("a client of the admin endpoints was not waited for"),
    }
    Ok(())
}

fn metrics_page(metrics: &Registry) -> Response {
    let mut page = String::new();
    match encode(&mut page, metrics) {
        Ok(()) => {
            ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], page)
                .into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn not_ready_until_every_condition_holds() {
        let health = Health::default();
        let (database, cache) = (health.readiness("database"), health.readiness("cache"));
        assert_eq!(health.readyz().status(), StatusCode::SERVICE_UNAVAILABLE);
        database.set(Ok(()));
        assert!(!health.is_ready());
        cache.set(Ok(()));
        assert_eq!(health.readyz().status(), StatusCode::OK);
        cache.set(Err("lost".into()));
        assert_eq!(health.readyz().status(), StatusCode::SERVICE_UNAVAILABLE);
    }

    #[test]
    fn a_stopped_loop_fails_liveness_and_an_idle_process_does_not() {
        let health = Health::default();
        assert_eq!(health.livez().status(), StatusCode::OK);
        let _stuck = health.heartbeat("loop", Duration::ZERO);
        assert_eq!(health.livez().status(), StatusCode::SERVICE_UNAVAILABLE);
        health.heartbeat("loop", Duration::from_secs(3600)).beat();
        assert_eq!(health.livez().status(), StatusCode::OK);
    }
}
