//! Contour with Envoy: the same systems by Ingresses, and by HTTPRoutes at a Gateway.

use std::{path::Path, process::Command};

use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject},
    core::GroupVersionKind,
};
use serde_json::{Value, json};

use super::{
    backends::Backends,
    questions::{Entry, Reading, System, Written, applied_and_asked, ask_all},
    reading::{decoded, is_unreserved, merged, resolved},
};
use crate::{
    bed::setting,
    cluster::{TestNamespace, apply_any, eventually, yaml_documents},
    controller::gateway::{GATEWAY_API, VERSION, install_crds},
    server::{Server, free_port},
};

/// What Contour adds to a Gateway's port where it has Envoy listen.
const ADDED_TO_PORT: u16 = 8000;

/// Envoy decodes the escapes that nobody needs, resolves dot segments and merges slashes, as Contour has it do; of slashes alone
/// it leaves two.
const ENVOY: Reading = Reading {
    compared: |path| {
        let path = resolved(&decoded(path, is_unreserved));
        let is_empty = path.len() > 1 && path.bytes().all(|byte| byte == b'/');
        Some(if is_empty { "//".to_owned() } else { merged(&path) })
    },
    takes: Written::takes,
};

/// Envoy, which has its routes from Contour.
struct Contour {
    envoy: Server,
    _contour: Server,
}

impl Contour {
    /// Serves what there is in this namespace: its Ingresses, or what is attached to this Gateway.
    fn run(namespace: &TestNamespace, gateway: Option<&str>, port: u16) -> Self {
        let [xds, metrics, health, debug, stats, admin] = std::array::from_fn(|_| free_port());
        let contour = Server::run("contour", xds, |folder| {
            let reference = gateway
                .map(|name| json!({"gatewayRef": {"namespace": namespace.name, "name": name}}))
                .unwrap_or_default();
            // YAML is JSON with more ways to write it.
            let config = json!({
                "enableExternalNameService": true, "network": {"admin-port": admin}, "gateway": reference,
            });
            std::fs::write(folder.join("contour.yaml"), config.to_string()).unwrap();
            let mut command = contour();
            command
                .args(["serve", "--insecure", "--disable-leader-election", "--xds-address=127.0.0.1"])
                .args(["--envoy-service-http-address=127.0.0.1", "--envoy-service-https-address=127.0.0.1"])
                .args([
                    "--http-address=127.0.0.1",
                    "--health-address=127.0.0.1",
                    "--debug-http-address=127.0.0.1",
                ])
                .args(["--stats-address=127.0.0.1", "--envoy-http-access-log=/dev/null"])
                .args(
                    [
                        ("xds", xds),
                        ("http", metrics),
                        ("health", health),
                        ("debug-http", debug),
                        ("stats", stats),
                        ("envoy-service-http", port),
                    ]
                    .map(|(name, port)| format!("--{name}-port={port}")),
                )
                // What this Gateway API does not serve in a version that this Contour knows.
                .args(
                    ["tlsroutes", "grpcroutes", "tcproutes", "backendtlspolicies"]
                        .map(|name| format!("--disable-feature={name}")),
                )
                .arg(format!("--watch-namespaces={}", namespace.name))
                .arg(format!("--kubeconfig={}", setting("KUBECONFIG")))
                .arg(format!("--config-path={}", folder.join("contour.yaml").display()));
            command
        });
        let envoy = Server::run("envoy", port, |folder| {
            bootstrap(folder, xds);
            let mut command = Command::new(setting("ENVOY"));
            command
                .args([
                    "--config-path",
                    "bootstrap.json",
                    "--service-cluster",
                    "contour",
                    "--service-node",
                    "test",
                ])
                .args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]);
            command
        });
        Self { envoy, _contour: contour }
    }
}

fn contour() -> Command {
    Command::new(setting("CONTOUR"))
}

