//! `spec.ingress`, from the routes of each host.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{
    around::Around,
    certificate::certificate,
    host::shown,
    kept::Kept,
    sources::{Source, names, rules_of},
    table::{self, DEFAULT_PATH, Place, Table, Target, route},
};
use crate::{
    migrate::{
        annotations,
        finding::{Findings, Kind, Notes, Whom},
        ingress::{CLASS_ANNOTATION, OldIngress},
        judge, rewrite,
    },
    routing::CanonicalPath,
};

/// The most routes of an OrdersService.
const MAX_ROUTES: usize = 64;

/// A host of the OrdersService, and its routes.
pub(super) struct Site {
    /// The host, and the one whose routes it gets.
    pub(super) source: Source,
    /// These.
    pub(super) table: Table,
}

impl Site {
    /// The host as the spec names it.
    fn name(&self) -> &str {
        self.source.name.as_deref().unwrap_or("(any)")
    }

    /// Whether a path of it leads to the orders, be it one that they cannot have.
    fn leads(&self, used: &[&OldIngress], around: &Around<'_>) -> bool {
        rules_of(used.iter().copied(), &self.source.host)
            .any(|(_, rule)| rule.paths.iter().any(|path| path.backend.service == around.orders))
    }
}

/// `spec.ingress`.
pub(super) fn ingress(
    sites: &mut [Site],
    around: &Around<'_>,
    used: &[&OldIngress],
    kept: &mut Kept,
    findings: &mut Findings,
) -> Value {
    for ingress in used {
        with_default(sites, ingress, around, kept, findings);
    }
    give_way(sites, around, used, findings);
    let sites = &*sites;
    let hosts = names(sites.iter().map(|site| &site.source));
    if !around.hosts.is_empty() {
        let was: Vec<_> = sites.iter().map(|site| shown(&site.source.host)).collect();
        let text =
            format!("the hosts are {} as --host says, in place of {}", hosts.join(", "), was.join(", "));
        findings.add(Kind::Changed, Whom::Users, "Ingress", text);
    }
    let mut spec = Map::new();
    if hosts.is_empty() {
        let text = "the rules are of any host, as before: spec.ingress.hosts is left out; where the operator has a list of allowed hosts, \
                    name them with --host";
        findings.add(Kind::Changed, Whom::Users, "Ingress", text);
    } else {
        spec.insert("hosts".into(), json!(hosts));
    }
    let mut class_annotation = None;
    let classes: BTreeSet<_> = used.iter().filter_map(|ingress| ingress.class.as_deref()).collect();
    if let Some(class) = used.iter().find_map(|ingress| ingress.class.as_deref()) {
        let is_as_before = used.iter().all(|ingress| ingress.is_class_by_field || ingress.class.is_none());
        let told = if judge::of_ingress(json!({"hosts": ["a.dev"], "className": class})).is_empty() {
            spec.insert("className".into(), json!(class));
            (!is_as_before).then(|| format!(
                "the class is {class} by spec.ingress.className: see that kubectl get ingressclass lists it; if not, as with gce on GKE, \
                 write {CLASS_ANNOTATION}: {class} in spec.ingress.annotations in its place"
            ))
        } else {
            // Such as azure/application-gateway.
            class_annotation = Some(class.to_owned());
            Some(format!(
                "the class is {class} by the annotation {CLASS_ANNOTATION}, as before: no IngressClass can have that name"
            ))
        };
        if let Some(told) = told {
            findings.add(Kind::Changed, Whom::You, "Ingress", told);
        }
        if classes.len() > 1 {
            let all = classes.into_iter().collect::<Vec<_>>().join(", ");
            let text = format!(
                "the Ingresses have several classes ({all}), and an OrdersService has one: {class}; see which it must be"
            );
            findings.add(Kind::Left, Whom::Users, "Ingress", text);
        }
    }
    if let Some(secret) = certificate(used, &hosts, findings) {
        spec.insert("tls".into(), json!({"secretName": secret}));
    }
    own_path(sites, used, around, kept, &mut spec, findings);
    let mut routes = routes(sites, used, around, kept, findings);
    clients(sites, &mut routes, &mut spec, findings);
    if !routes.is_empty() {
        spec.insert("routes".into(), json!(routes));
    }
    // Now it is known what stays in the old ones.
    let mut annotations =
        annotations::merged(used, &hosts, &|ingress| kept.in_ingress(ingress).is_some(), findings);
    annotations.extend(class_annotation.map(|class| (CLASS_ANNOTATION.to_owned(), class)));
    if !annotations.is_empty() {
        spec.insert("annotations".into(), json!(annotations));
    }
    Value::Object(spec)
}

