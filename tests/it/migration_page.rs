//! docs/migration.md: its commands, run on a system that was written by hand, while requests come by way of Traefik.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use orders_operator::crd::ConditionType::*;
use serde_json::{Value, json};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::{
    cluster::{TestNamespace, eventually, root},
    mongo::{TestDatabase, uri},
    played_pods::PlayedPods,
    server::{Server, free_port},
};

const HOST: &str = "ticketing.dev";

/// What is requested during the whole switch, and which Deployments may answer.
const REQUESTS: [(&str, &[&str]); 6] = [
    ("/", &["client-depl"]),
    ("/api/users/currentuser", &["auth-depl"]),
    ("/api/orders", &["orders-depl", "orders"]),
    ("/api/tickets/5", &["tickets-depl"]),
    ("/api/orders/5", &["orders-depl", "orders"]),
    ("/api/payments", &["payments-depl"]),
];

/// The blocks of commands of a section, in their order.
fn blocks(page: &str, title: &str) -> Vec<String> {
    let heading = format!("\n## {title}\n");
    let (_, rest) = page.split_once(&heading).unwrap_or_else(|| panic!("no section {title}"));
    let section = rest.split("\n## ").next().unwrap();
    let (mut blocks, mut inside) = (Vec::<String>::new(), false);
    for line in section.lines().map(str::trim) {
        match (line, inside) {
            ("```sh", false) => {
                inside = true;
                blocks.push(String::new());
            }
            ("```", true) => inside = false,
            (_, true) => *blocks.last_mut().unwrap() += &format!("{line}\n"),
            (_, false) => {}
        }
    }
    blocks
}

/// A service of the old system.
fn neighbour(name: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}-depl}}
spec:
  replicas: 1
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec: {{containers: [{{name: {name}, image: registry.example/{name}}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}-srv}}
spec:
  selector: {{app: {name}}}
  ports: [{{name: {name}, port: 3000, targetPort: 3000}}]
"
    )
}

/// The connection string of a database.
fn to(database: &TestDatabase) -> String {
    let (uri, name) = (uri(), &database.name);
    let (hosts, options) = uri.split_once('?').unwrap_or((&uri, ""));
    format!("{}/{name}?{options}", hosts.trim_end_matches('/'))
}

/// The manifests of the old system, as somebody has written them.
fn write_manifests(folder: &Path, database: &TestDatabase) {
    let folder = folder.join("infra/k8s");
    std::fs::create_dir_all(&folder).unwrap();
    let write = |name: &str, text: String| std::fs::write(folder.join(name), text).unwrap();
    for name in ["auth", "tickets", "payments", "client", "expiration"] {
        write(&format!("{name}-depl.yaml"), neighbour(name));
    }
    let orders = std::fs::read_to_string(root().join("tests/migrate/orders.yaml")).unwrap();
    let uri = "mongodb://orders-mongo-srv:27017/orders";
    assert!(orders.contains(uri));
    write("orders-depl.yaml", orders.replace(uri, &to(database)));
    let mut ingress = format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: ingress-srv\nspec:\n  rules:\n    - host: {HOST}\n      http:\n        paths:\n"
    );
    for (path, service) in [
        ("api/users", "auth"),
        ("api/tickets", "tickets"),
        ("api/payments", "payments"),
        ("api/orders", "orders"),
        ("", "client"),
    ] {
        ingress.push_str(&format!(
            "          - path: /{path}\n            pathType: Prefix\n            backend:\n              service:\n                \
             name: {service}-srv\n                port:\n                  number: 3000\n"
        ));
    }
    write("ingress-srv.yaml", ingress);
}

/// Someone who follows the page.
struct Reader {
    folder: PathBuf,
    kubeconfig: PathBuf,
}

impl Reader {
    async fn of(namespace: &TestNamespace) -> Self {
        let folder = namespace.folder().to_owned();
        let kubeconfig = folder.join("reader");
        std::fs::copy(crate::bed::setting("KUBECONFIG"), &kubeconfig).unwrap();
        let reader = Self { folder, kubeconfig };
        reader.does(&format!("kubectl config set-context --current --namespace={}", namespace.name)).await;
        reader
    }

