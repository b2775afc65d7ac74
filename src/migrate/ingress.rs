//! What an Ingress says, in every version of its API and every spelling that is about.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    documents::Object,
    fields::{Fields, quoted},
    finding::{Findings, Notes, Whom},
};
use crate::controller::of_ingress_nginx;

/// Names the class where the spec does not.
pub(super) const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// What Go's `strconv.ParseBool` takes for true.
const GO_TRUE: [&str; 6] = ["1", "t", "T", "true", "TRUE", "True"];

/// An Ingress as it is.
#[derive(Clone, Debug)]
pub(super) struct OldIngress {
    /// How it is called.
    pub(super) label: String,
    /// Its name.
    pub(super) name: String,
    /// Its class.
    pub(super) class: Option<String>,
    /// Whether the field of the spec names it, and not an annotation.
    pub(super) is_class_by_field: bool,
    /// Its annotations, without that of the class and those by which its paths are read.
    pub(super) annotations: BTreeMap<String, String>,
    /// The names of the annotations by which its paths are read: what they do is said of the paths.
    pub(super) of_paths: Vec<String>,
    /// Its certificates: the hosts and the Secret of each.
    pub(super) tls: Vec<(Vec<String>, Option<String>)>,
    /// Its rules.
    pub(super) rules: Vec<OldRule>,
    /// Where everything else goes.
    pub(super) default: Option<OldBackend>,
    /// Whether that is no Service.
    pub(super) has_other_default: bool,
    /// Whether every path is a regex, by an annotation of ingress-nginx.
    pub(super) is_regex: bool,
    /// What paths are rewritten to.
    pub(super) rewrite: Option<String>,
    /// Whether ingress-nginx sends a part of the requests for another Ingress to it.
    pub(super) is_canary: bool,
}

/// The paths of a host, or of any host.
#[derive(Clone, Debug)]
pub(super) struct OldRule {
    /// The host.
    pub(super) host: Option<String>,
    /// Its paths.
    pub(super) paths: Vec<OldPath>,
    /// The paths that lead to no Service, but to another kind of object, or to nothing that was understood.
    pub(super) without_service: Vec<String>,
}

/// A path, and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OldPath {
    /// The path as it is written; / where it is not.
    pub(super) text: String,
    /// Where it is in the Ingress.
    pub(super) at: String,
    /// Whether it is written.
    pub(super) is_written: bool,
    /// Whether only this very path is meant.
    pub(super) is_exact: bool,
    /// Where it goes.
    pub(super) backend: OldBackend,
}

/// A Service and its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OldBackend {
    /// Its name.
    pub(super) service: String,
    /// The port, if it was understood.
    pub(super) port: Option<OldPort>,
    /// Where its name is in the Ingress.
    pub(super) name_at: String,
    /// Where its port is.
    pub(super) port_at: String,
}

impl OldBackend {
    /// A problem of a route or of the client as one of the Ingress: there is no such field of the OrdersService.
    pub(super) fn as_written(&self, problem: &str) -> String {
        ["spec.ingress.routes[0]", "spec.ingress.client"].iter().fold(problem.to_owned(), |told, of| {
            told.replace(&format!("{of}.service"), &self.name_at)
                .replace(&format!("{of}.port"), &self.port_at)
        })
    }
}

/// A port by its number or by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OldPort {
    /// The number.
    Number(i64),
    /// The name.
    Name(String),
}

