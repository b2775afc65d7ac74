//! The routes of one host.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{around::Around, host::Host, kept::Kept};
use crate::{
    migrate::{
        finding::{Findings, Notes, Whom},
        ingress::{OldBackend, OldIngress, OldPath, OldPort},
        judge,
        rewrite::{self, Rewrite},
    },
    routing::{CanonicalPath, PathError, Proposal},
};

/// The path that the API has unless the spec says otherwise.
pub(super) const DEFAULT_PATH: &str = "/api/orders";

/// The routes of one host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) own: Option<CanonicalPath>,
    pub(super) routes: BTreeMap<Place, Target>,
    pub(super) client: Option<Target>,
}

/// What a route takes: a path, and whether that alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) path: String,
    pub(super) is_exact: bool,
}

/// A Service and its port, as the spec has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    service: String,
    port: Value,
}

impl Target {
    pub(super) fn fields(&self) -> Map<String, Value> {
        let mut fields = Map::from_iter([("service".to_owned(), json!(self.service))]);
        if self.port != json!(3000) {
            fields.insert("port".into(), self.port.clone());
        }
        fields
    }

    pub(super) fn shown(&self) -> String {
        format!(
            "{}:{}",
            self.service,
            self.port.as_str().map_or_else(|| self.port.to_string(), str::to_owned)
        )
    }
}

/// Why a path is no route.
struct Refused {
    why: String,
    /// Whether it stays in the old Ingress until somebody has done what is said; or else the host has that path already.
    stays: bool,
}

impl Refused {
    fn staying(why: String) -> Self {
        Self { why, stays: true }
    }

    fn taken(why: String) -> Self {
        Self { why, stays: false }
    }
}

/// The routes of one host, and a finding for each path that is none.
pub(super) fn table(
    host: &Host,
    paths: &[(&OldIngress, &OldPath)],
    around: &Around<'_>,
    kept: &mut Kept,
    findings: &mut Findings,
) -> Table {
    let mut table = Table::default();
    let there: BTreeMap<CanonicalPath, &OldBackend> = paths
        .iter()
        .filter_map(|(_, path)| Some((rewrite::canonical(&path.text).ok()?, &path.backend)))
        .collect();
    // Whoever reads the other one of two that are at / finds no / there.
    let unwritten = paths.iter().find(|(_, path)| !path.is_written).map(|(_, path)| path.at.clone());
    for (ingress, path) in paths {
        let mut notes = Notes::about(&ingress.label, findings);
        let is_own = path.backend.service == around.orders;
        let entry = place(ingress, path, is_own, &there, &mut notes)
            .map_err(Refused::staying)
            .and_then(|place| put(&mut table, place, path, is_own, unwritten.as_deref(), around, &mut notes));
        if let Err(Refused { why, stays }) = entry {
            if stays {
                kept.path(&ingress.name, host, &path.text, is_own);
            }
            notes.left(
                Whom::Users,
                format!("path {:?}, which leads to {}: {why}", path.text, path.backend.service),
            );
        }
    }
    table
}