    async fn does(&self, commands: &str) {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_orders-operator"));
        let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", commands]).current_dir(&self.folder);
        command.env("KUBECONFIG", &self.kubeconfig).env("PATH", path);
        let output = spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let told = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{commands}\n{}{}", told(&output.stdout), told(&output.stderr));
    }

    /// Changes a file, as with an editor.
    fn edits(&self, name: &str, from: &str, to: &str) {
        let path = self.folder.join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{name} has no {from:?}");
        std::fs::write(path, text.replace(from, to)).unwrap();
    }
}

/// Traefik, and what it has of the Ingresses of a namespace.
struct Plane {
    traefik: Server,
    admin: u16,
    namespace: String,
}

impl Plane {
    fn start(namespace: &TestNamespace, pods: &PlayedPods) -> Self {
        let admin = free_port();
        let proxy = format!("http://127.0.0.1:{}", pods.port);
        let traefik = Server::traefik_in(
            &[("HTTP_PROXY", &proxy)],
            &[
                "--api.insecure=true",
                &format!("--entrypoints.traefik.address=127.0.0.1:{admin}"),
                "--providers.kubernetesingress=true",
                &format!("--providers.kubernetesingress.namespaces={}", namespace.name),
            ],
        );
        Self { traefik, admin, namespace: namespace.name.clone() }
    }

    /// Waits until the rules that it has of an Ingress pass.
    async fn has(&self, ingress: &str, is_there: impl Fn(&[String]) -> bool) {
        let url = format!("http://127.0.0.1:{}/api/http/routers?per_page=1000", self.admin);
        let begins = format!("{}-{ingress}-", self.namespace);
        eventually(&format!("Traefik has what is wanted of Ingress {ingress}"), || async {
            let routers: Vec<Value> = reqwest::get(&url).await.ok()?.json().await.ok()?;
            let text = |router: &Value, field: &str| router[field].as_str().unwrap_or_default().to_owned();
            let of_it = routers.iter().filter(|router| text(router, "name").starts_with(&begins));
            let found: Vec<_> = of_it.map(|router| text(router, "rule")).collect();
            is_there(&found).then_some(())
        })
        .await;
    }
}

/// How long each client pauses before its next request. Hundreds of them in a second see any gap; more would only keep the
/// machine from the other tests.
const PAUSE: Duration = Duration::from_millis(5);

/// Requests all the time.
struct Load {
    is_over: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    /// How many requests each Deployment has answered.
    answers: BTreeMap<String, u64>,
    failures: Vec<String>,
}

impl Load {
    fn start(port: u16) -> Self {
        let (is_over, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Seen::default())));
        let tasks = (0..3).map(|_| tokio::spawn(ask_on(port, is_over.clone(), seen.clone()))).collect();
        Self { is_over, seen, tasks }
    }

    /// Waits until this Deployment has answered, and that other one does not any more.
    async fn led_to(&self, to: &str, no_more: &str) {
        let count = |name: &str| self.seen.lock().unwrap().answers.get(name).copied().unwrap_or(0);
        let (first, since) = (count(to), Mutex::new(count(no_more)));
        eventually(&format!("{to} answers and {no_more} does not"), || async {
            let now = count(no_more);
            let is_still = std::mem::replace(&mut *since.lock().unwrap(), now) == now;
            (count(to) > first && is_still).then_some(())
        })
        .await;
    }

    /// Ends it, and checks that no request has failed.
    async fn end(self) {
        self.is_over.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        let seen = self.seen.lock().unwrap();
        assert_eq!(seen.failures, Vec::<String>::new());
        for (_, by) in REQUESTS {
            for name in by {
                assert!(
                    seen.answers.get(*name).is_some_and(|count| *count > 20),
                    "{name}: {:?}",
                    seen.answers
                );
            }
        }
    }
}

