//! Whose a host is.

use std::collections::BTreeMap;

use super::{fixture::*, *};
use crate::routing::{allowed::AllowedHosts, host::CanonicalHost};

#[test]
fn a_wildcard_of_a_namespace_covers_the_hosts_below_for_all_others_at_any_depth() {
    let mut index = ClaimIndex::new(HostPolicy::Namespace);
    let (wild, below, own) = (claimant(1, "a", "wild"), claimant(2, "b", "below"), claimant(3, "a", "own"));
    index.put(
        below.clone(),
        claims("x.t.dev", &["/"]).into_iter().chain(claims("y.x.t.dev", &["/"])).collect(),
    );
    assert_eq!(refusals(&index, &below, &["x.t.dev", "y.x.t.dev"]), [None, None]);
    assert_eq!(names(&index.put(wild.clone(), claims("*.t.dev", &["/"]))), ["below"]);
    let by_wild = Some("wild".to_owned());
    assert_eq!(refusals(&index, &below, &["x.t.dev", "y.x.t.dev"]), [by_wild.clone(), by_wild]);
    index.put(own.clone(), claims("x.t.dev", &["/"]));
    assert_eq!(
        refusals(&index, &own, &["x.t.dev"]),
        [None],
        "in the namespace of the wildcard it is welcome"
    );
    assert_eq!(index.judge(&own, &site(None, "x.t.dev"), &[path("/")]).lost, BTreeMap::new());
    assert_eq!(refusals(&index, &below, &["t.dev"]), [None], "the wildcard does not cover its own domain");
    // When the wildcard goes, the oldest of the exact host has it.
    assert_eq!(names(&index.remove(&wild.id)), ["below", "own"]);
    assert_eq!(refusals(&index, &below, &["x.t.dev"]), [None]);
    assert_eq!(refusals(&index, &own, &["x.t.dev"]), [Some("below".into())]);
}

#[test]
fn an_older_host_of_another_namespace_keeps_a_wildcard_above_it_from_being_rendered() {
    let mut index = ClaimIndex::new(HostPolicy::Namespace);
    let (old, wild, apart) = (claimant(1, "a", "old"), claimant(2, "b", "wild"), claimant(3, "c", "apart"));
    index.put(wild.clone(), claims("*.t.dev", &["/"]));
    assert_eq!(names(&index.put(old.clone(), claims("y.x.t.dev", &["/"]))), ["wild"]);
    assert_eq!(refusals(&index, &wild, &["*.t.dev"]), [Some("old".into())]);
    assert_eq!(refusals(&index, &old, &["y.x.t.dev"]), [None]);
    // A claim that is refused still counts for those after it.
    index.put(apart.clone(), claims("z.t.dev", &["/"]));
    assert_eq!(refusals(&index, &apart, &["z.t.dev"]), [Some("wild".into())]);
    // One of the same namespace does not stand in the way.
    let mut same = ClaimIndex::new(HostPolicy::Namespace);
    same.put(claimant(1, "b", "old"), claims("x.t.dev", &["/"]));
    same.put(wild.clone(), claims("*.t.dev", &["/"]));
    assert_eq!(refusals(&same, &wild, &["*.t.dev"]), [None]);
    assert_eq!(names(&index.remove(&old.id)), ["wild"]);
    assert_eq!(refusals(&index, &wild, &["*.t.dev"]), [None]);
}

