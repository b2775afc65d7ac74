use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use serde_json::{Value, json};

use super::claimed::{
    Claims, MAX_CLAIMS, claimant, of_http_route, of_ingress, of_service, requested_of, verdicts_on,
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
    routing::{Claim, ClaimIndex, ClaimantKind, EntryPoint, PathMatch},
};

fn ingress(value: Value) -> BTreeSet<Claim> {
    match of_ingress(&serde_json::from_value(value).unwrap()) {
        Claims::These(claims) => claims,
        Claims::OfOwner | Claims::Unknown => panic!("it makes no claims"),
    }
}

fn shown(claims: &BTreeSet<Claim>) -> Vec<String> {
    let text = |claim: &Claim| {
        let entry_point = match &claim.site.entry_point {
            EntryPoint::Class(class) => class.as_deref().unwrap_or("(default)"),
            EntryPoint::Gateway(gateway) => gateway,
        };
        let path = claim.path.as_ref();
        let exact = if path.is_some_and(PathMatch::is_exact) { "=" } else { "" };
        let path = path.map_or("(none)", PathMatch::as_str);
        let served = if claim.is_served { "" } else { " (requested)" };
        format!("{entry_point} {} {exact}{path}{served}", claim.site.host)
    };
    claims.iter().map(text).collect()
}

#[test]
fn of_an_ingress_each_path_counts_that_is_a_prefix_or_exact_and_the_child_of_a_resource_not_at_all() {
    let path = |path: &str, kind: &str| json!({"path": path, "pathType": kind, "backend": {}});
    let claims = ingress(json!({
        "metadata": {"annotations": {"kubernetes.io/ingress.class": "old"}},
        "spec": {"rules": [
            {"host": "T.dev", "http": {"paths": [
                path("/a/", "Prefix"), path("/b", "Exact"), path("/c/?(.*)", "ImplementationSpecific"),
                path("/(d|e)", "ImplementationSpecific"), path("/?(.*)", "ImplementationSpecific"),
            ]}},
            {"host": "whole.dev"}, {"http": {"paths": [path("/e/", "Exact"), path("/x", "Prefix")]}}, {"host": "not a host"},
        ], "defaultBackend": {"service": {"name": "s"}}}
    }));
    let mut shown = shown(&claims);
    shown.sort();
    assert_eq!(
        shown,
        [
            "old * (none)",
            "old * /",
            "old * /x",
            "old t.dev (none)",
            "old t.dev /",
            "old t.dev /a",
            "old t.dev /c",
            "old t.dev =/b",
            "old whole.dev /"
        ]
    );
    let owner = json!({"apiVersion": "ticketing.dev/v1alpha1", "kind": "OrdersService", "name": "o", "uid": "u", "controller": true});
    let child = json!({"metadata": {"ownerReferences": [owner]}, "spec": {"rules": [{"host": "t.dev"}]}});
    assert!(matches!(of_ingress(&serde_json::from_value(child).unwrap()), Claims::OfOwner));
}

#[test]
fn an_ingress_by_which_cert_manager_answers_a_challenge_claims_nothing() {
    let path =
        json!({"path": "/.well-known/acme-challenge/x", "pathType": "ImplementationSpecific", "backend": {}});
    let solver = |group: &str| {
        let owner = json!({"apiVersion": format!("{group}/v1"), "kind": "Challenge", "name": "c", "uid": "u", "controller": true});
        ingress(json!({
            "metadata": {"ownerReferences": [owner]},
            "spec": {"rules": [{"host": "t.dev", "http": {"paths": [path.clone()]}}]}
        }))
    };
    assert_eq!(shown(&solver("acme.cert-manager.io")), [""; 0]);
    assert_eq!(shown(&solver("example.com")), ["(default) t.dev /.well-known/acme-challenge/x"]);
}

#[test]
fn the_annotations_by_which_ingress_nginx_makes_regexes_of_all_paths_of_a_host_are_known() {
    let switches = |name: &str, value: &str| {
        let claims = ingress(json!({
            "metadata": {"annotations": {name: value}}, "spec": {"rules": [{"host": "t.dev"}]}
        }));
        claims.iter().all(|claim| claim.switches_to_regexes)
    };
    for (name, value) in
        [("use-regex", "true"), ("use-regex", "t"), ("use-regex", "1"), ("rewrite-target", "/$1")]
    {
        assert!(switches(&format!("nginx.ingress.kubernetes.io/{name}"), value), "{name}: {value}");
    }
    for (name, value) in
        [("nginx.ingress.kubernetes.io/use-regex", "false"), ("nginx.org/path-regex", "exact")]
    {
        assert!(!switches(name, value), "{name}: {value}");
    }
}

