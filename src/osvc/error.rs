//! Why a command has no answer, and the exit codes.

use thiserror::Error;

use crate::{routing::RequestTargetError, runtime::client::ClientError, sweeper::SweeperError};

/// Why a question has no answer.
#[derive(Debug, Error)]
pub enum AskError {
    /// Whoever asks may not.
    #[error("you lack the right to {0}")]
    Forbidden(String),
    /// There is no such object, or the API server does not know its kind.
    #[error("cannot {0}: the API server does not have it")]
    NotFound(String),
    /// No answer in time.
    #[error("cannot {0}: no answer within {1} s; --request-timeout allows more")]
    Timeout(String, u64),
    /// Something else.
    #[error("cannot {0}: {1}")]
    Failed(String, String),
}

/// Why a command has no answer.
#[derive(Debug, Error)]
pub enum OsvcError {
    /// There is no cluster.
    #[error(transparent)]
    Config(#[from] ClientError),
    /// The kubeconfig does not have what was named.
    #[error("the kubeconfig: {0}; `kubectl config get-contexts` lists what there is")]
    Kubeconfig(String),
    /// The configuration cannot be used.
    #[error("cannot use the configuration of the cluster: {0}")]
    Client(String),
    /// The API server has no answer.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// There is no such OrdersService.
    #[error(
        "there is no OrdersService {name:?} in namespace {namespace:?}: `kubectl get ordersservices -A` lists all; -n names \
         another namespace"
    )]
    NoSuchService {
        /// The namespace.
        namespace: String,
        /// The name.
        name: String,
    },
    /// The cluster does not know the kind.
    #[error(
        "the cluster does not know OrdersServices, as their CRD is not installed: see `kubectl osvc check`"
    )]
    NoSuchKind,
    /// What was named is no request.
    #[error("{0}")]
    RequestTarget(#[from] RequestTargetError),
    /// The sweep did not succeed.
    #[error(transparent)]
    Sweep(#[from] SweeperError),
    /// The log cannot be written.
    #[error("cannot start the log: {0}")]
    Log(#[source] std::io::Error),
    /// The answer cannot be written.
    #[error("the answer cannot be written: {0}")]
    Text(#[from] std::fmt::Error),
    /// The answer cannot be written as JSON.
    #[error("the answer is not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The answer cannot be written as YAML.
    #[error("the answer is not YAML: {0}")]
    Yaml(#[from] serde_saphyr::ser::Error),
}

impl OsvcError {
    /// The exit code: 2 for a wrong command line, else 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::RequestTarget(_) => 2,
            Self::Sweep(error) => error.exit_code(),
            _ => 1,
        }
    }
}
