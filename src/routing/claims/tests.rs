use proptest::prelude::*;

use super::*;

fn host(name: &str) -> CanonicalHost {
    CanonicalHost::parse(name).unwrap()
}

fn site(class: Option<&str>, name: &str) -> Site {
    Site { entry_point: EntryPoint::Class(class.map(Into::into)), host: host(name) }
}

fn path(text: &str) -> CanonicalPath {
    CanonicalPath::parse(text).unwrap()
}

fn claims(name: &str, prefixes: &[&str]) -> BTreeSet<Claim> {
    prefixes.iter().map(|prefix| Claim { site: site(None, name), prefix: Some(path(prefix)) }).collect()
}

fn claimant(created: i64, namespace: &str, name: &str) -> Claimant {
    let id = ClaimantId { namespace: namespace.into(), name: name.into(), kind: ClaimantKind::OrdersService };
    Claimant { created, id }
}

fn names(of: &BTreeSet<Arc<Claimant>>) -> Vec<&str> {
    of.iter().map(|claimant| &*claimant.id.name).collect()
}

fn lost(index: &ClaimIndex, me: &Claimant, name: &str, prefixes: &[&str]) -> Vec<String> {
    let prefixes: Vec<_> = prefixes.iter().map(|prefix| path(prefix)).collect();
    let verdict = index.judge(me, &site(None, name), &prefixes);
    verdict.lost.iter().map(|(path, winner)| format!("{path} {winner}")).collect()
}

#[test]
fn the_oldest_wins_then_the_first_by_name_and_the_next_one_when_it_is_removed() {
    let mut index = ClaimIndex::default();
    let (old, b, a) = (claimant(1, "z", "old"), claimant(2, "y", "b"), claimant(2, "x", "a"));
    assert!(index.put(b.clone(), claims("t.dev", &["/api", "/"])).is_empty());
    assert_eq!(names(&index.put(a.clone(), claims("t.dev", &["/api", "/a"]))), ["b"]);
    assert_eq!(lost(&index, &b, "t.dev", &["/api", "/"]), ["/api OrdersService x/a"]);
    assert_eq!(names(&index.put(old.clone(), claims("t.dev", &["/api"]))), ["a", "b"]);
    assert_eq!(lost(&index, &a, "t.dev", &["/api", "/a"]), ["/api OrdersService z/old"]);
    // Claims at another class or host do not conflict.
    assert!(index.judge(&b, &site(Some("nginx"), "t.dev"), &[path("/api")]).lost.is_empty());
    assert_eq!(lost(&index, &b, "other.dev", &["/api"]), [""; 0]);
    assert_eq!(names(&index.remove(&old.id)), ["a", "b"]);
    assert_eq!(lost(&index, &a, "t.dev", &["/api"]), [""; 0]);
    // Claims that nobody else has affect nobody.
    assert!(index.put(b, claims("t.dev", &["/api", "/", "/new"])).is_empty());
    assert!(index.put(claimant(9, "w", "c"), claims("u.dev", &["/api"])).is_empty());
}

#[test]
fn there_is_one_client_per_host_and_objects_without_one_learn_which_it_is() {
    let mut index = ClaimIndex::default();
    let (first, second, third) =
        (claimant(1, "a", "first"), claimant(2, "a", "second"), claimant(3, "a", "c"));
    index.put(first.clone(), claims("t.dev", &["/"]));
    index.put(second.clone(), claims("t.dev", &["/", "/x"]));
    index.put(third.clone(), claims("t.dev", &["/y"]));
    assert_eq!(lost(&index, &second, "t.dev", &["/", "/x"]), ["/ OrdersService a/first"]);
    let client = |index: &ClaimIndex| {
        let verdict = index.judge(&third, &site(None, "t.dev"), &[path("/y")]);
        verdict.client.map(|client| client.id.name.clone())
    };
    assert_eq!(client(&index).as_deref(), Some("first"));
    assert_eq!(names(&index.remove(&first.id)), ["second", "c"]);
    assert_eq!(client(&index).as_deref(), Some("second"));
}

