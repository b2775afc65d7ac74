//! What was rendered, asked of servers that no one here wrote: nginx and Traefik.

use std::{fmt::Write as _, process::Command};

use k8s_openapi::api::{core::v1::Service, networking::v1::Ingress};
use kube::api::{Patch, PatchParams};
use orders_operator::{
    crd::ConditionType::*,
    routing::{Backend, Route, RouteTable, WrittenRoute},
};
use proptest::{strategy::ValueTree, test_runner::TestRunner};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{
    bed::setting,
    cluster::TestNamespace,
    routes,
    server::{Server, free_port},
};

/// The course's own route list, in the worst order.
const COURSE: [(&str, &str); 5] = [
    ("/?(.*)", "client-srv"),
    ("/ws", "ws-srv"),
    ("/api/payments/?(.*)", "payments-srv"),
    ("/api/users/?(.*)", "auth-srv"),
    ("/api/tickets/?(.*)", "tickets-srv"),
];

/// nginx with these virtual hosts, each of them locations that answer with a name.
pub(crate) fn nginx(hosts: &[(String, String)]) -> Server {
    let port = free_port();
    let mut servers = String::new();
    for (host, locations) in hosts {
        writeln!(servers, "server {{ listen 127.0.0.1:{port}; server_name {host}; {locations} }}").unwrap();
    }
    let config = format!(
        "daemon off; master_process off; pid nginx.pid; error_log stderr; events {{ worker_connections 512; }}
         http {{ access_log off; server_names_hash_bucket_size 128;
         client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;
         {servers} }}"
    );
    Server::run("nginx", port, |folder| {
        std::fs::write(folder.join("nginx.conf"), config).unwrap();
        let mut command = Command::new(setting("NGINX"));
        command.arg("-p").arg(folder).arg("-c").arg(folder.join("nginx.conf"));
        command
    })
}

/// A path as nginx compares it with a request's: decoded, and no regex.
fn quoted(path: &str) -> String {
    path.replace("%20", " ").replace('.', "\\.")
}

fn answers(route: &Route) -> String {
    format!("{{ return 200 '{}\n'; }}", route.backend.service)
}

/// As ingress-nginx writes `pathType: Prefix`.
fn prefixes(routes: &[Route]) -> String {
    let mut text = String::new();
    let is_exact =
        |path: &str| routes.iter().any(|route| route.path.is_exact() && route.path.as_str() == path);
    for route in routes {
        let (path, answer) = (route.path.as_str().replace("%20", " "), answers(route));
        // For a prefix, the path itself too, unless another route has just that.
        if route.path.is_exact() || (path != "/" && !is_exact(route.path.as_str())) {
            write!(text, "location = \"{path}\" {answer} ").unwrap();
        }
        if route.path.is_exact() {
            continue;
        }
        write!(text, "location \"{}/\" {answer} ", path.trim_end_matches('/')).unwrap();
    }
    text
}

/// As one writes a list of which the first that matches is taken.
fn listed(routes: &[Route]) -> String {
    routes.iter().fold(String::new(), |text, route| {
        let path = quoted(route.path.as_str());
        let regex = match route {
            Route { client: true, .. } => "^/".to_owned(),
            Route { path: taken, .. } if taken.is_exact() => format!("^{path}$"),
            _ => format!("^{path}(/|$)"),
        };
        text + &format!("location ~ \"{regex}\" {} ", answers(route))
    })
}

/// As ingress-nginx writes every path of a host where one of them has the use-regex annotation: the longest
/// first, none anchored at its end, upper and lower case alike.
fn use_regex(mut paths: Vec<(String, String)>) -> String {
    paths.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
    paths.iter().fold(String::new(), |text, (path, service)| {
        text + &format!("location ~* \"^{path}\" {{ return 200 '{service}\n'; }} ")
    })
}

/// The path that nginx compares: decoded, with no empty segment.
fn normal(path: &str) -> String {
    without_empty_segments(&path.replace("%2F", "/").replace("%2f", "/").replace("%20", " "))
}

fn without_empty_segments(path: &str) -> String {
    let mut normal = String::new();
    for character in path.chars() {
        if character != '/' || !normal.ends_with('/') {
            normal.push(character);
        }
    }
    normal
}

