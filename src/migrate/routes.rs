//! From the rules of some Ingresses to the routes of one OrdersService.
//!
//! Of the hosts that lead to the orders API, those with the same routes are taken; what cannot be said stays where it is,
//! and is named.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{
    annotations,
    finding::{Findings, Kind, Notes, Whom},
    ingress::{OldBackend, OldIngress, OldPath, OldPort},
    judge,
    rewrite::{self, Rewrite},
    workload::Ports,
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
    /// The ports of each Service that was read.
    pub(super) ports: &'a BTreeMap<String, Ports>,
    /// The hosts to write in place of those that there are.
    pub(super) hosts: &'a [String],
}

/// The routes of one host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Table {
    own: Option<CanonicalPath>,
    routes: BTreeMap<CanonicalPath, Target>,
    client: Option<Target>,
}

/// A Service and its port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    service: String,
    port: i32,
}

impl Target {
    fn fields(&self) -> Map<String, Value> {
        let mut fields = Map::from_iter([("service".to_owned(), json!(self.service))]);
        if self.port != 3000 {
            fields.insert("port".into(), json!(self.port));
        }
        fields
    }

    fn shown(&self) -> String {
        format!("{}:{}", self.service, self.port)
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
                "the OrdersService has no routes; write them in spec.ingress"
            } else {
                "the only host has a route to it at /api/orders now; whatever passed its requests on does so no more"
            }
        );
        findings.add(Kind::Left, Whom::Users, "Ingress", text);
    }
    let mut kept = Kept::new();
    for (host, paths) in &by_host {
        if !ours.contains(&host) {
            for (ingress, _) in paths {
                kept.entry(ingress.name.clone()).or_default().insert(shown(host));
                let text = format!(
                    "host {} leads to nothing of orders: its rules stay in this Ingress",
                    shown(host)
                );
                findings.add(Kind::Stays, Whom::Users, &ingress.label, text);
            }
        }
    }
    let tables: Vec<(&Host, Table)> = ours
        .into_iter()
        .filter_map(|host| Some((host, table(host, by_host.get(host)?, around, &mut kept, findings))))
        .collect();
    let (hosts, table) = largest(&tables, &by_host, &mut kept, findings)?;
    let used: Vec<&OldIngress> = all
        .iter()
        .filter(|ingress| {
            ingress.rules.iter().any(|rule| hosts.iter().any(|host| is(rule.host.as_deref(), host)))
        })
        .collect();
    let table = with_default(table.clone(), &used, around, findings);
    let named = named_hosts(&hosts, around, findings);
    let ingress = ingress(&table, named.as_deref(), &used, findings);
    for ingress in &used {
        let mut notes = Notes::about(&ingress.label, findings);
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
    ingress
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
        let entry = canonical(ingress, path, is_own, &mut notes)
            .and_then(|canonical| put(&mut table, canonical, path, is_own, around, &mut notes));
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

/// The prefix that a path means.
///
/// # Errors
/// Why it is no prefix, and what to do.
fn canonical(
    ingress: &OldIngress,
    path: &OldPath,
    is_own: bool,
    notes: &mut Notes<'_>,
) -> Result<CanonicalPath, String> {
    let stays = format!(
        "it can stay in Ingress {} alone, whose other paths of this host you take out of it",
        ingress.name
    );
    // With ingress-nginx's regexes the type of a path does not count.
    if path.is_exact && !ingress.is_regex {
        return Err(format!(
            "its pathType is Exact, and a route is a prefix: write it as a route, if the Service may have what is below it too; or \
             {stays}"
        ));
    }
    if let Some(target) = ingress.rewrite.as_deref().filter(|_| !is_own) {
        match rewrite::of(&path.text, target) {
            Rewrite::Same => {}
            Rewrite::Strip => {
                return Err(format!(
                    "rewrite-target {target:?} takes the prefix off, which an OrdersService cannot say: have the Service serve at the \
                     whole path, and write it as a route; or {stays}"
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
    Ok(canonical)
}

/// Puts a path into the table.
///
/// # Errors
/// Why it cannot have a place there, and what to do.
fn put(
    table: &mut Table,
    path: CanonicalPath,
    old: &OldPath,
    is_own: bool,
    around: &Around<'_>,
    notes: &mut Notes<'_>,
) -> Result<(), String> {
    if is_own {
        return put_own(table, path, around, notes);
    }
    let target = target(&old.backend, around)?;
    let route = |path: &CanonicalPath| {
        let mut fields = target.fields();
        if path.is_root() {
            return json!({"hosts": ["a.dev"], "client": fields});
        }
        fields.insert("path".into(), json!(path.as_str()));
        json!({"hosts": ["a.dev"], "path": "/the/orders/api", "routes": [fields]})
    };
    if let Some(problem) = judge::of_ingress(route(&path)).into_iter().next() {
        return Err(problem);
    }
    let place = if path.is_root() { table.client.as_ref() } else { table.routes.get(&path) };
    match place {
        Some(known) if *known == target => return Ok(()),
        Some(known) => {
            return Err(format!(
                "{path} leads to {} already: a path leads to one Service; see which of the two it is, and take the other out of the \
                 Ingress",
                known.shown()
            ));
        }
        None if table.own.as_ref() == Some(&path) => {
            return Err(format!("{path} is the path of the orders API already: take it out of the Ingress"));
        }
        None => {}
    }
    if path.is_root() {
        table.client = Some(target);
        return Ok(());
    }
    if table.routes.len() >= MAX_ROUTES {
        return Err(format!(
            "an OrdersService has at most {MAX_ROUTES} routes: write it in a second OrdersService, or leave it"
        ));
    }
    table.routes.insert(path, target);
    Ok(())
}

fn put_own(
    table: &mut Table,
    path: CanonicalPath,
    around: &Around<'_>,
    notes: &mut Notes<'_>,
) -> Result<(), String> {
    if path.is_root() {
        return Err(format!(
            "Service {} has every path of this host, and the orders API serves at {DEFAULT_PATH} only: requests for it must begin \
             with that",
            around.orders
        ));
    }
    if table.routes.contains_key(&path) {
        return Err(format!(
            "{path} leads to another Service as well: take one of the two out of the Ingress"
        ));
    }
    match &table.own {
        None => {
            if path.as_str() != DEFAULT_PATH {
                notes.left(
                    Whom::Users,
                    format!(
                        "the orders API is at {path} here, and serves at {DEFAULT_PATH} only: spec.ingress.path says {path}, and is \
                         answered by 404; have the clients request {DEFAULT_PATH}, and remove spec.ingress.path"
                    ),
                );
            }
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

fn target(backend: &OldBackend, around: &Around<'_>) -> Result<Target, String> {
    let service = backend.service.clone();
    let number = match &backend.port {
        Some(OldPort::Number(number)) => *number,
        Some(OldPort::Name(name)) => {
            let number = around.ports.get(&service).and_then(|ports| ports.named(name));
            i64::from(number.ok_or_else(|| {
                format!(
                    "its port is {name:?} by name, and Service {service}, which says the number, is not among the inputs or has none \
                     of that name: add it to them, or write the number in the Ingress"
                )
            })?)
        }
        None => {
            return Err(format!(
                "it has no port that was understood: write the number of a port of Service {service} in the Ingress"
            ));
        }
    };
    let port =
        i32::try_from(number).map_err(|_| format!("its port is {number}: write one from 1 to 65535"))?;
    Ok(Target { service, port })
}

/// The hosts that have the same routes: of several such groups the largest, and of equals the first.
fn largest<'a>(
    tables: &'a [(&'a Host, Table)],
    by_host: &BTreeMap<Host, Vec<(&OldIngress, &OldPath)>>,
    kept: &mut Kept,
    findings: &mut Findings,
) -> Option<(Vec<Host>, &'a Table)> {
    let mut groups: Vec<(Vec<&Host>, &Table)> = Vec::new();
    for (host, table) in tables {
        match groups.iter_mut().find(|(_, known)| *known == table) {
            Some((hosts, _)) => hosts.push(host),
            None => groups.push((vec![host], table)),
        }
    }
    // A named host goes before rules of any host, which are of a fallback then.
    let rank = |(hosts, _): &(Vec<&Host>, &Table)| (hosts.iter().any(|host| host.is_some()), hosts.len());
    let best = groups.iter().map(rank).max()?;
    let at = groups.iter().position(|group| rank(group) == best)?;
    let (hosts, table) = groups.remove(at);
    let names: Vec<_> = hosts.iter().map(|host| shown(host)).collect();
    for (others, _) in groups {
        for host in others {
            for (ingress, _) in by_host.get(host).into_iter().flatten() {
                kept.entry(ingress.name.clone()).or_default().insert(shown(host));
                let text = format!(
                    "host {} has other routes than {}, and all hosts of an OrdersService have the same: its rules stay in this Ingress; \
                     or write a second OrdersService for it",
                    shown(host),
                    names.join(", ")
                );
                findings.add(Kind::Left, Whom::Users, &ingress.label, text);
            }
        }
    }
    Some((hosts.into_iter().cloned().collect(), table))
}

/// The routes with the default backend as the client, where there is no other.
fn with_default(
    mut table: Table,
    used: &[&OldIngress],
    around: &Around<'_>,
    findings: &mut Findings,
) -> Table {
    for ingress in used {
        let Some(backend) = &ingress.default else { continue };
        let mut notes = Notes::about(&ingress.label, findings);
        match (&table.client, target(backend, around)) {
            (_, Err(why)) => notes.left(Whom::Users, format!("the default backend {}: {why}", backend.service)),
            (None, Ok(target)) => {
                notes.changed(
                    Whom::Users,
                    format!(
                        "the default backend {} is the client now: it has what no route of these hosts takes, but nothing of other hosts",
                        target.shown()
                    ),
                );
                table.client = Some(target);
            }
            (Some(client), Ok(target)) if *client == target => {
                notes.changed(Whom::Users, "the default backend is the client: it has nothing of other hosts any more");
            }
            (Some(client), Ok(target)) => notes.left(
                Whom::Users,
                format!(
                    "the default backend {} is another than {}, which has / here: it had the requests for other hosts; if it is needed, \
                     leave it in an Ingress of its own",
                    target.shown(),
                    client.shown()
                ),
            ),
        }
    }
    table
}

/// The hosts as `spec.ingress.hosts` has them; none if there is none to write.
fn named_hosts(hosts: &[Host], around: &Around<'_>, findings: &mut Findings) -> Option<Vec<String>> {
    let was: Vec<_> = hosts.iter().map(shown).collect();
    if !around.hosts.is_empty() {
        let text = format!(
            "the hosts are {} as --host says, in place of {}",
            around.hosts.join(", "),
            was.join(", ")
        );
        findings.add(Kind::Changed, Whom::Users, "Ingress", text);
        return Some(around.hosts.to_vec());
    }
    let mut named: Vec<String> = hosts.iter().flatten().map(ToString::to_string).collect();
    if named.is_empty() {
        let text = "the rules are of any host, and an OrdersService names its hosts: call this again with --host NAME, once for each; \
                    spec.ingress is left out until then";
        findings.add(Kind::Left, Whom::Users, "Ingress", text);
        return None;
    }
    for host in named.split_off(named.len().min(MAX_HOSTS)) {
        let text =
            format!("host {host}: an OrdersService has at most {MAX_HOSTS} hosts; write it in a second one");
        findings.add(Kind::Left, Whom::Users, "Ingress", text);
    }
    Some(named)
}

fn ingress(
    table: &Table,
    hosts: Option<&[String]>,
    used: &[&OldIngress],
    findings: &mut Findings,
) -> Option<Value> {
    let hosts = hosts?;
    let mut spec = Map::from_iter([("hosts".to_owned(), json!(hosts))]);
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
    let annotations = annotations::merged(used, hosts, findings);
    if !annotations.is_empty() {
        spec.insert("annotations".into(), json!(annotations));
    }
    if let Some(secret) = certificate(used, findings) {
        spec.insert("tls".into(), json!({"secretName": secret}));
    }
    if let Some(own) = table.own.as_ref().filter(|own| own.as_str() != DEFAULT_PATH) {
        spec.insert("path".into(), json!(own.as_str()));
    }
    let routes: Vec<_> = table
        .routes
        .iter()
        .map(|(path, target)| {
            let mut fields = target.fields();
            fields.insert("path".into(), json!(path.as_str()));
            Value::Object(fields)
        })
        .collect();
    if !routes.is_empty() {
        spec.insert("routes".into(), json!(routes));
    }
    match &table.client {
        Some(client) => drop(spec.insert("client".into(), Value::Object(client.fields()))),
        None => findings.add(
            Kind::Changed,
            Whom::Users,
            "Ingress",
            "no path leads everything else to a web client, so spec.ingress.client is not set: what no route takes is not served",
        ),
    }
    Some(Value::Object(spec))
}

/// The Secret of the certificate: the first that is named.
fn certificate(used: &[&OldIngress], findings: &mut Findings) -> Option<String> {
    let mut secrets = Vec::<&str>::new();
    for ingress in used {
        for (hosts, secret) in &ingress.tls {
            match secret {
                Some(secret) if !secrets.contains(&secret.as_str()) => secrets.push(secret),
                Some(_) => {}
                None => findings.add(
                    Kind::Left,
                    Whom::Users,
                    &ingress.label,
                    format!(
                        "spec.tls of {} names no Secret, so the ingress controller's own certificate was served: an OrdersService names a \
                         Secret in spec.ingress.tls.secretName; without it many controllers serve the same one, and do not redirect to \
                         HTTPS",
                        hosts.join(", ")
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
    secrets.first().map(|secret| (*secret).to_owned())
}
