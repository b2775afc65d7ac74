//! What holds for any claims.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proptest::prelude::*;

use super::{
    fixture::*,
    index::{Claims, is_service},
    *,
};
use crate::routing::{allowed::AllowedHosts, host::CanonicalHost, path_match::PathMatch};

const HOSTS: [&str; 7] = ["t.dev", "*.t.dev", "a.t.dev", "b.t.dev", "*.a.t.dev", "c.a.t.dev", "*.dev"];

/// A claim by its place in [`HOSTS`]; the last place is every host.
fn any_claims(kind: ClaimantKind) -> impl Strategy<Value = BTreeSet<Claim>> {
    let exact = |text: String| Some(PathMatch::exact(path(&text).path().clone()));
    let taken = prop_oneof![
        2 => Just(None),
        3 => "/[ab]?".prop_map(|text| Some(path(&text))),
        1 => "/[ab]?".prop_map(exact),
    ];
    let class = |name: Option<&str>| EntryPoint::Class(name.map(Into::into));
    let entry_point = prop_oneof![
        Just(class(None)),
        Just(class(Some("nginx"))),
        Just(class(Some("traefik"))),
        Just(EntryPoint::Gateway("gw/public".into())),
    ];
    let switch = proptest::bool::weighted(0.2);
    let claim = (entry_point, 0..=HOSTS.len(), taken, any::<bool>(), switch).prop_map(
        move |(entry_point, at, path, is_served, switches_to_regexes)| {
            let entry_point = match kind {
                ClaimantKind::HTTPRoute => EntryPoint::Gateway("gw/public".into()),
                _ => entry_point,
            };
            let host = HOSTS.get(at).map_or_else(CanonicalHost::any, |name| host(name));
            let is_served = is_served || kind != ClaimantKind::OrdersService;
            Claim { site: Site { entry_point, host }, path, is_served, switches_to_regexes }
        },
    );
    proptest::collection::btree_set(claim, 0..5)
}

fn any_claimant() -> impl Strategy<Value = Claimant> {
    (0..3i64, "[abc]", "[abcde]").prop_map(|(created, namespace, name)| {
        let kind = match name.as_str() {
            "d" => ClaimantKind::Ingress,
            "e" => ClaimantKind::HTTPRoute,
            _ => ClaimantKind::OrdersService,
        };
        Claimant { created, id: ClaimantId { namespace: namespace.into(), name: name.into(), kind } }
    })
}

/// An object that comes with these claims, or goes.
fn any_step() -> impl Strategy<Value = (Claimant, Option<BTreeSet<Claim>>)> {
    any_claimant().prop_flat_map(|claimant| {
        let claims = any_claims(claimant.id.kind);
        (Just(claimant), proptest::option::weighted(0.85, claims))
    })
}

fn any_list() -> impl Strategy<Value = Option<AllowedHosts>> {
    let allowed =
        (0..=HOSTS.len()).prop_map(|at| HOSTS.get(at).map_or_else(CanonicalHost::any, |name| host(name)));
    let hosts = proptest::collection::vec(allowed, 0..4);
    let list = proptest::collection::btree_map("[abc]", hosts, 0..4);
    proptest::option::weighted(0.3, list.prop_map(|list| list.into_iter().collect::<AllowedHosts>()))
}

/// The verdict of each claimant on each of its hosts.
fn verdicts(index: &ClaimIndex) -> BTreeMap<(ClaimantId, Site), Verdict> {
    let mut verdicts = BTreeMap::new();
    for (claimant, claims) in index.claimants.values() {
        for site in claims.iter().map(|claim| &claim.site) {
            let of_site = claims.iter().filter(|claim| claim.site == *site);
            let paths: Vec<_> = of_site.filter_map(|claim| claim.path.clone()).collect();
            let verdict = index.judge(claimant, site, &paths);
            verdicts.insert((claimant.id.clone(), site.clone()), verdict);
        }
    }
    verdicts
}

/// Whether the claim of an object says whose a host is, by the rules as documented.
fn says_whose(index: &ClaimIndex, claimant: &Claimant, claim: &Claim) -> bool {
    let is_service = claimant.id.kind == ClaimantKind::OrdersService;
    (claim.site.host.is_any() && !is_service)
        || (is_service && claim.is_served)
        || is_allowed(index, &claimant.id.namespace, &claim.site.host)
}

/// Whether a namespace may have a host whatever others claim: every host only if a list says so, unless hosts are shared.
fn is_allowed(index: &ClaimIndex, namespace: &str, host: &CanonicalHost) -> bool {
    match &index.allowed {
        Some(list) => list.allows(namespace, host),
        None => index.policy == HostPolicy::Shared || !host.is_any(),
    }
}

/// What a claim is worth, by the rules as documented: what an OrdersService has rendered, then what others have, then what
/// is requested.
fn worth(claimant: &Claimant, is_served: bool) -> u8 {
    match (claimant.id.kind == ClaimantKind::OrdersService, is_served) {
        (true, true) => 0,
        (false, _) => 1,
        (true, false) => 2,
    }
}

