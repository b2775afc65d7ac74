//! docs/kubectl-osvc.md: the plugin is installed as the page says, kubectl completes its arguments, and each command prints what
//! the page shows. Where nobody else has routes for every host.

use std::{
    collections::HashMap,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use super::{alone, kubeconfig};
use crate::{
    cluster::{TestNamespace, apply_any, chart, eventually},
    console::{Block, whole},
    docs::{examples, run, without_ids_and_times},
    mongo::{TestDatabase, uri},
    osvc::osvc,
    played_pods::PlayedPods,
    release::of_origin,
    sweeper::{order, service},
};

/// The namespace and, with `.dev`, the host on the page.
const OF_PAGE: &str = "ticketing";
/// The IngressClass on the page.
const CLASS: &str = "nginx";
/// The pod on the page.
const POD: &str = "orders-6d5c9f7b8-x2kdq";
/// What runs a command in the operator's pod.
const IN_THE_POD: &str =
    "kubectl -n orders-operator exec deploy/orders-operator -c sweeper -- /orders-operator ";

/// The page's blocks of commands, about the namespace of the test: those without output, and those with it.
fn page(namespace: &TestNamespace) -> (Vec<Block>, Vec<Block>) {
    let mut all = whole("docs/kubectl-osvc.md");
    for block in &mut all {
        block.text = block.text.replace(OF_PAGE, &namespace.name);
    }
    all.into_iter().partition(|block| block.language == "sh")
}

/// A folder on whose PATH the plugin is.
struct Home {
    folder: PathBuf,
    kubeconfig: String,
}

impl Home {
    /// With an archive that has what that of a release has for the plugin.
    fn with_archive(namespace: &TestNamespace) -> Self {
        let folder = namespace.folder().join("home");
        std::fs::create_dir_all(folder.join(".local/bin")).unwrap();
        let home = Self { folder, kubeconfig: kubeconfig() };
        symlink(env!("CARGO_BIN_EXE_orders-operator"), home.folder.join("orders-operator")).unwrap();
        let script = home.folder.join("kubectl_complete-osvc");
        let text = of_origin("plugin.COMPLETE_SCRIPT.decode()", None);
        std::fs::write(&script, text.as_str().unwrap()).unwrap();
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
        let archive = format!("orders-operator-{}-linux-amd64.tar.gz", env!("CARGO_PKG_VERSION"));
        // Packed quickly: the program of the tests is large.
        home.done(&format!(
            "tar --use-compress-program 'gzip -1' --dereference -cf {archive} orders-operator kubectl_complete-osvc
             rm orders-operator kubectl_complete-osvc"
        ));
        home
    }

    fn environment(&self) -> HashMap<&'static str, String> {
        let path = format!("{}/.local/bin:{}", self.folder.display(), std::env::var("PATH").unwrap());
        let home = self.folder.display().to_string();
        HashMap::from([("HOME", home), ("PATH", path), ("KUBECONFIG", self.kubeconfig.clone())])
    }

    fn shell(&self, script: &str) -> Output {
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", script]).current_dir(&self.folder).envs(self.environment());
        command.output().unwrap()
    }

    fn done(&self, script: &str) -> String {
        let output = self.shell(script);
        assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What kubectl offers for the last of the words after `kubectl osvc`: the lines that a shell gets.
    fn completed(&self, words: &str) -> Vec<String> {
        let printed = self.done(&format!("kubectl __complete osvc {words}"));
        printed.lines().map(str::to_owned).collect()
    }
}

/// What there is beside the OrdersService.
async fn objects(namespace: &TestNamespace) {
    let named = |name: &str| json!({"name": name, "namespace": namespace.name});
    let class = json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": CLASS},
                       "spec": {"controller": "example.com/none"}});
    apply_any(&namespace.client, class).await;
    for (name, port) in [("auth-srv", 80), ("client-srv", 3000)] {
        let spec = json!({"ports": [{"port": port}]});
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": named(name), "spec": spec});
        apply_any(&namespace.client, service).await;
    }
    let mut metadata = named("auth-srv-1");
    metadata["labels"] = json!({"kubernetes.io/service-name": "auth-srv"});
    let endpoint = |address: &str, pod: &str, ready: bool| json!({"addresses": [address], "targetRef": {"kind": "Pod", "name": pod}, "conditions": {"ready": ready}});
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "metadata": metadata,
        "ports": [{"port": 80}],
        "endpoints": [endpoint("10.0.0.7", "auth-7c9f", true), endpoint("10.0.0.8", "auth-x2kd", false)]
    });
    apply_any(&namespace.client, slice).await;
}

