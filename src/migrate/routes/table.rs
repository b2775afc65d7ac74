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
    routing::CanonicalPath,
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
    for (ingress, path) in paths {
        let mut notes = Notes::about(&ingress.label, findings);
        let is_own = path.backend.service == around.orders;
        let entry = place(ingress, path, is_own, &mut notes)
            .map_err(Refused::staying)
            .and_then(|place| put(&mut table, place, path, is_own, around, &mut notes));
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
fn place(ingress: &OldIngress, path: &OldPath, is_own: bool, notes: &mut Notes<'_>) -> Result<Place, String> {
    let stays = format!(
        "it can stay in Ingress {} alone, whose other paths of this host you take out of it",
        ingress.name
    );
    // With ingress-nginx's regexes the type of a path does not count.
    if path.is_exact && !ingress.is_regex {
        return Ok(Place { path: path.text.clone(), is_exact: true });
    }
    if let Some(target) = ingress.rewrite.as_deref().filter(|_| !is_own) {
        match rewrite::of(&path.text, target) {
            Rewrite::Same => {}
            Rewrite::Strip => {
                return Err(format!(
                    "rewrite-target {target:?} takes the prefix off, which no Ingress says in a way that every ingress controller \
                     understands: have the Service serve at the whole path, and write it as a route; or use spec.gateway in place of \
                     spec.ingress, where a route has stripPrefix: true; or {stays}"
                ));
            }
            Rewrite::Other => {
                return Err(format!(
                    "rewrite-target {target:?} makes another path of it, which an OrdersService cannot say: have the Service serve at \
                     the path that is requested, and write it as a route; or {stays}"
                ));
            }
        }
    }
    let canonical = CanonicalPath::parse(&path.text).map_err(|error| format!("{error}; or {stays}"))?;
    if is_own && ingress.rewrite.is_some() {
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
                "path {:?} was {}: now it is {canonical} by whole segments, in upper and lower case as written; {canonical}X is not \
                 taken any more",
                path.text,
                if ingress.is_regex { "a regex" } else { "written as a regex" },
            ),
        );
    }
    Ok(Place { path: canonical.to_string(), is_exact: false })
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
    if let Some(problem) = judge::of_ingress(alone).into_iter().next() {
        return Err(Refused::staying(problem));
    }
    let known = if is_client { table.client.as_ref() } else { table.routes.get(&place) };
    match known {
        Some(known) if *known == target => return Ok(()),
        Some(known) => {
            return Err(Refused::taken(format!(
                "{} leads to {} already: a path leads to one Service; see which of the two it is, and take the other out of the \
                 Ingress",
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
    if table.routes.contains_key(place) {
        return Err(Refused::taken(format!(
            "{path} leads to another Service as well: take one of the two out of the Ingress"
        )));
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
