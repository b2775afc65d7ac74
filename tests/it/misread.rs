//! docs/ingress.md, "What rendering cannot change": each item says whether a warning tells it, and that is so.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{cluster::root, render::program};

/// The items, each by how it begins, with its whole text as one line.
fn items() -> BTreeMap<String, String> {
    let page = std::fs::read_to_string(root().join("docs/ingress.md")).unwrap();
    let (_, section) = page.split_once("## What rendering cannot change\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let items =
        section.split("\n- ").skip(1).map(|item| item.split_whitespace().collect::<Vec<_>>().join(" "));
    items.map(|item| (item.split("**").nth(1).unwrap().to_owned(), item)).collect()
}

/// What `render` tells of an OrdersService whose `spec.ingress` is this, beside these other documents.
fn warned(ingress: &Value, beside: &[Value]) -> String {
    let service = json!({
        "apiVersion": "ticketing.dev/v1alpha1", "kind": "OrdersService", "metadata": {"name": "orders", "namespace": "shop"},
        "spec": {
            "auth": {"jwtSecretRef": {"name": "jwt-secret"}}, "database": {"uriSecretRef": {"name": "orders-mongo"}},
            "ingress": ingress,
        },
    });
    let documents: Vec<_> = [&service].into_iter().chain(beside).map(Value::to_string).collect();
    let output = program(&["render", "-", "--default-image", "i"], &documents.join("\n---\n"));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    said
}

/// An Ingress of another, with this path of a host.
fn other(class: &str, host: &str, annotations: Value) -> Value {
    let backend = json!({"service": {"name": "x", "port": {"number": 80}}});
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": "old", "namespace": "shop", "annotations": annotations},
        "spec": {"ingressClassName": class, "rules": [
            {"host": host, "http": {"paths": [{"path": "/old", "pathType": "Prefix", "backend": backend}]}}
        ]},
    })
}

#[test]
fn each_item_says_whether_it_is_told_and_what_is_told_is_so_of_the_controllers_that_it_names_alone() {
    let route = |path: &str| json!({"path": path, "service": "s"});
    let exact = |path: &str| json!({"path": path, "service": "t", "exact": true});
    let client = json!({"service": "client-srv"});
    let of = |class: &str, routes: Value| json!({"hosts": ["a.dev"], "className": class, "routes": routes, "client": client});
    let regexes = json!({"nginx.ingress.kubernetes.io/use-regex": "true"});
    let of_many = json!({"hosts": ["*.a.dev"], "className": "traefik", "client": client});
    let images = json!([{"path": "/static/images", "service": "client-srv"}, route("/ws")]);
    let twofold = json!([route("/twofold-path"), exact("/twofold-path")]);
    // How an item begins, what is asked, beside what, and what is said.
    let told = [
        (
            "ingress-nginx refuses a whole Ingress",
            of("nginx", json!([route("/socket.io")])),
            vec![],
            "has a dot",
        ),
        (
            "ingress-nginx reads all paths of a host as regexes",
            of("nginx", json!([])),
            vec![other("nginx", "a.dev", regexes.clone())],
            "a.dev by Ingress shop/old",
        ),
        (
            "Traefik puts short exact paths behind prefixes",
            of("traefik", json!([exact("/in")])),
            vec![],
            "never match: /in by /",
        ),
        (
            "Traefik puts long paths of many hosts before short ones of one host",
            of_many,
            vec![other("traefik", "x.a.dev", json!({}))],
            "of *.a.dev here (except that Traefik tries a longer path here before a shorter one there)",
        ),
        (
            "Kong's router `expressions` gives all paths",
            of("kong", images.clone()),
            vec![],
            "/ws by client-srv:3000",
        ),
        (
            "Google's load balancer and Kong do not put",
            of("gce", twofold.clone()),
            vec![],
            "another Service's prefix of the same path: /twofold-path.",
        ),
        (
            "Google's load balancer and Kong do not put",
            of("kong", twofold.clone()),
            vec![],
            "another Service's prefix of the same path: /twofold-path.",
        ),
        (
            "Traefik and Kong do not match a path",
            of("traefik", json!([route("/a%20b")])),
            vec![],
            "\"/a%20b\"",
        ),
        ("Traefik and Kong do not match a path", of("kong", json!([route("/a%20b")])), vec![], "\"/a%20b\""),
    ];
    let items = items();
    assert!(items.len() > 8, "{items:#?}");
    for (begin, text) in &items {
        let is_told = text.contains("*Told");
        assert_ne!(is_told, text.contains("*Not told"), "{begin:?} says one of the two");
        let has_case = told.iter().any(|(of, ..)| begin.starts_with(of));
        assert_eq!(is_told, has_case, "{begin:?} has a case here if it is told");
    }
    for (begin, ingress, beside, expected) in told {
        assert!(items.keys().any(|item| item.starts_with(begin)), "no item begins with {begin:?}");
        let said = warned(&ingress, &beside);
        assert!(said.contains(expected), "{begin}: {expected:?} is missing in: {said}");
        // Of a controller that is not known to do so, nothing is said; and none of what others have is heeded by it.
        let mut elsewhere = ingress.clone();
        elsewhere["className"] = json!("haproxy");
        assert!(!warned(&elsewhere, &beside).contains(expected), "{begin}");
    }
}
