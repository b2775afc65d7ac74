//! Which namespace owns which hosts, over all entry points: a host is a DNS name, whatever serves it.
//!
//! A namespace may have a host if no other namespace has an earlier claim on a host that meets it: the host itself, a
//! wildcard above it or, of a wildcard, a host below it. Its own earliest claim is one that covers the whole host. So of
//! two hosts that meet, no two namespaces have one each, whatever claims there are. A claim counts even if it is
//! refused: the answer for a host depends on the claims that meet it, and on nothing else.

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    ops::Bound::{Excluded, Unbounded},
    sync::Arc,
};

use super::claim::{Claimant, ClaimantKind};
use crate::routing::host::CanonicalHost;

/// What a claim on a host is worth, whatever the age of its object. The first comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// An OrdersService has routes there, so nobody's claim was before its own.
    Rendered,
    /// Another object has rules for it, and nobody can tell since when: an old one may have got them a moment ago.
    Foreign,
    /// An OrdersService requests it.
    Requested,
}

/// The claim of an object on a host, whatever its paths. The smallest is the first: by its standing, so that nobody loses
/// a host to an older object that claims it later, and then by age.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Hold {
    pub(super) standing: Standing,
    pub(super) claimant: Arc<Claimant>,
}

impl Hold {
    pub(super) fn new(claimant: &Arc<Claimant>, is_served: bool) -> Self {
        let standing = match (claimant.id.kind, is_served) {
            (ClaimantKind::OrdersService, true) => Standing::Rendered,
            (ClaimantKind::OrdersService, false) => Standing::Requested,
            (ClaimantKind::Ingress | ClaimantKind::HTTPRoute, _) => Standing::Foreign,
        };
        Self { standing, claimant: claimant.clone() }
    }

    fn is_of(&self, other: &Self) -> bool {
        self.claimant.id.namespace == other.claimant.id.namespace
    }
}

/// Who has a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ownership {
    /// The first claim on the host or on a wildcard above it.
    pub(super) owner: Option<Hold>,
    /// An earlier claim of another namespace on a host below this wildcard. Then nobody may have the wildcard.
    pub(super) rival: Option<Hold>,
}

/// The claims on every host, sorted. Empty unless hosts belong to namespaces.
#[derive(Default)]
pub(super) struct Owners(BTreeMap<ByDomain, Vec<Hold>>);

/// A host, sorted right after the wildcards above it.
#[derive(Clone, PartialEq, Eq)]
struct ByDomain(CanonicalHost);

impl Ord for ByDomain {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp_by_domain(&other.0)
    }
}

impl PartialOrd for ByDomain {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Owners {
    pub(super) fn insert(&mut self, host: &CanonicalHost, hold: Hold) {
        let holds = self.0.entry(ByDomain(host.clone())).or_default();
        if let Err(at) = holds.binary_search(&hold) {
            if holds.is_empty() {
                holds.reserve_exact(1);
            }
            holds.insert(at, hold);
        }
    }

    pub(super) fn remove(&mut self, host: &CanonicalHost, hold: &Hold) {
        let key = ByDomain(host.clone());
        let Some(holds) = self.0.get_mut(&key) else { return };
        if let Ok(at) = holds.binary_search(hold) {
            holds.remove(at);
        }
        if holds.is_empty() {
            self.0.remove(&key);
        }
    }

    /// The claims on just this host.
    pub(super) fn of(&self, host: &CanonicalHost) -> &[Hold] {
        self.0.get(&ByDomain(host.clone())).map_or(&[], Vec::as_slice)
    }

    /// The first claim on the host or on a wildcard above it.
    pub(super) fn owner(&self, host: &CanonicalHost) -> Option<&Hold> {
        if self.0.is_empty() {
            // As always where hosts are shared; the wildcards need not be made.
            return None;
        }
        let above = host.wildcards_above().filter_map(|wildcard| self.of(&wildcard).first());
        self.of(host).first().into_iter().chain(above).min()
    }

    pub(super) fn ownership(&self, host: &CanonicalHost) -> Ownership {
        let Some(owner) = self.owner(host) else { return Ownership::default() };
        let earlier = |holds: &'_ [Hold]| {
            let mut earlier = holds.iter().take_while(|hold| *hold < owner);
            earlier.find(|hold| !hold.is_of(owner)).cloned()
        };
        let rival = self.below(host).filter_map(|(_, holds)| earlier(holds)).min();
        Ownership { owner: Some(owner.clone()), rival }
    }

    /// The hosts below a wildcard; none below any other host.
    pub(super) fn below(&self, host: &CanonicalHost) -> impl Iterator<Item = (&CanonicalHost, &[Hold])> {
        let after = self.0.range((Excluded(ByDomain(host.clone())), Unbounded));
        after
            .map(|(ByDomain(below), holds)| (below, holds.as_slice()))
            .take_while(move |(below, _)| host.covers(below))
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
