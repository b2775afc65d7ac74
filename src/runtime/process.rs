//! How a long-running subcommand starts: signals, the admin server, a client of the cluster.

use std::{io, net::SocketAddr, sync::Arc};

use kube::{Client, Config};
use prometheus_client::registry::Registry;
use thiserror::Error;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    admin::{self, Health},
    client::{ClientArgs, ClientError},
    lease::LeaseLost,
    process_stats,
    resend::resending_reads,
    resources::Resources,
    shutdown::on_signal,
    watch::WatchArgs,
};

/// Why a process ended that should run until it is stopped.
#[derive(Debug, Error)]
pub enum RunError {
    /// The configuration of the client cannot be found.
    #[error(transparent)]
    Config(#[from] ClientError),
    /// It cannot be used.
    #[error("cannot use the configuration of the cluster: {0}")]
    Client(#[source] kube::Error),
    /// The admin port cannot be served.
    #[error("the admin server: {0}")]
    Admin(#[source] io::Error),
    /// Signal handlers cannot be installed.
    #[error("cannot listen for signals: {0}")]
    Signals(#[source] io::Error),
    /// Another process is the leader now, or what was read before holds no more.
    #[error(transparent)]
    LeaseLost(#[from] LeaseLost),
    /// The watches ended by themselves.
    #[error("the watches on the API server ended unexpectedly")]
    Ended,
}

/// A client for the cluster. It sends again what only reads, where the API server is too busy; no write is sent twice.
///
/// # Errors
/// When no configuration is found or it cannot be used. No request is sent.
pub async fn cluster(client: &ClientArgs, watch: &WatchArgs) -> Result<Client, RunError> {
    let mut config = client.config().await?;
    config.read_timeout = Some(watch.read_timeout());
    config.reset_reader_on_write = true;
    client_of(config)
}

fn client_of(mut config: Config) -> Result<Client, RunError> {
    config.default_retry = false;
    let client = Client::try_from(config).map_err(RunError::Client)?;
    resending_reads(client).map_err(|error| RunError::Client(kube::Error::Service(error.into())))
}

/// A running process, which SIGTERM and SIGINT shut down and whose admin server answers probes.
pub struct Process {
    /// Cancelled when the process is to shut down.
    pub shutdown: CancellationToken,
    admin: JoinHandle<io::Result<()>>,
}

impl Process {
    /// Starts the admin server at `admin`.
    ///
    /// # Errors
    /// When the signal handlers cannot be installed.
    pub fn start(admin: SocketAddr, health: Health, mut metrics: Registry) -> Result<Self, RunError> {
        Resources::claim();
        process_stats::register(&mut metrics);
        let shutdown = on_signal().map_err(RunError::Signals)?;
        let admin = tokio::spawn(admin::serve(admin, health, Arc::new(metrics), shutdown.clone()));
        Ok(Self { shutdown, admin })
    }

    /// Waits until the admin server fails. It does not return if the server ends because of the shutdown.
    pub async fn admin_failed(&mut self) -> RunError {
        let ended = (&mut self.admin).await.map_err(io::Error::other).and_then(|served| served);
        if self.shutdown.is_cancelled() {
            std::future::pending::<()>().await;
        }
        RunError::Admin(ended.err().unwrap_or_else(|| io::Error::other("it ended by itself")))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use axum::{
        Router,
        extract::State,
        http::{Method, StatusCode},
    };
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::{
        Api,
        api::{DeleteParams, Patch, PatchParams, PostParams},
    };
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn reads_are_sent_again_where_the_api_server_is_too_busy_and_writes_never() {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let busy = async |State(asked): State<Arc<Mutex<Vec<Method>>>>, method: Method| {
            asked.lock().unwrap().push(method);
            StatusCode::TOO_MANY_REQUESTS
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(busy).with_state(asked.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });

        let client = client_of(Config::new(url.parse().unwrap())).unwrap();
        let objects: Api<ConfigMap> = Api::namespaced(client, "default");
        let times = |method: Method| asked.lock().unwrap().iter().filter(|of| **of == method).count();
        objects.get("x").await.unwrap_err();
        assert_eq!(times(Method::GET), 4);
        objects.patch("x", &PatchParams::default(), &Patch::Merge("{}")).await.unwrap_err();
        objects.replace("x", &PostParams::default(), &ConfigMap::default()).await.unwrap_err();
        objects.create(&PostParams::default(), &ConfigMap::default()).await.unwrap_err();
        objects.delete("x", &DeleteParams::default()).await.unwrap_err();
        for method in [Method::PATCH, Method::PUT, Method::POST, Method::DELETE] {
            assert_eq!(times(method.clone()), 1, "{method}");
        }
    }
}
