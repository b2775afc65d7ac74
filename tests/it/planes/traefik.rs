//! Traefik's provider for ingress-nginx, which takes the place of that controller. It gives a rule the priority of its length,
//! and writes `(Path("/x") || PathPrefix("/x/"))` for the prefix `/x`.

use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::{
    backends::Backends,
    questions::{Entry, Reading, System, Written, applied_and_asked, ask_all, systems},
    reading::{cleaned, decoded, is_unreserved, merged},
};
use crate::{cluster::TestNamespace, server::Server};

/// It decodes the escapes that nobody needs, merges slashes and resolves dot segments, and compares whole segments.
const TRAEFIK: Reading =
    Reading { compared: |path| Some(cleaned(&merged(&decoded(path, is_unreserved)))), takes: Written::takes };

fn traefik(namespace: &TestNamespace) -> Server {
    Server::traefik(&[
        "--providers.kubernetesingressnginx=true",
        &format!("--providers.kubernetesingressnginx.watchnamespace={}", namespace.name),
        "--providers.kubernetesingressnginx.watchingresswithoutclass=true",
    ])
}

/// How long its rule for a route is, without the host.
fn rule_length(route: &Written) -> usize {
    let path = route.path.trim_end_matches('/');
    let all_below = format!("PathPrefix(\"{path}/\")");
    match path {
        _ if route.exact => format!("Path(\"{}\")", route.path).len(),
        "" => all_below.len(),
        path => format!("(Path(\"{path}\") || {all_below})").len(),
    }
}

/// The system without what it does not serve: exact paths that prefixes hide, paths with an escape, for which it refuses the
/// Ingress as ingress-nginx does, and hosts for which there is a wildcard too. The last test shows all three.
fn served(mut system: System) -> System {
    let all: Vec<_> = system.all().cloned().collect();
    let is_hidden = |exact: &Written| {
        let mut hiding = all.iter().filter(|prefix| !prefix.exact && prefix.takes(&exact.path));
        exact.exact && hiding.any(|prefix| rule_length(prefix) >= rule_length(exact))
    };
    system.routes.retain(|route| !route.path.contains('%') && !is_hidden(route));
    let hosts = system.hosts.clone();
    let has_wildcard = |host: &String| {
        let parent = host.split_once('.').map(|(_, parent)| format!("*.{parent}"));
        hosts.contains(host) && parent.is_some_and(|parent| hosts.contains(&parent))
    };
    system.requests.retain(|(host, _)| !has_wildcard(host));
    system
}

/// Has Traefik serve the former systems, and asks it for the latter.
async fn asked(applied: &[System], systems: &[System]) -> usize {
    let namespace = TestNamespace::create("traefik").await;
    namespace.secrets("mongodb://127.0.0.1:1/orders").await;
    let backends = Backends::start(&namespace, applied).await;
    let _controller = namespace.run("controller").await;
    for system in applied {
        let ingress = system.spec(Entry::Ingress, |name| backends.port(name));
        namespace.apply(&namespace.service(&system.name, json!({"ingress": ingress}))).await.unwrap();
    }
    for system in applied {
        namespace.ready(&system.name).await;
    }
    let traefik = traefik(&namespace);
    for system in systems {
        let (host, path) = (&system.requests[0].0, "/none-of-these");
        let client = system.oracle(host, |route| route.takes(path));
        traefik.up(host, path, &format!("{} {path}", client.service)).await;
    }
    let asked = ask_all(&traefik, systems, &TRAEFIK, false).await;
    namespace.remove().await;
    asked
}

#[tokio::test]
#[ignore = "make test-planes"]
async fn traefik_s_provider_for_ingress_nginx_gives_the_oracle_s_answer_to_every_request() {
    let divided = |systems: Vec<System>| -> (Vec<_>, Vec<_>) {
        systems.into_iter().map(served).partition(|system| !system.hosts.is_empty())
    };
    let (applied, systems) = applied_and_asked();
    let (applied, systems) = (divided(applied), divided(systems));
    let asked_of_hosts = asked(&applied.0, &systems.0).await;
    assert!(asked_of_hosts > 500, "{asked_of_hosts}");
    // Apart, for the reason that the last test shows.
    assert!(asked(&applied.1, &systems.1).await > 20);
}

