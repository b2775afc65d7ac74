//! The examples: an API server takes them, and would take the pods of the first in a restricted namespace.

use std::path::Path;

use super::{alone, done, namespace, shell};
use crate::{bed::setting, cluster::eventually, examples::folders};

/// Warnings are what the API server says of pods that the namespace would not take. A quota refuses for the moment until it has
/// counted for the first time.
async fn apply(folder: &Path) {
    let command = format!("kubectl apply --warnings-as-errors -f {}", folder.display());
    eventually(&command, || async {
        let output = shell(&command).await;
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() || why.contains("status unknown for quota"), "{command}: {why}");
        output.status.success().then_some(())
    })
    .await;
}

#[tokio::test]
#[ignore = "make test-installs"]
async fn every_example_can_be_applied_and_the_pods_of_the_first_pass_the_restricted_standard() {
    let _alone = alone().await;
    let namespace = namespace("examples").await;
    let gateway_api = setting("GATEWAY_API_CRDS");
    done(&format!(
        "orders-operator crd | kubectl apply --server-side -f -; kubectl apply --server-side -f {gateway_api}"
    ))
    .await;
    done("kubectl wait --for=condition=Established crd --all").await;
    namespace.counting_quota("trial", 1).await;
    for folder in folders() {
        done("kubectl apply -f examples/00-namespace.yaml -f examples/10-secrets.yaml").await;
        if folder.ends_with("namespaced") {
            let values = folder.join("values.yaml");
            let install =
                "helm install orders-operator charts/orders-operator -n orders-operator --create-namespace";
            done(&format!("{install} --values {}", values.display())).await;
        } else {
            apply(&folder).await;
        }
        done("kubectl delete osvc --all --all-namespaces").await;
    }
    namespace.remove().await;
}
