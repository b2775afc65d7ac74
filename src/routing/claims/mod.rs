//! Who claims which prefixes of which hosts, and who gets them: the oldest.
//!
//! An index by host, so that a change of one object looks at its own hosts only, however many others
//! there are. Objects that lose a rule keep their claim on it: when the winner goes, the index names
//! those who are to look again.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::Arc,
};

use super::{host::CanonicalHost, path::CanonicalPath};

/// What kind of object makes a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClaimantKind {
    /// An Ingress that no OrdersService controls.
    Ingress,
    /// An OrdersService.
    OrdersService,
}

/// Which object makes a claim: kind, namespace and name. Clones share the texts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClaimantId {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its kind.
    pub kind: ClaimantKind,
}

/// An object that makes claims. The least goes first: the oldest, then by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Claimant {
    /// When it was created, in seconds since 1970.
    pub created: i64,
    /// Which object it is.
    pub id: ClaimantId,
}

impl fmt::Display for Claimant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.id.kind {
            ClaimantKind::Ingress => "Ingress",
            ClaimantKind::OrdersService => "OrdersService",
        };
        write!(formatter, "{kind} {}/{}", self.id.namespace, self.id.name)
    }
}

/// Where requests come in. The same host at two entrances is no conflict.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Entrance {
    /// The ingress controller of a class; of the cluster's default class, when none is named.
    Class(Option<Arc<str>>),
}

/// A host at an entrance.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Site {
    /// Where requests come in.
    pub entrance: Entrance,
    /// For which host.
    pub host: CanonicalHost,
}

/// A claim on a host and, if there is one, on a prefix of it. An exact path is a claim on the host only:
/// it goes before every prefix, and leaves each what is below.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Claim {
    /// The host.
    pub site: Site,
    /// The prefix; the root is the client's.
    pub prefix: Option<CanonicalPath>,
}

/// Who may have rules on a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostPolicy {
    /// Everyone; each prefix goes to the oldest that claims it.
    #[default]
    Shared,
    /// The namespace of the oldest that claims the host.
    Namespace,
}

/// What others have on a host where someone claims prefixes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Whose namespace has the host, when it is refused; then the rest is not looked at.
    pub refused: Option<Arc<Claimant>>,
    /// The prefixes that someone else has, and who.
    pub lost: BTreeMap<CanonicalPath, Arc<Claimant>>,
    /// Who else has the client.
    pub client: Option<Arc<Claimant>>,
    /// A host of someone else under this wildcard, or the wildcard of someone else above this host.
    pub overlap: Option<(CanonicalHost, Arc<Claimant>)>,
}

/// All claims, by host.
#[derive(Default)]
pub struct ClaimIndex {
    policy: HostPolicy,
    default_class: Option<Arc<str>>,
    claimants: HashMap<ClaimantId, (Arc<Claimant>, Claims)>,
    sites: HashMap<Site, OnSite>,
    /// The exact hosts under each wildcard, whether anyone claims that or not.
    under: HashMap<Site, BTreeSet<CanonicalHost>>,
}

/// The claims of one object, each once, in order. There is one of these for every object of a cluster, and a list
/// is much smaller than a tree of a few.
type Claims = Box<[Claim]>;

/// The claims on one host.
#[derive(Default)]
struct OnSite {
    all: ByAge,
    by_prefix: ByPrefix,
}

/// Who claims which prefix, in order: nearly always a few, of which a list is smaller than a map.
#[derive(Default)]
struct ByPrefix(Vec<(CanonicalPath, ByAge)>);

