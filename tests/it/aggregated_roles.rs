//! What the cluster's own `view`, `edit` and `admin` may do with OrdersServices, by the roles that the chart adds to them.

use std::process::Command;

use serde_json::json;
use tokio::task::spawn_blocking;

use crate::cluster::{TestNamespace, apply_any, eventually};

#[tokio::test]
async fn editors_of_a_namespace_write_its_resources_and_viewers_read_them() {
    let namespace = TestNamespace::create("people").await;
    namespace.install_rights("sweeper.separate=true,rbac.aggregateWrite=true").await;
    let version = "rbac.authorization.k8s.io/v1";
    for role in ["view", "edit", "admin"] {
        let metadata = json!({"name": role, "namespace": namespace.name});
        apply_any(
            &namespace.client,
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}),
        )
        .await;
        let binding = json!({"apiVersion": version, "kind": "RoleBinding", "metadata": metadata,
                             "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                             "subjects": [{"kind": "ServiceAccount", "name": role, "namespace": namespace.name}]});
        apply_any(&namespace.client, binding).await;
    }
    let writes = |role: &str| role != "view";
    for (verb, subresource, may) in [
        ("get", "", &(|_: &str| true) as &dyn Fn(&str) -> bool),
        ("watch", "", &|_| true),
        ("get", "status", &|_| true),
        ("create", "", &writes),
        ("patch", "", &writes),
        ("deletecollection", "", &writes),
        ("update", "scale", &writes),
        ("patch", "status", &|_| false),
    ] {
        for role in ["view", "edit", "admin"] {
            let expected = if may(role) { "yes" } else { "no" };
            let account = format!("system:serviceaccount:{}:{role}", namespace.name);
            let arguments = [
                "auth",
                "can-i",
                verb,
                "ordersservices.ticketing.dev",
                "--subresource",
                subresource,
                "--namespace",
                &namespace.name,
                "--as",
                &account,
            ];
            let arguments = arguments.map(str::to_owned);
            eventually(&format!("{role}: {expected} to {verb} {subresource:?}"), || async {
                let arguments = arguments.clone();
                let kubectl = move || Command::new("kubectl").args(arguments).output().unwrap().stdout;
                let told = String::from_utf8(spawn_blocking(kubectl).await.unwrap()).unwrap();
                (told.trim() == expected).then_some(())
            })
            .await;
        }
    }
    namespace.remove().await;
}
