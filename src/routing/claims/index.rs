//! The claims, and what each claimant is told.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::{
    claim::{Claim, Claimant, ClaimantId, ClaimantKind, EntryPoint, HostPolicy, Refusal, Site, Verdict},
    owners::{Hold, Owners, Ownership},
    sorted::{ByAge, ByPath},
};
use crate::routing::{allowed::AllowedHosts, host::CanonicalHost, path_match::PathMatch};

/// All claims, by host.
#[derive(Default)]
pub struct ClaimIndex {
    pub(super) policy: HostPolicy,
    /// None where every namespace may have every host.
    pub(super) allowed: Option<AllowedHosts>,
    pub(super) default_class: Option<Arc<str>>,
    pub(super) claimants: HashMap<ClaimantId, (Arc<Claimant>, Claims)>,
    pub(super) sites: HashMap<Site, SiteClaims>,
    /// The exact hosts that each wildcard would match, whether any object claims the wildcard or not; and of every host,
    /// all that there are.
    pub(super) hosts_under: HashMap<Site, BTreeSet<CanonicalHost>>,
    pub(super) owners: Owners,
}

/// The claims of one object, sorted and without duplicates. There is one of these for every object of a cluster, and a
/// list is much smaller than a tree with few entries.
pub(super) type Claims = Box<[Claim]>;

/// The claims on one host.
#[derive(Default)]
pub(super) struct SiteClaims {
    pub(super) all: ByAge,
    /// Those by which ingress-nginx reads the paths as regexes.
    pub(super) regexes: ByAge,
    pub(super) by_path: ByPath,
}

