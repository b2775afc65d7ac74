//! Reading the OrdersServices, and the Ingresses and HTTPRoutes beside them, in files.

use std::{
    collections::BTreeSet,
    io::{self, Read},
    path::{Path, PathBuf},
};

use k8s_openapi::{api::networking::v1::Ingress, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::Resource;
use serde_json::Value;

use super::{
    args::RenderArgs,
    error::{NO_NAMESPACE, RenderError},
    yaml::Object,
};
use crate::{
    controller::{
        children::{httproute::HTTPRoute, partial::Partial},
        claims::{
            claimed::{Claims, Verdicts, claimant, of_http_route, of_ingress},
            controllers::IngressController,
            hosts_file::is_namespace,
            requested::ingress_class,
        },
        reconcile::{
            dereference::Dereferenced,
            validate::{validate, validated::ValidatedOrdersService},
        },
        schema::{self, Refusal},
        shared_subjects::{SHARED_SUBJECTS_REMEDY, shares_subjects},
    },
    crd::{OrdersService, without_value},
    routing::{Claim, Claimant, ClaimantKind, EntryPoint},
    runtime::Escape,
};

/// The texts of an input by their names: a file's own, or those of the YAML files in a folder, sorted.
pub(super) fn read(input: &Path) -> Result<Vec<(String, String)>, RenderError> {
    let failed = |of: &Path, source| RenderError::Read { input: of.to_owned(), source };
    if input == Path::new("-") {
        let mut text = String::new();
        io::stdin()
            .read_to_string(&mut text)
            .map_err(|source| failed(Path::new("standard input"), source))?;
        return Ok(vec![("standard input".into(), text)]);
    }
    let mut files = vec![input.to_owned()];
    if input.is_dir() {
        let entries = input.read_dir().and_then(|entries| {
            entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()
        });
        files = entries.map_err(|source| failed(input, source))?;
        files.retain(|file| {
            file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
        });
        files.sort();
    }
    let text_of = |file: &PathBuf| {
        let text = std::fs::read_to_string(file).map_err(|source| failed(file, source))?;
        Ok((file.display().to_string(), text))
    };
    files.iter().map(text_of).collect()
}

/// Where an object was read, and the text that it is in.
#[derive(Clone, Copy)]
pub(super) struct InFile<'a> {
    /// The file.
    pub(super) file: &'a str,
    /// Its text.
    pub(super) text: &'a str,
}

/// What is wrong with an object that is probably meant to be an OrdersService, and is none.
pub(super) fn mistaken(document: &Value) -> Option<String> {
    let kind = &*OrdersService::kind(&());
    let map = document.as_object()?;
    let is_ours = || {
        let version = map.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
        version.split('/').next() == Some(&*OrdersService::group(&()))
    };
    match map.get("kind") {
        Some(Value::String(other)) if other == kind => None,
        Some(Value::String(other)) => {
            let is_near = strsim::damerau_levenshtein(&other.to_lowercase(), &kind.to_lowercase()) <= 2;
            // An empty list of them is one too.
            let is_list = map.contains_key("items");
            (!is_list && (is_near || is_ours())).then(|| format!("there is kind {other}: write {kind}"))
        }
        _ => match map.keys().find(|name| name.eq_ignore_ascii_case("kind") && *name != "kind") {
            Some(other) if is_ours() => Some(format!("there is a field {other}: write kind")),
            _ if is_ours() => Some(format!("kind is not set: write {kind}")),
            _ => None,
        },
    }
}

/// A valid OrdersService in a file.
pub(super) struct ServiceInFile {
    /// The file.
    pub(super) file: String,
    /// As it is written.
    pub(super) service: OrdersService,
    /// As it was validated.
    pub(super) valid: ValidatedOrdersService,
    /// What is known of what it refers to, but for what others in the files claim.
    known: Dereferenced,
}

impl ServiceInFile {
    /// Its namespace and name, by which documents are sorted.
    pub(super) fn key(&self) -> (&str, &str) {
        (&self.valid.namespace, &self.valid.name)
    }

    /// The resource as one that makes claims.
    pub(super) fn claimant(&self) -> Claimant {
        claimant(&self.service.metadata, ClaimantKind::OrdersService)
    }

    /// What is probably unintended, but can be rendered, where others have this: as the controller would say it. And what `all`
    /// of these resources cannot do together, which only the broker's answer would show.
    pub(super) fn warnings(&self, verdicts: Verdicts, all: &[OrdersService]) -> Vec<String> {
        let found = Dereferenced { verdicts, ..self.known.clone() };
        let valid = validate(&self.service, &found, Some(&self.valid.image));
        let ingress = valid.ok().and_then(|valid| valid.ingress);
        let warnings = ingress.iter().flat_map(|ingress| &ingress.warnings);
        let shared = shares_subjects(&self.service, all);
        let shared = shared.map(|shared| format!("spec.events: {shared}: {SHARED_SUBJECTS_REMEDY}"));
        warnings
            .map(|warning| warning.message.clone())
            .chain(shared)
            .map(|message| format!("{}: OrdersService {:?}: {message}", self.file, self.valid.name))
            .collect()
    }
}

