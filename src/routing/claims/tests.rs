use std::collections::BTreeSet;

use super::{fixture::*, *};
use crate::routing::path_match::PathMatch;

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
    index.put(
        old,
        BTreeSet::from([Claim {
            site: site(Some("nginx"), "t.dev"),
            path: Some(path("/a")),
            is_served: false,
            switches_to_regexes: false,
        }]),
    );
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
    index.put(
        old.clone(),
        BTreeSet::from([Claim {
            site: site(None, "t.dev"),
            path: None,
            is_served: false,
            switches_to_regexes: false,
        }]),
    );
    index.put(same.clone(), claims("t.dev", &["/x"]));
    index.put(other.clone(), claims("t.dev", &["/x"]));
    let refused = |index: &ClaimIndex, me: &Claimant| {
        let verdict = index.judge(me, &site(None, "t.dev"), &[path("/x")]);
        (refused_by(&verdict), verdict.lost.len())
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
        index.sites.is_empty()
            && index.hosts_under.is_empty()
            && index.claimants.is_empty()
            && index.owners.is_empty(),
        "nothing is left"
    );
}

#[test]
fn rules_for_every_host_conflict_with_each_other_and_are_told_of_one_host_that_they_do_not_get() {
    let mut index = ClaimIndex::default();
    let (old, me, other) = (claimant(1, "a", "old"), claimant(2, "b", "me"), claimant(3, "c", "other"));
    let any = |prefix: &str| Claim {
        site: any_site(),
        path: Some(path(prefix)),
        is_served: false,
        switches_to_regexes: false,
    };
    index.put(me.clone(), [any("/"), any("/a")].into());
    assert_eq!(names(&index.put(old.clone(), [any("/a")].into())), ["me"]);
    let judged = |index: &ClaimIndex| index.judge(&me, &any_site(), &[path("/"), path("/a")]);
    let lost: Vec<_> = judged(&index).lost.into_iter().map(|(path, by)| format!("{path} {by}")).collect();
    assert_eq!((lost, judged(&index).overlap), (vec!["/a OrdersService a/old".to_owned()], None));
    // A host of its own is no conflict with them, and its owner is told nothing.
    assert_eq!(names(&index.put(other.clone(), claims("t.dev", &["/a"]))), ["old", "me"]);
    assert_eq!(index.judge(&other, &site(None, "t.dev"), &[path("/a")]), Verdict::default());
    let overlap = judged(&index).overlap.map(|(host, who)| format!("{host} {who}"));
    assert_eq!(overlap.as_deref(), Some("t.dev OrdersService c/other"));
    assert_eq!(names(&index.remove(&other.id)), ["old", "me"]);
    assert_eq!(judged(&index).overlap, None);
}

#[test]
fn an_exact_path_conflicts_with_the_same_exact_path_and_with_an_older_prefix_of_another_namespace() {
    let mut index = ClaimIndex::default();
    let exact = |text: &str| PathMatch::exact(path(text).path().clone());
    let claim = |taken: PathMatch| Claim {
        site: site(None, "t.dev"),
        path: Some(taken),
        is_served: false,
        switches_to_regexes: false,
    };
    let (old, me, same) = (claimant(1, "a", "old"), claimant(2, "b", "me"), claimant(3, "a", "same"));
    let of_old: BTreeSet<_> = [claim(exact("/a")), claim(path("/b")), claim(path("/"))].into();
    index.put(old.clone(), of_old.clone());
    let mine = [exact("/a"), path("/a"), exact("/b"), exact("/b/c"), exact("/")];
    for claimant in [&me, &same] {
        index.put(claimant.clone(), mine.iter().cloned().map(claim).collect());
    }
    let lost = |index: &ClaimIndex, who: &Claimant| -> BTreeSet<PathMatch> {
        index.judge(who, &site(None, "t.dev"), &mine).lost.into_keys().collect()
    };
    assert_eq!(lost(&index, &me), [exact("/b"), exact("/a"), exact("/")].into());
    assert!(lost(&index, &old).is_empty());
    index.remove(&me.id);
    assert_eq!(lost(&index, &same), [exact("/a")].into(), "in one namespace that is wanted");
    // Whoever has the exact path is told when the prefix comes and goes.
    index.put(me.clone(), mine.iter().cloned().map(claim).collect());
    assert_eq!(names(&index.remove(&old.id)), ["me", "same"]);
    assert!(lost(&index, &me).is_empty());
    assert_eq!(names(&index.put(old, of_old)), ["me", "same"]);
}

/// The processor time of this thread so far, in nanoseconds. It does not count what other threads have taken.
fn processor_time() -> u64 {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    times.split(' ').next().unwrap().parse().unwrap()
}

/// What it costs to put and remove an Ingress with so many hosts below a wildcard of its own, and whom each affects.
fn cost_of_hosts(policy: HostPolicy, count: usize) -> (u64, String, String) {
    let mut index = ClaimIndex::new(policy);
    index.put(claimant(1, "a", "wild"), claims("*.t.dev", &["/a"]));
    index.put(claimant(2, "a", "exact"), claims("x7.t.dev", &["/a"]));
    let huge = foreign(3, "b", "huge", ClaimantKind::Ingress);
    let names_of = (0..count).map(|number| format!("x{number}.t.dev"));
    let hosts: BTreeSet<_> =
        names_of.chain(["*.t.dev".to_owned()]).map(|name| served(site(None, &name), "/a")).collect();
    let before = processor_time();
    let came = index.put(huge.clone(), hosts);
    let went = index.remove(&huge.id);
    (processor_time() - before, names(&came).join(","), names(&went).join(","))
}

/// With a look at every host for each host, four times as many hosts would cost sixteen times as much.
#[test]
fn an_ingress_with_tens_of_thousands_of_hosts_below_a_wildcard_of_its_own_costs_as_much_as_it_has_hosts() {
    for policy in [HostPolicy::Shared, HostPolicy::Namespace] {
        let told = match policy {
            // There is a new first host below the wildcard, which overlaps with it.
            HostPolicy::Shared => "wild",
            HostPolicy::Namespace => "wild,exact",
        };
        let [few, many] = [2_500, 10_000].map(|count| {
            let (cost, came, went) = cost_of_hosts(policy, count);
            assert_eq!((came.as_str(), went.as_str()), (told, told));
            cost
        });
        assert!(many < 10 * few, "{policy:?}: {few} ns for 2,500 hosts, {many} ns for 10,000");
    }
}
