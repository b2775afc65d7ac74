//! The `serve` subcommand: its arguments, start-up and graceful shutdown.

use std::{io, pin::pin, sync::Arc, time::Duration};

use clap::Args;
use futures::FutureExt;
use prometheus_client::registry::Registry;
use thiserror::Error;
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    base_path::BasePath,
    budget::{self, Budget},
    database::Database,
    metrics::Metrics,
    openapi,
    reading::Reading,
    router::routes,
    session::Sessions,
    state::ApiState,
};
use crate::{
    events::{self, Events, EventsArgs, InvalidSettings},
    order::{ReservationTerms, ReservationWindow},
    runtime::{
        Resources,
        admin::{self, Health, Readiness},
        on_signal, process_stats,
        server::{self, GracefulStop, Limits, ListenArgs},
        telemetry::LogArgs,
    },
    store::{ConnectOptions, StoreError, TlsArgs},
};

/// For how long no request must have come when the drain ends.
const QUIET: Duration = Duration::from_secs(1);

/// How much longer the drain may take where requests go on coming: what sends them has not noticed yet.
const OVERTIME: Duration = Duration::from_secs(6);

/// How long requests in flight may take once no new ones are accepted: their deadline, and a little longer for the
/// last bytes.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(12);

/// How long the events of the last requests may take.
const RELAY_TIMEOUT: Duration = Duration::from_secs(4);

/// Serves the orders HTTP API
#[derive(Args, Clone)]
pub struct ServeArgs {
    /// Key that the auth service signs sessions with (required)
    #[arg(long, env = "JWT_KEY", hide_env_values = true)]
    pub jwt_key: Option<String>,

    /// Connection string of the database: mongodb://HOST/DATABASE (required)
    #[arg(long, env = "MONGO_URI", hide_env_values = true)]
    pub mongo_uri: Option<String>,

    /// Name of the database [default: the one in the URI, or "orders"]
    #[arg(long, env = "MONGO_DATABASE")]
    pub database: Option<String>,

    /// TLS to the database
    #[command(flatten)]
    pub tls: TlsArgs,

    /// How long a reservation lasts unless it is paid for, in seconds: 1 to 604800
    #[arg(long, env = "EXPIRATION_WINDOW_SECONDS", value_name = "SECONDS", default_value_t)]
    pub expiration_window_seconds: ReservationWindow,

    /// How much longer an order keeps its ticket once its payment has begun, in seconds; the same as the sweeper's
    #[arg(long, env = "PAYMENT_GRACE_SECONDS", value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=604_800))]
    pub payment_grace_seconds: u32,

    /// Events
    #[command(flatten)]
    pub events: EventsArgs,

    /// Where the ports are opened
    #[command(flatten)]
    pub listen: ListenArgs,

    /// Port of the API
    #[arg(long, env = "PORT", default_value_t = 3000)]
    pub port: u16,

    /// Path under which the API is served
    #[arg(long, env = "BASE_PATH", value_name = "PATH", default_value_t)]
    pub base_path: BasePath,

    /// Port of /livez, /readyz and /metrics
    #[arg(long, env = "ADMIN_PORT", default_value_t = 8081)]
    pub admin_port: u16,

    /// How long to keep accepting requests after SIGTERM, in seconds, while /readyz fails so that traffic moves elsewhere; above 0, up to 6 seconds longer while requests come
    #[arg(long, env = "DRAIN_SECONDS", value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=3600))]
    pub drain_seconds: u32,

    /// Logging
    #[command(flatten)]
    pub log: LogArgs,
}

/// Why the process exits without a signal.
#[derive(Debug, Error)]
pub enum ServeError {
    /// A required setting is missing or empty.
    #[error("{name} is not set: give {what} in the environment, or by {flag}")]
    Missing {
        /// The environment variable.
        name: &'static str,
        /// The flag.
        flag: &'static str,
        /// What the setting is.
        what: &'static str,
    },
    /// The settings of the database are invalid.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The settings of events are invalid.
    #[error(transparent)]
    Events(#[from] InvalidSettings),
    /// The task of events has ended before it was to stop, which is a bug.
    #[error("nobody publishes or consumes events any more, which is a bug: {0}")]
    EventsEnded(String),
    /// A port could not be opened, or a listener failed; the message says which.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl ServeError {
    /// The exit code: 2 for errors in the arguments or the environment, 1 for all others.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Missing { .. } | Self::Events(_) => 2,
            Self::Store(error) if error.is_misconfigured() => 2,
            Self::Store(_) | Self::EventsEnded(_) | Self::Io(_) => 1,
        }
    }
}

