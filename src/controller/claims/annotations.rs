//! Annotations of the Ingress that would have rules mean something else than they say, or serve other hosts.

use super::path_annotations::{GO_FALSE, PathEffect, path_effect};
use crate::{
    controller::problem::Problem,
    crd::{IngressSpec, Reason},
    routing::CanonicalHost,
};

/// Has cert-manager write into the Ingress for which it gets a certificate.
const EDIT_IN_PLACE: &str = "acme.cert-manager.io/http01-edit-in-place";

/// Names the class of an Ingress where its spec does not, as was usual before Kubernetes 1.18.
pub const CLASS: &str = "kubernetes.io/ingress.class";

/// What is wrong with the annotations of an Ingress for these hosts.
pub(super) fn problems(ingress: &IngressSpec, hosts: &[CanonicalHost]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, value) in &ingress.annotations {
        let whole = "the Services then get the whole path (docs/ingress.md, Prefixes that are taken off)";
        match path_effect(name, value) {
            Some(effect @ (PathEffect::Regexes | PathEffect::RegexesRewritten | PathEffect::Order)) => {
                let (does, whole) = match effect {
                    PathEffect::RegexesRewritten => (
                        "ingress controllers rewrite the path for every Service, including the orders API, and \
                         read all paths of the host as regexes",
                        format!("; {whole}"),
                    ),
                    PathEffect::Order => {
                        ("ingress controllers read paths as regexes, or reorder them", String::new())
                    }
                    _ => ("ingress controllers read paths as regexes", String::new()),
                };
                let message = format!(
                    "spec.ingress.annotations has {name:?}: {value:?}, with which {does}: remove it; routes are \
                     plain prefixes, with the client last{whole}"
                );
                problems.push(Problem::new(Reason::InvalidSpec, message));
            }
            Some(PathEffect::RewritesAll) => {
                let message = format!(
                    "spec.ingress.annotations has {name:?}: {value:?}, with which ingress controllers rewrite the \
                     path for every Service, including the orders API, which then does not match: remove it; {whole}"
                );
                problems.push(Problem::new(Reason::InvalidSpec, message));
            }
            Some(PathEffect::RewritesSome | PathEffect::Unread) | None => {}
        }
        if *name == EDIT_IN_PLACE && !GO_FALSE.contains(&value.as_str()) {
            let message = format!(
                "spec.ingress.annotations has {name:?}, with which cert-manager adds its challenge path to this \
                 Ingress; the operator removes it again, so no certificate is ever issued: remove the annotation, \
                 and cert-manager creates a separate Ingress for each challenge"
            );
            problems.push(Problem::new(Reason::InvalidSpec, message));
        }
        if adds_hosts(name) {
            let message = format!(
                "spec.ingress.annotations has {name:?}, with which ingress controllers serve hosts that are not in \
                 spec.ingress.hosts: remove it, and list every host there"
            );
            problems.push(Problem::new(Reason::InvalidSpec, message));
        }
        let is_listed =
            |text: &str| CanonicalHost::parse(text.trim()).is_ok_and(|host| hosts.contains(&host));
        if names_hosts(name) && !value.split(',').all(is_listed) {
            let message = format!(
                "spec.ingress.annotations has {name:?}, which requests DNS records or certificates for hosts that \
                 are not all in spec.ingress.hosts: remove it, or list every host there"
            );
            problems.push(Problem::new(Reason::InvalidSpec, message));
        }
    }
    if ingress.class_name.is_some() && ingress.annotations.contains_key(CLASS) {
        let message = format!(
            "spec.ingress.className and the annotation {CLASS} in spec.ingress.annotations are both set, which \
             the API server refuses in an Ingress: remove the annotation"
        );
        problems.push(Problem::new(Reason::InvalidSpec, message));
    }
    problems
}

/// Whether this annotation has an ingress controller serve further hosts: of ingress-nginx and HAProxy, which also
/// redirects from others, of Kong, and the conditions of the AWS load balancer.
fn adds_hosts(name: &str) -> bool {
    match name.split_once('/') {
        Some((_, "server-alias" | "server-alias-regex" | "host-aliases")) => true,
        Some((_, "redirect-from" | "redirect-from-regex")) => true,
        Some(("alb.ingress.kubernetes.io", rest)) => rest.starts_with("conditions."),
        _ => false,
    }
}

/// Whether this annotation lists hosts: of ExternalDNS, which gives them DNS records, whatever prefix its annotations
/// have, or of cert-manager, which gives them a certificate.
fn names_hosts(name: &str) -> bool {
    match name.split_once('/') {
        Some((prefix, "hostname" | "internal-hostname")) => prefix.contains("external-dns"),
        Some(("cert-manager.io", "common-name" | "alt-names")) => true,
        _ => false,
    }
}
