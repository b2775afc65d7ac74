//! What the tests of this module begin with.

use std::{collections::BTreeSet, sync::Arc};

use super::*;
use crate::routing::{host::CanonicalHost, path::CanonicalPath, path_match::PathMatch};

pub(super) fn host(name: &str) -> CanonicalHost {
    CanonicalHost::parse(name).unwrap()
}

pub(super) fn site(class: Option<&str>, name: &str) -> Site {
    Site { entry_point: EntryPoint::Class(class.map(Into::into)), host: host(name) }
}

pub(super) fn path(text: &str) -> PathMatch {
    PathMatch::prefix(CanonicalPath::parse(text).unwrap())
}

/// Every host at the ingress controllers of the default class.
pub(super) fn any_site() -> Site {
    Site { entry_point: EntryPoint::Class(None), host: CanonicalHost::any() }
}

pub(super) fn claims(name: &str, prefixes: &[&str]) -> BTreeSet<Claim> {
    prefixes
        .iter()
        .map(|prefix| Claim {
            site: site(None, name),
            path: Some(path(prefix)),
            is_served: false,
            switches_to_regexes: false,
        })
        .collect()
}

pub(super) fn claimant(created: i64, namespace: &str, name: &str) -> Claimant {
    let id = ClaimantId { namespace: namespace.into(), name: name.into(), kind: ClaimantKind::OrdersService };
    Claimant { created, id }
}

pub(super) fn names(of: &BTreeSet<Arc<Claimant>>) -> Vec<&str> {
    of.iter().map(|claimant| &*claimant.id.name).collect()
}

/// The name of the object by which the host is refused.
pub(super) fn refused_by(verdict: &Verdict) -> Option<String> {
    match verdict.refused.as_ref()? {
        Refusal::OwnedBy(owner) => Some(owner.id.name.to_string()),
        Refusal::NotAllowed => Some("(not allowed)".into()),
    }
}

pub(super) fn lost(index: &ClaimIndex, me: &Claimant, name: &str, prefixes: &[&str]) -> Vec<String> {
    let prefixes: Vec<_> = prefixes.iter().map(|prefix| path(prefix)).collect();
    let verdict = index.judge(me, &site(None, name), &prefixes);
    verdict.lost.iter().map(|(path, winner)| format!("{path} {winner}")).collect()
}

pub(super) fn at_gateway(gateway: &str, name: &str) -> Site {
    Site { entry_point: EntryPoint::Gateway(gateway.into()), host: host(name) }
}

/// A claim on a host that is served already.
pub(super) fn served(site: Site, prefix: &str) -> Claim {
    Claim { site, path: Some(path(prefix)), is_served: true, switches_to_regexes: false }
}

pub(super) fn foreign(created: i64, namespace: &str, name: &str, kind: ClaimantKind) -> Claimant {
    Claimant { created, id: ClaimantId { kind, ..claimant(created, namespace, name).id } }
}

/// By whom each of these hosts is refused to `me`, at the default class.
pub(super) fn refusals(index: &ClaimIndex, me: &Claimant, names: &[&str]) -> Vec<Option<String>> {
    names.iter().map(|name| refused_by(&index.judge(me, &site(None, name), &[path("/")]))).collect()
}