/// Serves until SIGTERM or SIGINT. Then it reports that it is not ready, keeps serving for the drain period and a little longer
/// while requests still come, finishes those in flight, and returns.
///
/// It starts without the database, becomes ready once the database is available, and again after each outage.
///
/// # Errors
/// When a setting is missing or invalid, or a port is in use.
pub async fn serve(args: ServeArgs) -> Result<(), ServeError> {
    let jwt_key =
        required(args.jwt_key.as_deref(), "JWT_KEY", "--jwt-key", "the key that signs the sessions")?;
    let uri =
        required(args.mongo_uri.as_deref(), "MONGO_URI", "--mongo-uri", "the database's connection string")?;
    let tls = args.tls.read()?;
    let connect =
        ConnectOptions { tls: tls.as_ref(), database: args.database.as_deref(), ..ConnectOptions::new(uri) };
    let events = args.events.settings()?;
    // An invalid URI is reported at once, before the first attempt to connect.
    for warning in connect.startup_warnings()? {
        tracing::warn!("{warning}");
    }

    let resources = Resources::claim();
    let shutdown = on_signal()?;
    let (health, mut registry, database) = (Health::default(), Registry::default(), Database::default());
    let (serving, reachable) = (health.readiness("serving"), health.readiness("database"));
    process_stats::register(&mut registry);
    let metrics = Metrics::new(&mut registry);
    let has_events = events.is_some();
    let relay = events.map(|settings| {
        let metrics = events::Metrics::register(&mut registry);
        Relay::start(Events { settings, terms: terms(&args), metrics }, database.clone())
    });
    let state = state(&args, jwt_key, budget::bytes_of(resources), &database, &metrics);
    let limits = Limits::of(resources);
    let listener = server::listen(args.listen.at(args.port))?;
    tracing::info!(
        address = %listener.local_addr()?, connections = limits.connections, open_files = resources.open_files,
        memory = resources.memory, "serving the orders API"
    );
    serving.set(Ok(()));

    // The admin endpoints outlive the API, so that probes are answered until the drain is over.
    let admin_stop = CancellationToken::new();
    let admin = admin::serve(args.listen.at(args.admin_port), health, Arc::new(registry), admin_stop.clone());
    let admin = async { admin.await.map_err(ServeError::from) };
    let api = async {
        let server = |stop| server::serve(listener, routes(state), limits, metrics.server(), stop);
        let served = serve_until_drained(server, shutdown.clone(), serving, args.drain_seconds);
        match relay {
            Some(relay) => relay.beside(served, &shutdown).await?,
            None => served.await,
        }
        admin_stop.cancel();
        Ok(())
    };
    tokio::select! {
        result = async { tokio::try_join!(api, admin) } => { result?; }
        error = database.connect_and_check(connect, has_events, reachable, metrics.clone()) => return Err(error.into()),
    }
    tracing::info!("drained; exiting");
    Ok(())
}

/// How long reservations last.
fn terms(args: &ServeArgs) -> ReservationTerms {
    ReservationTerms {
        window: args.expiration_window_seconds,
        payment_grace: Duration::from_secs(args.payment_grace_seconds.into()),
    }
}

/// What the handlers share; `bytes` is the memory that bodies and pages may take.
fn state(args: &ServeArgs, jwt_key: &str, bytes: usize, database: &Database, metrics: &Metrics) -> ApiState {
    ApiState {
        database: database.clone(),
        sessions: Sessions::new(jwt_key),
        metrics: metrics.clone(),
        budget: Budget::new(bytes),
        reading: Reading::new(bytes),
        terms: terms(args),
        pages: openapi::pages(&args.base_path),
        base: args.base_path.clone(),
    }
}

/// The task that publishes and consumes events.
struct Relay {
    task: JoinHandle<()>,
    stop: CancellationToken,
}

impl Relay {
    /// Starts it; it begins once the database is prepared.
    fn start(events: Events, database: Database) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let store = tokio::select! {
                store = database.prepared() => store,
                () = stopped.cancelled() => return,
            };
            events::run(store, events, stopped).await;
        });
        Self { task, stop }
    }

    /// Does `work` beside it, and then stops it: the last requests have made the last changes. If it ends before that, `work` is
    /// shut down: a pod whose orders nobody publishes is to be started anew.
    async fn beside(
        mut self,
        work: impl Future<Output = ()>,
        shutdown: &CancellationToken,
    ) -> Result<(), ServeError> {
        let mut work = pin!(work);
        tokio::select! {
            () = &mut work => {}
            ended = &mut self.task => {
                let why = ended.err().map_or_else(|| "it has returned".to_owned(), |error| error.to_string());
                tracing::error!(why, "the task of events has ended; shutting down");
                shutdown.cancel();
                work.await;
                return Err(ServeError::EventsEnded(why));
            }
        }
        self.stop.cancel();
        if timeout(RELAY_TIMEOUT, self.task).await.is_err() {
            tracing::warn!("some events are left to other pods");
        }
        Ok(())
    }
}

