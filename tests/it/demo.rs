//! `make demo CLUSTER=current` in a cluster that is not its own: it makes nothing where something would be in its way.

use std::process::{Command, Output, Stdio};

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use tokio::task::spawn_blocking;

use crate::cluster::{TestNamespace, root};

/// Runs the demo on the cluster of KUBECONFIG with these settings and no others, and with nobody to ask.
async fn demo(settings: &[(&str, &str)]) -> Output {
    let mut command = Command::new(root().join("dev/demo"));
    command.args(["--cluster", "current"]).stdin(Stdio::null());
    for name in ["YES", "KEEP", "MONGO_URI", "INGRESS_URL", "INGRESS_CLASS", "IMAGE", "STAND_IN_IMAGE"] {
        command.env_remove(name);
    }
    command.envs(settings.iter().copied());
    spawn_blocking(move || command.output().expect("dev/demo needs python3")).await.unwrap()
}

fn told(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[tokio::test]
async fn the_demo_refuses_a_cluster_that_has_the_crd_of_somebody_else_and_makes_nothing() {
    // Installs the CRD, as a user's own installation would have.
    let namespace = TestNamespace::create("demo").await;
    let output = demo(&[("YES", "1"), ("IMAGE", "orders:1"), ("STAND_IN_IMAGE", "stand-in:1")]).await;
    let told = told(&output);
    assert!(told.contains("CustomResourceDefinition ordersservices.ticketing.dev"), "{told}");
    assert!(told.contains("not of a former run") && told.contains("Nothing was made"), "{told}");
    let namespaces: Api<Namespace> = Api::all(namespace.client.clone());
    for name in ["ticketing", "orders-operator"] {
        assert!(namespaces.get_opt(name).await.unwrap().is_none(), "{name} was made");
    }
    namespace.remove().await;
}

#[tokio::test]
async fn the_demo_does_not_take_a_database_on_the_loopback_for_one_that_pods_reach_and_tells_no_password() {
    for uri in [
        "mongodb://127.0.0.1:27017/",
        "mongodb://user:hunter2@db,localhost/?tls=true",
        "mongodb://[::1]/orders",
    ] {
        let told = told(&demo(&[("MONGO_URI", uri)]).await);
        assert!(told.contains("MONGO_URI names this machine's loopback"), "{uri}: {told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
}