async fn ask_on(port: u16, is_over: Arc<AtomicBool>, seen: Arc<Mutex<Seen>>) {
    let client = reqwest::Client::builder().resolve(HOST, ([127, 0, 0, 1], port).into()).build().unwrap();
    while !is_over.load(Ordering::Relaxed) {
        for (path, by) in REQUESTS {
            tokio::time::sleep(PAUSE).await;
            let answer = async {
                let response = client.get(format!("http://{HOST}:{port}{path}")).send().await?;
                Ok::<_, reqwest::Error>((response.status(), response.text().await?))
            };
            let answer = answer.await;
            let mut seen = seen.lock().unwrap();
            match answer {
                Ok((status, body)) if status.is_success() && by.contains(&body.as_str()) => {
                    *seen.answers.entry(body).or_default() += 1;
                }
                other => seen.failures.push(format!("{} {path}: {other:?}", jiff::Timestamp::now())),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_switch_and_the_way_back_of_the_page_fail_no_request() {
    let page = std::fs::read_to_string(root().join("docs/migration.md")).unwrap();
    let [trial, switch, back] =
        ["Side by side", "The switch", "Back again"].map(|title| blocks(&page, title));
    let namespace = TestNamespace::create("migration").await;
    // The old pods were not written for a restricted namespace.
    let usual = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}});
    let namespaces = Api::<Namespace>::all(namespace.client.clone());
    namespaces.patch(&namespace.name, &PatchParams::default(), &Patch::Merge(usual)).await.unwrap();
    namespace.secret("jwt-secret", "JWT_KEY", "a-key").await;
    let (database, copy) = (TestDatabase::new().await, TestDatabase::new().await);
    write_manifests(namespace.folder(), &database);
    let pods = PlayedPods::start(&namespace).await;
    let reader = Reader::of(&namespace).await;
    reader
        .does("kubectl apply -f infra/k8s && kubectl rollout status deployment orders-depl client-depl")
        .await;
    let plane = Plane::start(&namespace, &pods);
    for (path, by) in REQUESTS {
        plane.traefik.up(HOST, path, by[0]).await;
    }
    let load = Load::start(plane.traefik.port);
    let _controller =
        namespace.run_with("controller", &["--default-image", "registry.example/orders-operator:1"]).await;
    let _sweeper = namespace.run("sweeper").await;

    let [translate, apply, remove] = trial.try_into().unwrap();
    reader.does(&translate).await;
    reader.edits("next.yaml", &to(&database), &to(&copy));
    reader.does(&apply).await;
    for (path, answers) in
        [("/api/orders", "orders-next"), ("/api/tickets", "tickets-depl"), ("/", "client-depl")]
    {
        plane.traefik.up("next.ticketing.dev", path, answers).await;
    }
    reader.does(&remove).await;

    let [start, lead, stop, switch_on, hand_over, delete] = switch.try_into().unwrap();
    reader.does(&start).await;
    namespace.condition("orders", IngressReady, "False", "HostPathConflict").await;
    reader.does(&lead).await;
    load.led_to("orders", "orders-depl").await;
    reader.does(&stop).await;
    reader.does(&switch_on).await;
    reader.does(&hand_over).await;
    let is_of_the_host = |rule: &String| rule.contains(HOST);
    plane.has("orders", |rules| rules.len() == 5 && rules.iter().all(is_of_the_host)).await;
    reader.does(&delete).await;
    plane.has("ingress-srv", <[_]>::is_empty).await;
    load.led_to("orders", "orders-depl").await;

    let [bridge, give_up, start_again, delete] = back.try_into().unwrap();
    reader.does(&bridge).await;
    plane.traefik.up("bridge.dev", "/", "client-depl").await;
    reader.does(&give_up).await;
    plane.has("ingress-srv", |rules| !rules.is_empty() && rules.iter().all(is_of_the_host)).await;
    reader.does(&start_again).await;
    load.led_to("orders-depl", "orders").await;
    reader.does(&delete).await;
    eventually("the new pods are gone", || async {
        let deployments = namespace.api::<k8s_openapi::api::apps::v1::Deployment>();
        deployments.get_opt("orders").await.unwrap().is_none().then_some(())
    })
    .await;
    load.end().await;
    namespace.remove().await;
}