/// Reads an Ingress.
pub(super) fn read(object: Object, findings: &mut Findings) -> OldIngress {
    let label = object.label();
    let mut notes = Notes::about(&label, findings);
    let notes = &mut notes;
    let Object { name, labels, mut annotations, mut fields, .. } = object;
    if !labels.is_empty() {
        let names: Vec<_> = labels.into_keys().collect();
        notes.dropped(
            Whom::You,
            format!("labels {}: the new Ingress has those of the operator", names.join(", ")),
        );
    }
    let mut spec = fields.below("spec", notes);
    let field = spec.text("ingressClassName", notes);
    let is_class_by_field = field.is_some();
    let class = class_of(field, annotations.remove(CLASS_ANNOTATION), notes);
    // Left over from ingress-nginx, of which Traefik's own class heeds nothing.
    let is_left_over = class.as_deref() == Some("traefik")
        && annotations.keys().any(|name| name.starts_with("nginx.ingress.kubernetes.io/"));
    let class = class.filter(|class| !class.is_empty());
    let of_nginx = |wanted: &str, name: &str| of_ingress_nginx(name) == Some(wanted);
    let rewrite = annotations.iter().find(|(name, _)| of_nginx("rewrite-target", name));
    let rewrite = rewrite.map(|(_, target)| target.clone());
    // What is read is taken out. That of another controller, or a second target, is not read, and stays among the others.
    let is_read = |name: &String, value: &mut String| {
        of_nginx("use-regex", name) || (of_nginx("rewrite-target", name) && rewrite.as_ref() == Some(&*value))
    };
    let read: BTreeMap<_, _> = annotations.extract_if(.., is_read).collect();
    let is_true = |wanted: &str, (name, value): (&String, &String)| {
        of_nginx(wanted, name) && GO_TRUE.contains(&value.as_str())
    };
    let use_regex = read.iter().any(|annotation| is_true("use-regex", annotation));
    let is_canary = annotations.iter().any(|annotation| is_true("canary", annotation));
    let of_paths = read.into_keys().collect();
    let tls = spec.items("tls", notes).into_iter().map(|entry| certificate(entry, notes)).collect();
    let default_field = ["defaultBackend", "backend"].into_iter().find(|name| spec.has(name));
    let has_default = default_field.is_some();
    let rules = spec.items("rules", notes).into_iter().map(|of| rule(of, has_default, notes)).collect();
    let default = default_field.and_then(|name| default_backend(spec.below(name, notes), notes));
    let has_other_default = has_default && default.is_none();
    spec.done(notes);
    fields.done(notes);
    let rewrite = rewrite.filter(|_| !is_left_over);
    let is_regex = (use_regex && !is_left_over) || rewrite.is_some();
    OldIngress {
        label,
        name,
        class,
        is_class_by_field,
        annotations,
        of_paths,
        tls,
        rules,
        default,
        has_other_default,
        is_regex,
        rewrite,
        is_canary,
    }
}

/// The class, of the field or of the annotation.
fn class_of(field: Option<String>, annotation: Option<String>, notes: &mut Notes<'_>) -> Option<String> {
    if let (Some(field), Some(annotation)) = (&field, &annotation)
        && field != annotation
    {
        notes.left(
            Whom::Users,
            format!(
                "its class is {field:?} by the field and {annotation:?} by the annotation {CLASS_ANNOTATION}: \
                 spec.ingress.className has the field's; see which of the two serves it"
            ),
        );
    }
    field.or(annotation)
}

/// The hosts of a certificate, and the Secret that has it.
fn certificate(mut entry: Fields, notes: &mut Notes<'_>) -> (Vec<String>, Option<String>) {
    let mut hosts = Vec::new();
    for host in entry.list("hosts", notes) {
        match host {
            Value::String(host) => hosts.push(host),
            other => {
                notes.left(Whom::Users, format!("a host of spec.tls is {}, and was not read", quoted(&other)))
            }
        }
    }
    let secret = entry.text("secretName", notes);
    entry.done(notes);
    (hosts, secret)
}

/// A rule; `has_default` is whether the Ingress has a default backend.
fn rule(mut rule: Fields, has_default: bool, notes: &mut Notes<'_>) -> OldRule {
    let host = rule.text("host", notes).filter(|host| !host.is_empty());
    let has_paths = rule.has("http");
    let mut http = rule.below("http", notes);
    let (mut paths, mut without_service) = (Vec::new(), Vec::new());
    for path in http.items("paths", notes) {
        match one_path(path, notes) {
            Ok(path) => paths.extend(path),
            Err(text) => without_service.push(text),
        }
    }
    // The default backend becomes the client, which is said of that.
    if paths.is_empty() && without_service.is_empty() && (has_paths || !has_default) {
        let whose = host.clone().unwrap_or_else(|| "any host".into());
        notes.left(
            Whom::Users,
            format!("the rule of {whose} has no path that was understood: its requests went to the default backend"),
        );
    }
    http.done(notes);
    rule.done(notes);
    OldRule { host, paths, without_service }
}

