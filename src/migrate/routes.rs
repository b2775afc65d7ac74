//! From the rules of some Ingresses to the routes of one OrdersService.
//!
//! Every host of an Ingress that has one of the orders is taken, each with its own routes; what cannot be said stays where it
//! is, and is named.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{
    annotations,
    finding::{Findings, Kind, Notes, Whom},
    ingress::{OldBackend, OldIngress, OldPath, OldPort},
    judge,
    rewrite::{self, Rewrite},
};
use crate::routing::{CanonicalHost, CanonicalPath};

/// The most hosts of an OrdersService, and the most routes.
const MAX_HOSTS: usize = 8;
const MAX_ROUTES: usize = 64;

/// The path that the API has unless the spec says otherwise.
const DEFAULT_PATH: &str = "/api/orders";

/// What is known besides the Ingresses.
pub(super) struct Around<'a> {
    /// The Service of the orders, as it is.
    pub(super) orders: &'a str,
    /// The hosts to write in place of those that there are.
    pub(super) hosts: &'a [String],
    /// The name of the OrdersService.
    pub(super) name: &'a str,
}

/// The routes of one host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Table {
    own: Option<CanonicalPath>,
    routes: BTreeMap<Place, Target>,
    client: Option<Target>,
}

/// What a route takes: a path, and whether that alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    path: String,
    is_exact: bool,
}

/// A Service and its port, as the spec has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    service: String,
    port: Value,
}

impl Target {
    fn fields(&self) -> Map<String, Value> {
        let mut fields = Map::from_iter([("service".to_owned(), json!(self.service))]);
        if self.port != json!(3000) {
            fields.insert("port".into(), self.port.clone());
        }
        fields
    }

    fn shown(&self) -> String {
        format!(
            "{}:{}",
            self.service,
            self.port.as_str().map_or_else(|| self.port.to_string(), str::to_owned)
        )
    }
}

/// A host as it was written; none for rules of any host.
type Host = Option<CanonicalHost>;

/// What of an Ingress stays in it.
type Kept = BTreeMap<String, BTreeSet<String>>;

/// Translates the rules into `spec.ingress`; none if no host leads to the orders.
pub(super) fn translate(all: &[OldIngress], around: &Around<'_>, findings: &mut Findings) -> Option<Value> {
    let by_host = by_host(all, findings);
    let leads = |paths: &Vec<(&OldIngress, &OldPath)>| {
        paths.iter().any(|(_, path)| path.backend.service == around.orders)
    };
    let mut ours: Vec<&Host> =
        by_host.iter().filter(|(_, paths)| leads(paths)).map(|(host, _)| host).collect();
    if ours.is_empty() {
        // A gateway, or the client, may have passed the requests on.
        if let [(host, _)] = by_host.iter().collect::<Vec<_>>().as_slice() {
            ours.push(host);
        }
        let text = format!(
            "no path of an Ingress leads to Service {}: {}",
            around.orders,
            if ours.is_empty() {
                "the OrdersService has no routes, and every rule stays in its Ingress; if the Service of the orders is another, name it by \
                 --orders SERVICE, or write spec.ingress"
            } else {
                "the only host has a route to it at /api/orders now; whatever passed its requests on does so no more"
            }
        );
        findings.add(Kind::Left, Whom::Users, "Ingress", text);
        if ours.is_empty() {
            return None;
        }
    }
    let mut kept = Kept::new();
    let taken = taken(&by_host, &ours, around, &mut kept, findings);
    let tables: Vec<(Host, Table)> = taken
        .iter()
        .filter_map(|host| Some((host.clone(), table(host, by_host.get(host)?, around, &mut kept, findings))))
        .collect();
    if tables.is_empty() {
        return None;
    }
    let used: Vec<&OldIngress> = all
        .iter()
        .filter(|ingress| {
            ingress.rules.iter().any(|rule| taken.iter().any(|host| is(rule.host.as_deref(), host)))
        })
        .collect();
    let mut tables = tables;
    for ingress in &used {
        with_default(&mut tables, ingress, findings);
    }
    let ingress = ingress(tables, around, &used, &mut kept, findings);
    let named = parsed(around.hosts);
    for ingress in &used {
        let mut notes = Notes::about(&ingress.label, findings);
        let is_replaced = around.hosts.is_empty()
            || ingress
                .rules
                .iter()
                .any(|rule| rule.host.is_none() || named.iter().any(|host| is(rule.host.as_deref(), host)));
        if !is_replaced {
            notes.stays(Whom::Users, "stays as it is, since --host names none of its hosts");
            continue;
        }
        // Of that name is the new Ingress, too: that there are two is said of the name.
        if ingress.name == around.name {
            continue;
        }
        match kept.get(&ingress.name) {
            None => notes.later(format!(
                "is older than the new Ingress, so it has every path until it gives them up: delete it as docs/migration.md says, \
                 kubectl delete ingress {}",
                ingress.name
            )),
            Some(paths) => notes.later(format!(
                "is older than the new Ingress, so it has every path until it gives them up: take everything out of it but {}",
                paths.iter().cloned().collect::<Vec<_>>().join(", ")
            )),
        }
    }
    Some(ingress)
}

