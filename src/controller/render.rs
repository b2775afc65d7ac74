//! `render`: what the controller would apply, without a cluster.
//!
//! It runs the pure steps of a reconcile, validate and build, on YAML from files, so that a change can
//! be reviewed before it is made. What only a cluster knows is left out: the owner reference, and the
//! checksum of the Secrets.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::Value;
use thiserror::Error;

use super::{
    build::{Prepared, build},
    dereference::Dereferenced,
    validate::{ValidatedOrdersService, validate},
};
use crate::crd::OrdersService;

/// Print the children that the controller would apply, without a cluster.
#[derive(Args, Clone, Debug)]
pub struct RenderArgs {
    /// YAML files, folders of them, or - for the standard input; other kinds of objects in them are
    /// passed over
    #[arg(value_name = "FILE", required = true)]
    pub inputs: Vec<PathBuf>,

    /// Image for OrdersServices that name none, as the controller has it
    #[arg(long, env = "DEFAULT_IMAGE", value_name = "IMAGE")]
    pub default_image: Option<String>,

    /// Namespace of resources that name none
    #[arg(long, value_name = "NAMESPACE", default_value = "default")]
    pub namespace: String,
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
    /// The children cannot be written as YAML.
    #[error("the children are no YAML: {0}")]
    Yaml(#[from] serde_saphyr::ser::Error),
}

/// The children of every OrdersService in the inputs as YAML documents, by namespace and name.
///
/// # Errors
/// Every problem of every resource, each with its file, resource and field; then nothing is rendered.
pub fn render(args: &RenderArgs) -> Result<String, RenderError> {
    let mut problems = Vec::new();
    let mut services = Vec::new();
    for input in &args.inputs {
        for (file, text) in
            read(input).map_err(|source| RenderError::Read { input: input.clone(), source })?
        {
            parse(&file, &text, args, &mut services, &mut problems);
        }
    }
    for pair in sorted(&mut services).windows(2) {
        let [first, second] = pair else { continue };
        if key(&first.1) == key(&second.1) {
            problems.push(format!("{}: {}: is in {} already", second.0, described(&second.1), first.0));
        }
    }
    if !problems.is_empty() {
        return Err(RenderError::Invalid(problems));
    }
    if services.is_empty() {
        let inputs: Vec<_> = args.inputs.iter().map(|input| input.display().to_string()).collect();
        return Err(RenderError::Nothing(inputs.join(", ")));
    }
    let mut documents = Vec::new();
    for (_, service) in &services {
        // No `..`: a new kind of child that is not rendered does not compile.
        let Prepared {
            deployment,
            replicas: _,
            service,
            ingress,
            autoscaler,
            budget,
            account,
            network_policy,
        } = build(service);
        documents.push(serde_saphyr::to_string(&deployment)?);
        documents.push(serde_saphyr::to_string(&service)?);
        let optional = [
            ingress.map(|child| serde_saphyr::to_string(&child)),
            autoscaler.map(|child| serde_saphyr::to_string(&child)),
            budget.map(|child| serde_saphyr::to_string(&child)),
            account.map(|child| serde_saphyr::to_string(&child)),
            network_policy.map(|child| serde_saphyr::to_string(&child)),
        ];
        for document in optional.into_iter().flatten() {
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

type Found = (String, ValidatedOrdersService);

/// Reads the resources of one text; what is wrong with them goes to `problems`.
fn parse(file: &str, text: &str, args: &RenderArgs, services: &mut Vec<Found>, problems: &mut Vec<String>) {
    let documents: Vec<Value> = match serde_saphyr::from_multiple(text) {
        Ok(documents) => documents,
        Err(error) => return problems.push(format!("{file}: is no YAML: {error}")),
    };
    for document in documents {
        if document["kind"] != "OrdersService" {
            continue;
        }
        let name = document["metadata"]["name"].as_str().unwrap_or("(no name)").to_owned();
        let mut problem = |text: String| problems.push(format!("{file}: OrdersService {name:?}: {text}"));
        if document["apiVersion"] != "ticketing.dev/v1alpha1" {
            problem(format!("apiVersion is {}: write ticketing.dev/v1alpha1", document["apiVersion"]));
            continue;
        }
        let mut unknown = Vec::new();
        let read =
            serde_ignored::deserialize(document, |path| unknown.push(path.to_string().replace(".?", "")));
        // The type of the object is not in the type; it was looked at above.
        unknown.retain(|field| field != "apiVersion" && field != "kind");
        // The API server would drop them or refuse them; either way they are a mistake.
        unknown.iter().for_each(|field| problem(format!("there is no field {field}")));
        let mut service: OrdersService = match read {
            Ok(service) => service,
            Err(error) => {
                problem(error.to_string());
                continue;
            }
        };
        service.metadata.namespace.get_or_insert_with(|| args.namespace.clone());
        match validate(&service, &Dereferenced::default(), args.default_image.as_deref()) {
            Ok(valid) => services.push((file.to_owned(), valid)),
            Err(found) => found.iter().for_each(|found| problem(found.message.clone())),
        }
    }
}

fn key(service: &ValidatedOrdersService) -> (&str, &str) {
    (&service.namespace, &service.name)
}

fn sorted(services: &mut [Found]) -> &[Found] {
    services.sort_by(|left, right| key(&left.1).cmp(&key(&right.1)));
    services
}

fn described(service: &ValidatedOrdersService) -> String {
    format!("OrdersService {:?} in namespace {:?}", service.name, service.namespace)
}
