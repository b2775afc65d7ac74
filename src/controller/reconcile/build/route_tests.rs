//! From routes as they are written to the rules of an Ingress and of HTTPRoutes.

use serde_json::{Value, json};

use super::{build, prepared::Prepared};
use crate::{
    controller::{
        fixture::service,
        problem::Problem,
        reconcile::{dereference::Dereferenced, validate::validate},
    },
    crd::Reason,
};

fn checked(patch: Value) -> Result<Prepared, Vec<Problem>> {
    validate(&service(patch), &Dereferenced::default(), Some("image:1")).map(|valid| build(&valid))
}

fn built(patch: Value) -> Prepared {
    checked(patch).unwrap()
}

/// The one problem of a spec.
fn refused(patch: Value) -> Problem {
    let problems = checked(patch).unwrap_err();
    let [problem] = problems.as_slice() else { panic!("{problems:#?}") };
    problem.clone()
}

/// The rules of an Ingress, each as its host, how a path is compared, the path, the Service and the port.
fn rules(prepared: &Prepared) -> Vec<String> {
    let ingress = json!(prepared.ingress);
    let of_rule = |rule: &Value| {
        let host = rule["host"].as_str().unwrap_or("(any)").to_owned();
        let shown = move |path: &Value| {
            let (service, kind) = (&path["backend"]["service"], path["pathType"].as_str().unwrap());
            let port = &service["port"];
            let port =
                port["number"].as_i64().map_or_else(|| port["name"].to_string(), |port| port.to_string());
            let (path, service) = (path["path"].as_str().unwrap(), service["name"].as_str().unwrap());
            format!("{host} {kind} {path} {service}:{port}")
        };
        rule["http"]["paths"].as_array().unwrap().iter().map(shown).collect::<Vec<_>>()
    };
    ingress["spec"]["rules"].as_array().unwrap().iter().flat_map(of_rule).collect()
}

/// The HTTPRoutes, each as its hosts, and its rules.
fn routes(prepared: &Prepared) -> Vec<(Value, Vec<String>)> {
    let shown = |rule: &Value| {
        let path = &rule["matches"][0]["path"];
        let (kind, value) = (path["type"].as_str().unwrap(), path["value"].as_str().unwrap());
        let backend = &rule["backendRefs"][0];
        let filters = rule.get("filters").map_or(String::new(), |filters| format!(" {filters}"));
        format!("{kind} {value} {}:{}{filters}", backend["name"].as_str().unwrap(), backend["port"])
    };
    let of_route = |route: &Value| {
        let spec = &route["spec"];
        let hosts = spec.get("hostnames").cloned().unwrap_or_default();
        (hosts, spec["rules"].as_array().unwrap().iter().map(shown).collect())
    };
    prepared.routes.iter().map(|route| of_route(&json!(route))).collect()
}

#[test]
fn an_exact_route_is_rendered_before_the_prefixes_in_both_apis() {
    let exact = json!([{"path": "/login", "exact": true, "service": "auth-srv"}, {"path": "/login", "service": "pages"}]);
    let ingress = json!({"hosts": ["a.dev"], "routes": exact});
    let gateway = json!({"parentRefs": [{"name": "g"}], "hostnames": ["a.dev"]});
    let prepared = built(json!({"ingress": ingress, "gateway": gateway}));
    assert_eq!(
        rules(&prepared),
        [
            "a.dev Exact /login auth-srv:3000",
            "a.dev Prefix /api/orders orders:\"http\"",
            "a.dev Prefix /login pages:3000",
            "a.dev Prefix / client-srv:3000"
        ]
    );
    assert_eq!(
        routes(&prepared)[0].1,
        [
            "Exact /login auth-srv:3000",
            "PathPrefix /api/orders orders:3000",
            "PathPrefix /login pages:3000",
            "PathPrefix / client-srv:3000"
        ]
    );
}