fn by_text_in_any_case(prefix: &str, request: &str) -> bool {
    routes::by_text(&prefix.to_lowercase(), &request.to_lowercase())
}

/// A list without two paths that some server takes for one.
pub(crate) fn distinct(paths: Vec<String>) -> Vec<String> {
    let mut seen = std::collections::BTreeSet::new();
    paths.into_iter().filter(|path| seen.insert(normal(path).to_lowercase())).collect()
}

/// Lists of routes, each with requests.
fn samples(lists: usize, requests: usize) -> Vec<(Vec<String>, Vec<String>)> {
    use proptest::strategy::Strategy;
    let mut runner = TestRunner::deterministic();
    let mut samples = Vec::new();
    for _ in 0..lists {
        let paths = distinct(routes::paths().new_tree(&mut runner).unwrap().current());
        let request = routes::request(&paths);
        let asked = (0..requests).map(|_| request.new_tree(&mut runner).unwrap().current());
        // A request line must begin with a slash, and no escape may be cut.
        let sound = |path: &String| path.starts_with('/') && !path.ends_with("%2");
        let mut asked: Vec<_> = asked.filter(sound).collect();
        asked.sort();
        asked.dedup();
        samples.push((paths, asked));
    }
    samples
}

fn name(backend: Option<&Backend>) -> &str {
    backend.map_or("nothing", |backend| backend.service.as_str())
}

#[tokio::test]
async fn nginx_gives_the_oracle_s_answer_to_every_request() {
    let samples = samples(40, 40);
    let tables: Vec<Vec<Route>> =
        samples.iter().map(|(paths, _)| routes::table(paths).iter().cloned().collect()).collect();
    let mut hosts = Vec::new();
    for (number, table) in tables.iter().enumerate() {
        let reversed: Vec<_> = table.iter().rev().cloned().collect();
        let regexes = table.iter().map(|route| (quoted(route.path.as_str()), route.backend.service.clone()));
        hosts.push((format!("prefixes-{number}"), prefixes(table)));
        hosts.push((format!("listed-{number}"), listed(table)));
        hosts.push((format!("use-regex-{number}"), use_regex(regexes.collect())));
        hosts.push((format!("reversed-{number}"), listed(&reversed)));
    }
    let nginx = nginx(&hosts);
    nginx.up("prefixes-0", "/", "client").await;
    let (mut asked, mut wrong_when_reversed) = (0, 0);
    for (number, ((_, requests), table)) in samples.iter().zip(&tables).enumerate() {
        // What is compared is decoded, so the table's paths are too.
        let takes_segments = |prefix: &str, request: &str| routes::by_segments(&normal(prefix), request);
        let takes_text = |prefix: &str, request: &str| by_text_in_any_case(&normal(prefix), request);
        for request in requests {
            let compared = normal(request);
            let oracle = name(routes::longest(table, takes_segments, &compared));
            let regex_oracle = name(routes::longest(table, takes_text, &compared));
            for (form, expected) in [("prefixes", oracle), ("listed", oracle), ("use-regex", regex_oracle)] {
                let answer = nginx.ask(&format!("{form}-{number}"), request).await;
                assert_eq!(answer, Some((200, expected.to_owned())), "{form}: {request} with {table:?}");
                asked += 1;
            }
            let answer = nginx.ask(&format!("reversed-{number}"), request).await;
            wrong_when_reversed += u32::from(answer != Some((200, oracle.to_owned())));
        }
    }
    assert!(asked > 2000, "{asked}");
    // Or else the requests do not tell one order from another.
    assert!(wrong_when_reversed > 500, "{wrong_when_reversed}");
}