#[test]
fn no_class_means_the_default_class() {
    let mut index = ClaimIndex::default();
    let (old, new) = (claimant(1, "a", "old"), claimant(2, "b", "new"));
    index.put(old, BTreeSet::from([Claim { site: site(Some("nginx"), "t.dev"), prefix: Some(path("/a")) }]));
    index.put(new.clone(), claims("t.dev", &["/a"]));
    assert!(lost(&index, &new, "t.dev", &["/a"]).is_empty());
    assert_eq!(names(&index.set_default_class(Some("nginx".into()))), ["old", "new"]);
    assert_eq!(lost(&index, &new, "t.dev", &["/a"]), ["/a OrdersService a/old"]);
    index.set_default_class(None);
    assert!(lost(&index, &new, "t.dev", &["/a"]).is_empty());
}

#[test]
fn a_host_of_another_namespace_is_refused_where_that_is_the_policy() {
    let mut index = ClaimIndex::new(HostPolicy::Namespace);
    let (old, same, other) = (claimant(1, "a", "old"), claimant(3, "a", "same"), claimant(2, "b", "other"));
    index.put(old.clone(), BTreeSet::from([Claim { site: site(None, "t.dev"), prefix: None }]));
    index.put(same.clone(), claims("t.dev", &["/x"]));
    index.put(other.clone(), claims("t.dev", &["/x"]));
    let refused = |index: &ClaimIndex, me: &Claimant| {
        let verdict = index.judge(me, &site(None, "t.dev"), &[path("/x")]);
        (verdict.refused.map(|owner| owner.id.name.clone()), verdict.lost.len())
    };
    assert_eq!(refused(&index, &other), (Some("old".into()), 0));
    assert_eq!(refused(&index, &same), (None, 0), "the older claim on the path does not count");
    // When the owner is removed, the host goes to the namespace of the next oldest.
    assert_eq!(names(&index.remove(&old.id)), ["other", "same"]);
    assert_eq!(refused(&index, &other), (None, 0));
    assert_eq!(refused(&index, &same), (Some("other".into()), 0));
}

#[test]
fn a_wildcard_and_a_host_under_it_overlap_unless_they_belong_to_one_object() {
    let mut index = ClaimIndex::default();
    let (wild, exact, both) = (claimant(1, "a", "wild"), claimant(2, "b", "exact"), claimant(3, "c", "both"));
    index.put(wild.clone(), claims("*.t.dev", &["/"]));
    assert_eq!(names(&index.put(exact.clone(), claims("x.t.dev", &["/a"]))), ["wild"]);
    let overlap = |index: &ClaimIndex, me: &Claimant, name: &str| {
        let overlap = index.judge(me, &site(None, name), &[]).overlap;
        overlap.map(|(host, other)| format!("{host} {}", other.id.name))
    };
    assert_eq!(overlap(&index, &wild, "*.t.dev").as_deref(), Some("x.t.dev exact"));
    assert_eq!(overlap(&index, &exact, "x.t.dev").as_deref(), Some("*.t.dev wild"));
    assert_eq!(overlap(&index, &exact, "y.x.t.dev"), None, "two labels below");
    // The overlap names the first host only, so a later one does not affect the owner of the wildcard.
    assert!(index.put(claimant(4, "d", "later"), claims("z.t.dev", &["/a"])).is_empty());
    let mut of_both = claims("*.u.dev", &["/"]);
    of_both.extend(claims("x.u.dev", &["/"]));
    index.put(both.clone(), of_both);
    assert_eq!((overlap(&index, &both, "*.u.dev"), overlap(&index, &both, "x.u.dev")), (None, None));
    assert_eq!(names(&index.remove(&exact.id)), ["wild"]);
    assert_eq!(overlap(&index, &wild, "*.t.dev").as_deref(), Some("z.t.dev later"));
    index.remove(&wild.id);
    index.remove(&both.id);
    index.remove(&claimant(4, "d", "later").id);
    assert!(
        index.sites.is_empty() && index.hosts_under.is_empty() && index.claimants.is_empty(),
        "nothing is left"
    );
}

const HOSTS: [&str; 4] = ["t.dev", "*.t.dev", "a.t.dev", "b.t.dev"];

