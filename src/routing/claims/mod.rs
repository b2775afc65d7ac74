//! Which objects claim which prefixes of which hosts, and who gets them: the oldest.
//!
//! The index is by host, so the cost of a change depends on the object's own hosts and not on the number of objects.
//! An object that loses a prefix keeps its claim: when the winner is removed, the index returns the objects that must
//! be reconciled again.
//!
//! ```text
//! claim    what is claimed, by whom, and what a claimant is told
//! sorted   sorted lists of claimants
//! ```

mod claim;
mod sorted;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

pub use claim::{Claim, Claimant, ClaimantId, ClaimantKind, EntryPoint, HostPolicy, Site, Verdict};

use super::{host::CanonicalHost, path::CanonicalPath};
use sorted::{ByAge, ByPrefix};

/// All claims, by host.
#[derive(Default)]
pub struct ClaimIndex {
    policy: HostPolicy,
    default_class: Option<Arc<str>>,
    claimants: HashMap<ClaimantId, (Arc<Claimant>, Claims)>,
    sites: HashMap<Site, SiteClaims>,
    /// The exact hosts that each wildcard would match, whether any object claims the wildcard or not.
    hosts_under: HashMap<Site, BTreeSet<CanonicalHost>>,
}

/// The claims of one object, sorted and without duplicates. There is one of these for every object of a cluster, and a
/// list is much smaller than a tree with few entries.
type Claims = Box<[Claim]>;

/// The claims on one host.
#[derive(Default)]
struct SiteClaims {
    all: ByAge,
    by_prefix: ByPrefix,
}

type Overlap = Option<(CanonicalHost, Arc<Claimant>)>;

impl ClaimIndex {
    /// An index without claims.
    pub fn new(policy: HostPolicy) -> Self {
        Self { policy, ..Self::default() }
    }

    /// Replaces the claims of `claimant`. Returns the other OrdersServices whose [`Verdict`] this may change.
    pub fn put(&mut self, claimant: Claimant, claims: BTreeSet<Claim>) -> BTreeSet<Arc<Claimant>> {
        let claims: Claims = claims.into_iter().collect();
        let before = self.claimants.get(&claimant.id);
        if before.is_some_and(|(known, old)| **known == claimant && *old == claims) {
            return BTreeSet::new();
        }
        let claimant = match before {
            Some((known, _)) if **known == claimant => known.clone(),
            _ => Arc::new(claimant),
        };
        self.change(&claimant.id.clone(), Some((claimant, claims)))
    }

    /// Removes the claims of an object. Returns the OrdersServices whose [`Verdict`] this may change.
    pub fn remove(&mut self, id: &ClaimantId) -> BTreeSet<Arc<Claimant>> {
        if self.claimants.contains_key(id) { self.change(id, None) } else { BTreeSet::new() }
    }

    /// The objects that make claims, in no order.
    pub fn claimants(&self) -> impl Iterator<Item = &ClaimantId> {
        self.claimants.keys()
    }

    /// Sets the cluster's default IngressClass. Returns the OrdersServices whose [`Verdict`] this may change.
    pub fn set_default_class(&mut self, class: Option<Arc<str>>) -> BTreeSet<Arc<Claimant>> {
        if self.default_class == class {
            return BTreeSet::new();
        }
        // This is rare, so everything is indexed again.
        let all = std::mem::take(&mut self.claimants);
        (self.sites, self.hosts_under) = Default::default();
        self.default_class = class;
        let everyone = all.values().map(|(claimant, _)| claimant.clone()).filter(is_service).collect();
        for (id, entry) in all {
            self.change(&id, Some(entry));
        }
        everyone
    }

    /// The OrdersServices that claim something at `entry_point`.
    pub fn at(&self, entry_point: &EntryPoint) -> BTreeSet<Arc<Claimant>> {
        let entries = self.claimants.values();
        entries
            .filter(|(_, claims)| claims.iter().any(|claim| claim.site.entry_point == *entry_point))
            .map(|(claimant, _)| claimant.clone())
            .filter(is_service)
            .collect()
    }