#[test]
fn a_host_has_one_owner_over_all_classes_and_gateways() {
    let mut index = ClaimIndex::new(HostPolicy::Namespace);
    let owner = claimant(1, "a", "owner");
    index.put(owner.clone(), [served(site(Some("nginx"), "t.dev"), "/")].into());
    let guest = claimant(2, "b", "guest");
    let sites = [site(Some("traefik"), "t.dev"), site(None, "t.dev"), at_gateway("gw/public", "t.dev")];
    index.put(
        guest.clone(),
        sites.iter().map(|site| Claim { is_served: false, ..served(site.clone(), "/x") }).collect(),
    );
    for site in &sites {
        assert_eq!(
            refused_by(&index.judge(&guest, site, &[path("/x")])).as_deref(),
            Some("owner"),
            "{site:?}"
        );
    }
    for (kind, expected) in
        [(ClaimantKind::Ingress, "Ingress a/theirs"), (ClaimantKind::HTTPRoute, "HTTPRoute a/theirs")]
    {
        let mut index = ClaimIndex::new(HostPolicy::Namespace);
        index.put(foreign(1, "a", "theirs", kind), [served(at_gateway("gw/other", "*.t.dev"), "/z")].into());
        index.put(guest.clone(), claims("x.t.dev", &["/"]));
        match index.judge(&guest, &site(None, "x.t.dev"), &[path("/")]).refused {
            Some(Refusal::OwnedBy(owner)) => assert_eq!(owner.to_string(), expected),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn nobody_loses_a_host_that_is_served_to_an_older_object_that_claims_it_later() {
    let mut index = ClaimIndex::new(HostPolicy::Namespace);
    let (old, young) = (claimant(1, "a", "old"), claimant(2, "b", "young"));
    index.put(young.clone(), [served(site(None, "t.dev"), "/")].into());
    index.put(old.clone(), claims("*.dev", &["/"]));
    assert_eq!(refusals(&index, &young, &["t.dev"]), [None]);
    assert_eq!(refusals(&index, &old, &["*.dev"]), [Some("young".into())]);
    // Neither is served yet: then it is the age that counts.
    assert_eq!(names(&index.put(young.clone(), claims("t.dev", &["/"]))), ["old"]);
    assert_eq!(refusals(&index, &young, &["t.dev"]), [Some("old".into())]);
    assert_eq!(refusals(&index, &old, &["*.dev"]), [None]);
}

#[test]
fn nobody_loses_a_host_that_is_served_to_an_older_ingress_or_route_that_gets_a_rule_for_it_later() {
    for kind in [ClaimantKind::Ingress, ClaimantKind::HTTPRoute] {
        for theirs in ["t.dev", "*.dev", "*"] {
            let mut index = ClaimIndex::new(HostPolicy::Namespace);
            let (old, me) = (foreign(1, "a", "old", kind), claimant(2, "b", "me"));
            let mine = at_gateway("gw/public", "t.dev");
            let host = if theirs == "*" { CanonicalHost::any() } else { host(theirs) };
            let rule = served(Site { host, ..mine.clone() }, "/");
            let refused = |index: &ClaimIndex| refused_by(&index.judge(&me, &mine, &[path("/")]));
            index.put(old.clone(), [served(at_gateway("gw/public", "o.dev"), "/")].into());
            index.put(me.clone(), [served(mine.clone(), "/")].into());
            index.put(old.clone(), [rule.clone()].into());
            assert_eq!(refused(&index), None, "{kind:?} {theirs}");
            // One that was there before anything was rendered is the first.
            index.put(me.clone(), [Claim { is_served: false, ..served(mine.clone(), "/") }].into());
            assert_eq!(refused(&index), Some("old".into()), "{kind:?} {theirs}");
        }
    }
}

#[test]
fn a_route_without_hosts_is_any_host_of_its_gateway() {
    let mut index = ClaimIndex::new(HostPolicy::Namespace);
    let (route, me) = (foreign(1, "infra", "all", ClaimantKind::HTTPRoute), claimant(2, "a", "me"));
    let sites = [at_gateway("gw/public", "t.dev"), at_gateway("gw/other", "t.dev"), site(None, "t.dev")];
    let requested = |site: &Site| Claim { is_served: false, ..served(site.clone(), "/") };
    index.put(me.clone(), sites.iter().map(requested).collect());
    let any = Site { host: CanonicalHost::any(), ..sites[0].clone() };
    let claim = Claim { site: any, path: None, is_served: true, switches_to_regexes: false };
    assert_eq!(names(&index.put(route.clone(), [claim.clone()].into())), ["me"]);
    let refused = |index: &ClaimIndex| sites.each_ref().map(|site| refused_by(&index.judge(&me, site, &[])));
    assert_eq!(refused(&index), [Some("all".into()), None, None]);
    // What its rules are is no matter, nor is who comes after it; but if it goes, the next one is the first.
    let with_path = Claim { path: Some(path("/x")), ..claim.clone() };
    assert_eq!(names(&index.put(route.clone(), [claim.clone(), with_path].into())), [""; 0]);
    assert_eq!(names(&index.put(route.clone(), [claim.clone()].into())), [""; 0]);
    let next = foreign(3, "infra", "next", ClaimantKind::HTTPRoute);
    assert_eq!(names(&index.put(next.clone(), [claim.clone()].into())), [""; 0]);
    assert_eq!(names(&index.remove(&route.id)), ["me"]);
    assert_eq!(names(&index.put(route.clone(), [claim.clone()].into())), ["me"]);
    assert_eq!(names(&index.remove(&next.id)), [""; 0]);
    // It takes nothing away that is served, and one of the same namespace nothing at all.
    index.put(me.clone(), sites.iter().map(|site| served(site.clone(), "/")).collect());
    assert_eq!(refused(&index), [None, None, None]);
    index.put(me.clone(), sites.iter().map(requested).collect());
    index.remove(&route.id);
    index.put(foreign(1, "a", "own", ClaimantKind::HTTPRoute), [claim].into());
    assert_eq!(refused(&index), [None, None, None]);
}

#[test]
fn every_host_is_for_a_namespace_only_that_was_given_it_and_takes_nobody_else_s_away() {
    let (greedy, given, me) = (claimant(1, "a", "greedy"), claimant(2, "b", "given"), claimant(3, "c", "me"));
    let any = |path_of: &str| Claim {
        site: any_site(),
        path: Some(path(path_of)),
        is_served: false,
        switches_to_regexes: false,
    };
    let refused =
        |index: &ClaimIndex, who: &Claimant, site: &Site| refused_by(&index.judge(who, site, &[path("/")]));
    let not_allowed = Some("(not allowed)".to_owned());
    let mut index = ClaimIndex::new(HostPolicy::Namespace);
    index.put(greedy.clone(), [any("/")].into());
    assert_eq!(refused(&index, &greedy, &any_site()), not_allowed, "being the first is not enough");
    index.put(me.clone(), claims("t.dev", &["/"]));
    assert_eq!(refused(&index, &me, &site(None, "t.dev")), None);
    index.put(given.clone(), [any("/")].into());
    let every = ("b".to_owned(), vec![CanonicalHost::any()]);
    index.set_allowed([every, ("c".to_owned(), vec![host("t.dev")])].into_iter().collect());
    assert_eq!(refused(&index, &greedy, &any_site()), not_allowed);
    assert_eq!(refused(&index, &given, &any_site()), None);
    assert_eq!(refused(&index, &me, &site(None, "t.dev")), None, "it is given every host, not all of them");
    // At a Gateway, too, where routes of others that name no host are for whatever its listeners say.
    let mut index = ClaimIndex::new(HostPolicy::Namespace);
    let at = Site { host: CanonicalHost::any(), ..at_gateway("gw/public", "t.dev") };
    index.put(
        greedy.clone(),
        [Claim { site: at.clone(), path: Some(path("/")), is_served: true, switches_to_regexes: false }]
            .into(),
    );
    index.put(me.clone(), [served(at_gateway("gw/public", "t.dev"), "/")].into());
    assert_eq!(refused(&index, &greedy, &at), not_allowed);
    assert_eq!(refused(&index, &me, &at_gateway("gw/public", "t.dev")), None);
    // An Ingress without a host has only what no rule of a host has.
    index.put(
        foreign(0, "z", "default-backend", ClaimantKind::Ingress),
        [Claim { site: any_site(), path: Some(path("/")), is_served: true, switches_to_regexes: false }]
            .into(),
    );
    index.put(me.clone(), claims("t.dev", &["/"]));
    assert_eq!(refused(&index, &me, &site(None, "t.dev")), None);
}

#[test]
fn under_the_shared_policy_routes_of_others_count_at_the_same_gateway_only() {
    let mut index = ClaimIndex::default();
    let (route, me) = (foreign(1, "b", "theirs", ClaimantKind::HTTPRoute), claimant(2, "a", "me"));
    index.put(route, [served(at_gateway("gw/public", "t.dev"), "/a")].into());
    let lost = |site: Site| {
        let verdict = index.judge(&me, &site, &[path("/a"), path("/b")]);
        (
            verdict.refused.is_some(),
            verdict.lost.into_iter().map(|(path, who)| format!("{path} {who}")).collect::<Vec<_>>(),
        )
    };
    assert_eq!(lost(at_gateway("gw/public", "t.dev")), (false, vec!["/a HTTPRoute b/theirs".into()]));
    for site in [at_gateway("gw/other", "t.dev"), at_gateway("gw/public", "u.dev"), site(None, "t.dev")] {
        assert_eq!(lost(site), (false, vec![]));
    }
}

#[test]
fn a_host_that_is_not_allowed_is_refused_and_its_claim_counts_for_nothing_once_it_is_not_served() {
    let list = |entries: &[(&str, &str)]| -> AllowedHosts {
        entries.iter().map(|(namespace, name)| ((*namespace).to_owned(), vec![host(name)])).collect()
    };
    for policy in [HostPolicy::Shared, HostPolicy::Namespace] {
        let mut index = ClaimIndex::new(policy);
        let (squatter, rightful) = (claimant(1, "b", "squatter"), claimant(2, "a", "rightful"));
        index.put(squatter.clone(), claims("t.dev", &["/"]));
        index.put(rightful.clone(), claims("t.dev", &["/"]));
        index.put(claimant(3, "c", "apart"), claims("u.dev", &["/"]));
        assert_eq!(names(&index.set_allowed(list(&[("a", "t.dev")]))), ["squatter", "rightful", "apart"]);
        assert_eq!(refusals(&index, &squatter, &["t.dev"]), [Some("(not allowed)".into())]);
        assert_eq!(refusals(&index, &rightful, &["t.dev"]), [None]);
        assert_eq!(lost(&index, &rightful, "t.dev", &["/"]), [""; 0]);
        // What is still served counts until it is not.
        assert_eq!(
            names(&index.put(squatter.clone(), [served(site(None, "t.dev"), "/")].into())),
            ["rightful"]
        );
        let verdict = index.judge(&rightful, &site(None, "t.dev"), &[path("/")]);
        assert!(verdict.refused.is_some() || !verdict.lost.is_empty());
        assert_eq!(names(&index.put(squatter.clone(), claims("t.dev", &["/"]))), ["rightful"]);
        // Only those are returned whom a change of the list may concern.
        assert!(index.set_allowed(list(&[("a", "t.dev")])).is_empty());
        assert_eq!(names(&index.set_allowed(list(&[("a", "t.dev"), ("c", "u.dev")]))), ["apart"]);
        assert_eq!(
            names(&index.set_allowed(list(&[("b", "*.dev"), ("c", "u.dev")]))),
            ["squatter", "rightful", "apart"]
        );
        assert_eq!(refusals(&index, &squatter, &["t.dev"]), [None]);
    }
}

#[test]
fn where_a_list_says_whose_a_host_is_an_ingress_of_another_namespace_does_not_own_it() {
    let mut index = ClaimIndex::new(HostPolicy::Namespace);
    let me = claimant(2, "a", "me");
    index.put(foreign(1, "b", "theirs", ClaimantKind::Ingress), [served(site(None, "t.dev"), "/x")].into());
    index.put(me.clone(), claims("t.dev", &["/"]));
    assert_eq!(refusals(&index, &me, &["t.dev"]), [Some("theirs".into())]);
    index.set_allowed([("a".to_owned(), vec![host("t.dev")])].into_iter().collect());
    assert_eq!(refusals(&index, &me, &["t.dev"]), [None]);
}