/// Serves until `shutdown`, then for the drain period while not ready, and longer while requests come; then until those in flight
/// are finished.
async fn serve_until_drained<F: Future<Output = ()>>(
    server: impl FnOnce(GracefulStop) -> F,
    shutdown: CancellationToken,
    serving: Readiness,
    drain_seconds: u32,
) {
    let stop = GracefulStop::default();
    let server = server(stop.clone());
    let deadline = async {
        shutdown.cancelled().await;
        serving.set(Err("shutting down".into()));
        stop.draining.cancel();
        if drain_seconds > 0 {
            sleep(Duration::from_secs(drain_seconds.into())).await;
            overtime(&stop.late_request).await;
        }
        stop.closing.cancel();
        sleep(SHUTDOWN_TIMEOUT).await;
    };
    tokio::select! {
        () = server => {}
        () = deadline => tracing::warn!(
            seconds = SHUTDOWN_TIMEOUT.as_secs(),
            "some requests were not finished in time; exiting without them"
        ),
    }
}

/// Waits until no request comes any more, within limits.
async fn overtime(late_request: &Notify) {
    // One that came during the drain.
    late_request.notified().now_or_never();
    let quiet = async {
        if timeout(QUIET, late_request.notified()).await.is_err() {
            return;
        }
        tracing::info!(
            "requests still arrive after the drain: continuing until a second has passed without one"
        );
        while timeout(QUIET, late_request.notified()).await.is_ok() {}
    };
    if timeout(OVERTIME, quiet).await.is_err() {
        tracing::warn!("requests still arrive, and are refused from now on: increase spec.drainSeconds");
    }
}

fn required<'a>(
    value: Option<&'a str>,
    name: &'static str,
    flag: &'static str,
    what: &'static str,
) -> Result<&'a str, ServeError> {
    value.filter(|value| !value.trim().is_empty()).ok_or(ServeError::Missing { name, flag, what })
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test]
    async fn when_the_task_of_events_panics_the_process_shuts_down_with_an_error() {
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(async { panic!("a bug") });
        let relay = Relay { task, stop: CancellationToken::new() };
        // Nobody else ends it.
        let error = relay.beside(shutdown.cancelled(), &shutdown).await.unwrap_err();
        assert!(error.exit_code() == 1 && error.to_string().contains("a bug"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_goes_on_while_requests_come_and_ends_although_they_always_do() {
        for (coming, drained) in [(0, QUIET), (3, Duration::from_secs(3) + QUIET), (3600, OVERTIME)] {
            let late_request = Arc::new(Notify::new());
            // During the drain.
            late_request.notify_one();
            let told = late_request.clone();
            tokio::spawn(async move {
                for _ in 0..coming * 2 {
                    sleep(QUIET / 2).await;
                    told.notify_one();
                }
            });
            let started = Instant::now();
            overtime(&late_request).await;
            assert_eq!(started.elapsed().as_secs(), drained.as_secs(), "for {coming} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_drain_it_ends_at_once() {
        for (drain, ended) in [(0, Duration::ZERO), (5, Duration::from_secs(5) + QUIET)] {
            let shutdown = CancellationToken::new();
            shutdown.cancel();
            let server = |stop: GracefulStop| async move { stop.closing.cancelled().await };
            let started = Instant::now();
            serve_until_drained(server, shutdown, Health::default().readiness("serving"), drain).await;
            assert_eq!(started.elapsed().as_secs(), ended.as_secs());
        }
    }

    #[tokio::test]
    async fn the_task_of_events_is_stopped_after_the_last_requests_and_waited_for() {
        let (shutdown, stop) = (CancellationToken::new(), CancellationToken::new());
        let (told, mut ended) = tokio::sync::oneshot::channel();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            stopped.cancelled().await;
            told.send(()).unwrap();
        });
        let requests = async { assert!(!stop.is_cancelled(), "it publishes what the last requests change") };
        Relay { task, stop: stop.clone() }.beside(requests, &shutdown).await.unwrap();
        ended.try_recv().unwrap();
        assert!(!shutdown.is_cancelled());
    }
}