/// Makes the default backend the client of the hosts that have no other.
fn with_default(
    sites: &mut [Site],
    ingress: &OldIngress,
    around: &Around<'_>,
    kept: &mut Kept,
    findings: &mut Findings,
) {
    if ingress.has_other_default {
        kept.default_backend(&ingress.name, false);
    }
    let Some(backend) = &ingress.default else { return };
    let mut notes = Notes::about(&ingress.label, findings);
    let is_own = backend.service == around.orders;
    let target = match table::target(backend) {
        _ if is_own => Err(format!(
            "it is the Service of the orders, which had every request that no path takes; the orders API serves at one path, \
             {DEFAULT_PATH} unless spec.ingress.path says otherwise: requests for it must begin with that"
        )),
        Ok(target) => {
            let alone = json!({"hosts": ["a.dev"], "client": target.fields()});
            let problem = judge::of_routes(around.name, alone).into_iter().next();
            problem.map_or(Ok(target), |problem| Err(backend.as_written(&problem)))
        }
        Err(why) => Err(why),
    };
    let target = match target {
        Ok(target) => target,
        Err(why) => {
            kept.default_backend(&ingress.name, is_own);
            return notes.left(Whom::Users, format!("the default backend {}: {why}", backend.service));
        }
    };
    let mut is_client = false;
    for site in sites {
        match &site.table.client {
            None => {
                site.table.client = Some(target.clone());
                is_client = true;
            }
            Some(client) if *client == target => is_client = true,
            Some(client) => {
                kept.default_backend(&ingress.name, false);
                notes.left(
                    Whom::Users,
                    format!(
                        "the default backend {} is another than {}, which has / of host {}: it had the requests for other hosts; if it \
                         is needed, leave it in an Ingress of its own",
                        target.shown(),
                        client.shown(),
                        shown(&site.source.host)
                    ),
                );
            }
        }
    }
    if is_client {
        notes.changed(
            Whom::Users,
            format!(
                "the default backend {} is the client now: it has what no route of these hosts takes, but nothing of other hosts",
                target.shown()
            ),
        );
    }
}

/// The hosts of a part, unless it is for all.
fn only<'a>(some: impl Iterator<Item = &'a Site>, all: usize) -> Option<Value> {
    let named: Vec<_> = some.map(Site::name).collect();
    (named.len() < all).then(|| json!(named))
}

/// Where no path leads to the orders, they get the usual one; whatever has that gives way.
fn give_way(sites: &mut [Site], around: &Around<'_>, used: &[&OldIngress], findings: &mut Findings) {
    if sites.iter().any(|site| site.table.own.is_some()) {
        return;
    }
    let place = Place { path: DEFAULT_PATH.into(), is_exact: false };
    let object = used.first().map_or("Ingress", |ingress| ingress.label.as_str());
    let is_anywhere = sites.iter().any(|site| site.leads(used, around));
    for site in sites.iter_mut().filter(|site| !is_anywhere || site.leads(used, around)) {
        let Some(other) = site.table.routes.remove(&place) else { continue };
        let text = format!(
            "path {DEFAULT_PATH} of host {} leads to {}, and no path that the orders API can have leads to {}: it \
             is that of the orders API now, without a route to the former; if that is the Service of the orders, \
             name it with --orders; if not, write another path in spec.ingress.path, and this one as a route",
            shown(&site.source.host),
            other.shown(),
            around.orders
        );
        findings.add(Kind::Left, Whom::Users, object, text);
    }
}

/// The usual path of the orders API, where no path that it can have leads to the orders: of the hosts that had any, or else of
/// all.
fn usual_path(
    sites: &[Site],
    used: &[&OldIngress],
    around: &Around<'_>,
    spec: &mut Map<String, Value>,
    findings: &mut Findings,
) {
    let leading: Vec<_> = sites.iter().filter(|site| site.leads(used, around)).collect();
    let text = if !leading.is_empty() {
        let names: Vec<_> = leading.iter().map(|site| site.name()).collect();
        format!(
            "no path that leads to Service {} is one that the orders API can have: it is at {DEFAULT_PATH} of {} now, unless you write \
             another in spec.ingress.path",
            around.orders,
            names.join(", ")
        )
    } else if !around.hosts.is_empty() {
        format!("no host that --host names led to the orders: they are at {DEFAULT_PATH} of all of these now")
    } else {
        // That there is none at all was said.
        return;
    };
    findings.add(Kind::Changed, Whom::Users, "Ingress", text);
    if !leading.is_empty()
        && let Some(hosts) = only(leading.into_iter(), sites.len())
    {
        spec.insert("pathHosts".into(), hosts);
    }
}