/// Whether a namespace may have a host, by the rules as documented, without an index.
fn may_have(index: &ClaimIndex, namespace: &str, at: &Site) -> bool {
    if !is_allowed(index, namespace, &at.host) {
        return false;
    }
    if index.policy == HostPolicy::Shared {
        return true;
    }
    let mut claims = Vec::new();
    for (claimant, of_claimant) in index.claimants.values() {
        for claim in of_claimant.iter().filter(|claim| says_whose(index, claimant, claim)) {
            // Of the claims of an object on a host, the one that is served counts.
            let same_host = |other: &&Claim| other.site.host == claim.site.host;
            let is_served = of_claimant.iter().filter(same_host).any(|claim| claim.is_served);
            claims.push((worth(claimant, is_served), claimant.clone(), &claim.site));
        }
    }
    let is_own = |claimant: &Arc<Claimant>| &*claimant.id.namespace == namespace;
    let first = claims
        .iter()
        .filter(|(_, who, of)| is_own(who) && !of.host.is_any() && of.host.covers(&at.host))
        .map(|(worth, who, _)| (*worth, who.clone()))
        .min();
    let Some(first) = first else { return true };
    // Of the routes of others at a Gateway that name no host only the oldest counts.
    let is_gateway = matches!(at.entry_point, EntryPoint::Gateway(_));
    let any = claims.iter().filter(|(_, who, of)| {
        is_gateway && of.host.is_any() && of.entry_point == at.entry_point && !is_service(who)
    });
    let oldest_any = any.map(|(worth, who, _)| (*worth, who.clone())).min();
    let others = claims.iter().filter(|(_, _, of)| !of.host.is_any() && of.host.meets(&at.host));
    let others = others.map(|(worth, who, _)| (*worth, who.clone())).chain(oldest_any);
    !others.into_iter().any(|other| !is_own(&other.1) && other < first)
}

/// The winner by the rules as documented, without an index.
fn expected_winner<'a>(index: &'a ClaimIndex, wanted: &Site, path: &PathMatch) -> Option<&'a Claimant> {
    let counts = |entry: &(Arc<Claimant>, Claims), claim: &Claim| {
        entry.0.id.kind != ClaimantKind::OrdersService || says_whose(index, &entry.0, claim)
    };
    let of_claim =
        |claim: &Claim| index.resolved(&claim.site) == *wanted && claim.path.as_ref() == Some(path);
    let everyone = || index.claimants.values();
    let mut claims: Vec<_> = everyone()
        .filter(|entry| entry.1.iter().any(|claim| of_claim(claim) && counts(entry, claim)))
        .map(|entry| &*entry.0)
        .collect();
    if index.policy == HostPolicy::Namespace {
        let covering = everyone().flat_map(|(claimant, claims)| {
            let of_host = claims.iter().filter(|claim| {
                let host = &claim.site.host;
                !host.is_any() && host.covers(&wanted.host) && says_whose(index, claimant, claim)
            });
            of_host.map(move |claim| {
                let same_host = |other: &&Claim| other.site.host == claim.site.host;
                let is_served = claims.iter().filter(same_host).any(|claim| claim.is_served);
                (worth(claimant, is_served), claimant)
            })
        });
        if let Some((_, owner)) = covering.min() {
            claims.retain(|claimant| claimant.id.namespace == owner.id.namespace);
        }
    }
    claims.into_iter().min()
}

/// What each OrdersService has rendered, by its verdicts: host and path, at what serves it.
fn rendered(index: &ClaimIndex) -> Vec<(&ClaimantId, Site, PathMatch)> {
    let mut rendered = Vec::new();
    for (claimant, claims) in index.claimants.values().filter(|(claimant, _)| is_service(claimant)) {
        for claim in claims {
            let Some(path) = &claim.path else { continue };
            let verdict = index.judge(claimant, &claim.site, [path]);
            if verdict.refused.is_none() && verdict.lost.is_empty() {
                rendered.push((&claimant.id, index.resolved(&claim.site), path.clone()));
            }
        }
    }
    rendered
}

fn index_of(
    strict: bool,
    list: Option<AllowedHosts>,
    entries: impl IntoIterator<Item = (Claimant, BTreeSet<Claim>)>,
) -> ClaimIndex {
    let mut index = ClaimIndex::new(if strict { HostPolicy::Namespace } else { HostPolicy::Shared });
    index.set_default_class(Some("nginx".into()));
    if let Some(list) = list {
        index.set_allowed(list);
    }
    for (claimant, claims) in entries {
        index.put(claimant, claims);
    }
    index
}