pub(super) type Overlap = Option<(CanonicalHost, Arc<Claimant>)>;

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

    /// As [`put`](Self::put), unless the object is gone by now.
    pub fn update(&mut self, claimant: Claimant, claims: BTreeSet<Claim>) -> BTreeSet<Arc<Claimant>> {
        let is_known = self.claimants.get(&claimant.id).is_some_and(|(known, _)| **known == claimant);
        if is_known { self.put(claimant, claims) } else { BTreeSet::new() }
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
        self.default_class = class;
        self.index_again();
        self.services_with(|_| true)
    }

    /// The cluster's default IngressClass.
    pub fn default_class(&self) -> Option<&str> {
        self.default_class.as_deref()
    }

    /// Sets the hosts that each namespace may have. Returns the OrdersServices whose [`Verdict`] this may change.
    pub fn set_allowed(&mut self, allowed: AllowedHosts) -> BTreeSet<Arc<Claimant>> {
        let before = self.allowed.replace(allowed);
        if before == self.allowed {
            return BTreeSet::new();
        }
        self.index_again();
        let (Some(before), Some(now)) = (before, &self.allowed) else { return self.services_with(|_| true) };
        let changed: BTreeSet<_> = before.differences(now).collect();
        self.services_with(|claim| changed.iter().any(|host| host.meets(&claim.site.host)))
    }

    /// The OrdersServices that claim something at `entry_point`.
    pub fn at(&self, entry_point: &EntryPoint) -> BTreeSet<Arc<Claimant>> {
        self.services_with(|claim| claim.site.entry_point == *entry_point)
    }

    /// The OrdersServices that claim something at the ingress controller of any class.
    pub fn at_classes(&self) -> BTreeSet<Arc<Claimant>> {
        self.services_with(|claim| matches!(claim.site.entry_point, EntryPoint::Class(_)))
    }

    /// The OrdersServices that have a claim for which `is_meant` is true.
    fn services_with(&self, is_meant: impl Fn(&Claim) -> bool) -> BTreeSet<Arc<Claimant>> {
        let services = self.claimants.values().filter(|(claimant, _)| is_service(claimant));
        services
            .filter(|(_, claims)| claims.iter().any(&is_meant))
            .map(|(claimant, _)| claimant.clone())
            .collect()
    }

    /// Indexes everything again, which is rarely needed.
    fn index_again(&mut self) {
        let all = std::mem::take(&mut self.claimants);
        (self.sites, self.hosts_under) = Default::default();
        self.owners.clear();
        for (id, (claimant, claims)) in all {
            self.index(&claimant, &claims);
            self.claimants.insert(id, (claimant, claims));
        }
    }

    /// How the claims of other objects affect those of `me` on `paths` of `site`.
    pub fn judge<'a>(
        &self,
        me: &Claimant,
        site: &Site,
        paths: impl IntoIterator<Item = &'a PathMatch>,
    ) -> Verdict {
        let site = self.resolved(site);
        if let Some(refused) = self.refusal(me, &site) {
            return Verdict { refused: Some(refused), ..Verdict::default() };
        }
        let before_me = |other: &Arc<Claimant>| other.id != me.id && **other < *me;
        let mut verdict = Verdict { overlap: self.overlap(&me.id, &site), ..Verdict::default() };
        let regexes = self.sites.get(&site).and_then(|on| on.regexes.iter().find(|other| other.id != me.id));
        verdict.regexes = regexes.cloned();
        let mut has_client = false;
        for path in paths {
            has_client |= path.is_root();
            let same = self.winner(&site, path).filter(|winner| before_me(winner));
            // An exact path would take from a prefix what is asked for most: the path itself. In one namespace that is wanted.
            let below = || {
                let prefix = path.is_exact().then(|| PathMatch::prefix(path.path().clone()))?;
                let of_others = |winner: &&Arc<Claimant>| winner.id.namespace != me.id.namespace;
                self.winner(&site, &prefix).filter(|winner| before_me(winner)).filter(of_others)
            };
            if let Some(winner) = same.or_else(below) {
                verdict.lost.insert(path.clone(), winner.clone());
            }
        }
        if !has_client {
            let client = self.winner(&site, &PathMatch::root());
            verdict.client = client.filter(|client| client.id != me.id).cloned();
        }
        verdict
    }

    fn change(&mut self, id: &ClaimantId, next: Option<(Arc<Claimant>, Claims)>) -> BTreeSet<Arc<Claimant>> {
        let old = self.claimants.remove(id);
        let claims = [&old, &next].into_iter().flatten().flat_map(|(_, claims)| claims);
        let touched: BTreeSet<_> = claims.map(|claim| self.resolved_claim(claim)).collect();
        let claimants = || [&old, &next].into_iter().flatten().map(|(claimant, _)| claimant);
        let is_of_others = claimants().any(|claimant| !is_service(claimant));
        let first = claimants().min().map(|claimant| Hold::new(claimant, true));
        let before = self.snapshot(&touched, first.as_ref());
        // Those of an OrdersService refuse nobody theirs.
        let of_any_host = if self.policy == HostPolicy::Namespace && is_of_others {
            self.firsts_of_any_host(&touched)
        } else {
            BTreeMap::new()
        };
        if let Some((claimant, claims)) = old {
            self.unindex(&claimant, &claims);
        }
        if let Some((claimant, claims)) = next {
            self.index(&claimant, &claims);
            self.claimants.insert(id.clone(), (claimant, claims));
        }
        let after = self.snapshot(&touched, first.as_ref());
        let mut affected = self.affected(&before, &after);
        for (entry_point, first) in of_any_host {
            if self.first_of_any_host(entry_point) != first.as_ref() {
                affected.extend(self.at(entry_point));
            }
        }
        affected.retain(|claimant| claimant.id != *id && is_service(claimant));
        affected
    }

    fn index(&mut self, claimant: &Arc<Claimant>, claims: &[Claim]) {
        for (host, hold) in self.holds(claimant, claims) {
            self.owners.insert(&host, hold);
        }
        for claim in claims {
            if self.counts(claimant, claim) {
                self.index_claim(claimant, self.resolved_claim(claim));
            }
        }
    }

    fn unindex(&mut self, claimant: &Arc<Claimant>, claims: &[Claim]) {
        for (host, hold) in self.holds(claimant, claims) {
            self.owners.remove(&host, &hold);
        }
        // From the end, so that of a long list of paths the last is removed each time.
        for claim in claims.iter().rev() {
            self.unindex_claim(claimant, self.resolved_claim(claim));
        }
    }

    /// Whether a claim counts against the routes of others. What may not be rendered does not, once it is not served any
    /// more; what others than OrdersServices have is served in any case.
    fn counts(&self, claimant: &Arc<Claimant>, claim: &Claim) -> bool {
        !is_service(claimant) || claim.is_served || self.allows(&claimant.id.namespace, &claim.site.host)
    }

    /// The hosts that the claims are about, each with its claim. An Ingress or an HTTPRoute on a host that its namespace may
    /// not have is no claim: whoever keeps the list of allowed hosts has the last word.
    fn holds(&self, claimant: &Arc<Claimant>, claims: &[Claim]) -> BTreeMap<CanonicalHost, Hold> {
        let mut holds = BTreeMap::<_, Hold>::new();
        if self.policy == HostPolicy::Shared {
            return holds;
        }
        for claim in claims.iter().filter(|claim| !claim.site.host.is_any()) {
            let is_held = is_service(claimant) && claim.is_served;
            if is_held || self.allows(&claimant.id.namespace, &claim.site.host) {
                let hold = Hold::new(claimant, claim.is_served);
                let known = holds.entry(claim.site.host.clone()).or_insert_with(|| hold.clone());
                known.standing = known.standing.min(hold.standing);
            }
        }
        holds
    }

    fn allows(&self, namespace: &str, host: &CanonicalHost) -> bool {
        match &self.allowed {
            Some(allowed) => allowed.allows(namespace, host),
            // Whoever has every host has that of every namespace, so being the first is not enough for it.
            None => self.policy == HostPolicy::Shared || !host.is_any(),
        }
    }

    fn index_claim(&mut self, claimant: &Arc<Claimant>, claim: Claim) {
        for wildcard in wildcards_above(&claim.site) {
            self.hosts_under.entry(wildcard).or_default().insert(claim.site.host.clone());
        }
        let on = self.sites.entry(claim.site).or_default();
        on.all.insert(claimant);
        if claim.switches_to_regexes {
            on.regexes.insert(claimant);
        }
        if let Some(path) = claim.path {
            on.by_path.insert(path, claimant);
        }
    }

    fn unindex_claim(&mut self, claimant: &Arc<Claimant>, claim: Claim) {
        let Some(on) = self.sites.get_mut(&claim.site) else { return };
        on.all.remove(claimant);
        on.regexes.remove(claimant);
        if let Some(path) = &claim.path {
            on.by_path.remove(path, claimant);
        }
        if on.all.is_empty() && on.by_path.is_empty() {
            self.sites.remove(&claim.site);
            for wildcard in wildcards_above(&claim.site) {
                let Some(hosts) = self.hosts_under.get_mut(&wildcard) else { continue };
                hosts.remove(&claim.site.host);
                if hosts.is_empty() {
                    self.hosts_under.remove(&wildcard);
                }
            }
        }
    }

    pub(super) fn resolved(&self, site: &Site) -> Site {
        match &site.entry_point {
            EntryPoint::Class(None) => {
                let entry_point = EntryPoint::Class(self.default_class.clone());
                Site { entry_point, host: site.host.clone() }
            }
            EntryPoint::Class(Some(_)) | EntryPoint::Gateway(_) => site.clone(),
        }
    }

    fn resolved_claim(&self, claim: &Claim) -> Claim {
        Claim { site: self.resolved(&claim.site), ..claim.clone() }
    }

    /// Why `me` may have nothing of the host.
    fn refusal(&self, me: &Claimant, site: &Site) -> Option<Refusal> {
        if !self.allows(&me.id.namespace, &site.host) {
            return Some(Refusal::NotAllowed);
        }
        if self.policy == HostPolicy::Shared {
            return None;
        }
        let is_other = |hold: &Hold| hold.claimant.id.namespace != me.id.namespace;
        let Ownership { owner, rival } = self.owners.ownership(&site.host);
        let refused_by = match owner {
            Some(owner) if is_other(&owner) => Some(owner.claimant),
            Some(owner) => rival.map(|rival| rival.claimant).or_else(|| {
                let first = self.first_of_any_host(&site.entry_point)?;
                let first = Hold::new(first, true);
                (is_other(&first) && first < owner).then_some(first.claimant)
            }),
            None => None,
        };
        refused_by.map(Refusal::OwnedBy)
    }

    /// The oldest route of others at a Gateway that names no host. What hosts it serves is up to the Gateway's listeners.
    /// That of an OrdersService has been given every host, which is no reason to refuse others theirs.
    fn first_of_any_host(&self, entry_point: &EntryPoint) -> Option<&Arc<Claimant>> {
        let site = Site { entry_point: entry_point.clone(), host: CanonicalHost::any() };
        let claimants = &self.sites.get(&site).filter(|_| serves_unknown_hosts(&site))?.all;
        claimants.iter().find(|claimant| !is_service(claimant))
    }

    /// The same for each Gateway at which one of these claims names no host.
    fn firsts_of_any_host<'a>(
        &self,
        claims: &'a BTreeSet<Claim>,
    ) -> BTreeMap<&'a EntryPoint, Option<Arc<Claimant>>> {
        let of_any_host = claims.iter().filter(|claim| serves_unknown_hosts(&claim.site));
        let entry_points = of_any_host.map(|claim| &claim.site.entry_point);
        entry_points.map(|at| (at, self.first_of_any_host(at).cloned())).collect()
    }

    pub(super) fn winner(&self, site: &Site, path: &PathMatch) -> Option<&Arc<Claimant>> {
        let owner = self.owners.owner(&site.host);
        let is_of_owner = |claimant: &Arc<Claimant>| {
            owner.is_none_or(|owner| owner.claimant.id.namespace == claimant.id.namespace)
        };
        let mut claimants = self.sites.get(site)?.by_path.get(path)?.iter();
        claimants.find(|claimant| is_of_owner(claimant))
    }

    /// Another object's wildcard above this host; or, if the host is a wildcard or every host, another object's host under it. Where
    /// hosts belong to namespaces, only in the same one, since one of two namespaces would be refused.
    pub(super) fn overlap(&self, me: &ClaimantId, site: &Site) -> Overlap {
        let this = self.claimants.get(me).map(|(claimant, _)| claimant);
        let other = |site: &Site| {
            let claimants = &self.sites.get(site)?.all;
            // An object that claims both gives both the same rules.
            let both = this.is_some_and(|this| claimants.contains(this));
            let may_serve = |claimant: &&Arc<Claimant>| {
                self.policy == HostPolicy::Shared || claimant.id.namespace == me.namespace
            };
            let first = claimants.iter().find(may_serve).filter(|_| !both);
            first.map(|claimant| (site.host.clone(), claimant.clone()))
        };
        if let Some(host) = site.host.wildcard_above() {
            return other(&Site { entry_point: site.entry_point.clone(), host });
        }
        let hosts = self.hosts_under.get(site)?.iter();
        let mut sites = hosts.map(|host| Site { entry_point: site.entry_point.clone(), host: host.clone() });
        sites.find_map(|site| other(&site))
    }
}

pub(super) fn is_service(claimant: &Arc<Claimant>) -> bool {
    claimant.id.kind == ClaimantKind::OrdersService
}

/// What would match the host of `site` if there were no rules for the host itself: the wildcard above it, and every host.
pub(super) fn wildcards_above(site: &Site) -> impl Iterator<Item = Site> {
    let any = (!site.host.is_any()).then(CanonicalHost::any);
    let above = site.host.wildcard_above().into_iter().chain(any);
    above.map(|host| Site { entry_point: site.entry_point.clone(), host })
}

/// Whether it is every host at a Gateway, whose listeners say which hosts that means.
fn serves_unknown_hosts(site: &Site) -> bool {
    site.host.is_any() && matches!(site.entry_point, EntryPoint::Gateway(_))
}