impl ByPrefix {
    fn find(&self, prefix: &CanonicalPath) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| known.cmp(prefix))
    }

    fn get(&self, prefix: &CanonicalPath) -> Option<&ByAge> {
        let at = self.find(prefix).ok()?;
        self.0.get(at).map(|(_, who)| who)
    }

    fn insert(&mut self, prefix: CanonicalPath, claimant: &Arc<Claimant>) {
        match self.find(&prefix) {
            Ok(at) => self.0.get_mut(at).into_iter().for_each(|(_, who)| who.insert(claimant)),
            Err(at) => {
                let mut who = ByAge::default();
                who.insert(claimant);
                self.0.insert(at, (prefix, who));
            }
        }
    }

    fn remove(&mut self, prefix: &CanonicalPath, claimant: &Arc<Claimant>) {
        let Ok(at) = self.find(prefix) else { return };
        let Some((_, who)) = self.0.get_mut(at) else { return };
        who.remove(claimant);
        if who.is_empty() {
            self.0.remove(at);
        }
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Who claims the same, the oldest first: nearly always one.
#[derive(Default)]
struct ByAge(Vec<Arc<Claimant>>);

impl ByAge {
    fn insert(&mut self, claimant: &Arc<Claimant>) {
        if let Err(at) = self.0.binary_search(claimant) {
            if self.0.is_empty() {
                self.0.reserve_exact(1);
            }
            self.0.insert(at, claimant.clone());
        }
    }

    fn remove(&mut self, claimant: &Arc<Claimant>) {
        if let Ok(at) = self.0.binary_search(claimant) {
            self.0.remove(at);
        }
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn iter(&self) -> impl Iterator<Item = &Arc<Claimant>> {
        self.0.iter()
    }
}

type Overlap = Option<(CanonicalHost, Arc<Claimant>)>;

impl ClaimIndex {
    /// Nothing is claimed yet.
    pub fn new(policy: HostPolicy) -> Self {
        Self { policy, ..Self::default() }
    }

    /// The object claims this now, and nothing else. Gives the other OrdersServices for which that
    /// changes something.
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

    /// The object is gone. Gives the OrdersServices for which that changes something.
    pub fn remove(&mut self, id: &ClaimantId) -> BTreeSet<Arc<Claimant>> {
        if self.claimants.contains_key(id) { self.change(id, None) } else { BTreeSet::new() }
    }

    /// The objects that make claims, in no order.
    pub fn claimants(&self) -> impl Iterator<Item = &ClaimantId> {
        self.claimants.keys()
    }

    /// Another class is the cluster's default. Gives the OrdersServices for which that changes something.
    pub fn set_default_class(&mut self, class: Option<Arc<str>>) -> BTreeSet<Arc<Claimant>> {
        if self.default_class == class {
            return BTreeSet::new();
        }
        // Rare enough for everything to be looked at.
        let all = std::mem::take(&mut self.claimants);
        (self.sites, self.under) = Default::default();
        self.default_class = class;
        let everyone = all.values().map(|(claimant, _)| claimant.clone()).filter(is_service).collect();
        for (id, entry) in all {
            self.change(&id, Some(entry));
        }
        everyone
    }

    /// The OrdersServices that claim something at an entrance.
    pub fn at(&self, entrance: &Entrance) -> BTreeSet<Arc<Claimant>> {
        let entries = self.claimants.values();
        entries
            .filter(|(_, claims)| claims.iter().any(|claim| claim.site.entrance == *entrance))
            .map(|(claimant, _)| claimant.clone())
            .filter(is_service)
            .collect()
    }

    /// What others have where `me` claims `prefixes`.
    pub fn judge<'a>(
        &self,
        me: &Claimant,
        site: &Site,
        prefixes: impl IntoIterator<Item = &'a CanonicalPath>,
    ) -> Verdict {
        let site = self.resolved(site);
        let before_me = |other: &Arc<Claimant>| other.id != me.id && **other < *me;
        let elsewhere = |owner: &&Arc<Claimant>| before_me(owner) && owner.id.namespace != me.id.namespace;
        if let Some(owner) = self.host_owner(&site).filter(elsewhere) {
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
        let before = self.picture(&touched);
        if let Some((claimant, claims)) = old {
            claims.iter().for_each(|claim| self.take_out(&claimant, self.resolved_claim(claim)));
        }
        if let Some((claimant, claims)) = next {
            claims.iter().for_each(|claim| self.put_in(&claimant, self.resolved_claim(claim)));
            self.claimants.insert(id.clone(), (claimant, claims));
        }
        let after = self.picture(&touched);
        let mut concerned = self.concerned(&before, &after);
        concerned.retain(|claimant| claimant.id != *id && is_service(claimant));
        concerned
    }

    fn put_in(&mut self, claimant: &Arc<Claimant>, claim: Claim) {
        if let Some(wildcard) = wildcard_above(&claim.site) {
            self.under.entry(wildcard).or_default().insert(claim.site.host.clone());
        }
        let on = self.sites.entry(claim.site).or_default();
        on.all.insert(claimant);
        if let Some(prefix) = claim.prefix {
            on.by_prefix.insert(prefix, claimant);
        }
    }

    fn take_out(&mut self, claimant: &Arc<Claimant>, claim: Claim) {
        let Some(on) = self.sites.get_mut(&claim.site) else { return };
        on.all.remove(claimant);
        if let Some(prefix) = &claim.prefix {
            on.by_prefix.remove(prefix, claimant);
        }
        if on.all.is_empty() && on.by_prefix.is_empty() {
            self.sites.remove(&claim.site);
            if let Some(wildcard) = wildcard_above(&claim.site)
                && let Some(hosts) = self.under.get_mut(&wildcard)
            {
                hosts.remove(&claim.site.host);
                if hosts.is_empty() {
                    self.under.remove(&wildcard);
                }
            }
        }
    }

    fn resolved(&self, site: &Site) -> Site {
        let Site { entrance: Entrance::Class(class), host } = site;
        let class = class.as_ref().or(self.default_class.as_ref()).cloned();
        Site { entrance: Entrance::Class(class), host: host.clone() }
    }

    fn resolved_claim(&self, claim: &Claim) -> Claim {
        Claim { site: self.resolved(&claim.site), prefix: claim.prefix.clone() }
    }

    /// Whose namespace alone may have rules on the host, if that is the policy.
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

    /// The wildcard that takes what others would expect for the host, or a host that this wildcard lacks.
    fn overlap(&self, me: &ClaimantId, site: &Site) -> Overlap {
        let other = |site: &Site| {
            let claimants = &self.sites.get(site)?.all;
            // Whoever has both gives both the same rules.
            let both = claimants.iter().any(|claimant| claimant.id == *me);
            claimants.iter().next().filter(|_| !both).map(|claimant| (site.host.clone(), claimant.clone()))
        };
        if let Some(wildcard) = wildcard_above(site) {
            return other(&wildcard);
        }
        let hosts = self.under.get(site)?.iter();
        let mut sites = hosts.map(|host| Site { entrance: site.entrance.clone(), host: host.clone() });
        sites.find_map(|site| other(&site))
    }

    /// What others may see of these claims' hosts.
    fn picture(&self, touched: &BTreeSet<Claim>) -> Picture {
        let mut picture = Picture::default();
        for claim in touched {
            let site = &claim.site;
            if !picture.hosts.contains_key(site) {
                let of_host = [self.host_owner(site), self.winner(site, &CanonicalPath::root())];
                picture.hosts.insert(site.clone(), of_host.map(Option::<&_>::cloned));
                let related = wildcard_above(site).into_iter().chain(
                    self.under
                        .get(site)
                        .into_iter()
                        .flatten()
                        .map(|host| Site { entrance: site.entrance.clone(), host: host.clone() }),
                );
                for related in related {
                    for claimant in self.sites.get(&related).into_iter().flat_map(|on| on.all.iter()) {
                        let overlap = self.overlap(&claimant.id, &related);
                        picture.overlaps.insert((related.clone(), claimant.clone()), overlap);
                    }
                }
            }
            if let Some(prefix) = &claim.prefix {
                let winner = self.winner(site, prefix).cloned();
                picture.winners.insert((site.clone(), prefix.clone()), winner);
            }
        }
        picture
    }

    /// Whom the difference between two pictures concerns, by what is claimed now.
    fn concerned(&self, before: &Picture, after: &Picture) -> BTreeSet<Arc<Claimant>> {
        let mut concerned = BTreeSet::new();
        for (site, _) in differences(&before.hosts, &after.hosts) {
            concerned.extend(self.sites.get(site).into_iter().flat_map(|on| on.all.iter()).cloned());
        }
        for ((site, prefix), _) in differences(&before.winners, &after.winners) {
            let claimants = self.sites.get(site).and_then(|on| on.by_prefix.get(prefix));
            concerned.extend(claimants.into_iter().flat_map(ByAge::iter).cloned());
        }
        for ((_, claimant), _) in differences(&before.overlaps, &after.overlaps) {
            concerned.insert(claimant.clone());
        }
        concerned
    }
}

/// What others may see of some hosts: of each its owner and who has the client, who has which prefix,
/// and what the claimants of overlapping hosts see.
#[derive(Default)]
struct Picture {
    hosts: BTreeMap<Site, [Option<Arc<Claimant>>; 2]>,
    winners: BTreeMap<(Site, CanonicalPath), Option<Arc<Claimant>>>,
    overlaps: BTreeMap<(Site, Arc<Claimant>), Overlap>,
}

/// The entries that are not the same in both.
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
    Some(Site { entrance: site.entrance.clone(), host })
}

#[cfg(test)]
mod tests;