/// The path of the orders API: that of the most hosts.
fn own_path(
    sites: &[Site],
    used: &[&OldIngress],
    around: &Around<'_>,
    kept: &mut Kept,
    spec: &mut Map<String, Value>,
    findings: &mut Findings,
) {
    let has = |site: &&Site, path: &CanonicalPath| site.table.own.as_ref() == Some(path);
    let with = |path: &CanonicalPath| sites.iter().filter(|site| has(site, path)).count();
    let paths: BTreeSet<&CanonicalPath> = sites.iter().filter_map(|site| site.table.own.as_ref()).collect();
    let Some(path) = paths.iter().copied().rev().max_by_key(|path| with(path)) else {
        return usual_path(sites, used, around, spec, findings);
    };
    if path.as_str() != DEFAULT_PATH {
        spec.insert("path".into(), json!(path.as_str()));
        let text = format!(
            "the orders API is at {path}, as before: spec.ingress.path says so, and the pods serve it there"
        );
        findings.add(Kind::Changed, Whom::Users, "Ingress", text);
    }
    if let Some(hosts) = only(sites.iter().filter(|site| has(site, path)), sites.len()) {
        spec.insert("pathHosts".into(), hosts);
    }
    for site in sites {
        let Some(other) = site.table.own.as_ref().filter(|own| *own != path) else { continue };
        let text = format!(
            "host {} has the orders API at {other}, and the OrdersService has it at {path}: have the clients of that host request \
             {path} at a host of {path}; until then its path stays in the old Ingress",
            shown(&site.source.host)
        );
        keep(used, site, other.as_str(), around, kept);
        findings.add(Kind::Left, Whom::Users, "Ingress", text);
    }
}

/// Notes that a path of a host stays where it is.
fn keep(used: &[&OldIngress], site: &Site, path: &str, around: &Around<'_>, kept: &mut Kept) {
    let host = &site.source.host;
    for (ingress, rule) in rules_of(used.iter().copied(), host) {
        let is_it =
            |text: &str| rewrite::canonical(text).map_or(text == path, |parsed| parsed.as_str() == path);
        for old in rule.paths.iter().filter(|old| is_it(&old.text)) {
            kept.path(&ingress.name, host, &old.text, old.backend.service == around.orders);
        }
    }
}

/// Every route, with the hosts that have it.
fn routes(
    sites: &[Site],
    used: &[&OldIngress],
    around: &Around<'_>,
    kept: &mut Kept,
    findings: &mut Findings,
) -> Vec<Map<String, Value>> {
    let mut found: Vec<(&Place, &Target, Vec<&Site>)> = Vec::new();
    for site in sites {
        for (place, target) in &site.table.routes {
            match found.iter_mut().find(|(known, to, _)| *known == place && *to == target) {
                Some((_, _, of)) => of.push(site),
                None => found.push((place, target, vec![site])),
            }
        }
    }
    for (place, _, of) in found.split_off(found.len().min(MAX_ROUTES)) {
        for site in of {
            keep(used, site, &place.path, around, kept);
            let is_regex = used.iter().any(|ingress| ingress.is_regex);
            let text = format!(
                "path {} of host {}: an OrdersService has at most {MAX_ROUTES} routes; {}write it in an Ingress of your own{}",
                place.path,
                shown(&site.source.host),
                if is_regex { "" } else { "leave it in the old Ingress, or " },
                if is_regex {
                    ", without use-regex and rewrite-target, which make regexes of all paths of the host"
                } else {
                    ""
                }
            );
            findings.add(Kind::Left, Whom::Users, "Ingress", text);
        }
    }
    let fields = |(place, target, of): (&Place, &Target, Vec<&Site>)| {
        let mut fields = route(place, target);
        fields.extend(only(of.into_iter(), sites.len()).map(|hosts| ("hosts".to_owned(), hosts)));
        fields
    };
    found.into_iter().map(fields).collect()
}

/// The client: that of the most hosts, of those that have the orders first. Those of others are routes at / of theirs.
fn clients(
    sites: &[Site],
    routes: &mut Vec<Map<String, Value>>,
    spec: &mut Map<String, Value>,
    findings: &mut Findings,
) {
    let mut found: Vec<(&Target, Vec<&Site>, usize)> = Vec::new();
    let mut without = Vec::new();
    for site in sites {
        match &site.table.client {
            None => without.push(site.name()),
            Some(target) => {
                let has_orders = usize::from(site.table.own.is_some());
                match found.iter_mut().find(|(known, _, _)| *known == target) {
                    Some((_, of, with_orders)) => {
                        of.push(site);
                        *with_orders += has_orders;
                    }
                    None => found.push((target, vec![site], has_orders)),
                }
            }
        }
    }
    if !without.is_empty() {
        let text = format!(
            "no path sends all other requests for {} to a web client, so requests that match no route are not \
             served there",
            without.join(", ")
        );
        findings.add(Kind::Changed, Whom::Users, "Ingress", text);
    }
    let rank = |(_, of, with_orders): &(&Target, Vec<&Site>, usize)| (*with_orders, of.len());
    let Some(most) = found.iter().map(rank).max() else { return };
    let Some(at) = found.iter().position(|one| rank(one) == most) else { return };
    let (client, of, _) = found.remove(at);
    let mut fields = client.fields();
    fields.extend(only(of.into_iter(), sites.len()).map(|hosts| ("hosts".to_owned(), hosts)));
    spec.insert("client".into(), Value::Object(fields));
    let root = Place { path: "/".into(), is_exact: false };
    for (target, of, _) in found {
        let mut fields = route(&root, target);
        fields.insert("hosts".into(), json!(of.into_iter().map(Site::name).collect::<Vec<_>>()));
        routes.push(fields);
    }
}