/// What a path means.
///
/// # Errors
/// Why it cannot be a route, and what to do.
fn place(
    ingress: &OldIngress,
    path: &OldPath,
    is_own: bool,
    there: &BTreeMap<CanonicalPath, &OldBackend>,
    notes: &mut Notes<'_>,
) -> Result<Place, String> {
    let stays = if ingress.is_regex {
        format!(
            "it may stay, with its annotations, in Ingress {}, on a host that the OrdersService does not have: on one that it has they \
             make regexes of all paths, those of the OrdersService too (docs/ingress.md)",
            ingress.name
        )
    } else {
        format!(
            "it can stay in Ingress {} alone, whose other paths of this host you take out of it",
            ingress.name
        )
    };
    // With ingress-nginx's regexes the type of a path does not count.
    if path.is_exact && !ingress.is_regex {
        return Ok(Place { path: path.text.clone(), is_exact: true });
    }
    if let Some(target) = ingress.rewrite.as_deref().filter(|_| !is_own) {
        match rewrite::of(&path.text, target) {
            Rewrite::Same if path.text == target => notes.dropped(
                Whom::Users,
                format!(
                    "rewrite-target {target:?} at path {:?}: ingress-nginx rewrites no path that is its target, so {} gets requests as they \
                     are, as before",
                    path.text, path.backend.service
                ),
            ),
            Rewrite::Same => {}
            Rewrite::Strip => {
                return Err(format!(
                    "rewrite-target {target:?} takes the prefix off, which no Ingress says in a way that every ingress controller \
                     understands: have the Service serve at the whole path, and write it as a route; or use spec.gateway in place of \
                     spec.ingress, where a route has stripPrefix: true, as it may have with Traefik too; or {stays}"
                ));
            }
            Rewrite::Other => {
                let of_all = if target.contains('$') { "" } else { ", the same of every request" };
                return Err(format!(
                    "rewrite-target {target:?} makes another path of it{of_all}, which an OrdersService cannot say: have the Service serve at \
                     the path that is requested, and write it as a route; or {stays}"
                ));
            }
        }
    }
    let canonical = rewrite::canonical(&path.text)
        .map_err(|error| format!("{}; or {stays}", refused(error, path, there)))?;
    let is_other = |target: &String| rewrite::of(&path.text, target) != Rewrite::Same;
    if is_own && ingress.rewrite.as_ref().is_some_and(is_other) {
        notes.changed(
            Whom::Pods,
            format!(
                "path {:?} was rewritten; the new pods get requests as they are, and serve them",
                path.text
            ),
        );
    }
    let is_regex_text = path.text.contains(['(', '*', '?', '$']);
    if !canonical.is_root() && (ingress.is_regex || is_regex_text) {
        notes.changed(
            Whom::Users,
            format!(
                "path {:?} was {}: it is now the prefix {canonical}, by whole segments and case-sensitive; \
                 {canonical}X no longer matches",
                path.text,
                match (ingress.is_regex, path.is_exact) {
                    (true, true) => "a regex too, like all paths of its host, in spite of its pathType Exact",
                    (true, false) => "a regex",
                    (false, _) => "written as a regex",
                },
            ),
        );
    }
    Ok(Place { path: canonical.to_string(), is_exact: false })
}

/// Why a path is none, and what to write. A path that another has already is not proposed.
fn refused(mut error: PathError, path: &OldPath, there: &BTreeMap<CanonicalPath, &OldBackend>) -> String {
    let PathError::Regex { proposal, .. } = &mut error else { return error.to_string() };
    let of = |text: &str| there.iter().find(|(other, _)| other.as_str() == text);
    let taken = match proposal {
        Proposal::Alone { path, as_prefix, .. } => of(path).inspect(|_| *as_prefix = false),
        Proposal::Prefix(path) | Proposal::Each(path) | Proposal::Below(path) => {
            let taken = path.as_deref().and_then(of);
            if taken.is_some() {
                *path = None;
            }
            taken
        }
    };
    let Some((prefix, backend)) = taken else { return error.to_string() };
    if backend.service == path.backend.service && backend.port == path.backend.port {
        return format!(
            "{error}; or leave it out, since {prefix} leads there already, with all that is below it"
        );
    }
    let mut whole: Vec<_> =
        path.text.rsplit('/').take_while(|segment| segment.bytes().all(is_plain)).collect();
    whole.reverse();
    let end = CanonicalPath::parse(&format!("/{}", whole.join("/"))).ok();
    let free = end.filter(|end| !end.is_root() && !there.contains_key(end));
    let free = free.map(|end| format!("; {end} is free")).unwrap_or_default();
    format!("{error} ({prefix} leads to {}{free})", backend.service)
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_~".contains(&byte)
}

