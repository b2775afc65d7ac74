//! The `serve` subcommand: from the command line to a process that ends well.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::Router;
use clap::Args;
use prometheus_client::registry::Registry;
use thiserror::Error;
use tokio::{net::TcpListener, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    Api,
    connections::{self, Ending},
    database::Database,
    metrics::Metrics,
    routes,
    session::Sessions,
};
use crate::{
    order::{ReservationTerms, ReservationWindow},
    runtime::{
        admin::{self, Health, Readiness},
        on_signal,
        telemetry::LogArgs,
    },
    store::{ConnectOptions, StoreError},
};

/// How long requests that are in flight may still take once no new ones are accepted: their own
/// deadline, and a little for the last bytes.
const FINISH: Duration = Duration::from_secs(12);

/// Serves the orders HTTP API
#[derive(Args, Clone)]
pub struct ServeArgs {
    /// The key that the auth service signs sessions with (required)
    #[arg(long, env = "JWT_KEY", hide_env_values = true)]
    pub jwt_key: Option<String>,

    /// Where the orders are: mongodb://HOST/DATABASE (required)
    #[arg(long, env = "MONGO_URI", hide_env_values = true)]
    pub mongo_uri: Option<String>,

    /// The database's name [default: the URI's, else "orders"]
    #[arg(long, env = "MONGO_DATABASE")]
    pub database: Option<String>,

    /// How long a new order may be paid for, in seconds: 1 to 604800
    #[arg(long, env = "EXPIRATION_WINDOW_SECONDS", value_name = "SECONDS", default_value_t)]
    pub expiration_window_seconds: ReservationWindow,

    /// How much longer an order keeps its ticket once its payment has begun, in seconds; what the sweeper allows
    #[arg(long, env = "PAYMENT_GRACE_SECONDS", value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=604_800))]
    pub payment_grace_seconds: u32,

    /// The address to listen on, for the API and for the admin endpoints
    #[arg(long, env = "LISTEN_ADDRESS", default_value = "0.0.0.0")]
    pub address: IpAddr,

    /// The API's port
    #[arg(long, env = "PORT", default_value_t = 3000)]
    pub port: u16,

    /// The port of /livez, /readyz and /metrics
    #[arg(long, env = "ADMIN_PORT", default_value_t = 8081)]
    pub admin_port: u16,

    /// How long to go on accepting requests after SIGTERM, not ready, so that they are routed elsewhere first
    #[arg(long, env = "DRAIN_SECONDS", value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=3600))]
    pub drain_seconds: u32,

    /// How log lines are written
    #[command(flatten)]
    pub log: LogArgs,
}

/// Why the process ends other than by a signal.
#[derive(Debug, Error)]
pub enum ServeError {
    /// A required setting is missing or empty.
    #[error("{name} is not set: give {what} in the environment, or by {flag}")]
    Missing {
        /// The environment variable.
        name: &'static str,
        /// The flag.
        flag: &'static str,
        /// What it is for.
        what: &'static str,
    },
    /// The database's settings cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A port cannot be listened on, or a listener failed; the message says which.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl ServeError {
    /// 2 for what the command line or the environment has wrong, 1 for everything else.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Missing { .. } => 2,
            Self::Store(error) if error.is_misconfigured() => 2,
            Self::Store(_) | Self::Io(_) => 1,
        }
    }
}

/// Serves until SIGTERM or SIGINT: then it says that it is not ready, goes on for the drain, lets
/// what is in flight finish, and returns.
///
/// The database need not be there: the process is ready once it is, and again whenever it comes back.
///
/// # Errors
/// When a setting is missing or not usable, or a port is taken.
pub async fn serve(args: ServeArgs) -> Result<(), ServeError> {
    let jwt_key =
        required(args.jwt_key.as_deref(), "JWT_KEY", "--jwt-key", "the key that signs the sessions")?;
    let uri =
        required(args.mongo_uri.as_deref(), "MONGO_URI", "--mongo-uri", "the database's connection string")?;
    let connect = ConnectOptions { uri, database: args.database.as_deref(), namespace: None };
    // What is wrong with the URI itself is said at once and not after the first attempt.
    connect.target()?;

    let shutdown = on_signal()?;
    let (health, mut registry, database) = (Health::default(), Registry::default(), Database::default());
    let (serving, reachable) = (health.readiness("serving"), health.readiness("database"));
    let api = Api {
        database: database.clone(),
        sessions: Sessions::new(jwt_key),
        metrics: Metrics::new(&mut registry),
        terms: ReservationTerms {
            window: args.expiration_window_seconds,
            payment_grace: Duration::from_secs(args.payment_grace_seconds.into()),
        },
    };
    let listener = admin::bind(SocketAddr::new(args.address, args.port)).await?;
    tracing::info!(address = %listener.local_addr()?, "serving the orders API");
    serving.set(Ok(()));

    // The admin endpoints outlive the API, so that probes see the drain to its end.
    let admin_stop = CancellationToken::new();
    let admin = admin::serve(
        SocketAddr::new(args.address, args.admin_port),
        health,
        Arc::new(registry),
        admin_stop.clone(),
    );
    let api = async {
        until_drained(listener, routes(api), shutdown, serving, args.drain_seconds).await;
        admin_stop.cancel();
        Ok(())
    };
    tokio::select! {
        result = async { tokio::try_join!(api, admin) } => { result?; }
        error = database.keep(connect, reachable) => return Err(error.into()),
    }
    tracing::info!("drained; ending");
    Ok(())
}

/// Serves until `shutdown`; then, not ready, for the drain; then until what is in flight is finished.
async fn until_drained(
    listener: TcpListener,
    routes: Router,
    shutdown: CancellationToken,
    serving: Readiness,
    drain_seconds: u32,
) {
    let ending = Ending::default();
    let server = connections::serve(listener, routes, ending.clone());
    let steps = async {
        shutdown.cancelled().await;
        serving.set(Err("shutting down".into()));
        ending.draining.cancel();
        sleep(Duration::from_secs(drain_seconds.into())).await;
        ending.closing.cancel();
        sleep(FINISH).await;
    };
    tokio::select! {
        () = server => {}
        () = steps => tracing::warn!(
            seconds = FINISH.as_secs(),
            "some clients did not take their answers; ending without them"
        ),
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