#[tokio::test]
async fn nginx_gives_the_oracle_s_answer_with_exact_paths_too() {
    let (mut hosts, mut asked) = (Vec::new(), Vec::new());
    for (number, (paths, requests)) in samples(20, 40).into_iter().enumerate() {
        let exact = ["/", "/a", "/a/b", "/api/orders", "/ws/x"].into_iter().skip(number % 4);
        let written = exact
            .clone()
            .map(|path| WrittenRoute { exact: true, ..(path, routes::backend(&format!("={path}"))).into() });
        let prefixes_of = paths.iter().map(|path| WrittenRoute::from((path.as_str(), routes::backend(path))));
        let table = RouteTable::new(prefixes_of.chain(written), Some(routes::backend("client"))).unwrap();
        let table: Vec<_> = table.iter().cloned().collect();
        hosts.push((format!("exact-{number}"), prefixes(&table)));
        hosts.push((format!("listed-{number}"), listed(&table)));
        for request in requests.into_iter().chain(exact.map(str::to_owned)) {
            let compared = normal(&request);
            let takes = |route: &&Route| {
                let path = normal(route.path.as_str());
                if route.path.is_exact() { path == compared } else { routes::by_segments(&path, &compared) }
            };
            let taking = table.iter().filter(takes);
            let oracle = taking.max_by_key(|route| (route.path.as_str().len(), route.path.is_exact()));
            asked.push((number, request, name(oracle.map(|route| &route.backend)).to_owned()));
        }
    }
    let nginx = nginx(&hosts);
    nginx.up("exact-0", "/none-of-these", "client").await;
    for (number, request, oracle) in &asked {
        for form in ["exact", "listed"] {
            let answer = nginx.ask(&format!("{form}-{number}"), request).await;
            assert_eq!(answer, Some((200, oracle.clone())), "{form}-{number}: {request}");
        }
    }
    assert!(asked.len() > 500, "{}", asked.len());
}

#[tokio::test]
async fn the_course_s_own_regexes_fail_in_nginx_where_ours_do_not() {
    let course = COURSE.map(|(path, service)| (path.to_owned(), service.to_owned())).to_vec();
    let (client, others) = (routes::backend("client-srv"), &COURSE[1..]);
    let written = others.iter().map(|(path, service)| (*path, routes::backend(service)));
    let ours = RouteTable::new(written, Some(client)).unwrap();
    let ours: Vec<_> = ours.iter().cloned().collect();
    let nginx = nginx(&[("course".to_owned(), use_regex(course)), ("ours".to_owned(), prefixes(&ours))]);
    nginx.up("ours", "/", "client-srv").await;
    let (asked, right) = ("/ws", Some((200, "ws-srv".to_owned())));
    assert_eq!(
        nginx.ask("course", asked).await,
        Some((200, "client-srv".to_owned())),
        "the client swallows it"
    );
    assert_eq!(nginx.ask("ours", asked).await, right);
}

/// Answers every request with its own name.
async fn stand_in(name: String) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let name = name.clone();
            tokio::spawn(async move {
                let mut head = vec![0; 16 * 1024];
                drop(stream.read(&mut head).await);
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{name}",
                    name.len()
                );
                drop(stream.write_all(answer.as_bytes()).await);
            });
        }
    });
    port
}

/// Traefik, which serves the Ingresses of this namespace.
fn traefik(namespace: &TestNamespace, strict: bool) -> Server {
    Server::traefik(&[
        "--providers.kubernetesingress=true",
        &format!("--providers.kubernetesingress.namespaces={}", namespace.name),
        "--providers.kubernetesingress.allowexternalnameservices=true",
        "--providers.kubernetesingress.allowemptyservices=true",
        &format!("--providers.kubernetesingress.strictprefixmatching={strict}"),
    ])
}

/// A Service of this name that leads to a server which answers with it.
async fn service(namespace: &TestNamespace, name: &str) -> u16 {
    let port = stand_in(name.to_owned()).await;
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"name": "web", "port": port}]}
    });
    let services = namespace.api::<Service>();
    services.patch(name, &PatchParams::apply("test"), &Patch::Apply(service)).await.unwrap();
    port
}