/// An Ingress or an HTTPRoute in a file, and what it claims.
pub(super) struct OtherInFile {
    /// The file.
    pub(super) file: String,
    /// Who it is.
    pub(super) claimant: Claimant,
    /// What it claims.
    pub(super) claims: BTreeSet<Claim>,
}

/// Parses and validates an OrdersService; what is wrong with it goes to `problems`.
pub(super) fn parse_service(
    InFile { file, text }: InFile<'_>,
    object: Object,
    args: &RenderArgs,
    problems: &mut Vec<String>,
) -> Option<ServiceInFile> {
    let document = &object.value;
    let name = document["metadata"]["name"].as_str().unwrap_or("(no name)").to_owned();
    let mut problem = |text: String| problems.push(format!("{file}: OrdersService {name:?}: {text}"));
    let version = OrdersService::api_version(&());
    if document["apiVersion"] != *version {
        problem(match &document["apiVersion"] {
            Value::Null => format!("apiVersion is not set: write {version}"),
            Value::String(other) => format!("apiVersion is {other:?}: write {version}"),
            _ => format!("apiVersion is not text: write {version}"),
        });
        return None;
    }
    let mut refusals = schema::refusals(document, None);
    if !refusals.is_empty()
        && let Some(written) = object.written(text)
    {
        refusals = schema::refusals(document, Some(&written));
    }
    let mut service: OrdersService = match serde_path_to_error::deserialize(document) {
        Ok(service) => service,
        Err(error) => {
            refusals.iter().for_each(|refusal| problem(refusal.to_string()));
            if refusals.is_empty() {
                problem(format!("{} {}", error.path(), without_value(&error.inner().to_string())));
            }
            return None;
        }
    };
    let namespace = service.metadata.namespace.get_or_insert_with(|| args.namespace.clone());
    let is_namespaced = is_namespace(namespace);
    if !is_namespaced {
        problem(format!("metadata.namespace is {namespace:?}, {NO_NAMESPACE}"));
    }
    let controller = match service.spec.ingress.as_ref().map(ingress_class) {
        Some(EntryPoint::Class(Some(class))) => IngressController::named(&class),
        _ => None,
    };
    let user_from_cluster = args.user_from_cluster;
    let traefik_safe_naming = args.traefik_safe_naming;
    let found =
        Dereferenced { user_from_cluster, traefik_safe_naming, controller, ..Dereferenced::default() };
    let validated = validate(&service, &found, args.default_image.as_deref());
    let invalid = validated.as_ref().err().map(Vec::as_slice).unwrap_or_default();
    // What both notice is told once, with the field and the better advice. The validation knows all that the rules know.
    let is_told = |refusal: &Refusal| {
        refusal.is_by_rule && !invalid.is_empty()
            || invalid.iter().any(|problem| is_about(&problem.message, &refusal.field))
    };
    let refused: Vec<_> = refusals.iter().filter(|refusal| !is_told(refusal)).collect();
    refused.iter().for_each(|refusal| problem(refusal.to_string()));
    invalid.iter().for_each(|found| problem(found.message.clone()));
    let valid = validated.ok().filter(|_| refused.is_empty() && is_namespaced)?;
    Some(ServiceInFile { file: file.to_owned(), service, valid, known: found })
}

/// Whether a message begins with a field, of which a key may be written in brackets.
fn is_about(message: &str, field: &str) -> bool {
    let plain = field.replace("[\"", ".").replace("\"]", "");
    [field, &plain].into_iter().any(|field| {
        let rest = message.strip_prefix(field).unwrap_or_default();
        !field.is_empty() && rest.starts_with([' ', ':'])
    })
}

/// Gives an object that nobody has checked a namespace, and a name that is one line: both are told in sentences.
fn name(object: &mut ObjectMeta, args: &RenderArgs) {
    object.namespace.get_or_insert_with(|| args.namespace.clone());
    for text in [&mut object.namespace, &mut object.name].into_iter().flatten() {
        *text = Escape::Text.line(text).into_owned();
    }
}

/// Parses an Ingress; none if it is not one, or is a child of an OrdersService.
pub(super) fn parse_ingress(file: &str, document: Value, args: &RenderArgs) -> Option<OtherInFile> {
    let mut ingress: Partial<Ingress> = serde_json::from_value(document).ok()?;
    name(&mut ingress.metadata, args);
    let Claims::These(claims) = of_ingress(&ingress) else { return None };
    let claimant = claimant(&ingress.metadata, ClaimantKind::Ingress);
    Some(OtherInFile { file: file.to_owned(), claimant, claims })
}

/// Parses an HTTPRoute; none if it is not one, or is a child of an OrdersService.
pub(super) fn parse_http_route(file: &str, document: Value, args: &RenderArgs) -> Option<OtherInFile> {
    let mut route: Partial<HTTPRoute> = serde_json::from_value(document).ok()?;
    name(&mut route.metadata, args);
    let Claims::These(claims) = of_http_route(&route) else { return None };
    let claimant = claimant(&route.metadata, ClaimantKind::HTTPRoute);
    Some(OtherInFile { file: file.to_owned(), claimant, claims })
}