/// The OrdersService of the page.
fn orders(namespace: &TestNamespace, database: &TestDatabase) -> Value {
    let spec = json!({
        "image": format!("registry.example/orders-operator:{}", env!("CARGO_PKG_VERSION")), "replicas": 1,
        "ingress": {
            "hosts": [format!("{}.dev", namespace.name)], "className": CLASS,
            "routes": [{"path": "/api/users", "service": "auth-srv", "port": 80}],
            "client": {"service": "client-srv"}
        }
    });
    service(namespace, "orders", database, spec)
}

/// Waits until all is as on the page; gives the name of the pod.
async fn as_on_the_page(namespace: &TestNamespace) -> String {
    let kubeconfig = kubeconfig();
    let status = ["status", "orders", "-n", &namespace.name, "-o", "json"];
    // What was told on the way there is gone, as it would be an hour later.
    let events = Api::<Event>::namespaced(namespace.client.clone(), &namespace.name);
    let on_the_way = ListParams::default().fields("involvedObject.kind=OrdersService");
    eventually("all is as on the page", || async {
        events.delete_collection(&DeleteParams::default(), &on_the_way).await.unwrap();
        let report = osvc(&kubeconfig, &status).await.json();
        let conditions = report["conditions"].as_array()?;
        let pods = report["pods"].as_array()?;
        let is_quiet =
            conditions.len() >= 7 && conditions.iter().all(|condition| condition["reason"] == "AsExpected");
        let has_expired =
            report["expiry"]["expiredTotal"] == 2 && report["expiry"]["oldestOverdueSeconds"] == 0;
        (is_quiet
            && has_expired
            && report["events"] == json!([])
            && pods.len() == 1
            && pods[0]["ready"] == true)
            .then_some(())
    })
    .await;
    let pods = Api::<Pod>::namespaced(namespace.client.clone(), &namespace.name);
    pods.list(&ListParams::default()).await.unwrap().items.remove(0).name_any()
}

#[tokio::test]
#[ignore = "make test-installs"]
async fn the_plugin_is_installed_as_the_page_says_and_prints_what_it_shows() {
    let _alone = alone().await;
    let namespace = TestNamespace::create_at("osvc-page", &kubeconfig()).await;
    let ((scripts, shown), database) = (page(&namespace), TestDatabase::new().await);
    namespace.secrets(&uri()).await;
    objects(&namespace).await;
    for _ in 0..2 {
        order(&database, "created", -60_000).await;
    }
    namespace.apply(&orders(&namespace, &database)).await.unwrap();
    let _pods = PlayedPods::start(&namespace).await;
    let _processes = (namespace.run("controller").await, namespace.run_sweeper().await);
    let pod = as_on_the_page(&namespace).await;

    let home = Home::with_archive(&namespace);
    let (mut install, mut script, mut in_the_pod) = (0, 0, 0);
    let sweeper = namespace.chart_account("sweeper").await.display().to_string();
    for commands in scripts.iter().map(|block| block.text.as_str()) {
        if commands.starts_with("tar ") {
            install += 1;
            home.done(commands);
        } else if let Some(rest) = commands.strip_prefix(IN_THE_POD) {
            // There is no node; with the rights of the pod.
            in_the_pod += 1;
            let words: Vec<_> = rest.split_whitespace().skip(1).collect();
            assert!(rest.starts_with("osvc "), "{rest}");
            let told = osvc(&sweeper, &words).await;
            assert_eq!(
                (told.code, told.out.contains("0 orders due in 1 database, 0 failed")),
                (Some(0), true),
                "{}{}",
                told.out,
                told.err
            );
        } else {
            script += 1;
            assert_eq!(home.done(commands), "", "{commands}");
        }
    }
    assert_eq!((install, script, in_the_pod), (1, 1, 1), "the commands of the page");
    let commands = examples(&shown);
    assert!(commands.len() >= 2, "{}", commands.len());
    let environment = home.environment();
    let (printed, commands) = spawn_blocking(move || (run(&commands, &environment), commands)).await.unwrap();
    for (example, printed) in commands.iter().zip(&printed) {
        let printed = printed.replace(&pod, POD);
        let (wanted, got) = (without_ids_and_times(&example.output), without_ids_and_times(&printed));
        assert_eq!(got, wanted, "{}", example.command);
    }
    // The container of the page.
    let deployment =
        chart(&[], "orders-operator").into_iter().find(|object| object["kind"] == "Deployment").unwrap();
    let containers = deployment["spec"]["template"]["spec"]["containers"].as_array().unwrap();
    assert!(containers.iter().any(|container| container["name"] == "sweeper"), "{containers:?}");
    namespace.remove().await;
}