#[test]
fn a_port_is_a_number_also_as_text_or_a_name_and_anything_else_is_refused_with_its_field() {
    let with = |port: Value| json!({"ingress": {"hosts": ["a.dev"], "client": null, "routes": [{"path": "/x", "service": "x-srv", "port": port}]}});
    for (port, shown) in [
        (json!(80), "80"),
        (json!("8080"), "8080"),
        (json!("http"), "\"http\""),
        (json!("grpc-2"), "\"grpc-2\""),
    ] {
        assert_eq!(rules(&built(with(port)))[1], format!("a.dev Prefix /x x-srv:{shown}"));
    }
    for port in [
        json!(0),
        json!(65536),
        json!("0"),
        json!("99999999999"),
        json!("-http"),
        json!("a--b"),
        json!("HTTP"),
        json!("longer-than-a-name"),
        json!(""),
    ] {
        let problem = refused(with(port.clone()));
        let said = &problem.message;
        assert_eq!(problem.reason, Reason::InvalidSpec);
        assert!(
            said.starts_with(&format!("spec.ingress.routes[0].port is {port}: write a number")),
            "{said}"
        );
    }
    let mut both = with(json!("http"));
    both["gateway"] = json!({"parentRefs": [{"name": "g"}], "hostnames": ["a.dev"]});
    let said = refused(both).message;
    assert!(said.starts_with("spec.ingress.routes[0].port is \"http\", but with spec.gateway"), "{said}");
}

#[test]
fn a_service_that_cannot_be_is_refused_with_its_field_and_one_elsewhere_with_the_way() {
    let with = |service: &str| json!({"ingress": {"client": {"service": service}}});
    let said = refused(with("Auth_srv")).message;
    assert!(said.starts_with("spec.ingress.client.service is \"Auth_srv\", which no Service"), "{said}");
    assert!(!said.contains("ExternalName"), "{said}");
    for elsewhere in ["auth-srv.other", "other/auth-srv"] {
        let said = refused(with(elsewhere)).message;
        assert!(said.contains("a Service of type ExternalName"), "{said}");
    }
}

#[test]
fn without_hosts_the_rules_are_for_every_host_in_both_apis() {
    let ingress = json!({"hosts": null, "routes": [], "tls": {"secretName": "tls"}});
    let prepared = built(json!({"ingress": ingress, "gateway": {"parentRefs": [{"name": "g"}]}}));
    assert_eq!(
        rules(&prepared),
        ["(any) Prefix /api/orders orders:\"http\"", "(any) Prefix / client-srv:3000"]
    );
    assert_eq!(json!(prepared.ingress)["spec"]["tls"], json!([{"secretName": "tls"}]));
    let shown = ["PathPrefix /api/orders orders:3000".to_owned(), "PathPrefix / client-srv:3000".to_owned()];
    assert_eq!(routes(&prepared), [(Value::Null, shown.to_vec())]);
}

#[test]
fn routes_and_clients_of_single_hosts_are_at_these_alone_and_the_client_is_last_on_each() {
    let route =
        |path: &str, service: &str, hosts: Value| json!({"path": path, "service": service, "hosts": hosts});
    let list = [
        route("/", "minio", json!(["storage.dev"])),
        route("/console", "console", json!(["storage.dev"])),
        route("/api/users", "auth-srv", json!(["API.dev.", "shop.dev"])),
        json!({"path": "/api/payments", "service": "payments-srv", "hosts": ["api.dev"]}),
        json!({"path": "/health", "service": "health"}),
    ];
    let ingress = json!({
        "hosts": ["shop.dev", "api.dev", "storage.dev"], "pathHosts": ["api.dev", "shop.dev"], "routes": list,
        "client": {"service": "client-srv", "hosts": ["shop.dev"]}
    });
    let prepared = built(json!({"ingress": ingress}));
    let expected = [
        "api.dev Prefix /api/payments payments-srv:3000",
        "api.dev Prefix /api/orders orders:\"http\"",
        "api.dev Prefix /api/users auth-srv:3000",
        "api.dev Prefix /health health:3000",
        "shop.dev Prefix /api/orders orders:\"http\"",
        "shop.dev Prefix /api/users auth-srv:3000",
        "shop.dev Prefix /health health:3000",
        "shop.dev Prefix / client-srv:3000",
        "storage.dev Prefix /console console:3000",
        "storage.dev Prefix /health health:3000",
        "storage.dev Prefix / minio:3000",
    ];
    assert_eq!(rules(&prepared), expected);
    // At Gateways, too, each host with those that name it.
    let gateway = json!({"parentRefs": [{"name": "g"}], "hostnames": ["storage.dev", "shop.dev"]});
    let at_gateway = routes(&built(json!({"ingress": ingress, "gateway": gateway})));
    let hosts: Vec<_> = at_gateway.iter().map(|(hosts, rules)| (hosts[0].clone(), rules.len())).collect();
    assert_eq!(hosts, [(json!("shop.dev"), 4), (json!("storage.dev"), 3)]);
    // The order in which they are written does not matter.
    let mut reversed = ingress.clone();
    reversed["routes"] = list.iter().rev().cloned().collect();
    reversed["hosts"] = json!(["storage.dev", "api.dev", "shop.dev"]);
    assert_eq!(built(json!({"ingress": reversed})), prepared);
}