/// The hosts that the OrdersService has: those that lead to the orders, and the others beside them, as many as there may be.
/// Rules of any host only where the orders have no others.
fn taken(
    by_host: &BTreeMap<Host, Vec<(&OldIngress, &OldPath)>>,
    ours: &[&Host],
    around: &Around<'_>,
    kept: &mut Kept,
    findings: &mut Findings,
) -> Vec<Host> {
    let has_named = ours.iter().any(|host| host.is_some());
    let hosts: Vec<&Host> = if around.hosts.is_empty() {
        // Those of the orders first: they are not the ones for which there is no place.
        let others = by_host.keys().filter(|host| !ours.contains(host));
        let all = ours.iter().copied().chain(others);
        all.filter(|host| host.is_some() == has_named).take(MAX_HOSTS).collect()
    } else {
        // All hosts that are named get the routes of one.
        replaced(by_host, ours, around).into_iter().collect()
    };
    let mut taken = Vec::new();
    for (host, paths) in by_host {
        if hosts.contains(&host) {
            taken.push(host.clone());
            continue;
        }
        for (ingress, _) in paths {
            kept.entry(ingress.name.clone()).or_default().insert(shown(host));
            let mut notes = Notes::about(&ingress.label, findings);
            match (around.hosts.is_empty(), host) {
                (false, _) => notes.stays(Whom::Users, format!("host {} stays in this Ingress", shown(host))),
                (true, None) => notes.left(
                    Whom::Users,
                    "it has rules of any host beside those of named ones, and an OrdersService has one or the other: the former stay in \
                     this Ingress",
                ),
                (true, Some(host)) if !has_named => notes.stays(
                    Whom::Users,
                    format!(
                        "host {host} stays in this Ingress: the orders have rules of any host, and an OrdersService has either these or \
                         those of named hosts"
                    ),
                ),
                (true, Some(host)) => notes.left(
                    Whom::Users,
                    format!(
                        "host {host}: an OrdersService has at most {MAX_HOSTS} hosts; its rules stay in this Ingress, or write a second \
                         OrdersService"
                    ),
                ),
            }
        }
    }
    taken
}

/// The host in whose place those are that `--host` names: one of these, if the orders are there already; or else one with a
/// client, or else the one with the most paths.
fn replaced<'a>(
    by_host: &BTreeMap<Host, Vec<(&OldIngress, &OldPath)>>,
    ours: &[&'a Host],
    around: &Around<'_>,
) -> Option<&'a Host> {
    let named = parsed(around.hosts);
    let is_client = |ingress: &OldIngress, path: &OldPath| {
        path.backend.service != around.orders
            && (ingress.is_regex || !path.is_exact)
            && CanonicalPath::parse(&path.text).is_ok_and(|path| path.is_root())
    };
    let rank = |host: &Host| {
        let paths = by_host.get(host).map(Vec::as_slice).unwrap_or_default();
        let has_client =
            paths.iter().any(|(ingress, path)| ingress.default.is_some() || is_client(ingress, path));
        (named.contains(host), has_client, paths.len())
    };
    // Of equals the first.
    ours.iter().copied().rev().max_by_key(|host| rank(host))
}