#[tokio::test]
async fn traefik_serves_the_course_s_routes_in_order_when_we_render_them_and_not_as_they_were() {
    let namespace = TestNamespace::create("traefik").await;
    namespace.secrets("mongodb://127.0.0.1:1/orders").await;
    let _controller = namespace.run("controller").await;
    let mut ports = std::collections::BTreeMap::new();
    for (_, name) in COURSE {
        ports.insert(name, service(&namespace, name).await);
    }
    let written: Vec<_> = COURSE[1..]
        .iter()
        .map(|(path, name)| json!({"path": path, "service": name, "port": ports[name]}))
        .collect();
    let ingress = json!({
        "hosts": ["ours.dev"], "routes": written,
        "client": {"service": "client-srv", "port": ports["client-srv"]}
    });
    namespace.apply(&namespace.service("orders", json!({"ingress": ingress}))).await.unwrap();
    namespace.condition("orders", IngressReady, "True", "IngressClassNotFound").await;
    let as_it_was: Vec<_> = COURSE
        .iter()
        .map(|(path, name)| {
            let backend = json!({"service": {"name": name, "port": {"number": ports[name]}}});
            json!({"path": path, "pathType": "ImplementationSpecific", "backend": backend})
        })
        .collect();
    let course = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": "course", "annotations": {"nginx.ingress.kubernetes.io/use-regex": "true"}},
        "spec": {"rules": [{"host": "course.dev", "http": {"paths": as_it_was}}]}
    });
    let ingresses = namespace.api::<Ingress>();
    ingresses.patch("course", &PatchParams::apply("test"), &Patch::Apply(course)).await.unwrap();

    let traefik = traefik(&namespace, false);
    traefik.up("ours.dev", "/", "client-srv").await;
    for (path, expected) in [
        ("/", "client-srv"),
        ("/auth/signin", "client-srv"),
        ("/ws", "ws-srv"),
        ("/ws/1", "ws-srv"),
        ("/api/users/currentuser", "auth-srv"),
        ("/api/tickets", "tickets-srv"),
        ("/api/payments/1", "payments-srv"),
        ("/api", "client-srv"),
    ] {
        assert_eq!(traefik.ask("ours.dev", path).await, Some((200, expected.to_owned())), "{path}");
    }
    // Our own Service has no pods here, and yet the request is not the client's.
    assert_eq!(traefik.ask("ours.dev", "/api/orders").await.unwrap().0, 503);
    // The course's regexes are texts to Traefik, so nothing is routed but what is none.
    for path in ["/", "/api/users/currentuser"] {
        assert_eq!(traefik.ask("course.dev", path).await.unwrap().0, 404, "{path}");
    }
    assert_eq!(traefik.ask("course.dev", "/ws").await, Some((200, "ws-srv".to_owned())));
    namespace.remove().await;
}

#[tokio::test]
async fn traefik_serves_hosts_with_routes_of_their_own_exact_paths_and_every_other_host() {
    let namespace = TestNamespace::create("hosts").await;
    namespace.secrets("mongodb://127.0.0.1:1/orders").await;
    let _controller = namespace.run("controller").await;
    let mut backends = std::collections::BTreeMap::new();
    for name in ["minio", "login", "client", "x", "rest"] {
        let port = service(&namespace, name).await;
        backends.insert(name, json!({"service": name, "port": port}));
    }
    let with = |name: &str, patch: serde_json::Value| {
        let mut backend = backends[name].clone();
        json_patch::merge(&mut backend, &patch);
        backend
    };
    let ingress = json!({
        "hosts": ["shop.dev", "files.shop.dev"], "pathHosts": ["shop.dev"],
        "routes": [
            with("minio", json!({"path": "/", "hosts": ["files.shop.dev"]})),
            // The Service knows the number.
            with("login", json!({"path": "/login-here", "exact": true, "port": "web"})),
        ],
        "client": with("client", json!({"hosts": ["shop.dev"]}))
    });
    namespace.apply(&namespace.service("orders", json!({"ingress": ingress}))).await.unwrap();
    namespace.condition("orders", IngressReady, "True", "IngressClassNotFound").await;
    let any = json!({"hosts": null, "path": "/orders", "routes": [with("x", json!({"path": "/x"}))], "client": backends["rest"]});
    namespace.apply(&namespace.service("any", json!({"ingress": any}))).await.unwrap();
    namespace.condition("any", IngressReady, "True", "WildcardOverlap").await;
    let stored: orders_operator::crd::OrdersService = namespace.api().get("any").await.unwrap();
    let shown: Vec<_> =
        stored.status.unwrap().routes.into_iter().map(|route| route.host + &route.path).collect();
    assert_eq!(shown, ["*/orders", "*/x", "*/"]);

    let traefik = traefik(&namespace, true);
    traefik.up("shop.dev", "/", "client").await;
    traefik.up("other.dev", "/", "rest").await;
    for (host, path, expected) in [
        ("shop.dev", "/files", "client"),
        ("shop.dev", "/login-here", "login"),
        ("shop.dev", "/login-here/5", "client"),
        ("shop.dev", "/x", "client"),
        ("files.shop.dev", "/", "minio"),
        ("files.shop.dev", "/api/orders", "minio"),
        ("files.shop.dev", "/login-here", "login"),
        ("other.dev", "/x/5", "x"),
        ("other.dev", "/login-here", "rest"),
    ] {
        assert_eq!(traefik.ask(host, path).await, Some((200, expected.to_owned())), "{host}{path}");
    }
    assert_eq!(
        traefik.ask("shop.dev", "/api/orders").await.unwrap().0,
        503,
        "our own Service has no pods here"
    );
    assert_eq!(traefik.ask("other.dev", "/orders").await.unwrap().0, 503);
    namespace.remove().await;
}