#[tokio::test]
#[ignore = "make test-installs"]
async fn kubectl_completes_commands_flags_values_and_the_names_that_the_cluster_has() {
    let _alone = alone().await;
    let namespace = TestNamespace::create_at("osvc-tab", &kubeconfig()).await;
    for name in ["orders", "others", "second"] {
        namespace.apply(&namespace.service(name, json!({"ingress": null}))).await.unwrap();
    }
    let home = Home::with_archive(&namespace);
    let (scripts, _) = page(&namespace);
    home.done(&scripts.iter().find(|block| block.text.starts_with("tar ")).unwrap().text);
    let name = &namespace.name;

    let commands = home.completed("''");
    let begin: Vec<_> = commands.iter().filter_map(|line| line.split('\t').next()).collect();
    for command in ["status", "explain", "sweep", "check", "render", "migrate", "completion"] {
        assert!(begin.contains(&command), "{command}: {commands:?}");
    }
    assert!(
        commands.iter().all(|line| !line.starts_with('-')) && begin.last() == Some(&":4"),
        "{commands:?}"
    );
    assert_eq!(home.completed(&format!("status -n {name} ''")), ["orders", "others", "second", ":4"]);
    assert_eq!(home.completed(&format!("sweep --namespace={name} or")), ["orders", ":4"]);
    assert_eq!(home.completed(&format!("status orders -n {name}")), [name, ":4"]);
    assert_eq!(home.completed("check --output=y"), ["yaml\tThe same as YAML", ":4"]);
    let flags = home.completed("explain --names");
    assert!(flags[0].starts_with("--namespace\tOnly consider") && flags.len() == 2, "{flags:?}");
    std::fs::create_dir(home.folder.join("manifests")).unwrap();
    assert_eq!(home.completed("render mani"), ["manifests/", ":6"]);

    // A cluster that does not answer has no names; nothing fails, and nobody waits.
    let away = Home { folder: home.folder.clone(), kubeconfig: unreachable(&home.folder) };
    assert_eq!(away.completed("status ''"), [":4"]);
    assert_eq!(away.completed("st")[0].split('\t').next(), Some("status"));
    namespace.remove().await;
}

/// A kubeconfig of an API server where nobody listens.
fn unreachable(folder: &Path) -> String {
    let path = folder.join("nowhere");
    let cluster = json!({"name": "a", "cluster": {"server": "https://127.0.0.1:1"}});
    let context = json!({"name": "a", "context": {"cluster": "a", "user": "a"}});
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "a", "clusters": [cluster],
                        "contexts": [context], "users": [{"name": "a", "user": {}}]});
    std::fs::write(&path, config.to_string()).unwrap();
    path.display().to_string()
}