/// The hosts that are named, as far as they are host names: `render` says what is wrong with the others.
fn parsed(hosts: &[String]) -> Vec<Host> {
    hosts.iter().filter_map(|text| CanonicalHost::parse(text).ok()).map(Some).collect()
}

fn is(host: Option<&str>, canonical: &Host) -> bool {
    match (host, canonical) {
        (None, None) => true,
        (Some(text), Some(host)) => CanonicalHost::parse(text).is_ok_and(|parsed| parsed == *host),
        _ => false,
    }
}

fn shown(host: &Host) -> String {
    host.as_ref().map_or_else(|| "(any)".into(), ToString::to_string)
}

/// Every path of every host, whichever Ingress has it.
fn by_host<'a>(
    all: &'a [OldIngress],
    findings: &mut Findings,
) -> BTreeMap<Host, Vec<(&'a OldIngress, &'a OldPath)>> {
    let mut by_host = BTreeMap::<Host, Vec<_>>::new();
    for ingress in all {
        for rule in &ingress.rules {
            let host = match rule.host.as_deref().map(CanonicalHost::parse).transpose() {
                Ok(host) => host,
                Err(error) => {
                    findings.add(Kind::Left, Whom::Users, &ingress.label, error.to_string());
                    continue;
                }
            };
            by_host.entry(host).or_default().extend(rule.paths.iter().map(|path| (ingress, path)));
        }
    }
    by_host
}