#[test]
fn of_an_object_with_too_many_rules_only_the_first_count_and_its_hosts_before_its_paths() {
    let rule = |host: usize, paths: usize| {
        let paths: Vec<_> = (0..paths)
            .map(|path| json!({"path": format!("/{path}"), "pathType": "Prefix", "backend": {}}))
            .collect();
        json!({"host": format!("x{host}.t.dev"), "http": {"paths": paths}})
    };
    let of = |hosts: usize, paths: usize| {
        let rules: Vec<_> = (0..hosts).map(|host| rule(host, paths)).collect();
        ingress(json!({"metadata": {}, "spec": {"rules": rules}}))
    };
    let hosts = |claims: &BTreeSet<Claim>| {
        claims.iter().map(|claim| claim.site.host.clone()).collect::<BTreeSet<_>>().len()
    };
    assert_eq!(of(10, MAX_CLAIMS / 10).len(), MAX_CLAIMS);
    let many_paths = of(10, MAX_CLAIMS / 5);
    assert_eq!((many_paths.len(), hosts(&many_paths)), (MAX_CLAIMS, 10));
    let many_hosts = of(MAX_CLAIMS + 7, 2);
    assert_eq!((many_hosts.len(), hosts(&many_hosts)), (MAX_CLAIMS, MAX_CLAIMS));
    let matches: Vec<_> =
        (0..MAX_CLAIMS).map(|path| json!({"path": {"value": format!("/{path}")}})).collect();
    let route = json!({"metadata": {"namespace": "team", "name": "theirs"}, "spec": {
        "parentRefs": [{"name": "one"}, {"name": "two"}], "hostnames": ["a.dev", "b.dev", "c.dev"],
        "rules": [{"matches": matches, "backendRefs": [{"name": "s", "port": 80}]}],
    }});
    let Claims::These(claims) = of_http_route(&serde_json::from_value(route).unwrap()) else { panic!() };
    assert_eq!((claims.len(), hosts(&claims)), (MAX_CLAIMS, 3));
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
    assert_eq!(claims(&object), ["x a.dev /api/orders (requested)", "x a.dev /old"]);
    // If the spec cannot be rendered, the Ingress stays as it is.
    object.spec.ingress.as_mut().unwrap().path = "/(a|b)".into();
    assert_eq!(claims(&object), ["x a.dev /old"]);
    // Nor does it give up what is still served by no longer asking for it: what it is served by is not known then.
    object.spec.ingress = None;
    assert_eq!(claims(&object), ["(default) a.dev /old"]);
    object.status = None;
    assert_eq!(claims(&object), [""; 0]);
}

#[test]
fn the_class_is_read_from_the_field_or_from_the_annotation_and_routes_at_gateways_are_claims_too() {
    let claims = |object: &OrdersService| match of_service(object) {
        Claims::These(claims) => shown(&claims),
        Claims::OfOwner | Claims::Unknown => panic!("it claims"),
    };
    let annotations = json!({"kubernetes.io/ingress.class": "old"});
    let bare = json!({"hosts": ["a.dev"], "routes": [], "client": null});
    let mut spec = json!({"ingress": bare});
    spec["ingress"]["annotations"] = annotations;
    assert_eq!(claims(&service(spec)), ["old a.dev /api/orders (requested)"]);
    let gateway = json!({"hostnames": ["a.dev", "*.g.dev"], "parentRefs": [
        {"name": "public", "namespace": "gw", "sectionName": "http"},
        {"name": "public", "namespace": "gw", "sectionName": "https"}, {"name": "own"},
    ]});
    let mut object = service(json!({"ingress": bare, "gateway": gateway}));
    let had = json!({"routes": [{"host": "a.dev", "path": "/api/orders", "service": "s:1"},
                                {"host": "*.g.dev", "path": "/old", "service": "s:1"}]});
    object.status = Some(serde_json::from_value(had).unwrap());
    let mut found = claims(&object);
    found.sort();
    assert_eq!(
        found,
        [
            "(default) a.dev /api/orders",
            "gw/public *.g.dev /api/orders (requested)",
            "gw/public *.g.dev /old",
            "gw/public a.dev /api/orders",
            "shop/own *.g.dev /api/orders (requested)",
            "shop/own *.g.dev /old",
            "shop/own a.dev /api/orders",
        ]
    );
}

#[test]
fn a_resource_without_hosts_claims_its_routes_of_every_host_and_keeps_what_its_status_has() {
    let claims = |service: &OrdersService| match of_service(service) {
        Claims::These(claims) => shown(&claims),
        Claims::OfOwner | Claims::Unknown => panic!("it claims"),
    };
    let exact = json!({"path": "/login", "service": "auth-srv", "exact": true});
    let mut object = service(json!({"ingress": {"hosts": null, "routes": [exact], "client": null}}));
    assert_eq!(claims(&object), ["(default) * =/login (requested)", "(default) * /api/orders (requested)"]);
    let had = json!({"routes": [{"host": "*", "path": "/login", "exact": true, "service": "s:1"}]});
    object.status = Some(serde_json::from_value(had).unwrap());
    assert_eq!(claims(&object), ["(default) * =/login", "(default) * /api/orders (requested)"]);
    object.spec.ingress = None;
    object.spec.gateway = Some(serde_json::from_value(json!({"parentRefs": [{"name": "g"}]})).unwrap());
    assert_eq!(claims(&object), ["shop/g * =/login", "shop/g * /api/orders (requested)"]);
}

