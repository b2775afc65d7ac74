//! Whose answers a change of the claims may change: what they depend on, before and after it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    claim::{Claim, Claimant, HostPolicy, Site},
    index::{ClaimIndex, Overlap, is_service, wildcards_above},
    owners::{Hold, Ownership},
    sorted::ByAge,
};
use crate::routing::{host::CanonicalHost, path_match::PathMatch};

impl ClaimIndex {
    /// What the verdicts of other objects depend on, as far as it concerns the hosts of `touched`, on which no claim is
    /// before `first`.
    pub(super) fn snapshot(&self, touched: &BTreeSet<Claim>, first: Option<&Hold>) -> Snapshot {
        let mut snapshot = Snapshot::default();
        if self.policy == HostPolicy::Namespace {
            self.snapshot_owners(touched, first, &mut snapshot);
        }
        // Each site once: a wildcard is related to every host below it, of which one object may have tens of thousands.
        let mut related = BTreeSet::new();
        for claim in touched {
            let site = &claim.site;
            if !snapshot.hosts.contains_key(site) {
                let client = self.winner(site, &PathMatch::root()).cloned();
                // Two, since nobody is told of its own.
                let regexes =
                    self.sites.get(site).into_iter().flat_map(|on| on.regexes.iter().take(2).cloned());
                snapshot.hosts.insert(site.clone(), (client, regexes.collect()));
                related.extend(wildcards_above(site));
                // What is told of one host does not depend on rules for every host.
                let below = self.hosts_under.get(site).into_iter().flatten().filter(|_| !site.host.is_any());
                let entry_point = &site.entry_point;
                related
                    .extend(below.map(|host| Site { entry_point: entry_point.clone(), host: host.clone() }));
            }
            if let Some(path) = &claim.path {
                let winner = self.winner(site, path).cloned();
                snapshot.winners.insert((site.clone(), path.clone()), winner);
            }
        }
        for site in related {
            // Others are told nothing.
            let claimants = self.sites.get(&site).into_iter().flat_map(|on| on.all.iter());
            for claimant in claimants.filter(|claimant| is_service(claimant)) {
                let overlap = self.overlap(&claimant.id, &site);
                snapshot.overlaps.insert((site.clone(), claimant.clone()), overlap);
            }
        }
        snapshot
    }

    /// The ownership of the hosts of `touched`, and of those that meet them.
    fn snapshot_owners(&self, touched: &BTreeSet<Claim>, first: Option<&Hold>, snapshot: &mut Snapshot) {
        let hosts: BTreeSet<_> = touched.iter().map(|claim| &claim.site.host).collect();
        for host in hosts.into_iter().filter(|host| !host.is_any()) {
            self.snapshot_owner(host, snapshot);
            for (below, _) in self.owners.below(host) {
                self.snapshot_owner(below, snapshot);
            }
            for wildcard in host.wildcards_above() {
                if snapshot.owners.contains_key(&wildcard) {
                    continue;
                }
                // A claim that is not before the owner's cannot be a wildcard's rival.
                let owner = self.owners.owner(&wildcard);
                if !self.owners.of(&wildcard).is_empty() && first < owner {
                    self.snapshot_owner(&wildcard, snapshot);
                }
            }
        }
    }

    /// The ownership of one host. To find a wildcard's rival takes a look at all hosts below it, so it is looked for once.
    fn snapshot_owner(&self, host: &CanonicalHost, snapshot: &mut Snapshot) {
        if !snapshot.owners.contains_key(host) {
            snapshot.owners.insert(host.clone(), self.owners.ownership(host));
        }
    }

    /// The objects whose verdicts may differ between two snapshots, by their current claims.
    pub(super) fn affected(&self, before: &Snapshot, after: &Snapshot) -> BTreeSet<Arc<Claimant>> {
        let mut affected = BTreeSet::new();
        for (site, _) in differences(&before.hosts, &after.hosts) {
            affected.extend(self.sites.get(site).into_iter().flat_map(|on| on.all.iter()).cloned());
        }
        for (host, _) in differences(&before.owners, &after.owners) {
            affected.extend(self.owners.of(host).iter().map(|hold| hold.claimant.clone()));
        }
        for ((site, path), _) in differences(&before.winners, &after.winners) {
            let Some(on) = self.sites.get(site) else { continue };
            // Whoever has a prefix may keep others from its exact path.
            let exact = (!path.is_exact()).then(|| PathMatch::exact(path.path().clone()));
            for path in [path].into_iter().chain(&exact) {
                affected.extend(on.by_path.get(path).into_iter().flat_map(ByAge::iter).cloned());
            }
        }
        for ((_, claimant), _) in differences(&before.overlaps, &after.overlaps) {
            affected.insert(claimant.clone());
        }
        affected
    }
}

/// Who has the client of a host, and the first who make regexes of its paths.
type OfHost = (Option<Arc<Claimant>>, Vec<Arc<Claimant>>);

/// What verdicts on some hosts depend on: who owns each host, has its client and
/// makes regexes of its paths, who wins each path, and the overlaps of
/// each claimant.
#[derive(Default)]
pub(super) struct Snapshot {
    owners: BTreeMap<CanonicalHost, Ownership>,
    hosts: BTreeMap<Site, OfHost>,
    winners: BTreeMap<(Site, PathMatch), Option<Arc<Claimant>>>,
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