/// An Ingress of these paths: each with its type and the name of its Service.
async fn ingress(
    namespace: &TestNamespace,
    backends: &Backends,
    host: Option<&str>,
    name: &str,
    paths: &[(&str, &str, &str)],
) {
    let path = |(path, kind, service): &(&str, &str, &str)| {
        let backend = json!({"service": {"name": service, "port": {"number": backends.port(service)}}});
        json!({"path": path, "pathType": kind, "backend": backend})
    };
    let paths: Vec<Value> = paths.iter().map(path).collect();
    let mut rule = json!({"http": {"paths": paths}});
    if let Some(host) = host {
        rule["host"] = json!(host);
    }
    let object = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": name}, "spec": {"rules": [rule]}
    });
    let ingresses = namespace.api::<Ingress>();
    ingresses.patch(name, &PatchParams::apply("test"), &Patch::Apply(object)).await.unwrap();
}

/// What docs/ingress.md says of it, and for the last also of Traefik's other provider.
#[tokio::test]
#[ignore = "make test-planes"]
async fn traefik_hides_exact_paths_refuses_escapes_and_puts_long_paths_of_many_hosts_before_short_ones_of_one()
 {
    let namespace = TestNamespace::create("traefik").await;
    let backends = Backends::start(&namespace, &systems()).await;
    let (prefix, client) = (("/api", "Prefix", "api"), ("/", "Prefix", "client"));
    let exact = |path| (path, "Exact", "login");
    let long = "/api/status/of/everything/that/there/is";
    let paths = [exact("/login"), exact("/api/status"), exact(long), prefix, client];
    ingress(&namespace, &backends, Some("exact.dev"), "exact", &paths).await;
    let paths = [("/a%20b", "Prefix", "api"), prefix, client];
    ingress(&namespace, &backends, Some("escaped.dev"), "escaped", &paths).await;
    let paths = [("/of-every-host/and-long-enough", "Prefix", "ws"), ("/", "Prefix", "rest")];
    ingress(&namespace, &backends, None, "any", &paths).await;

    let paths = [("/of-all-below/and-long-enough", "Prefix", "old"), ("/", "Prefix", "minio")];
    ingress(&namespace, &backends, Some("*.dev"), "wildcard", &paths).await;

    let traefik = traefik(&namespace);
    traefik.up("exact.dev", "/", "client /").await;
    traefik.up("other.example", "/", "rest /").await;
    traefik.up("other.dev", "/", "minio /").await;
    for (host, path, expected) in [
        // `PathPrefix("/")` is longer than `Path("/login")`, and the rule for `/api` than that for `/api/status`.
        ("exact.dev", "/login", "client"),
        ("exact.dev", "/api/status", "api"),
        ("exact.dev", long, "login"),
        // Nothing of the Ingress is served.
        ("escaped.dev", "/", "minio"),
        ("escaped.dev", "/api", "minio"),
        // By Kubernetes' rule these would be the host's client's.
        ("exact.dev", "/of-every-host/and-long-enough", "ws"),
        ("exact.dev", "/of-all-below/and-long-enough", "old"),
    ] {
        let answer = traefik.ask(host, path).await;
        assert_eq!(answer, Some((200, format!("{expected} {path}"))), "{host}{path}");
    }

    let traefik = Server::traefik(&[
        "--providers.kubernetesingress=true",
        &format!("--providers.kubernetesingress.namespaces={}", namespace.name),
        "--providers.kubernetesingress.allowexternalnameservices=true",
    ]);
    traefik.up("exact.dev", "/", "client /").await;
    for (path, expected) in
        [("/of-every-host/and-long-enough", "ws"), ("/of-all-below/and-long-enough", "old")]
    {
        let answer = traefik.ask("exact.dev", path).await;
        assert_eq!(answer, Some((200, format!("{expected} {path}"))), "{path}");
    }
    namespace.remove().await;
}