/// Where requests go that no rule takes.
fn default_backend(below: Fields, notes: &mut Notes<'_>) -> Option<OldBackend> {
    if below.has("resource") {
        notes.left(
            Whom::Users,
            format!(
                "{}: a route leads to a Service, and to no other kind of object; it stays in this Ingress",
                below.path("resource")
            ),
        );
    }
    backend(below, notes)
}

/// A path, unless it is left out; the text of one that leads to no Service.
fn one_path(mut path: Fields, notes: &mut Notes<'_>) -> Result<Option<OldPath>, String> {
    let at = path.path("").trim_end_matches('.').to_owned();
    let written = path.text("path", notes).filter(|text| !text.is_empty());
    let is_written = written.is_some();
    let text = written.unwrap_or_else(|| "/".into());
    let is_exact = match path.text("pathType", notes).as_deref() {
        None | Some("Prefix" | "ImplementationSpecific") => false,
        Some("Exact") => true,
        Some(other) => {
            notes.left(
                Whom::Users,
                format!("path {text:?} has pathType {other:?}, which there is not: it is taken for Prefix"),
            );
            false
        }
    };
    let below = path.below("backend", notes);
    let resource = below.has("resource").then(|| below.path("resource"));
    let backend = backend(below, notes);
    path.done(notes);
    let is_action = |backend: &OldBackend| backend.port == Some(OldPort::Name("use-annotation".into()));
    if let Some(backend) = backend.as_ref().filter(|backend| is_action(backend)) {
        let told = format!(
            "path {text:?} leads to no Service, but to what the annotation alb.ingress.kubernetes.io/actions.{} says: it was left out; if \
             that redirects to HTTPS, write alb.ingress.kubernetes.io/ssl-redirect: \"443\" in spec.ingress.annotations",
            backend.service
        );
        notes.left(Whom::Users, told);
        return Ok(None);
    }
    let Some(backend) = backend else {
        let to = resource.map(|resource| format!(", but to {resource}")).unwrap_or_default();
        let told = format!(
            "path {text:?} leads to no Service{to}: it has no route in the OrdersService, and stays in this Ingress"
        );
        notes.left(Whom::Users, told);
        return Err(text);
    };
    Ok(Some(OldPath { text, at, is_written, is_exact, backend }))
}

fn backend(mut fields: Fields, notes: &mut Notes<'_>) -> Option<OldBackend> {
    // Of a path without a Service the caller says so.
    fields.ignore(&["resource"]);
    let mut service = fields.below("service", notes);
    let name_at = if fields.has("serviceName") && !service.has("name") {
        fields.path("serviceName")
    } else {
        service.path("name")
    };
    let port_at = if fields.has("servicePort") && !service.has("port") {
        fields.path("servicePort")
    } else {
        service.path("port")
    };
    let name = service.text("name", notes).or_else(|| fields.text("serviceName", notes));
    let written = service.take("port").or_else(|| fields.take("servicePort"));
    let port = written.and_then(|written| port(written, &service, notes));
    service.done(notes);
    fields.done(notes);
    Some(OldBackend { service: name?, port, name_at, port_at })
}

/// A port in all spellings: a number, its name, a number in quotes, `{number: ...}` or `{name: ...}`.
fn port(written: Value, service: &Fields, notes: &mut Notes<'_>) -> Option<OldPort> {
    let of_text = |text: String| match text.parse::<i64>() {
        Ok(number) => OldPort::Number(number),
        Err(_) => OldPort::Name(text),
    };
    match written {
        Value::Number(number) if number.is_i64() => number.as_i64().map(OldPort::Number),
        Value::String(text) => Some(of_text(text)),
        Value::Object(mut map) => {
            let read = match (map.remove("number"), map.remove("name")) {
                (Some(Value::Number(number)), _) => number.as_i64().map(OldPort::Number),
                (Some(Value::String(text)), _) | (_, Some(Value::String(text))) => Some(of_text(text)),
                _ => None,
            };
            if read.is_none() || !map.is_empty() {
                notes.left(Whom::Users, format!("{} was not understood", service.path("port")));
            }
            read
        }
        other => {
            notes.left(Whom::Users, format!("{} is {}, and no port", service.path("port"), quoted(&other)));
            None
        }
    }
}