#[tokio::test]
async fn traefik_gives_the_oracle_s_answer_to_every_request() {
    let namespace = TestNamespace::create("oracle").await;
    namespace.secrets("mongodb://127.0.0.1:1/orders").await;
    let _controller = namespace.run("controller").await;
    let samples = samples(10, 60);
    let mut ports = std::collections::BTreeMap::new();
    let mut tables = Vec::new();
    for (number, (paths, _)) in samples.iter().enumerate() {
        let mut written = Vec::new();
        let paths: Vec<_> = paths.iter().filter(|path| *path != "/api/orders").cloned().collect();
        for (at, path) in paths.iter().enumerate() {
            let name = format!("s{at}");
            let port = match ports.get(&name) {
                Some(port) => *port,
                None => service(&namespace, &name).await,
            };
            ports.insert(name.clone(), port);
            written.push(json!({"path": path, "service": name, "port": port}));
        }
        let client = match ports.get("client") {
            Some(port) => *port,
            None => service(&namespace, "client").await,
        };
        ports.insert("client".to_owned(), client);
        let ingress = json!({
            "hosts": [format!("host-{number}.dev")], "routes": written,
            "client": {"service": "client", "port": client}
        });
        let spec = json!({"ingress": ingress});
        namespace.apply(&namespace.service(&format!("orders-{number}"), spec)).await.unwrap();
        let named =
            paths.iter().enumerate().map(|(at, path)| (path.as_str(), routes::backend(&format!("s{at}"))));
        let own = ("/api/orders", routes::backend("own"));
        let table = RouteTable::new(named.chain([own]), Some(routes::backend("client")));
        tables.push(table.unwrap().iter().cloned().collect::<Vec<_>>());
    }
    for number in 0..samples.len() {
        namespace.condition(&format!("orders-{number}"), IngressReady, "True", "IngressClassNotFound").await;
    }
    let mut asked = 0;
    for strict in [false, true] {
        let traefik = traefik(&namespace, strict);
        for number in 0..samples.len() {
            traefik.up(&format!("host-{number}.dev"), "/", "client").await;
        }
        let compares = if strict { routes::by_segments } else { routes::by_text };
        // It compares a rule's text with the decoded path, so one with an escape takes nothing.
        let takes = |prefix: &str, path: &str| !prefix.contains('%') && compares(prefix, path);
        for (number, ((_, requests), table)) in samples.iter().zip(&tables).enumerate() {
            for request in requests {
                let oracle = name(routes::longest(
                    table,
                    takes,
                    &without_empty_segments(&request.replace("%20", " ")),
                ));
                let answer = traefik.ask(&format!("host-{number}.dev"), request).await;
                let (status, body) = answer.unwrap_or_else(|| panic!("no answer to {request}"));
                match status {
                    // An escaped slash is refused outright.
                    400 => assert!(request.to_uppercase().contains("%2F"), "{request}"),
                    503 => assert_eq!(oracle, "own", "strict {strict}: {request} with {table:?}"),
                    _ => assert_eq!(
                        (status, body.as_str()),
                        (200, oracle),
                        "strict {strict}: {request} with {table:?}"
                    ),
                }
                asked += 1;
            }
        }
    }
    assert!(asked > 500, "{asked}");
    namespace.remove().await;
}