/// Puts a path into the table.
///
/// # Errors
/// Why it cannot have a place there, what to do, and whether it stays where it is until then.
fn put(
    table: &mut Table,
    place: Place,
    old: &OldPath,
    is_own: bool,
    // The place of a path that is / since it is not written.
    unwritten: Option<&str>,
    around: &Around<'_>,
    notes: &mut Notes<'_>,
) -> Result<(), Refused> {
    if is_own {
        return put_own(table, &place, around, notes);
    }
    let target = target(&old.backend).map_err(Refused::staying)?;
    let is_client = place.path == "/" && !place.is_exact;
    let alone = if is_client {
        json!({"hosts": ["a.dev"], "client": target.fields()})
    } else {
        json!({"hosts": ["a.dev"], "path": "/the/orders/api", "routes": [route(&place, &target)]})
    };
    if let Some(problem) = judge::of_routes(around.name, alone).into_iter().next() {
        return Err(Refused::staying(old.backend.as_written(&problem)));
    }
    let known = if is_client { table.client.as_ref() } else { table.routes.get(&place) };
    match known {
        Some(known) if *known == target => return Ok(()),
        Some(known) => {
            let unwritten = unwritten.filter(|_| is_client);
            let unwritten =
                unwritten.map(|at| format!("; {at} has no path, which means /")).unwrap_or_default();
            return Err(Refused::taken(format!(
                "{} leads to {} already: a path leads to one Service; see which of the two it is, and take the other out of the \
                 Ingress{unwritten}",
                place.path,
                known.shown()
            )));
        }
        None if !place.is_exact && table.own.as_ref().is_some_and(|own| own.as_str() == place.path) => {
            return Err(Refused::taken(format!(
                "{} is the path of the orders API already: take it out of the Ingress",
                place.path
            )));
        }
        None => {}
    }
    if is_client {
        table.client = Some(target);
        return Ok(());
    }
    table.routes.insert(place, target);
    Ok(())
}

/// A route as the spec has it.
pub(super) fn route(place: &Place, target: &Target) -> Map<String, Value> {
    let mut fields = target.fields();
    fields.insert("path".into(), json!(place.path));
    if place.is_exact {
        fields.insert("exact".into(), json!(true));
    }
    fields
}

fn put_own(
    table: &mut Table,
    place: &Place,
    around: &Around<'_>,
    notes: &mut Notes<'_>,
) -> Result<(), Refused> {
    let path = CanonicalPath::parse(&place.path).map_err(|error| Refused::staying(error.to_string()))?;
    if place.is_exact {
        return Err(Refused::staying(format!(
            "it is exact, and the orders API has what is below its path too, such as {path}/5: write pathType: Prefix in the Ingress"
        )));
    }
    if path.is_root() {
        return Err(Refused::staying(format!(
            "Service {} has every path of this host, and the orders API serves at one path, {DEFAULT_PATH} unless spec.ingress.path \
             says otherwise: requests for it must begin with that",
            around.orders
        )));
    }
    if let Some(other) = table.routes.remove(place) {
        notes.left(
            Whom::Users,
            format!(
                "{path} leads to {} as well, and is the path of the orders API: that has it alone now; take the \
                 other out of the Ingress, or name the right Service with --orders",
                other.shown()
            ),
        );
    }
    match &table.own {
        None => {
            table.own = Some(path);
            Ok(())
        }
        Some(own) if *own == path => Ok(()),
        Some(own) if own.takes(path.as_str()) => {
            notes.dropped(Whom::Users, format!("path {path}: it is below {own}, which leads there already"));
            Ok(())
        }
        Some(own) => Err(Refused::staying(format!(
            "the orders API has one path, and that is {own}: have the clients request that; or, if another program served {path}, \
             give it a Service of its own and a route"
        ))),
    }
}

pub(super) fn target(backend: &OldBackend) -> Result<Target, String> {
    let port = match &backend.port {
        Some(OldPort::Number(number)) => json!(number),
        Some(OldPort::Name(name)) => json!(name),
        None => {
            return Err(format!(
                "it has no port that was understood: write the number or the name of a port of Service {} in the Ingress",
                backend.service
            ));
        }
    };
    Ok(Target { service: backend.service.clone(), port })
}
