//! What `make release` makes, installed from its folder alone.

use tokio::task::spawn_blocking;

use super::{alone, clear, done, page::commands_of};
use crate::{
    cluster::{eventually, yaml_documents},
    release::Release,
};

/// An OrdersService of somebody.
const ORDERS: &str = r#"{"apiVersion": "ticketing.dev/v1alpha1", "kind": "OrdersService",
    "metadata": {"name": "orders", "namespace": "live"}, "spec": {"auth": {"jwtSecretRef": {"name": "jwt-secret"}},
    "database": {"uriSecretRef": {"name": "orders-mongo"}}, "ingress": {"hosts": ["a.example"]}}}"#;

#[tokio::test]
#[ignore = "make test-installs"]
async fn from_the_release_alone_the_manifests_and_the_overlays_of_kustomize_install_the_operator() {
    let release = spawn_blocking(Release::make).await.unwrap();
    let _alone = alone().await;
    let folder = release.0.display().to_string();
    let version = env!("CARGO_PKG_VERSION");
    let repository = "registry.example/team/orders-operator";
    let follows = format!("{repository}:{version} {repository}:{version}\n");
    let elsewhere =
        format!("mirror.example/orders-operator:{version} mirror.example/orders-operator:{version}\n");
    let images = "get deployment orders-operator -o jsonpath='{.spec.template.spec.containers[0].image} \
                  {.spec.template.spec.containers[0].env[?(@.name==\"DEFAULT_IMAGE\")].value}{\"\\n\"}'";
    let by_helm =
        format!("helm install orders-operator orders-operator-{version}.tgz -n operators --create-namespace");
    for (install, remove, place, expected) in [
        (commands_of("Without Helm"), "install.yaml", "orders-operator", &follows),
        (
            commands_of("Without Helm, in one namespace"),
            "namespace-install.yaml",
            "orders-operator",
            &follows,
        ),
        (commands_of("By kustomize"), "", "operators", &elsewhere),
        (by_helm, "", "operators", &follows),
    ] {
        done(&format!("cd {folder}; {install}")).await;
        assert_eq!(&done(&format!("kubectl -n {place} {images}")).await, expected, "{install}");
        let account = format!("--as system:serviceaccount:{place}:orders-operator -n {place}");
        let may = format!(
            "kubectl auth can-i patch ordersservices.ticketing.dev --subresource status {account} || true"
        );
        // What the API server knows of rights follows what it stores.
        eventually(&may, || async { (done(&may).await == "yes\n").then_some(()) }).await;
        if remove == "install.yaml" {
            // Without the operator, what it has made goes on.
            done(&format!("kubectl create namespace live; echo '{ORDERS}' | kubectl apply -f -")).await;
            done(&commands_of("Removing it, without Helm")).await;
            let left = "kubectl get clusterroles,clusterrolebindings -l app.kubernetes.io/name=orders-operator -o name; \
                        kubectl get namespace orders-operator --ignore-not-found -o name; kubectl -n live get osvc -o name";
            assert_eq!(done(left).await, "ordersservice.ticketing.dev/orders\n");
        } else if !remove.is_empty() {
            done(&format!("kubectl delete --wait=false -f {folder}/{remove}")).await;
        }
        clear().await;
    }
    // What a namespaced overlay makes of the names of its namespace.
    let overlay = release.0.join("elsewhere");
    std::fs::create_dir(&overlay).unwrap();
    let kustomization = "namespace: shop-a\nresources: [../kustomize/namespaced]\n";
    std::fs::write(overlay.join("kustomization.yaml"), kustomization).unwrap();
    let objects = yaml_documents(&done(&format!("kubectl kustomize {}", overlay.display())).await);
    for object in objects {
        assert!(
            !object.to_string().contains("\"orders-operator\",\"namespace\":\"orders-operator\""),
            "{object}"
        );
        assert_eq!(object["metadata"]["namespace"], "shop-a", "{object}");
        if object["kind"] == "RoleBinding" {
            assert_eq!(object["subjects"][0]["namespace"], "shop-a", "{object}");
        }
    }
}