    /// How the claims of other objects affect those of `me` on `prefixes` of `site`.
    pub fn judge<'a>(
        &self,
        me: &Claimant,
        site: &Site,
        prefixes: impl IntoIterator<Item = &'a CanonicalPath>,
    ) -> Verdict {
        let site = self.resolved(site);
        let before_me = |other: &Arc<Claimant>| other.id != me.id && **other < *me;
        let in_other_namespace =
            |owner: &&Arc<Claimant>| before_me(owner) && owner.id.namespace != me.id.namespace;
        if let Some(owner) = self.host_owner(&site).filter(in_other_namespace) {
            return Verdict { refused: Some(owner.clone()), ..Verdict::default() };
        }
        let mut verdict = Verdict { overlap: self.overlap(&me.id, &site), ..Verdict::default() };
        let mut has_client = false;
        for prefix in prefixes {
            has_client |= prefix.is_root();
            if let Some(winner) = self.winner(&site, prefix).filter(|winner| before_me(winner)) {
                verdict.lost.insert(prefix.clone(), winner.clone());
            }
        }
        if !has_client {
            let client = self.winner(&site, &CanonicalPath::root());
            verdict.client = client.filter(|client| client.id != me.id).cloned();
        }
        verdict
    }

    fn change(&mut self, id: &ClaimantId, next: Option<(Arc<Claimant>, Claims)>) -> BTreeSet<Arc<Claimant>> {
        let old = self.claimants.remove(id);
        let claims = [&old, &next].into_iter().flatten().flat_map(|(_, claims)| claims);
        let touched: BTreeSet<_> = claims.map(|claim| self.resolved_claim(claim)).collect();
        let before = self.snapshot(&touched);
        if let Some((claimant, claims)) = old {
            claims.iter().for_each(|claim| self.unindex(&claimant, self.resolved_claim(claim)));
        }
        if let Some((claimant, claims)) = next {
            claims.iter().for_each(|claim| self.index_claim(&claimant, self.resolved_claim(claim)));
            self.claimants.insert(id.clone(), (claimant, claims));
        }
        let after = self.snapshot(&touched);
        let mut affected = self.affected(&before, &after);
        affected.retain(|claimant| claimant.id != *id && is_service(claimant));
        affected
    }

    fn index_claim(&mut self, claimant: &Arc<Claimant>, claim: Claim) {
        if let Some(wildcard) = wildcard_above(&claim.site) {
            self.hosts_under.entry(wildcard).or_default().insert(claim.site.host.clone());
        }
        let on = self.sites.entry(claim.site).or_default();
        on.all.insert(claimant);
        if let Some(prefix) = claim.prefix {
            on.by_prefix.insert(prefix, claimant);
        }
    }

    fn unindex(&mut self, claimant: &Arc<Claimant>, claim: Claim) {
        let Some(on) = self.sites.get_mut(&claim.site) else { return };
        on.all.remove(claimant);
        if let Some(prefix) = &claim.prefix {
            on.by_prefix.remove(prefix, claimant);
        }
        if on.all.is_empty() && on.by_prefix.is_empty() {
            self.sites.remove(&claim.site);
            if let Some(wildcard) = wildcard_above(&claim.site)
                && let Some(hosts) = self.hosts_under.get_mut(&wildcard)
            {
                hosts.remove(&claim.site.host);
                if hosts.is_empty() {
                    self.hosts_under.remove(&wildcard);
                }
            }
        }
    }

    fn resolved(&self, site: &Site) -> Site {
        let Site { entry_point: EntryPoint::Class(class), host } = site;
        let class = class.as_ref().or(self.default_class.as_ref()).cloned();
        Site { entry_point: EntryPoint::Class(class), host: host.clone() }
    }

    fn resolved_claim(&self, claim: &Claim) -> Claim {
        Claim { site: self.resolved(&claim.site), prefix: claim.prefix.clone() }
    }

    /// The object whose namespace alone may have rules for the host, if that is the policy.
    fn host_owner(&self, site: &Site) -> Option<&Arc<Claimant>> {
        match self.policy {
            HostPolicy::Shared => None,
            HostPolicy::Namespace => self.sites.get(site)?.all.iter().next(),
        }
    }

    fn winner(&self, site: &Site, prefix: &CanonicalPath) -> Option<&Arc<Claimant>> {
        let owner = self.host_owner(site);
        let mut claimants = self.sites.get(site)?.by_prefix.get(prefix)?.iter();
        claimants.find(|claimant| owner.is_none_or(|owner| owner.id.namespace == claimant.id.namespace))
    }

    /// Another object's wildcard above this host; or, if the host is a wildcard, another object's host under it.
    fn overlap(&self, me: &ClaimantId, site: &Site) -> Overlap {
        let other = |site: &Site| {
            let claimants = &self.sites.get(site)?.all;
            // An object that claims both gives both the same rules.
            let both = claimants.iter().any(|claimant| claimant.id == *me);
            claimants.iter().next().filter(|_| !both).map(|claimant| (site.host.clone(), claimant.clone()))
        };
        if let Some(wildcard) = wildcard_above(site) {
            return other(&wildcard);
        }
        let hosts = self.hosts_under.get(site)?.iter();
        let mut sites = hosts.map(|host| Site { entry_point: site.entry_point.clone(), host: host.clone() });
        sites.find_map(|site| other(&site))
    }

    /// What the verdicts of other objects depend on, as far as it concerns the hosts of `touched`.
    fn snapshot(&self, touched: &BTreeSet<Claim>) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for claim in touched {
            let site = &claim.site;
            if !snapshot.hosts.contains_key(site) {
                let of_host = [self.host_owner(site), self.winner(site, &CanonicalPath::root())];
                snapshot.hosts.insert(site.clone(), of_host.map(Option::<&_>::cloned));
                let related = wildcard_above(site).into_iter().chain(
                    self.hosts_under
                        .get(site)
                        .into_iter()
                        .flatten()
                        .map(|host| Site { entry_point: site.entry_point.clone(), host: host.clone() }),
                );
                for related in related {
                    for claimant in self.sites.get(&related).into_iter().flat_map(|on| on.all.iter()) {
                        let overlap = self.overlap(&claimant.id, &related);
                        snapshot.overlaps.insert((related.clone(), claimant.clone()), overlap);
                    }
                }
            }
            if let Some(prefix) = &claim.prefix {
                let winner = self.winner(site, prefix).cloned();
                snapshot.winners.insert((site.clone(), prefix.clone()), winner);
            }
        }
        snapshot
    }

    /// The objects whose verdicts may differ between two snapshots, by their current claims.
    fn affected(&self, before: &Snapshot, after: &Snapshot) -> BTreeSet<Arc<Claimant>> {
        let mut affected = BTreeSet::new();
        for (site, _) in differences(&before.hosts, &after.hosts) {
            affected.extend(self.sites.get(site).into_iter().flat_map(|on| on.all.iter()).cloned());
        }
        for ((site, prefix), _) in differences(&before.winners, &after.winners) {
            let claimants = self.sites.get(site).and_then(|on| on.by_prefix.get(prefix));
            affected.extend(claimants.into_iter().flat_map(ByAge::iter).cloned());
        }
        for ((_, claimant), _) in differences(&before.overlaps, &after.overlaps) {
            affected.insert(claimant.clone());
        }
        affected
    }
}

/// What verdicts on some hosts depend on: the owner and the client of each host, the winner of each prefix, and the
/// overlaps of each claimant.
#[derive(Default)]
struct Snapshot {
    hosts: BTreeMap<Site, [Option<Arc<Claimant>>; 2]>,
    winners: BTreeMap<(Site, CanonicalPath), Option<Arc<Claimant>>>,
    overlaps: BTreeMap<(Site, Arc<Claimant>), Overlap>,
}

/// The entries that differ between both maps, or are in one only.
fn differences<'a, K: Ord, V: PartialEq>(
    one: &'a BTreeMap<K, V>,
    other: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    let differ = |from: &'a BTreeMap<K, V>, to: &'a BTreeMap<K, V>| {
        from.iter().filter(move |(key, value)| to.get(key) != Some(value))
    };
    differ(one, other).chain(differ(other, one))
}

fn is_service(claimant: &Arc<Claimant>) -> bool {
    claimant.id.kind == ClaimantKind::OrdersService
}

fn wildcard_above(site: &Site) -> Option<Site> {
    let host = site.host.wildcard_above()?;
    Some(Site { entry_point: site.entry_point.clone(), host })
}

#[cfg(test)]
mod tests;
