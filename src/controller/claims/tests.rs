use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use serde_json::{Value, json};

use super::{
    claimed::{Claims, claimant, of_ingress, of_service, verdicts},
    requested::requested,
};
use crate::{
    controller::{
        children::rollout::Rollout,
        fixture::service,
        reconcile::{
            apply::Applied, build::build, dereference::Dereferenced, outcome::Completed, status,
            validate::validate,
        },
    },
    crd::{ConditionType, OrdersService, OrdersServiceStatus, find_condition},
    routing::{CanonicalPath, Claim, ClaimIndex, ClaimantKind, EntryPoint},
};

fn ingress(value: Value) -> BTreeSet<Claim> {
    match of_ingress(&serde_json::from_value(value).unwrap()) {
        Claims::These(claims) => claims,
        Claims::OfOwner | Claims::Unknown => panic!("it makes no claims"),
    }
}

fn shown(claims: &BTreeSet<Claim>) -> Vec<String> {
    let text = |claim: &Claim| {
        let EntryPoint::Class(class) = &claim.site.entry_point;
        let prefix = claim.prefix.as_ref().map_or("(none)", CanonicalPath::as_str);
        format!("{} {} {prefix}", class.as_deref().unwrap_or("(default)"), claim.site.host)
    };
    claims.iter().map(text).collect()
}

#[test]
fn of_an_ingress_each_path_counts_that_is_a_prefix_and_the_child_of_a_resource_not_at_all() {
    let path = |path: &str, kind: &str| json!({"path": path, "pathType": kind, "backend": {}});
    let claims = ingress(json!({
        "metadata": {"annotations": {"kubernetes.io/ingress.class": "old"}},
        "spec": {"rules": [
            {"host": "T.dev", "http": {"paths": [
                path("/a/", "Prefix"), path("/b", "Exact"), path("/c/?(.*)", "ImplementationSpecific"),
                path("/(d|e)", "ImplementationSpecific"), path("/?(.*)", "ImplementationSpecific"),
            ]}},
            {"host": "whole.dev"}, {"http": {"paths": [path("/", "Prefix")]}}, {"host": "not a host"},
        ]}
    }));
    let mut shown = shown(&claims);
    shown.sort();
    assert_eq!(shown, ["old t.dev (none)", "old t.dev /", "old t.dev /a", "old t.dev /c", "old whole.dev /"]);
    let owner = json!({"apiVersion": "ticketing.dev/v1alpha1", "kind": "OrdersService", "name": "o", "uid": "u", "controller": true});
    let child = json!({"metadata": {"ownerReferences": [owner]}, "spec": {"rules": [{"host": "t.dev"}]}});
    assert!(matches!(of_ingress(&serde_json::from_value(child).unwrap()), Claims::OfOwner));
}

#[test]
fn a_resource_claims_what_it_asks_for_and_what_it_still_has() {
    let claims = |service: &OrdersService| match of_service(service) {
        Claims::These(claims) => shown(&claims),
        Claims::OfOwner | Claims::Unknown => panic!("it claims"),
    };
    let mut object =
        service(json!({"ingress": {"hosts": ["a.dev"], "routes": [], "client": null, "className": "x"}}));
    let had = json!({"routes": [{"host": "a.dev", "path": "/old", "service": "s:1"}]});
    object.status = Some(serde_json::from_value(had).unwrap());
    assert_eq!(claims(&object), ["x a.dev /api/orders", "x a.dev /old"]);
    // If the spec cannot be rendered, the Ingress stays as it is.
    object.spec.ingress.as_mut().unwrap().path = "/(a|b)".into();
    assert_eq!(claims(&object), ["x a.dev /old"]);
    object.spec.ingress = None;
    assert_eq!(claims(&object), [""; 0]);
}

/// The Ingress and the status of each resource as JSON, if the resources are indexed in this order.
fn outcome(crowd: &[OrdersService]) -> BTreeMap<String, (Vec<u8>, Vec<u8>)> {
    let mut index = ClaimIndex::default();
    for service in crowd {
        let Claims::These(claims) = of_service(service) else { panic!("it claims") };
        index.put(claimant(&service.metadata, ClaimantKind::OrdersService), claims);
    }
    let rollout = Rollout { is_available: true, ..Rollout::default() };
    let applied = Applied::for_test(rollout, Vec::new());
    let of_service = |service: &OrdersService| {
        let me = claimant(&service.metadata, ClaimantKind::OrdersService);
        let verdicts = verdicts(&index, &me, &requested(service).unwrap().unwrap());
        let found = Dereferenced { verdicts, ..Dereferenced::default() };
        let valid = validate(service, &found, Some("image:1")).unwrap();
        let ingress = serde_json::to_vec(&build(&valid).ingress).unwrap();
        let applied = applied.clone();
        let outcome = Ok(Completed { valid, applied, pod_problem: None, requeue_after: None });
        let status = status::compute(service, &outcome, "shop/lease", Timestamp::UNIX_EPOCH);
        (me.to_string(), (ingress, serde_json::to_vec(&status).unwrap()))
    };
    crowd.iter().map(of_service).collect()
}

#[test]
fn five_hundred_on_one_host_in_any_order_are_the_same_winners_conditions_and_bytes() {
    let paths = ["/a", "/a/b", "/a/b/c", "/b", "/b/c", "/c", "/api/users/?(.*)", "/api", "/ws", "/shop/"];
    let mut random = fastrand::Rng::with_seed(7);
    let mut crowd: Vec<_> = (0..500)
        .map(|number| {
            let routes: Vec<_> = random
                .choose_multiple(paths.iter(), 4)
                .into_iter()
                .map(|path| json!({"path": path, "service": format!("s-{number}")}))
                .collect();
            let mut object = service(json!({"ingress": {
                "hosts": ["ticketing.dev"], "path": format!("/api/orders/{}", number % 400), "routes": routes,
                "client": if number % 3 == 0 { json!({"service": "client"}) } else { Value::Null },
            }}));
            object.metadata.name = Some(format!("orders-{number}"));
            object.metadata.namespace = Some(format!("team-{}", number % 20));
            // Many of the same second.
            let second = Timestamp::from_second(random.i64(0..50)).unwrap();
            object.metadata.creation_timestamp = Some(Time(second));
            object
        })
        .collect();
    let first = outcome(&crowd);
    for seed in [1, 2] {
        fastrand::Rng::with_seed(seed).shuffle(&mut crowd);
        assert!(outcome(&crowd) == first, "seed {seed}");
    }
    let status = |bytes: &[u8]| serde_json::from_slice::<OrdersServiceStatus>(bytes).unwrap();
    let all: Vec<_> = first.values().map(|(_, bytes)| status(bytes)).collect();
    let mut served: Vec<_> =
        all.iter().flat_map(|status| &status.routes).map(|route| route.path.clone()).collect();
    let rendered = served.len();
    served.sort();
    served.dedup();
    assert_eq!((rendered, served.len()), (411, 411), "each path is served once");
    let lost = all.iter().filter(|status| {
        let ready = find_condition(&status.conditions, ConditionType::IngressReady).unwrap();
        ready.reason == "HostPathConflict"
    });
    assert!(lost.count() > 480);
}
