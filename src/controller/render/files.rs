//! Reading the OrdersServices, and the Ingresses and HTTPRoutes beside them, in files.

use std::{
    collections::BTreeSet,
    io::{self, Read},
    path::Path,
};

use k8s_openapi::api::networking::v1::Ingress;
use kube::Resource;
use serde_json::Value;

use super::{
    args::RenderArgs,
    schema::{self, Refusal},
};
use crate::{
    controller::{
        children::{httproute::HTTPRoute, partial::Partial},
        claims::{
            claimed::{Claims, claimant, of_http_route, of_ingress},
            controllers::IngressController,
            requested::ingress_class,
        },
        reconcile::{
            dereference::Dereferenced,
            validate::{validate, validated::ValidatedOrdersService},
        },
    },
    crd::OrdersService,
    routing::{Claim, Claimant, ClaimantKind, EntryPoint},
};

/// The texts of an input by their names: a file's own, or those of the YAML files in a folder, sorted.
pub(super) fn read(input: &Path) -> io::Result<Vec<(String, String)>> {
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

/// A valid OrdersService in a file.
pub(super) struct ServiceInFile {
    /// The file.
    pub(super) file: String,
    /// As it is written.
    pub(super) service: OrdersService,
    /// As it was validated.
    pub(super) valid: ValidatedOrdersService,
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

    /// What is probably unintended, but can be rendered.
    pub(super) fn warnings(&self) -> impl Iterator<Item = String> {
        let warnings = self.valid.ingress.iter().flat_map(|ingress| &ingress.warnings);
        warnings
            .map(|warning| format!("{}: OrdersService {:?}: {}", self.file, self.valid.name, warning.message))
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
    file: &str,
    document: Value,
    args: &RenderArgs,
    problems: &mut Vec<String>,
) -> Option<ServiceInFile> {
    let name = document["metadata"]["name"].as_str().unwrap_or("(no name)").to_owned();
    let mut problem = |text: String| problems.push(format!("{file}: OrdersService {name:?}: {text}"));
    let version = OrdersService::api_version(&());
    if document["apiVersion"] != *version {
        problem(format!("apiVersion is {}: write {version}", document["apiVersion"]));
        return None;
    }
    let refusals = schema::refusals(&document);
    let mut service: OrdersService = match serde_path_to_error::deserialize(document) {
        Ok(service) => service,
        Err(error) => {
            refusals.iter().for_each(|refusal| problem(refusal.to_string()));
            if refusals.is_empty() {
                problem(error.to_string());
            }
            return None;
        }
    };
    service.metadata.namespace.get_or_insert_with(|| args.namespace.clone());
    let controller = match service.spec.ingress.as_ref().map(ingress_class) {
        Some(EntryPoint::Class(Some(class))) => IngressController::named(&class),
        _ => None,
    };
    let user_from_cluster = args.user_from_cluster;
    let found = Dereferenced { user_from_cluster, controller, ..Dereferenced::default() };
    let validated = validate(&service, &found, args.default_image.as_deref());
    let invalid = validated.as_ref().err().map(Vec::as_slice).unwrap_or_default();
    // What both notice is told once, with the field and the better advice.
    let is_told = |refusal: &Refusal| {
        invalid.iter().any(|problem| {
            let rest = problem.message.strip_prefix(&refusal.field).unwrap_or_default();
            !refusal.field.is_empty() && rest.starts_with([' ', ':'])
        })
    };
    let refused: Vec<_> = refusals.iter().filter(|refusal| !is_told(refusal)).collect();
    refused.iter().for_each(|refusal| problem(refusal.to_string()));
    invalid.iter().for_each(|found| problem(found.message.clone()));
    let valid = validated.ok().filter(|_| refused.is_empty())?;
    Some(ServiceInFile { file: file.to_owned(), service, valid })
}

/// Parses an Ingress; none if it is not one, or is a child of an OrdersService.
pub(super) fn parse_ingress(file: &str, document: Value, args: &RenderArgs) -> Option<OtherInFile> {
    let mut ingress: Partial<Ingress> = serde_json::from_value(document).ok()?;
    ingress.metadata.namespace.get_or_insert_with(|| args.namespace.clone());
    let Claims::These(claims) = of_ingress(&ingress) else { return None };
    let claimant = claimant(&ingress.metadata, ClaimantKind::Ingress);
    Some(OtherInFile { file: file.to_owned(), claimant, claims })
}

/// Parses an HTTPRoute; none if it is not one, or is a child of an OrdersService.
pub(super) fn parse_http_route(file: &str, document: Value, args: &RenderArgs) -> Option<OtherInFile> {
    let mut route: Partial<HTTPRoute> = serde_json::from_value(document).ok()?;
    route.metadata.namespace.get_or_insert_with(|| args.namespace.clone());
    let Claims::These(claims) = of_http_route(&route) else { return None };
    let claimant = claimant(&route.metadata, ClaimantKind::HTTPRoute);
    Some(OtherInFile { file: file.to_owned(), claimant, claims })
}
