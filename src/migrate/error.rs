//! Why nothing is translated.

use std::{io, path::PathBuf};

use thiserror::Error;

use super::system::SystemError;
use crate::runtime::client::ClientError;

/// Why nothing is translated.
#[derive(Debug, Error)]
pub enum MigrateError {
    /// An input cannot be read.
    #[error("{}: {source}", input.display())]
    Read {
        /// The file or folder.
        input: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is no cluster.
    #[error(transparent)]
    Cluster(#[from] ClientError),
    /// The cluster does not answer.
    #[error("the {what} of namespace {namespace} cannot be read: {why}")]
    List {
        /// What is read.
        what: &'static str,
        /// The namespace.
        namespace: String,
        /// Why not.
        why: String,
    },
    /// There is no system, or more than one.
    #[error("{source}{said}")]
    System {
        /// Why not.
        source: SystemError,
        /// What was found until then.
        said: String,
    },
    /// The result cannot be written.
    #[error("the result is not YAML: {0}")]
    Yaml(#[from] serde_saphyr::ser::Error),
}
