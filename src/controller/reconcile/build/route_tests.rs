//! From routes as they are written to the rules of an Ingress and of HTTPRoutes.

use serde_json::{Value, json};

use super::{build, prepared::Prepared};
use crate::{
    controller::{
        claims::controllers::IngressController,
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
    let ingress = json!(prepared.ingresses[0]);
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
    assert_eq!(json!(prepared.ingresses[0])["spec"]["tls"], json!([{"secretName": "tls"}]));
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

/// With Traefik.
fn at_traefik(ingress: Value) -> Result<Prepared, Vec<Problem>> {
    let controller = Some(IngressController::Traefik);
    let found = Dereferenced { controller, ..Dereferenced::default() };
    validate(&service(json!({"ingress": ingress})), &found, Some("i")).map(|valid| build(&valid))
}

/// An Ingress beside the first: its annotations, and its rules, each as its host, a path and a Service.
fn further(prepared: &Prepared, at: usize) -> (Value, Value, Vec<String>) {
    let ingress = json!(prepared.ingresses[at]);
    let rules = ingress["spec"]["rules"].as_array().unwrap().iter().flat_map(|rule| {
        rule["http"]["paths"].as_array().unwrap().iter().map(|path| {
            let service = &path["backend"]["service"]["name"];
            format!("{} {} {}", rule["host"], path["path"], service).replace('"', "")
        })
    });
    (ingress["metadata"]["name"].clone(), ingress["metadata"]["annotations"].clone(), rules.collect())
}

#[test]
fn traefik_gets_a_middleware_and_an_ingress_for_each_prefix_that_is_taken_off_and_guards_behind_these() {
    let route = |path: &str, strips: bool| json!({"path": path, "service": format!("{}-srv", &path[1..4]), "stripPrefix": strips});
    let mut routes = vec![route("/reports", true), route("/api/users", false), route("/reports/all", true)];
    routes[2]["hosts"] = json!(["b.example"]);
    let middlewares = "traefik.ingress.kubernetes.io/router.middlewares";
    let ingress = json!({
        "hosts": ["a.dev", "b.example"], "routes": routes, "client": {"service": "client-srv"}, "tls": {"secretName": "tls"},
        "annotations": {middlewares: "shop-auth@kubernetescrd", "cert-manager.io/cluster-issuer": "x"},
    });
    let prepared = at_traefik(ingress).unwrap();
    let names: Vec<_> = prepared.middlewares.iter().map(|of| of.metadata.name.clone().unwrap()).collect();
    let prefixes: Vec<_> =
        prepared.middlewares.iter().map(|of| of.spec.strip_prefix.prefixes.clone()).collect();
    assert_eq!(prefixes, [["/reports"], ["/reports/all"]]);
    let (_, annotations, plain) = further(&prepared, 0);
    assert_eq!(annotations["cert-manager.io/cluster-issuer"], "x");
    let of_host = |host: &str| {
        ["/api/orders orders", "/api/users api-srv", "/ client-srv"].map(|rule| format!("{host} {rule}"))
    };
    assert_eq!(plain, [of_host("a.dev"), of_host("b.example")].concat());
    // A guard for each length of host and path: between the length of the route's rule and whatever is shorter.
    let guards: Vec<_> = (1..4).map(|at| further(&prepared, at)).collect();
    let rule = |host: &str, path: &str| format!("Host(\"{host}\") && PathPrefix(\"{path}\")").len();
    for ((name, annotations, rules), (host, path)) in
        guards.iter().zip([("a.dev", "/reports"), ("b.example", "/reports"), ("b.example", "/reports/all")])
    {
        let priority = rule(host, path) - 1;
        assert_eq!(*name, format!("orders.guard-{priority}"));
        assert_eq!(annotations["traefik.ingress.kubernetes.io/router.priority"], priority.to_string());
        assert_eq!(annotations[middlewares], "shop-auth@kubernetescrd");
        assert_eq!(annotations.get("cert-manager.io/cluster-issuer"), None);
        assert_eq!(*rules, [format!("{host} {path} rep-srv")]);
        assert!(priority > rule(host, "/"));
    }
    for (at, middleware) in names.iter().enumerate() {
        let (name, annotations, rules) = further(&prepared, 4 + at);
        assert_eq!(name, **middleware);
        let ours = format!("shop-auth@kubernetescrd,shop-{}@kubernetescrd", middleware.replace('.', "-"));
        assert_eq!(annotations[middlewares], ours);
        assert_eq!(annotations.get("traefik.ingress.kubernetes.io/router.priority"), None);
        let hosts: &[&str] =
            if at == 0 { &["a.dev /reports", "b.example /reports"] } else { &["b.example /reports/all"] };
        assert_eq!(rules, hosts.iter().map(|rule| format!("{rule} rep-srv")).collect::<Vec<_>>());
        assert_eq!(json!(prepared.ingresses[4 + at])["spec"]["tls"][0]["secretName"], "tls");
    }
    assert_eq!(prepared.ingresses.len(), 6);
}

#[test]
fn a_prefix_is_not_taken_off_where_the_client_could_get_its_requests() {
    for (path, host, expected) in
        [("/a", "b.dev", "two letters"), ("/ab", "*.b.dev", "the wildcard host \"*.b.dev\"")]
    {
        let routes = json!([{"path": path, "service": "s", "stripPrefix": true}]);
        let problems = at_traefik(json!({"hosts": ["a.dev", host], "routes": routes})).unwrap_err();
        let [problem] = problems.as_slice() else { panic!("{problems:#?}") };
        let Problem { reason, message, .. } = problem;
        assert!(*reason == Reason::InvalidSpec && message.contains(expected), "{message}");
        assert!(message.contains("spec.ingress.routes[0].stripPrefix"), "{message}");
    }
    let elsewhere = json!([{"path": "/ab", "service": "s", "stripPrefix": true, "hosts": ["a.dev"]}]);
    assert!(at_traefik(json!({"hosts": ["a.dev", "*.b.dev"], "routes": elsewhere})).is_ok());
}

#[test]
fn where_traefik_names_middlewares_otherwise_the_ingress_does_too() {
    let routes = json!([{"path": "/ab", "service": "s", "stripPrefix": true}]);
    let service = service(json!({"ingress": {"hosts": ["a.dev"], "routes": routes}}));
    let controller = Some(IngressController::Traefik);
    let found = Dereferenced { controller, traefik_safe_naming: true, ..Dereferenced::default() };
    let prepared = build(&validate(&service, &found, Some("i")).unwrap());
    let (name, annotations, _) = further(&prepared, 2);
    let named = &annotations["traefik.ingress.kubernetes.io/router.middlewares"];
    assert_eq!(*named, format!("shop_{}@kubernetescrd", name.as_str().unwrap()));
}