/// The routes of one host, and a finding for each path that is none.
fn table(
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
            .and_then(|place| put(&mut table, place, path, is_own, around, &mut notes));
        if let Err(why) = entry {
            kept.entry(ingress.name.clone()).or_default().insert(format!("{} {}", shown(host), path.text));
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
/// Why it cannot have a place there, and what to do.
fn put(
    table: &mut Table,
    place: Place,
    old: &OldPath,
    is_own: bool,
    around: &Around<'_>,
    notes: &mut Notes<'_>,
) -> Result<(), String> {
    if is_own {
        return put_own(table, &place, around, notes);
    }
    let target = target(&old.backend)?;
    let is_client = place.path == "/" && !place.is_exact;
    let alone = if is_client {
        json!({"hosts": ["a.dev"], "client": target.fields()})
    } else {
        json!({"hosts": ["a.dev"], "path": "/the/orders/api", "routes": [route(&place, &target)]})
    };
    if let Some(problem) = judge::of_ingress(alone).into_iter().next() {
        return Err(problem);
    }
    let known = if is_client { table.client.as_ref() } else { table.routes.get(&place) };
    match known {
        Some(known) if *known == target => return Ok(()),
        Some(known) => {
            return Err(format!(
                "{} leads to {} already: a path leads to one Service; see which of the two it is, and take the other out of the \
                 Ingress",
                place.path,
                known.shown()
            ));
        }
        None if !place.is_exact && table.own.as_ref().is_some_and(|own| own.as_str() == place.path) => {
            return Err(format!(
                "{} is the path of the orders API already: take it out of the Ingress",
                place.path
            ));
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
fn route(place: &Place, target: &Target) -> Map<String, Value> {
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
) -> Result<(), String> {
    let path = CanonicalPath::parse(&place.path).map_err(|error| error.to_string())?;
    if place.is_exact {
        return Err(format!(
            "it is exact, and the orders API has what is below its path too, such as {path}/5: write pathType: Prefix in the Ingress"
        ));
    }
    if path.is_root() {
        return Err(format!(
            "Service {} has every path of this host, and the orders API serves at one path, {DEFAULT_PATH} unless spec.ingress.path \
             says otherwise: requests for it must begin with that",
            around.orders
        ));
    }
    if table.routes.contains_key(place) {
        return Err(format!(
            "{path} leads to another Service as well: take one of the two out of the Ingress"
        ));
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
        Some(own) => Err(format!(
            "the orders API has one path, and that is {own}: have the clients request that; or, if another program served {path}, \
             give it a Service of its own and a route"
        )),
    }
}

fn target(backend: &OldBackend) -> Result<Target, String> {
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

/// Makes the default backend the client of the hosts that have no other.
fn with_default(tables: &mut [(Host, Table)], ingress: &OldIngress, findings: &mut Findings) {
    let Some(backend) = &ingress.default else { return };
    let mut notes = Notes::about(&ingress.label, findings);
    let target = match target(backend) {
        Ok(target) => target,
        Err(why) => {
            return notes.left(Whom::Users, format!("the default backend {}: {why}", backend.service));
        }
    };
    let alone = json!({"hosts": ["a.dev"], "client": target.fields()});
    if let Some(problem) = judge::of_ingress(alone).into_iter().next() {
        return notes.left(Whom::Users, format!("the default backend {}: {problem}", backend.service));
    }
    for (host, table) in tables {
        match &table.client {
            None => table.client = Some(target.clone()),
            Some(client) if *client == target => {}
            Some(client) => notes.left(
                Whom::Users,
                format!(
                    "the default backend {} is another than {}, which has / of host {}: it had the requests for other hosts; if it is \
                     needed, leave it in an Ingress of its own",
                    target.shown(),
                    client.shown(),
                    shown(host)
                ),
            ),
        }
    }
    notes.changed(
        Whom::Users,
        format!(
            "the default backend {} is the client now: it has what no route of these hosts takes, but nothing of other hosts",
            target.shown()
        ),
    );
}

/// `spec.ingress`, from the routes of each host.
fn ingress(
    tables: Vec<(Host, Table)>,
    around: &Around<'_>,
    used: &[&OldIngress],
    kept: &mut Kept,
    findings: &mut Findings,
) -> Value {
    let hosts: Vec<String> = if around.hosts.is_empty() {
        tables.iter().filter_map(|(host, _)| host.as_ref().map(ToString::to_string)).collect()
    } else {
        let was: Vec<_> = tables.iter().map(|(host, _)| shown(host)).collect();
        let text = format!(
            "the hosts are {} as --host says, in place of {}",
            around.hosts.join(", "),
            was.join(", ")
        );
        findings.add(Kind::Changed, Whom::Users, "Ingress", text);
        around.hosts.to_vec()
    };
    let mut spec = Map::new();
    if hosts.is_empty() {
        let text = "the rules are of any host, as before: spec.ingress.hosts is left out; where the operator has a list of allowed hosts, \
                    name them by --host";
        findings.add(Kind::Changed, Whom::Users, "Ingress", text);
    } else {
        spec.insert("hosts".into(), json!(hosts));
    }
    let classes: BTreeSet<_> = used.iter().filter_map(|ingress| ingress.class.as_deref()).collect();
    if let Some(class) = used.iter().find_map(|ingress| ingress.class.as_deref()) {
        spec.insert("className".into(), json!(class));
        let told = format!(
            "the class is {class} by spec.ingress.className: see that kubectl get ingressclass lists it"
        );
        findings.add(Kind::Changed, Whom::You, "Ingress", told);
        if classes.len() > 1 {
            let all = classes.into_iter().collect::<Vec<_>>().join(", ");
            let text = format!(
                "the Ingresses have several classes ({all}), and an OrdersService has one: {class}; see which it must be"
            );
            findings.add(Kind::Left, Whom::Users, "Ingress", text);
        }
    }
    let annotations = annotations::merged(used, &hosts, findings);
    if !annotations.is_empty() {
        spec.insert("annotations".into(), json!(annotations));
    }
    if let Some(secret) = certificate(used, &hosts, findings) {
        spec.insert("tls".into(), json!({"secretName": secret}));
    }
    own_path(&tables, used, kept, &mut spec, findings);
    let all: Vec<&Host> = tables.iter().map(|(host, _)| host).collect();
    let mut routes = routes(&tables, used, kept, findings);
    clients(&tables, &all, &mut routes, &mut spec, findings);
    if !routes.is_empty() {
        spec.insert("routes".into(), json!(routes));
    }
    Value::Object(spec)
}

/// The hosts of a part, unless it is for all.
fn only<'a>(some: impl Iterator<Item = &'a Host>, all: usize) -> Option<Value> {
    let named: Vec<_> = some.map(shown).collect();
    (named.len() < all).then(|| json!(named))
}

/// The path of the orders API: that of the most hosts.
fn own_path(
    tables: &[(Host, Table)],
    used: &[&OldIngress],
    kept: &mut Kept,
    spec: &mut Map<String, Value>,
    findings: &mut Findings,
) {
    let with =
        |path: &CanonicalPath| tables.iter().filter(|(_, table)| table.own.as_ref() == Some(path)).count();
    let paths: BTreeSet<&CanonicalPath> = tables.iter().filter_map(|(_, table)| table.own.as_ref()).collect();
    let Some(path) = paths.iter().copied().rev().max_by_key(|path| with(path)) else { return };
    if path.as_str() != DEFAULT_PATH {
        spec.insert("path".into(), json!(path.as_str()));
        let text = format!(
            "the orders API is at {path}, as before: spec.ingress.path says so, and the pods serve it there"
        );
        findings.add(Kind::Changed, Whom::Users, "Ingress", text);
    }
    let has = |(_, table): &&(Host, Table)| table.own.as_ref() == Some(path);
    if let Some(hosts) = only(tables.iter().filter(has).map(|(host, _)| host), tables.len()) {
        spec.insert("pathHosts".into(), hosts);
    }
    for (host, table) in tables {
        let Some(other) = table.own.as_ref().filter(|own| *own != path) else { continue };
        let text = format!(
            "host {} has the orders API at {other}, and the OrdersService has it at {path}: have the clients of that host request \
             {path} at a host of {path}; until then its path stays in the old Ingress",
            shown(host)
        );
        keep(used, host, other.as_str(), kept);
        findings.add(Kind::Left, Whom::Users, "Ingress", text);
    }
}

/// Notes that a path of a host stays where it is.
fn keep(used: &[&OldIngress], host: &Host, path: &str, kept: &mut Kept) {
    let of_host = |ingress: &&&OldIngress| ingress.rules.iter().any(|rule| is(rule.host.as_deref(), host));
    for ingress in used.iter().filter(of_host) {
        kept.entry(ingress.name.clone()).or_default().insert(format!("{} {path}", shown(host)));
    }
}

/// Every route, with the hosts that have it.
fn routes(
    tables: &[(Host, Table)],
    used: &[&OldIngress],
    kept: &mut Kept,
    findings: &mut Findings,
) -> Vec<Map<String, Value>> {
    let mut found: Vec<(&Place, &Target, Vec<&Host>)> = Vec::new();
    for (host, table) in tables {
        for (place, target) in &table.routes {
            match found.iter_mut().find(|(known, to, _)| *known == place && *to == target) {
                Some((_, _, hosts)) => hosts.push(host),
                None => found.push((place, target, vec![host])),
            }
        }
    }
    for (place, _, hosts) in found.split_off(found.len().min(MAX_ROUTES)) {
        for host in hosts {
            keep(used, host, &place.path, kept);
            let text = format!(
                "path {} of host {}: an OrdersService has at most {MAX_ROUTES} routes; write it in a second OrdersService, or leave it in \
                 the old Ingress",
                place.path,
                shown(host)
            );
            findings.add(Kind::Left, Whom::Users, "Ingress", text);
        }
    }
    let fields = |(place, target, hosts): (&Place, &Target, Vec<&Host>)| {
        let mut fields = route(place, target);
        fields.extend(only(hosts.into_iter(), tables.len()).map(|hosts| ("hosts".to_owned(), hosts)));
        fields
    };
    found.into_iter().map(fields).collect()
}

/// The client: that of the most hosts, of those that have the orders first. Those of others are routes at / of theirs.
fn clients(
    tables: &[(Host, Table)],
    all: &[&Host],
    routes: &mut Vec<Map<String, Value>>,
    spec: &mut Map<String, Value>,
    findings: &mut Findings,
) {
    let mut found: Vec<(&Target, Vec<&Host>, usize)> = Vec::new();
    let mut without = Vec::new();
    for (host, table) in tables {
        match &table.client {
            None => without.push(shown(host)),
            Some(target) => {
                let has_orders = usize::from(table.own.is_some());
                match found.iter_mut().find(|(known, _, _)| *known == target) {
                    Some((_, hosts, with_orders)) => {
                        hosts.push(host);
                        *with_orders += has_orders;
                    }
                    None => found.push((target, vec![host], has_orders)),
                }
            }
        }
    }
    if !without.is_empty() {
        let text = format!(
            "no path leads everything else of {} to a web client, so it has none: what no route takes is not served there",
            without.join(", ")
        );
        findings.add(Kind::Changed, Whom::Users, "Ingress", text);
    }
    let rank = |(_, hosts, with_orders): &(&Target, Vec<&Host>, usize)| (*with_orders, hosts.len());
    let Some(most) = found.iter().map(rank).max() else { return };
    let Some(at) = found.iter().position(|one| rank(one) == most) else { return };
    let (client, hosts, _) = found.remove(at);
    let mut fields = client.fields();
    fields.extend(only(hosts.into_iter(), all.len()).map(|hosts| ("hosts".to_owned(), hosts)));
    spec.insert("client".into(), Value::Object(fields));
    let root = Place { path: "/".into(), is_exact: false };
    for (target, hosts, _) in found {
        let mut fields = route(&root, target);
        fields.insert("hosts".into(), json!(hosts.into_iter().map(shown).collect::<Vec<_>>()));
        routes.push(fields);
    }
}

/// The Secret of the certificate: the first that is named for one of the hosts.
fn certificate(used: &[&OldIngress], hosts: &[String], findings: &mut Findings) -> Option<String> {
    let hosts: Vec<CanonicalHost> = parsed(hosts).into_iter().flatten().collect();
    let (mut secrets, mut others) = (Vec::<&str>::new(), Vec::<&str>::new());
    for ingress in used {
        for (named, secret) in &ingress.tls {
            let is_of_others = !hosts.is_empty() && !hosts.iter().any(|host| is_for(ingress, named, host));
            let known = if is_of_others { &mut others } else { &mut secrets };
            match secret {
                Some(secret) if !known.contains(&secret.as_str()) => known.push(secret),
                Some(_) => {}
                None => findings.add(
                    Kind::Left,
                    Whom::Users,
                    &ingress.label,
                    format!(
                        "spec.tls of {} names no Secret, so the ingress controller's own certificate was served: an OrdersService names a \
                         Secret in spec.ingress.tls.secretName; without it many controllers serve the same one, and do not redirect to \
                         HTTPS",
                        named.join(", ")
                    ),
                ),
            }
        }
    }
    if let [first, _, ..] = secrets.as_slice() {
        let text = format!(
            "the certificates are in several Secrets ({}), and an OrdersService has one for all its hosts: {first}; see that it is for \
             all of them",
            secrets.join(", ")
        );
        findings.add(Kind::Left, Whom::Users, "Ingress", text);
    }
    let has_tls = |host: &CanonicalHost| {
        used.iter().any(|ingress| ingress.tls.iter().any(|(named, _)| is_for(ingress, named, host)))
    };
    let without: Vec<_> = hosts.iter().filter(|host| !has_tls(host)).map(ToString::to_string).collect();
    let without = without.join(", ");
    let text = match (secrets.first(), others.as_slice()) {
        _ if without.is_empty() => None,
        (None, []) => None,
        (None, others) => Some(format!(
            "the certificate in Secret {} is not for {without}, so spec.ingress.tls is left out: write in its secretName a Secret with a \
             certificate for {without}; if cert-manager is to make it, one that no other Ingress names",
            others.join(", ")
        )),
        (Some(secret), _) => Some(format!(
            "spec.tls has no certificate for {without}, and that of the OrdersService, in Secret {secret}, is served at all its hosts, \
             where many controllers then redirect to HTTPS: see that it is for {without} too, or write these in a second OrdersService"
        )),
    };
    if let Some(text) = text {
        findings.add(Kind::Left, Whom::Users, "Ingress", text);
    }
    secrets.first().map(|secret| (*secret).to_owned())
}

/// Whether a certificate is for a host, by the hosts that `spec.tls` names for it; where these are none, by those of the rules.
fn is_for(ingress: &OldIngress, named: &[String], host: &CanonicalHost) -> bool {
    let above = host.wildcard_above();
    let is_it = |text: &str| {
        CanonicalHost::parse(text).is_ok_and(|named| named == *host || above.as_ref() == Some(&named))
    };
    if named.is_empty() {
        ingress.rules.iter().any(|rule| rule.host.as_deref().is_none_or(is_it))
    } else {
        named.iter().any(|text| is_it(text))
    }
}
