//! `render`: what the controller would apply, without a cluster.
//!
//! It runs the pure steps of a reconcile, validate and build, on YAML from files, so that a change can
//! be reviewed before it is made. What only a cluster knows is left out: the owner reference, and the
//! checksum of the Secrets. Of several resources that claim the same route, all are told.

mod conflicts;
mod explain;

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use clap::Args;
use k8s_openapi::api::networking::v1::Ingress;
use serde_json::Value;
use thiserror::Error;

use self::conflicts::Beside;
use super::{
    HostPolicy,
    build::{Prepared, build},
    claims::{self, Claimed, claimant},
    dereference::Dereferenced,
    partial::Partial,
    validate::{ValidatedOrdersService, validate},
};
use crate::{
    crd::OrdersService,
    routing::{ClaimantKind, Request, RequestError},
};

/// Print the children that the controller would apply, without a cluster.
#[derive(Args, Clone, Debug)]
pub struct RenderArgs {
    /// YAML files, folders of them, or - for the standard input. Of other kinds of objects in them, Ingresses
    /// count where they claim the same routes; the rest is passed over
    #[arg(value_name = "FILE", required = true)]
    pub inputs: Vec<PathBuf>,

    /// Image for OrdersServices that name none, as the controller has it
    #[arg(long, env = "DEFAULT_IMAGE", value_name = "IMAGE")]
    pub default_image: Option<String>,

    /// Namespace of resources that name none
    #[arg(long, value_name = "NAMESPACE", default_value = "default")]
    pub namespace: String,

    /// Who may have routes on a host, as the controller has it
    #[arg(long, env = "HOST_POLICY", value_name = "POLICY", value_enum, default_value_t)]
    pub host_policy: HostPolicy,

    /// In place of the children, say which rule a request takes and why: /PATH for every host, HOST/PATH, or
    /// a URL
    #[arg(long, value_name = "PATH")]
    pub explain: Option<String>,
}

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
    /// What is to be explained is no request.
    #[error("--explain: {0}")]
    Request(#[from] RequestError),
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
    let request = args.explain.as_deref().map(Request::parse).transpose()?;
    let mut problems = Vec::new();
    let mut services = Vec::new();
    let mut ingresses = Vec::new();
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
                    Some("OrdersService") => services.extend(parse(&file, document, args, &mut problems)),
                    Some("Ingress") => ingresses.extend(beside(&file, document, args)),
                    _ => {}
                }
            }
        }
    }
    for pair in sorted(&mut services).windows(2) {
        let [first, second] = pair else { continue };
        if key(&first.valid) == key(&second.valid) {
            let what = described(&second.valid);
            problems.push(format!("{}: {what}: is in {} already", second.file, first.file));
        }
    }
    problems.extend(conflicts::problems(&services, &ingresses, args.host_policy.into()));
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
    let mut documents = Vec::new();
    for Found { valid, .. } in &services {
        // No `..`: a new kind of child that is not rendered does not compile.
        let Prepared {
            deployment,
            replicas: _,
            service,
            ingress,
            routes,
            autoscaler,
            budget,
            account,
            network_policy,
        } = build(valid);
        documents.push(serde_saphyr::to_string(&deployment)?);
        documents.push(serde_saphyr::to_string(&service)?);
        let optional = [
            ingress.map(|child| serde_saphyr::to_string(&child)),
            autoscaler.map(|child| serde_saphyr::to_string(&child)),
            budget.map(|child| serde_saphyr::to_string(&child)),
            account.map(|child| serde_saphyr::to_string(&child)),
            network_policy.map(|child| serde_saphyr::to_string(&child)),
        ];
        let routes = routes.iter().map(serde_saphyr::to_string);
        for document in optional.into_iter().flatten().chain(routes) {
            documents.push(document?);
        }
    }
    Ok(documents.join("---\n"))
}

/// The texts of an input by their names: a file's own, or those of the YAML files in a folder, sorted.
fn read(input: &Path) -> io::Result<Vec<(String, String)>> {
    if input == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text)?;
        return Ok(vec![("standard input".into(), text)]);
    }
    let mut files = vec![input.to_owned()];
    if input.is_dir() {
        files = input.read_dir()?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>()?;
        files.retain(|file| {
            file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
        });
        files.sort();
    }
    files.iter().map(|file| Ok((file.display().to_string(), std::fs::read_to_string(file)?))).collect()
}

/// A resource in a file.
struct Found {
    file: String,
    service: OrdersService,
    valid: ValidatedOrdersService,
}

/// Reads a resource; what is wrong with it goes to `problems`.
fn parse(file: &str, document: Value, args: &RenderArgs, problems: &mut Vec<String>) -> Option<Found> {
    let name = document["metadata"]["name"].as_str().unwrap_or("(no name)").to_owned();
    let mut problem = |text: String| problems.push(format!("{file}: OrdersService {name:?}: {text}"));
    if document["apiVersion"] != "ticketing.dev/v1alpha1" {
        problem(format!("apiVersion is {}: write ticketing.dev/v1alpha1", document["apiVersion"]));
        return None;
    }
    let mut unknown = Vec::new();
    let read = serde_ignored::deserialize(document, |path| unknown.push(path.to_string().replace(".?", "")));
    // The type of the object is not in the type; it was looked at above.
    unknown.retain(|field| field != "apiVersion" && field != "kind");
    // The API server would drop them or refuse them; either way they are a mistake.
    unknown.iter().for_each(|field| problem(format!("there is no field {field}")));
    let mut service: OrdersService = match read {
        Ok(service) => service,
        Err(error) => {
            problem(error.to_string());
            return None;
        }
    };
    service.metadata.namespace.get_or_insert_with(|| args.namespace.clone());
    match validate(&service, &Dereferenced::default(), args.default_image.as_deref()) {
        Ok(valid) => Some(Found { file: file.to_owned(), service, valid }),
        Err(found) => {
            found.iter().for_each(|found| problem(found.message.clone()));
            None
        }
    }
}

/// Reads an Ingress; none where it is not one, or the child of a resource.
fn beside(file: &str, document: Value, args: &RenderArgs) -> Option<Beside> {
    let mut ingress: Partial<Ingress> = serde_json::from_value(document).ok()?;
    ingress.metadata.namespace.get_or_insert_with(|| args.namespace.clone());
    let Claimed::These(claims) = claims::of_ingress(&ingress) else { return None };
    let claimant = claimant(&ingress.metadata, ClaimantKind::Ingress);
    Some(Beside { file: file.to_owned(), claimant, claims })
}

fn key(service: &ValidatedOrdersService) -> (&str, &str) {
    (&service.namespace, &service.name)
}

fn sorted(services: &mut [Found]) -> &[Found] {
    services.sort_by(|left, right| key(&left.valid).cmp(&key(&right.valid)));
    services
}

fn described(service: &ValidatedOrdersService) -> String {
    format!("OrdersService {:?} in namespace {:?}", service.name, service.namespace)
}