proptest! {
    #![proptest_config(crate::routing::cases::cases())]

    #[test]
    fn all_affected_objects_are_returned_none_of_unrelated_hosts_and_order_does_not_matter(
        steps in proptest::collection::vec(any_step(), 1..9),
        strict in any::<bool>(),
        list in any_list(),
        seed in any::<u64>(),
    ) {
        let mut index = index_of(strict, list.clone(), []);
        for (claimant, claims) in steps {
            let before = verdicts(&index);
            let old = index.claimants.get(&claimant.id).map(|entry| entry.1.clone()).unwrap_or_default();
            let hosts: BTreeSet<_> =
                old.iter().chain(claims.iter().flatten()).map(|claim| index.resolved(&claim.site)).collect();
            let id = claimant.id.clone();
            let named = match claims {
                Some(claims) => index.put(claimant, claims),
                None => index.remove(&id),
            };
            let named: BTreeSet<_> = named.iter().map(|claimant| &claimant.id).collect();
            let after = verdicts(&index);
            for (key, verdict) in &after {
                let sees = before.get(key) != Some(verdict);
                if key.0 != id && sees && key.0.kind == ClaimantKind::OrdersService {
                    prop_assert!(named.contains(&key.0), "{:?} was not told of {:?}", key, id);
                }
            }
            for other in named {
                let related = |site: &Site| {
                    let site = index.resolved(site);
                    hosts.iter().any(|host| {
                        site.host.meets(&host.host) && (strict || site.entry_point == host.entry_point)
                    })
                };
                let of_other = &index.claimants[other].1;
                prop_assert!(*other != id && of_other.iter().any(|claim| related(&claim.site)), "{other:?}");
            }
        }
        for site in index.sites.keys() {
            let prefixes = ["/", "/a", "/b"].map(path);
            let exact = prefixes.clone().map(|prefix| PathMatch::exact(prefix.path().clone()));
            for path in prefixes.iter().chain(&exact) {
                let winner = index.winner(site, path).map(|winner| &**winner);
                prop_assert_eq!(winner, expected_winner(&index, site, path));
            }
        }
        let mut entries: Vec<_> = index.claimants.values().cloned().collect();
        entries.sort();
        fastrand::Rng::with_seed(seed).shuffle(&mut entries);
        let mut again = index_of(strict, None, entries.into_iter().map(|(claimant, claims)| {
            ((*claimant).clone(), claims.into_iter().collect())
        }));
        // The list may come at any time, too.
        if let Some(list) = list {
            again.set_allowed(list);
        }
        prop_assert_eq!(verdicts(&index), verdicts(&again));
        let ids: Vec<_> = index.claimants().cloned().collect();
        ids.iter().for_each(|id| drop(index.remove(id)));
        prop_assert!(index.sites.is_empty() && index.hosts_under.is_empty() && index.owners.is_empty());
    }

    #[test]
    fn a_host_is_refused_by_the_documented_rules_and_is_never_rendered_for_two_namespaces(
        steps in proptest::collection::vec(any_step(), 1..9),
        strict in any::<bool>(),
        list in any_list(),
    ) {
        let entries = steps.into_iter().filter_map(|(claimant, claims)| Some((claimant, claims?)));
        let index = index_of(strict, list, entries);
        for (claimant, claims) in index.claimants.values().filter(|(claimant, _)| is_service(claimant)) {
            for claim in claims {
                let refused = index.judge(claimant, &claim.site, &[]).refused;
                let expected = may_have(&index, &claimant.id.namespace, &index.resolved(&claim.site));
                prop_assert_eq!(refused.is_none(), expected, "{:?} {:?}: {:?}", claimant, claim, refused);
            }
        }
        let rendered = rendered(&index);
        for (at, (id, site, path)) in rendered.iter().enumerate() {
            prop_assert!(is_allowed(&index, &id.namespace, &site.host));
            for (other, other_site, other_path) in &rendered[..at] {
                // Whoever may have every host was given it by the list.
                let is_any = site.host.is_any() || other_site.host.is_any();
                if strict && !is_any && site.host.meets(&other_site.host) {
                    prop_assert_eq!(&id.namespace, &other.namespace, "{:?} {:?}", site, other_site);
                }
                prop_assert!(id == other || (site, path) != (other_site, other_path), "{:?} {:?}", id, other);
            }
        }
    }

    #[test]
    fn those_are_returned_whom_a_change_of_the_list_concerns(
        steps in proptest::collection::vec(any_step(), 1..8),
        strict in any::<bool>(),
        before in any_list(),
        after in any_list(),
    ) {
        let entries = steps.into_iter().filter_map(|(claimant, claims)| Some((claimant, claims?)));
        let mut index = index_of(strict, before, entries);
        let seen = verdicts(&index);
        let named = index.set_allowed(after.unwrap_or_default());
        let named: BTreeSet<_> = named.iter().map(|claimant| &claimant.id).collect();
        for (key, verdict) in verdicts(&index) {
            if seen.get(&key) != Some(&verdict) && key.0.kind == ClaimantKind::OrdersService {
                prop_assert!(named.contains(&key.0), "{:?} was not told", key);
            }
        }
    }
}
