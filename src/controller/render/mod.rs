//! `render`: what the controller would apply, without a cluster.
//!
//! It runs the pure steps of a reconcile, validate and build, on YAML from files, so that a change can be reviewed before
//! it is made. What only a cluster knows is left out: the owner reference, and the checksum of the Secrets. Of several
//! resources that claim the same route, all are reported.
//!
//! ```text
//! args       the command line
//! files      reading the inputs
//! conflicts  routes that several of the inputs claim
//! explain    which rule a request takes
//! alone      what is wrong with one OrdersService by itself
//! ```

mod alone;
mod args;
mod conflicts;
mod explain;
mod files;

use std::{io, path::PathBuf};

pub use alone::problems;
pub use args::RenderArgs;
use serde_json::Value;
use thiserror::Error;

use self::files::{ServiceInFile, parse_http_route, parse_ingress, parse_service, read};
use crate::{
    controller::{
        children::kind::Child,
        claims::hosts_file::{HostsFile, HostsFileError},
        reconcile::build::{build, prepared::PreparedVisitor},
    },
    routing::{ClaimIndex, RequestTarget, RequestTargetError},
};

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
    #[error("there is no OrdersService (ticketing.dev/v1alpha1) in {0}")]
    Nothing(String),
    /// The hosts file cannot be used.
    #[error(transparent)]
    HostsFile(#[from] HostsFileError),
    /// The argument of --explain is not a request.
    #[error("--explain: {0}")]
    RequestTarget(#[from] RequestTargetError),
    /// The explanation cannot be written.
    #[error("the explanation cannot be written: {0}")]
    Text(#[from] std::fmt::Error),
    /// The children cannot be written as YAML.
    #[error("the children are no YAML: {0}")]
    Yaml(#[from] serde_saphyr::ser::Error),
}

/// The children of every OrdersService in the inputs as YAML documents, by namespace and name.
///
/// # Errors
/// Every problem of every resource, each with its file, resource and field; then nothing is rendered.
pub fn render(args: &RenderArgs) -> Result<String, RenderError> {
    let request = args.explain.as_deref().map(RequestTarget::parse).transpose()?;
    let hosts = args.hosts_file.as_deref().map(HostsFile::read).transpose()?;
    let mut problems = Vec::new();
    let mut services = Vec::new();
    let mut others = Vec::new();
    for input in &args.inputs {
        for (file, text) in
            read(input).map_err(|source| RenderError::Read { input: input.clone(), source })?
        {
            let documents = match serde_saphyr::from_multiple::<Value>(&text) {
                Ok(documents) => documents,
                Err(error) => {
                    problems.push(format!("{file}: is no YAML: {error}"));
                    continue;
                }
            };
            for document in documents {
                match document["kind"].as_str() {
                    Some("OrdersService") => {
                        services.extend(parse_service(&file, document, args, &mut problems))
                    }
                    Some("Ingress") => others.extend(parse_ingress(&file, document, args)),
                    Some("HTTPRoute") => others.extend(parse_http_route(&file, document, args)),
                    _ => {}
                }
            }
        }
    }
    services.sort_by(|left, right| left.key().cmp(&right.key()));
    for pair in services.windows(2) {
        let [first, second] = pair else { continue };
        if first.key() == second.key() {
            let (namespace, name) = second.key();
            let what = format!("OrdersService {name:?} in namespace {namespace:?}");
            problems.push(format!("{}: {what}: is in {} already", second.file, first.file));
        }
    }
    let mut index = ClaimIndex::new(args.host_policy.into());
    if let Some(hosts) = &hosts {
        index.set_allowed(hosts.allowed().clone());
    }
    problems.extend(conflicts::problems(&services, &others, index));
    if !problems.is_empty() {
        return Err(RenderError::Invalid(problems));
    }
    if services.is_empty() {
        let inputs: Vec<_> = args.inputs.iter().map(|input| input.display().to_string()).collect();
        return Err(RenderError::Nothing(inputs.join(", ")));
    }
    if let Some(request) = request {
        return Ok(explain::explain(&services, &request)?);
    }
    let mut documents = Documents::default();
    for ServiceInFile { valid, .. } in &services {
        build(valid).visit(&mut documents);
    }
    Ok(documents.0.into_iter().collect::<Result<Vec<_>, _>>()?.join("---\n"))
}

/// The children as YAML documents.
#[derive(Default)]
struct Documents(Vec<Result<String, serde_saphyr::ser::Error>>);

impl<'a> PreparedVisitor<'a> for Documents {
    fn visit<K: Child>(&mut self, children: &'a [K]) {
        self.0.extend(children.iter().map(serde_saphyr::to_string));
    }
}