#[test]
fn an_ingress_with_two_classes_claims_in_both() {
    let claims = ingress(json!({
        "metadata": {"annotations": {"kubernetes.io/ingress.class": "old"}},
        "spec": {"ingressClassName": "new", "rules": [{"host": "t.dev"}]}
    }));
    assert_eq!(shown(&claims), ["new t.dev /", "old t.dev /"]);
}

#[test]
fn of_an_http_route_each_path_counts_that_depends_on_nothing_but_the_path() {
    let claims = |spec: Value| {
        let mut route = json!({"metadata": {"namespace": "team", "name": "theirs"}, "spec": {
            "parentRefs": [{"name": "public", "namespace": "gw"}], "hostnames": ["T.dev", "*.t.dev"],
        }});
        json_patch::merge(&mut route["spec"], &spec);
        match of_http_route(&serde_json::from_value(route).unwrap()) {
            Claims::These(claims) => shown(&claims),
            Claims::OfOwner | Claims::Unknown => panic!("it makes no claims"),
        }
    };
    let backends = json!([{"name": "a-srv", "port": 80}]);
    let rule = |matches: Value| json!({"matches": matches, "backendRefs": backends});
    let prefix = |value: &str| json!({"path": {"type": "PathPrefix", "value": value}});
    let mut narrow = [prefix("/h"), prefix("/q"), prefix("/m")];
    narrow[0]["headers"] = json!([{"name": "x", "value": "y"}]);
    narrow[1]["queryParams"] = json!([{"name": "x", "value": "y"}]);
    narrow[2]["method"] = json!("GET");
    let rules = json!([
        rule(json!([prefix("/a/"), prefix("/b")])), rule(json!(narrow)),
        rule(json!([{"path": {"type": "Exact", "value": "/e"}}, {"path": {"type": "RegularExpression", "value": "/r"}}])),
        {"matches": [prefix("/redirect")], "filters": [{"type": "RequestRedirect"}]},
    ]);
    let of_host = |host: &str| ["(none)", "=/e", "/a", "/b"].map(|path| format!("gw/public {host} {path}"));
    assert_eq!(claims(json!({"rules": rules})), [of_host("t.dev"), of_host("*.t.dev")].concat());
    let one =
        |prefix: &str| json!({"hostnames": ["t.dev"], "rules": [rule(json!([{"path": {"value": prefix}}]))]});
    assert_eq!(claims(one("/a")), ["gw/public t.dev (none)", "gw/public t.dev /a"]);
    // Without matches, a rule takes everything.
    assert_eq!(
        claims(json!({"hostnames": ["t.dev"], "rules": [{"backendRefs": backends}]})),
        ["gw/public t.dev (none)", "gw/public t.dev /"]
    );
    // Its own namespace is the Gateway's where none is named; what is attached to a Service is in no Gateway.
    let parents = json!([{"name": "own"}, {"group": "", "kind": "Service", "name": "s"}]);
    assert_eq!(
        claims(json!({"parentRefs": parents, "hostnames": ["t.dev"], "rules": []})),
        ["team/own t.dev (none)"]
    );
    // Without host names it is for any host; unless it only redirects.
    let any = |rules: Value| claims(json!({"hostnames": null, "rules": rules}));
    assert_eq!(any(json!([rule(json!([prefix("/a")]))])), ["gw/public * (none)", "gw/public * /a"]);
    assert_eq!(any(json!([{"filters": [{"type": "RequestRedirect"}]}])), [""; 0]);
    let owner = json!({"apiVersion": "ticketing.dev/v1alpha1", "kind": "OrdersService", "name": "o", "uid": "u", "controller": true});
    let child = json!({"metadata": {"ownerReferences": [owner]}, "spec": {"hostnames": ["t.dev"]}});
    assert!(matches!(of_http_route(&serde_json::from_value(child).unwrap()), Claims::OfOwner));
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
        let verdicts = verdicts_on(&index, &me, &requested_of(service));
        let found = Dereferenced { verdicts, ..Dereferenced::default() };
        let valid = validate(service, &found, Some("image:1")).unwrap();
        let ingress = serde_json::to_vec(&build(&valid).ingresses).unwrap();
        let applied = applied.clone();
        let outcome = Ok(Completed {
            valid,
            applied,
            pod_problem: None,
            autoscaler_warning: None,
            requeue_after: None,
        });
        let status = status::compute(service, &outcome, None, "shop/lease", Timestamp::UNIX_EPOCH);
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
