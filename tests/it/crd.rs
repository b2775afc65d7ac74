//! The CRD: the checked-in files are current, and the API server refuses with helpful messages.

use orders_operator::crd::crd_yaml;
use serde_json::{Value, json};

use crate::cluster::{TestNamespace, refusal, root};

#[test]
fn the_checked_in_crd_is_current_in_both_places() {
    for path in ["crds/ordersservices.yaml", "charts/orders-operator/files/ordersservices.yaml"] {
        let on_disk = std::fs::read_to_string(root().join(path)).unwrap();
        assert_eq!(on_disk, crd_yaml().unwrap(), "{path} is stale: run `make generate`");
    }
}

#[tokio::test]
async fn the_api_server_refuses_what_cannot_work_and_says_what_to_write() {
    let namespace = TestNamespace::create("cel").await;
    let route = |path: &str| json!({"path": path, "service": "a-srv"});
    let cases: Vec<(Value, &str)> = vec![
        (json!({"replicas": -1}), "spec.replicas"),
        (json!({"port": 8081}), "choose another, such as 3000"),
        (json!({"expiration": {"windowSeconds": 0}}), "spec.expiration.windowSeconds"),
        (json!({"expiration": {"windowSeconds": 604_801}}), "spec.expiration.windowSeconds"),
        (json!({"database": {"name": "a.b"}}), "spec.database.name"),
        (json!({"auth": {"jwtSecretRef": {"name": null}}}), "spec.auth.jwtSecretRef.name"),
        (json!({"ingress": {"client": {"service": null}}}), "spec.ingress.client.service"),
        (json!({"ingress": {"client": {"service": ""}}}), "spec.ingress.client.service"),
        (json!({"ingress": {"hosts": []}}), "spec.ingress.hosts"),
        (json!({"ingress": {"hosts": ["https://ticketing.dev"]}}), "without scheme, port or path"),
        (json!({"ingress": {"hosts": ["ticketing.dev:80"]}}), "without scheme, port or path"),
        (json!({"ingress": {"hosts": ["a.dev", "a.dev"]}}), "listed twice"),
        (json!({"ingress": {"path": "api/orders"}}), "path must begin with /, such as /api/orders"),
        (json!({"ingress": {"routes": [route("api/x")]}}), "path must begin with /, such as /api/payments"),
        (json!({"ingress": {"routes": [route("/")]}}), "name that service in spec.ingress.client"),
        (json!({"ingress": {"routes": [route("/x"), route("/x")]}}), "two routes have the same path"),
        (json!({"ingress": {"routes": [route("/api/orders")]}}), "which is the orders API's own"),
    ];
    for (patch, expected) in cases {
        let said = refusal(namespace.apply(&namespace.service("orders", patch.clone())).await);
        assert!(said.contains(expected), "{patch}: expected {expected:?} in {said:?}");
    }
    let said = refusal(namespace.apply(&namespace.service(&"a".repeat(53), json!({}))).await);
    assert!(said.contains("at most 52 characters"), "{said}");
    namespace.apply(&namespace.service(&"a".repeat(52), json!({}))).await.unwrap();
    namespace.remove().await;
}

#[tokio::test]
async fn the_database_of_a_resource_cannot_be_changed() {
    let namespace = TestNamespace::create("immutable").await;
    for (before, after) in [(json!({}), json!({"name": "b"})), (json!({"name": "a"}), json!({"name": "b"}))] {
        let name = format!("orders-{}", before.as_object().unwrap().len());
        namespace.apply(&namespace.service(&name, json!({"database": before}))).await.unwrap();
        let said = refusal(namespace.apply(&namespace.service(&name, json!({"database": after}))).await);
        assert!(said.contains("create a new OrdersService instead"), "{said}");
    }
    namespace.remove().await;
}