/// Writes the configuration by which Envoy finds Contour.
fn bootstrap(folder: &Path, xds: u16) {
    let made = contour()
        .arg("bootstrap")
        .arg(folder.join("bootstrap.json"))
        .arg(format!("--admin-address={}", folder.join("admin.sock").display()))
        .args(["--xds-address=127.0.0.1", &format!("--xds-port={xds}")])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// Contour watches its own kinds too.
async fn install_contour_crds(namespace: &TestNamespace) {
    let documents = yaml_documents(&std::fs::read_to_string(setting("CONTOUR_CRDS")).unwrap());
    for crd in documents.into_iter().filter(|document| document["kind"] == "CustomResourceDefinition") {
        apply_any(&namespace.client, crd).await;
    }
    for (kind, version) in [
        ("HTTPProxy", "projectcontour.io/v1"),
        ("TLSCertificateDelegation", "projectcontour.io/v1"),
        ("ExtensionService", "projectcontour.io/v1alpha1"),
        ("ContourConfiguration", "projectcontour.io/v1alpha1"),
    ] {
        let served = namespace.dynamic(kind, version);
        eventually(&format!("{kind} is served"), || async { served.list(&Default::default()).await.ok() })
            .await;
    }
}

/// Applies the systems with what `spec` makes of each, and waits until the controller is done with them.
async fn apply(namespace: &TestNamespace, systems: &[System], spec: impl Fn(&System) -> Value) {
    for system in systems {
        namespace.apply(&namespace.service(&system.name, spec(system))).await.unwrap();
    }
    for system in systems {
        namespace.ready(&system.name).await;
    }
}

/// Waits until Envoy has the routes of all systems: each is asked for its client, the last rule.
async fn all_up(envoy: &Server, systems: &[System]) {
    for system in systems {
        let (host, client) = (&system.requests[0].0, "/none-of-these");
        let path = system.oracle(host, |route| route.takes(client));
        envoy.up(host, client, &format!("{} {client}", path.service)).await;
    }
}

#[tokio::test]
#[ignore = "make test-planes"]
async fn contour_gives_the_oracle_s_answer_to_every_request_by_ingresses() {
    let namespace = TestNamespace::create("contour").await;
    namespace.secrets("mongodb://127.0.0.1:1/orders").await;
    install_contour_crds(&namespace).await;
    let (applied, systems) = applied_and_asked();
    let backends = Backends::start(&namespace, &applied).await;
    let _controller = namespace.run("controller").await;
    let spec = |system: &System| json!({"ingress": system.spec(Entry::Ingress, |name| backends.port(name))});
    apply(&namespace, &applied, spec).await;
    let contour = Contour::run(&namespace, None, free_port());
    all_up(&contour.envoy, &systems).await;
    let asked = ask_all(&contour.envoy, &systems, &ENVOY, false).await;
    assert!(asked > 500, "{asked}");
    namespace.remove().await;
}

#[tokio::test]
#[ignore = "make test-planes"]
async fn contour_gives_the_oracle_s_answer_to_every_request_by_http_routes_and_takes_prefixes_off() {
    let _alone = GATEWAY_API.lock().await;
    let namespace = TestNamespace::create("contour").await;
    namespace.secrets("mongodb://127.0.0.1:1/orders").await;
    install_contour_crds(&namespace).await;
    install_crds(&namespace, "gateway.networking.k8s.io_").await;
    let (applied, systems) = applied_and_asked();
    let backends = Backends::start(&namespace, &applied).await;
    let class = json!({"apiVersion": VERSION, "kind": "GatewayClass", "metadata": {"name": namespace.name},
                       "spec": {"controllerName": "projectcontour.io/gateway-controller"}});
    apply_any(&namespace.client, class).await;
    let port = free_port();
    let listener = json!({"name": "web", "protocol": "HTTP", "port": port - ADDED_TO_PORT});
    let gateway = json!({"apiVersion": VERSION, "kind": "Gateway", "metadata": {"name": "public", "namespace": namespace.name},
                         "spec": {"gatewayClassName": namespace.name, "listeners": [listener]}});
    apply_any(&namespace.client, gateway).await;
    let contour = Contour::run(&namespace, Some("public"), port);
    let _controller = namespace.run("controller").await;
    let spec = |system: &System| {
        let mut gateway = system.spec(Entry::Gateway, |name| backends.port(name));
        gateway["parentRefs"] = json!([{"name": "public"}]);
        json!({"ingress": null, "gateway": gateway})
    };
    // They are ready once Contour says so of each HTTPRoute.
    apply(&namespace, &applied, spec).await;
    all_up(&contour.envoy, &systems).await;
    let asked = ask_all(&contour.envoy, &systems, &ENVOY, true).await;
    assert!(asked > 500, "{asked}");
    let kind =
        ApiResource::from_gvk(&GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "GatewayClass"));
    let classes = Api::<DynamicObject>::all_with(namespace.client.clone(), &kind);
    classes.delete(&namespace.name, &DeleteParams::default()).await.unwrap();
    namespace.remove().await;
}