#[test]
fn the_client_of_all_hosts_gives_way_to_a_route_at_the_root_of_one() {
    let minio = json!({"path": "/?(.*)", "service": "minio", "hosts": ["b.dev"]});
    let shown = rules(&built(json!({"ingress": {"hosts": ["a.dev", "b.dev"], "routes": [minio]}})));
    assert_eq!(shown.len(), 4);
    assert_eq!(
        (shown[1].as_str(), shown[3].as_str()),
        ("a.dev Prefix / client-srv:3000", "b.dev Prefix / minio:3000")
    );
    let two = json!([minio, {"path": "/", "service": "other", "hosts": ["b.dev", "a.dev"]}]);
    let said = refused(json!({"ingress": {"hosts": ["a.dev", "b.dev"], "routes": two}}));
    assert_eq!(said.reason, Reason::MultipleClients);
}

#[test]
fn what_routes_of_single_hosts_cannot_be_is_refused_once_with_the_field() {
    let with = |routes: Value| json!({"ingress": {"hosts": ["a.dev", "b.dev"], "routes": routes}});
    let route = |path: &str, hosts: Value| json!({"path": path, "service": "s", "hosts": hosts});
    let unknown = refused(with(json!([route("/x", json!(["c.dev"]))])));
    let expected =
        "spec.ingress.routes[0].hosts has \"c.dev\", which is not in spec.ingress.hosts: list it there";
    assert!(unknown.message.starts_with(expected) && unknown.reason == Reason::InvalidHost, "{unknown:?}");
    let twice = refused(with(json!([route("/x", json!(["a.dev"])), route("/x", json!(["b.dev", "a.dev"]))])));
    assert_eq!(twice.reason, Reason::DuplicatePath);
    built(with(json!([route("/x", json!(["a.dev"])), route("/x", json!(["b.dev"]))])));
    let regex = refused(with(json!([route("/(x|y)", json!(["a.dev", "b.dev"]))])));
    assert!(regex.message.contains("regex character"), "{regex:?}");
    let bare = json!({"hosts": ["a.dev", "b.dev"], "pathHosts": ["a.dev"], "routes": [], "client": null});
    let said = refused(json!({"ingress": bare})).message;
    assert!(said.starts_with("host \"b.dev\" has no route"), "{said}");
    let any = json!({"hosts": null, "routes": [route("/x", json!(["a.dev"]))]});
    assert!(refused(json!({"ingress": any})).message.contains("which is not in spec.ingress.hosts"));
}

#[test]
fn a_prefix_is_taken_off_at_gateways_and_in_an_ingress_refused_with_what_to_do() {
    let strip = json!([{"path": "/api/payments", "service": "payments-srv", "stripPrefix": true}]);
    let gateway = json!({"parentRefs": [{"name": "g"}], "hostnames": ["a.dev"], "routes": strip});
    let shown = routes(&built(json!({"ingress": null, "gateway": gateway})));
    let filter = json!([{
        "type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}
    }]);
    let rewritten = format!("PathPrefix /api/payments payments-srv:3000 {filter}");
    assert_eq!(shown[0].1, [rewritten, "PathPrefix /api/orders orders:3000".to_owned()]);
    let said = refused(json!({"ingress": {"hosts": ["a.dev"], "routes": strip}})).message;
    for expected in
        ["spec.ingress.routes[0].stripPrefix", "serve its paths under \"/api/payments\"", "spec.gateway"]
    {
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn the_pods_are_told_the_path_unless_it_is_the_default_so_that_they_are_rolled_for_no_other_reason() {
    let path = |patch: Value| {
        let deployment = json!(built(patch).deployment);
        let env = deployment["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap().clone();
        env.into_iter()
            .find(|variable| variable["name"] == "BASE_PATH")
            .map(|variable| variable["value"].clone())
    };
    assert_eq!(path(json!({})), None);
    assert_eq!(path(json!({"ingress": null})), None);
    assert_eq!(path(json!({"ingress": {"path": "/orders/?(.*)"}})), Some(json!("/orders")));
    let gateway = json!({"parentRefs": [{"name": "g"}], "path": "/v1/orders"});
    assert_eq!(path(json!({"ingress": null, "gateway": gateway})), Some(json!("/v1/orders")));
}
