//! The hosts of the OrdersService, and whose routes each gets.

use std::collections::BTreeMap;

use super::{
    around::Around,
    host::{Host, is, parsed, shown},
    kept::Kept,
};
use crate::{
    migrate::{
        finding::{Findings, Kind, Notes, Whom},
        ingress::{OldIngress, OldPath, OldRule},
        rewrite,
    },
    routing::CanonicalHost,
};

/// The most hosts of an OrdersService.
const MAX_HOSTS: usize = 8;

/// Every path of every host, whichever Ingress has it.
pub(super) type ByHost<'a> = BTreeMap<Host, Vec<(&'a OldIngress, &'a OldPath)>>;

/// A host of the OrdersService.
pub(super) struct Source {
    /// The host whose routes it gets.
    pub(super) host: Host,
    /// Its own name; none for rules of any host.
    pub(super) name: Option<String>,
}

impl Source {
    fn itself(host: &Host) -> Self {
        Self { host: host.clone(), name: host.as_ref().map(ToString::to_string) }
    }
}

/// Sorts the paths by host.
pub(super) fn by_host<'a>(all: &'a [OldIngress], findings: &mut Findings) -> ByHost<'a> {
    let mut by_host = ByHost::new();
    for ingress in all {
        for (at, rule) in ingress.rules.iter().enumerate() {
            let host = match rule.host.as_deref().map(CanonicalHost::parse).transpose() {
                Ok(host) => host,
                Err(error) => {
                    let told = format!(
                        "spec.rules[{at}]: {error}; until then the rule stays in this Ingress, and the OrdersService has no routes of it"
                    );
                    findings.add(Kind::Left, Whom::Users, &ingress.label, told);
                    continue;
                }
            };
            by_host.entry(host).or_default().extend(rule.paths.iter().map(|path| (ingress, path)));
        }
    }
    by_host
}

/// The rules of a host, each with its Ingress.
pub(super) fn rules_of<'a>(
    all: impl IntoIterator<Item = &'a OldIngress>,
    host: &Host,
) -> impl Iterator<Item = (&'a OldIngress, &'a OldRule)> {
    let of = move |ingress: &'a OldIngress| ingress.rules.iter().map(move |rule| (ingress, rule));
    all.into_iter().flat_map(of).filter(move |(_, rule)| is(rule.host.as_deref(), host))
}

/// The hosts that the OrdersService has. Without `--host`, those that lead to the orders, and the others beside them, as many
/// as there may be; rules of any host only where the orders have no others. All others stay where they are.
pub(super) fn sources(
    all: &[OldIngress],
    by_host: &ByHost<'_>,
    ours: &[&Host],
    around: &Around<'_>,
    kept: &mut Kept,
    findings: &mut Findings,
) -> Vec<Source> {
    let has_named = ours.iter().any(|host| host.is_some());
    let sources = if around.hosts.is_empty() {
        // Those of the orders first: they are not the ones for which there is no place.
        let others = by_host.keys().filter(|host| !ours.contains(host));
        let fitting = ours.iter().copied().chain(others).filter(|host| host.is_some() == has_named);
        let mut taken: Vec<_> = fitting.take(MAX_HOSTS).collect();
        taken.sort_unstable();
        taken.into_iter().map(Source::itself).collect()
    } else {
        wished(by_host, ours, around, findings)
    };
    let names = parsed(&names(&sources));
    for host in by_host.keys() {
        let is_source = sources.iter().any(|source| source.host == *host);
        if names.contains(host) || (is_source && (host.is_none() || around.hosts.is_empty())) {
            continue;
        }
        for (ingress, rule) in rules_of(all, host) {
            let is_own = rule.paths.iter().any(|path| path.backend.service == around.orders);
            kept.host(&ingress.name, host, is_own);
            if !is_source {
                say_that_it_stays(host, has_named, around, &mut Notes::about(&ingress.label, findings));
            }
        }
    }
    sources
}

fn say_that_it_stays(host: &Host, has_named: bool, around: &Around<'_>, notes: &mut Notes<'_>) {
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
                "host {host}: an OrdersService has at most {MAX_HOSTS} hosts; its rules stay in this Ingress, or write them in one of \
                 your own"
            ),
        ),
    }
}

/// The names of the hosts of the OrdersService.
pub(super) fn names<'a>(sources: impl IntoIterator<Item = &'a Source>) -> Vec<String> {
    sources.into_iter().filter_map(|source| source.name.clone()).collect()
}

/// What `--host` asks for: each host with its own routes, if there are any; or those of the one that `OLD=NEW` names; or else
/// those of the host in whose place it is.
fn wished(by_host: &ByHost<'_>, ours: &[&Host], around: &Around<'_>, findings: &mut Findings) -> Vec<Source> {
    let mut sources = Vec::<Source>::new();
    for wish in around.hosts {
        let (of, name) = wish.split_once('=').map_or((None, wish.as_str()), |(of, name)| (Some(of), name));
        let named = CanonicalHost::parse(name).ok();
        let host = match of {
            Some("") => Some(None),
            Some(of) => CanonicalHost::parse(of).ok().map(Some),
            None if named.is_some() && by_host.contains_key(&named) => Some(named),
            None => in_place_of(by_host, ours, around).cloned(),
        };
        match host.filter(|host| by_host.contains_key(host)) {
            Some(host) => sources.push(Source { host, name: Some(name.to_owned()) }),
            None => {
                let there: Vec<_> = by_host.keys().map(shown).collect();
                let told = format!("--host {wish}: no Ingress has that host; there is {}", there.join(", "));
                findings.add(Kind::Left, Whom::You, "Ingress", told);
            }
        }
    }
    sources
}

/// The host in whose place another is that has no routes of its own: one with a client, or else the one with the most paths.
fn in_place_of<'a>(by_host: &ByHost<'_>, ours: &[&'a Host], around: &Around<'_>) -> Option<&'a Host> {
    let is_client = |ingress: &OldIngress, path: &OldPath| {
        path.backend.service != around.orders
            && (ingress.is_regex || !path.is_exact)
            && rewrite::canonical(&path.text).is_ok_and(|path| path.is_root())
    };
    let rank = |host: &Host| {
        let paths = by_host.get(host).map(Vec::as_slice).unwrap_or_default();
        let has_client =
            paths.iter().any(|(ingress, path)| ingress.default.is_some() || is_client(ingress, path));
        (has_client, paths.len())
    };
    // Of equals the first.
    ours.iter().copied().rev().max_by_key(|host| rank(host))
}