fn any_claims() -> impl Strategy<Value = BTreeSet<Claim>> {
    let prefix = prop_oneof![Just(None), "/[ab]?".prop_map(|text| Some(path(&text)))];
    let class = prop_oneof![Just(None), Just(Some("nginx"))];
    let claim = (class, 0..HOSTS.len(), prefix)
        .prop_map(|(class, at, prefix)| Claim { site: site(class, HOSTS[at]), prefix });
    proptest::collection::btree_set(claim, 0..5)
}

fn any_claimant() -> impl Strategy<Value = Claimant> {
    (0..3i64, "[ab]", "[abcd]").prop_map(|(created, namespace, name)| {
        let kind = if name == "d" { ClaimantKind::Ingress } else { ClaimantKind::OrdersService };
        Claimant { created, id: ClaimantId { namespace: namespace.into(), name: name.into(), kind } }
    })
}

/// The verdict of each claimant on each of its hosts.
fn verdicts(index: &ClaimIndex) -> BTreeMap<(ClaimantId, Site), Verdict> {
    let mut verdicts = BTreeMap::new();
    for (claimant, claims) in index.claimants.values() {
        for site in claims.iter().map(|claim| &claim.site) {
            let of_site = claims.iter().filter(|claim| claim.site == *site);
            let prefixes: Vec<_> = of_site.filter_map(|claim| claim.prefix.clone()).collect();
            let verdict = index.judge(claimant, site, &prefixes);
            verdicts.insert((claimant.id.clone(), site.clone()), verdict);
        }
    }
    verdicts
}

/// The winner by the rules as documented, without an index.
fn expected_winner<'a>(index: &'a ClaimIndex, wanted: &Site, prefix: &CanonicalPath) -> Option<&'a Claimant> {
    let claims = |claimant: &(Arc<Claimant>, Claims), of: &dyn Fn(&Claim) -> bool| {
        claimant.1.iter().any(|claim| index.resolved(&claim.site) == *wanted && of(claim))
    };
    let everyone = || index.claimants.values();
    let owner = everyone().filter(|entry| claims(entry, &|_| true)).map(|entry| &entry.0).min();
    everyone()
        .filter(|entry| claims(entry, &|claim| claim.prefix.as_ref() == Some(prefix)))
        .map(|entry| &*entry.0)
        .filter(|claimant| {
            index.policy == HostPolicy::Shared
                || owner.is_some_and(|owner| owner.id.namespace == claimant.id.namespace)
        })
        .min()
}

proptest! {
    #![proptest_config(crate::routing::cases::cases())]

    #[test]
    fn all_affected_objects_are_returned_none_of_unrelated_hosts_and_order_does_not_matter(
        steps in proptest::collection::vec((any_claimant(), proptest::option::weighted(0.8, any_claims())), 1..12),
        strict in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let policy = if strict { HostPolicy::Namespace } else { HostPolicy::Shared };
        let mut index = ClaimIndex::new(policy);
        index.set_default_class(Some("nginx".into()));
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
                    let wildcard = wildcard_above(&site);
                    hosts.contains(&site) || wildcard.is_some_and(|site| hosts.contains(&site))
                        || hosts.iter().any(|host| wildcard_above(host).as_ref() == Some(&site))
                };
                let of_other = &index.claimants[other].1;
                prop_assert!(*other != id && of_other.iter().any(|claim| related(&claim.site)), "{other:?}");
            }
        }
        for site in index.sites.keys() {
            for prefix in ["/", "/a", "/b"].map(path) {
                let winner = index.winner(site, &prefix).map(|winner| &**winner);
                prop_assert_eq!(winner, expected_winner(&index, site, &prefix));
            }
        }
        let mut entries: Vec<_> = index.claimants.values().cloned().collect();
        entries.sort();
        fastrand::Rng::with_seed(seed).shuffle(&mut entries);
        let mut again = ClaimIndex::new(policy);
        again.set_default_class(Some("nginx".into()));
        for (claimant, claims) in entries {
            again.put((*claimant).clone(), claims.into_iter().collect());
        }
        prop_assert_eq!(verdicts(&index), verdicts(&again));
    }
}
