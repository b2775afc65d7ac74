//! What every subcommand that follows the cluster begins with: signals, the admin server, a client.

use std::{io, net::Ipv4Addr, sync::Arc};

use kube::{Client, Config, config::InferConfigError};
use prometheus_client::registry::Registry;
use thiserror::Error;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    admin::{self, Health},
    lease::LeaseLost,
    shutdown::on_signal,
    watch::WatchArgs,
};

/// Why a process ended that should go on until it is told to stop.
#[derive(Debug, Error)]
pub enum RunError {
    /// No usable kubeconfig, and not in a cluster.
    #[error("cannot find a cluster: {0}; set KUBECONFIG, or run inside a cluster")]
    NoCluster(#[source] InferConfigError),
    /// What the kubeconfig says cannot be used.
    #[error("cannot use the kubeconfig: {0}")]
    Client(#[source] kube::Error),
    /// The admin port cannot be served.
    #[error("the admin server: {0}")]
    Admin(#[source] io::Error),
    /// Signal handlers cannot be installed.
    #[error("cannot listen for signals: {0}")]
    Signals(#[source] io::Error),
    /// Another process leads now.
    #[error(transparent)]
    LeaseLost(#[from] LeaseLost),
    /// The watches ended by themselves.
    #[error("the watches on the API server ended unexpectedly")]
    Ended,
}

/// A client of the cluster that this process runs in, or that the kubeconfig names.
///
/// # Errors
/// When there is none to be found; whether it answers is not asked.
pub async fn cluster(watch: &WatchArgs) -> Result<Client, RunError> {
    let mut config = Config::infer().await.map_err(RunError::NoCluster)?;
    config.read_timeout = Some(watch.read_timeout());
    config.reset_reader_on_write = true;
    Client::try_from(config).map_err(RunError::Client)
}

/// A running process: cancelled by SIGTERM and SIGINT, answering its probes from the first moment.
pub struct Process {
    /// Cancelled when the process is to end.
    pub shutdown: CancellationToken,
    admin: JoinHandle<io::Result<()>>,
}

impl Process {
    /// Starts the admin server on `admin_port`.
    ///
    /// # Errors
    /// When signals cannot be listened for.
    pub fn start(admin_port: u16, health: Health, metrics: Registry) -> Result<Self, RunError> {
        let shutdown = on_signal().map_err(RunError::Signals)?;
        let address = (Ipv4Addr::UNSPECIFIED, admin_port).into();
        let admin = tokio::spawn(admin::serve(address, health, Arc::new(metrics), shutdown.clone()));
        Ok(Self { shutdown, admin })
    }

    /// Waits until the admin server ends, which it should not before the shutdown.
    pub async fn admin_failed(&mut self) -> RunError {
        let ended = (&mut self.admin).await.map_err(io::Error::other).and_then(|served| served);
        if self.shutdown.is_cancelled() {
            // It ended as it should; the others have the last word.
            std::future::pending::<()>().await;
        }
        RunError::Admin(ended.err().unwrap_or_else(|| io::Error::other("it ended by itself")))
    }
}
