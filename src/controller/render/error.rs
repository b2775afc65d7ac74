//! Why nothing was rendered.

use std::{io, path::PathBuf};

use kube::Resource;
use thiserror::Error;

use crate::{
    controller::claims::hosts_file::HostsFileError, crd::OrdersService, routing::RequestTargetError,
};

/// What is said of the name of a namespace that is none.
pub(super) const NO_NAMESPACE: &str = "which no namespace can have as its name: write lower-case letters, digits and -, with a \
                                       letter or digit at both ends, such as ticketing";

/// Why nothing was rendered.
#[derive(Debug, Error)]
pub enum RenderError {
    /// An input cannot be read.
    #[error("{}: {source}", input.display())]
    Read {
        /// The file or folder.
        input: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Some of the resources cannot work.
    #[error("{}", .0.join("\n"))]
    Invalid(Vec<String>),
    /// The inputs have no OrdersService.
    #[error("there is no OrdersService ({version}) in {0}", version = OrdersService::api_version(&()))]
    Nothing(String),
    /// The namespace of the arguments is none.
    #[error("--namespace is {0:?}, {NO_NAMESPACE}")]
    Namespace(String),
    /// The hosts file cannot be used.
    #[error(transparent)]
    HostsFile(#[from] HostsFileError),
    /// The argument of --explain is not a request.
    #[error("--explain: {0}")]
    RequestTarget(#[from] RequestTargetError),
    /// The explanation cannot be written.
    #[error("the explanation cannot be written: {0}")]
    Text(#[from] std::fmt::Error),
    /// A request was given together with a form of the drawing.
    #[error(
        "--format is for the drawing of all routes: write --explain without a path, or leave --format out"
    )]
    FormatOfRequest,
    /// The drawing cannot be written as JSON.
    #[error("the drawing is not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The children cannot be written as YAML.
    #[error("the children are no YAML: {0}")]
    Yaml(#[from] serde_saphyr::ser::Error),
}
