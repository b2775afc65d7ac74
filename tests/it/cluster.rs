//! The API server that tests run against, and a namespace in it for each test.

use std::{
    fmt::Debug,
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use axum::http::Uri;
use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        authentication::v1::{TokenRequest, TokenRequestSpec},
        core::v1::{Namespace, ResourceQuota, Secret, ServiceAccount},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Config, Resource,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::{GroupVersionKind, PartialObjectMeta},
    discovery::ApiResource,
    runtime::wait::await_condition,
};
use orders_operator::crd::{ConditionType, OrdersService, find_condition};
use serde_json::{Value, json};
use tokio::{
    sync::{Mutex, OnceCell},
    time::{sleep, timeout},
};

use crate::{stranger, watchdog, way::Way};

/// How long anything may take on a loaded machine before it counts as not happening.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// The spare API server serves one test at a time.
pub static SPARE_API: Mutex<()> = Mutex::const_new(());

/// What a quota of OrdersServices counts.
pub const COUNTED: &str = "count/ordersservices.ticketing.dev";

/// Asks again and again until `probe` gives something.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut probe: impl FnMut() -> F) -> T {
    let mut probe = || {
        let found = probe();
        async { found.await.ok_or(()) }
    };
    wait(what, &mut probe, |_| String::new()).await
}

/// As [`eventually`], of what takes many steps, each of which may take as long: until it is done, `probe` says how far it is.
pub async fn step_by_step<T, S: PartialEq + Debug, F: Future<Output = Result<T, S>>>(
    what: &str,
    mut probe: impl FnMut() -> F,
) -> T {
    wait(what, &mut probe, |step| format!(", at {step:?}")).await
}

async fn wait<T, S: PartialEq, F: Future<Output = Result<T, S>>>(
    what: &str,
    probe: &mut impl FnMut() -> F,
    at: impl Fn(&S) -> String,
) -> T {
    let (mut started, mut last) = (Instant::now(), None);
    loop {
        let step = match probe().await {
            Ok(found) => return found,
            Err(step) => step,
        };
        assert!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}{}", at(&step));
        if last.as_ref().is_some_and(|last| *last != step) {
            started = Instant::now();
        }
        last = Some(step);
        // The longer it takes, the less it matters when exactly; and all of these looks slow down what is waited for.
        sleep((started.elapsed() / 8).clamp(Duration::from_millis(20), Duration::from_millis(400))).await;
    }
}

/// A namespace of its own for one test.
pub struct TestNamespace {
    pub client: Client,
    pub name: String,
    /// The namespaces that processes of this test watch: this one first.
    watched: Vec<String>,
    /// More values of the chart.
    values: Vec<String>,
    folder: PathBuf,
    kubeconfig: Kubeconfig,
}

impl TestNamespace {
    /// Makes the namespace, and sees that the CRD of this checkout is there.
    pub async fn create(test: &str) -> Self {
        let kubeconfig = std::env::var("KUBECONFIG").expect(
            "KUBECONFIG is not set: run `make test`, or `dev/bed up api` and `dev/bed exec -- cargo test`",
        );
        // Nobody removes it there. To apply it for each test would have the API server compile its rules each time.
        static CRD: OnceCell<()> = OnceCell::const_new();
        let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
        let client = client(kubeconfig.clone()).await;
        CRD.get_or_init(|| install_crd(&client)).await;
        stranger::look_out(self::client(kubeconfig.clone()));
        Self::create_with(test, client, kubeconfig).await
    }

    /// As [`Self::create`], in the cluster of this kubeconfig.
    pub async fn create_at(test: &str, kubeconfig: &str) -> Self {
        let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
        let client = client(kubeconfig.clone()).await;
        install_crd(&client).await;
        Self::create_with(test, client, kubeconfig).await
    }

    /// As [`Self::create_at`], where an operator is installed, and with it the CRD.
    pub async fn create_beside(test: &str, kubeconfig: &str) -> Self {
        let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
        Self::create_with(test, client(kubeconfig.clone()).await, kubeconfig).await
    }

    async fn create_with(test: &str, client: Client, kubeconfig: Kubeconfig) -> Self {
        watchdog::watch();
        let name = format!("it-{test}-{:06x}", fastrand::u32(..0x100_0000));
        let namespace = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}
        }))
        .unwrap();
        Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
        let folder = std::env::temp_dir().join(format!("orders-operator-{name}"));
        std::fs::create_dir_all(&folder).unwrap();
        let this = Self { client, watched: vec![name.clone()], values: Vec::new(), name, folder, kubeconfig };
        // Until its account is there, no pod could be made in it.
        eventually("the default service account", || async {
            this.api::<ServiceAccount>().get_opt("default").await.unwrap()
        })
        .await;
        this
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// The objects of any kind, such as ("Deployment", "apps/v1").
    pub fn dynamic(&self, kind: &str, version: &str) -> Api<DynamicObject> {
        let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        Api::namespaced_with(self.client.clone(), &self.name, &resource)
    }

    /// Makes a quota of so many OrdersServices, which counts them from now on. The cluster learns within half a minute of a new
    /// CRD what a quota for it counts, and looks at one of before only every five minutes: so it is made anew until it counts.
    pub async fn counting_quota(&self, name: &str, most: u32) {
        let quota: ResourceQuota = serde_json::from_value(
            json!({"metadata": {"name": name}, "spec": {"hard": {COUNTED: most.to_string()}}}),
        )
        .unwrap();
        let quotas = self.api::<ResourceQuota>();
        let counts = |quota: Option<&ResourceQuota>| {
            quota.and_then(|quota| quota.status.as_ref()?.used.as_ref()?.get(COUNTED)).is_some()
        };
        eventually("the quota counts OrdersServices", || async {
            drop(quotas.delete(name, &DeleteParams::default()).await);
            quotas.create(&PostParams::default(), &quota).await.unwrap();
            timeout(Duration::from_secs(3), await_condition(quotas.clone(), name, counts)).await.ok()
        })
        .await
        .unwrap();
    }

    /// Applies the Secrets that [`Self::service`] refers to.
    pub async fn secrets(&self, mongo_uri: &str) {
        self.secret("jwt-secret", "JWT_KEY", "a-key").await;
        self.secret("orders-mongo", "MONGO_URI", mongo_uri).await;
    }

    /// Makes a Secret have this one key.
    pub async fn secret(&self, name: &str, key: &str, value: &str) {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": {key: STANDARD.encode(value)}
        });
        self.api::<Secret>().patch(name, &PatchParams::apply("test"), &Patch::Apply(secret)).await.unwrap();
    }

    /// An OrdersService as a user writes it: no replicas, since this cluster has no nodes.
    pub fn service(&self, name: &str, patch: Value) -> Value {
        let mut object = json!({
            "apiVersion": "ticketing.dev/v1alpha1", "kind": "OrdersService", "metadata": {"name": name},
            "spec": {
                "image": "registry.example/orders-operator:1", "replicas": 0,
                "auth": {"jwtSecretRef": {"name": "jwt-secret"}},
                "database": {"uriSecretRef": {"name": "orders-mongo"}},
                "ingress": {
                    "hosts": ["ticketing.dev"],
                    "routes": [
                        {"path": "/ws", "service": "ws-srv"},
                        {"path": "/api/users/?(.*)", "service": "auth-srv", "port": 80},
                    ],
                    "client": {"service": "client-srv"}
                }
            }
        });
        json_patch::merge(&mut object["spec"], &patch);
        object
    }

    pub async fn apply(&self, object: &Value) -> Result<OrdersService, kube::Error> {
        let name = object["metadata"]["name"].as_str().unwrap();
        self.api().patch(name, &PatchParams::apply("test").force(), &Patch::Apply(object)).await
    }

    /// Waits until a condition has this status and reason; gives its message.
    pub async fn condition(&self, name: &str, kind: ConditionType, status: &str, reason: &str) -> String {
        let what = format!("{name}: {} {status} {reason}", kind.as_str());
        eventually(&what, || async {
            let service: OrdersService = self.api().get_status(name).await.unwrap();
            let status_of_now = service.status.unwrap_or_default();
            // A status of an older generation answers a question that nobody asked.
            let current = status_of_now.observed_generation == service.metadata.generation;
            find_condition(&status_of_now.conditions, kind)
                .filter(|condition| current && condition.status == status && condition.reason == reason)
                .map(|condition| condition.message.clone())
        })
        .await
    }

    /// Waits until it is ready, warnings aside: the Services that it routes to are rarely there.
    pub async fn ready(&self, name: &str) {
        eventually(&format!("{name}: Ready"), || async {
            let service: OrdersService = self.api().get_status(name).await.unwrap();
            let status = service.status.unwrap_or_default();
            let is_current = status.observed_generation == service.metadata.generation;
            find_condition(&status.conditions, ConditionType::Ready)
                .filter(|ready| is_current && ready.status == "True")
                .map(drop)
        })
        .await;
    }

    /// Runs a subcommand of the product in this namespace, with exactly the rights that the chart gives it.
    pub async fn run(&self, subcommand: &str) -> Process {
        self.run_with(subcommand, &[]).await
    }

    /// Runs a controller that stands for election, as the chart runs it; but on a loaded machine a renewal may take long.
    pub async fn run_elected(&self) -> Process {
        let lease = format!("{}-orders-operator-controller", self.name);
        let times = ["--lease-duration", "40", "--renew-deadline", "30"];
        let more = [&["--lease-namespace", &self.name, "--lease-name", &lease], times.as_slice()].concat();
        self.run_with("controller", &more).await
    }

    /// Runs a sweeper that divides the work with others, as the chart runs it.
    pub async fn run_sweeper(&self) -> Process {
        self.run_sweeper_in(&[]).await
    }

    /// The same in another environment.
    pub async fn run_sweeper_in(&self, environment: &[(&str, &str)]) -> Process {
        let lease = format!("{}-orders-operator-sweeper", self.name);
        self.run_in("sweeper", &["--lease-namespace", &self.name, "--lease-name", &lease], environment).await
    }

    /// Has the processes of this test watch that namespace too; to be said before the first is run.
    pub fn watch_also(&mut self, other: &Self) {
        self.watched.push(other.name.clone());
    }

    /// Has the chart installed with this value, such as `a.b=c`; to be said before the first process is run.
    pub fn set(&mut self, value: &str) {
        self.values.push(value.to_owned());
    }

    /// As [`Self::run_with`], by this way to the API server.
    pub async fn run_by(&self, way: &Way, subcommand: &str, more: &[&str]) -> Process {
        way.lead(&self.chart_account(subcommand).await);
        self.run_with(subcommand, more).await
    }

    /// As [`Self::run`], with more arguments.
    pub async fn run_with(&self, subcommand: &str, more: &[&str]) -> Process {
        self.run_in(subcommand, more, &[]).await
    }

    /// As [`Self::run_with`], in another environment.
    pub async fn run_in(&self, subcommand: &str, more: &[&str], environment: &[(&str, &str)]) -> Process {
        let kubeconfig = self.chart_account(subcommand).await;
        let log = self.folder.join(format!("{subcommand}-{}.log", fastrand::u32(..)));
        // Most tests of the controller have no sweeper beside it.
        let alone = (subcommand == "controller").then_some("--await-sweeper=false");
        // It ends with the thread of its test, even when the tests are killed.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", env!("CARGO_BIN_EXE_orders-operator")])
            .args([subcommand, "--namespace", &self.watched.join(","), "--admin-port", "0"])
            .args(alone)
            .args(more)
            .env("KUBECONFIG", kubeconfig)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Process { child, log }
    }

    /// Runs a subcommand of the product in the same way to its end: its exit code, and what it prints.
    pub async fn output(&self, subcommand: &str, more: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_orders-operator"));
        command.args([subcommand, "--namespace", &self.watched.join(",")]).args(more);
        command.env("KUBECONFIG", self.chart_account(subcommand).await);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    }

    /// A client with exactly the rights that the chart gives this subcommand in this namespace.
    pub async fn chart_client(&self, subcommand: &str) -> Client {
        client_by(self.chart_account(subcommand).await).await
    }

    /// A client of an account of this namespace, such as `default`.
    pub async fn client_as(&self, account: &str) -> Client {
        client_by(self.kubeconfig_of(account).await).await
    }

    /// The folder of this test's files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the API server is.
    pub fn api_server(&self) -> Uri {
        let cluster = self.kubeconfig.clusters[0].cluster.as_ref().unwrap();
        cluster.server.as_ref().unwrap().parse().unwrap()
    }

    /// Has the subcommand reach the API server at another address, perhaps with a certificate of another CA.
    pub async fn lead(&self, subcommand: &str, server: &str, ca: Option<&Path>) {
        let path = self.chart_account(subcommand).await;
        let mut config = Kubeconfig::read_from(&path).unwrap();
        for cluster in config.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()) {
            cluster.server = Some(server.to_owned());
            if let Some(ca) = ca {
                cluster.certificate_authority = Some(ca.display().to_string());
            }
        }
        std::fs::write(&path, serde_json::to_string(&config).unwrap()).unwrap();
    }

    /// The values of the chart of this test: it watches this namespace only, and the sweeper is separate, so that neither
    /// subcommand can do with the rights of the other.
    pub fn chart_values(&self) -> String {
        let separate = "sweeper.separate=true,rbac.aggregateClusterRoles=false".to_owned();
        let watched = format!("watchNamespaces={{{}}}", self.watched.join(","));
        [vec![separate, watched], self.values.clone()].concat().join(",")
    }

    /// Makes the accounts and the rights of the chart, installed here with these values. Gives what was made.
    pub async fn install_rights(&self, set: &str) -> Vec<Value> {
        let kinds = ["ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"];
        let mut objects = chart(&["--namespace", &self.name, "--set", set], &self.name);
        objects.retain(|object| kinds.contains(&object["kind"].as_str().unwrap()));
        for object in &objects {
            apply_any(&self.client, object.clone()).await;
        }
        objects
    }

    /// A kubeconfig of the service account that the chart gives the subcommand.
    pub async fn chart_account(&self, subcommand: &str) -> PathBuf {
        let path = self.folder.join(format!("kubeconfig-{subcommand}"));
        if path.exists() {
            return path;
        }
        // Both subcommands have theirs of one installation, unless the values have changed meanwhile.
        let (values, installed) = (self.chart_values(), self.folder.join("installed-rights"));
        if std::fs::read_to_string(&installed).ok().as_ref() != Some(&values) {
            self.install_rights(&values).await;
            std::fs::write(&installed, values).unwrap();
        }
        let account = match subcommand {
            "controller" => format!("{}-orders-operator", self.name),
            _ => format!("{}-orders-operator-{subcommand}", self.name),
        };
        std::fs::rename(self.kubeconfig_of(&account).await, &path).unwrap();
        path
    }

    /// A client of someone who may write OrdersServices, Secrets, Ingresses and HTTPRoutes in this namespace, and nothing
    /// else.
    pub async fn tenant(&self) -> Client {
        let namespaced = json!({"name": "tenant", "namespace": self.name});
        let rule = |group: &str, resources: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": ["get", "create", "patch", "delete"]});
        let version = "rbac.authorization.k8s.io/v1";
        for object in [
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": namespaced}),
            json!({"apiVersion": version, "kind": "Role", "metadata": namespaced, "rules": [
                rule("ticketing.dev", &["ordersservices"]), rule("", &["secrets"]),
                rule("networking.k8s.io", &["ingresses"]), rule("gateway.networking.k8s.io", &["httproutes"]),
            ]}),
            json!({"apiVersion": version, "kind": "RoleBinding", "metadata": namespaced,
                   "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "tenant"},
                   "subjects": [{"kind": "ServiceAccount", "name": "tenant", "namespace": self.name}]}),
        ] {
            apply_any(&self.client, object).await;
        }
        self.client_as("tenant").await
    }

    /// A kubeconfig of an account of this namespace.
    pub async fn kubeconfig_of(&self, account: &str) -> PathBuf {
        let path = self.folder.join(format!("account-{account}"));
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: vec![],
                expiration_seconds: Some(3600),
                ..Default::default()
            },
            ..Default::default()
        };
        let token = self
            .api::<ServiceAccount>()
            .create_token_request(account, &PostParams::default(), &request)
            .await
            .unwrap()
            .status
            .unwrap()
            .token;
        let mut config = serde_json::to_value(&self.kubeconfig).unwrap();
        for user in config["users"].as_array_mut().unwrap() {
            user["user"] = json!({"token": token});
        }
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }

    /// Removes what the test made. A test that failed leaves it, to be looked at.
    pub async fn remove(self) {
        Api::<Namespace>::all(self.client.clone())
            .delete(&self.name, &DeleteParams::background())
            .await
            .unwrap();
        for kind in ["ClusterRole", "ClusterRoleBinding"] {
            let resource =
                ApiResource::from_gvk(&GroupVersionKind::gvk("rbac.authorization.k8s.io", "v1", kind));
            let api = Api::<DynamicObject>::all_with(self.client.clone(), &resource);
            for suffix in ["", "-sweeper", "-ingressclasses", "-view", "-edit"] {
                let name = format!("{0}:{0}-orders-operator{suffix}", self.name);
                drop(api.delete(&name, &DeleteParams::default()).await);
            }
        }
        std::fs::remove_dir_all(&self.folder).unwrap();
    }
}

/// The peak resident memory of a process, in kB.
pub fn peak_memory(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().trim().parse().unwrap()
}

/// A process of the product; it ends with the test.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Where its admin port is.
    pub async fn admin_address(&self) -> SocketAddr {
        eventually("the admin server listens", || async {
            let log = self.log();
            let line = log.lines().find(|line| line.contains("serving the admin endpoints"))?;
            line.rsplit_once("address=")?.1.parse::<SocketAddr>().ok()
        })
        .await
    }

    /// What it serves on its admin port, such as `/metrics`.
    pub async fn admin(&self, path: &str) -> String {
        let port = self.admin_address().await.port();
        reqwest::get(format!("http://127.0.0.1:{port}{path}")).await.unwrap().text().await.unwrap()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// The sum of the metrics whose name and labels begin so.
    pub async fn metric(&self, begins: &str) -> f64 {
        let page = self.admin("/metrics").await;
        let lines = page.lines().filter(|line| line.starts_with(begins));
        lines.filter_map(|line| line.rsplit_once(' ')).map(|(_, value)| value.parse::<f64>().unwrap()).sum()
    }

    /// Its peak resident memory, in kB.
    pub fn peak_memory(&self) -> u64 {
        peak_memory(self.child.id())
    }

    /// Ends it as a crash does.
    pub fn kill(mut self) {
        self.end();
    }

    /// Ends it as the kubelet does first, and waits until it has.
    pub async fn terminate(self) -> ExitStatus {
        self.signal("TERM");
        self.ended().await
    }

    pub fn signal(&self, name: &str) {
        let status =
            Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(status.success(), "kill -{name}: {status}");
    }

    /// Waits until it ends by itself.
    pub async fn ended(mut self) -> ExitStatus {
        let child = &mut self.child;
        let deadline = Instant::now() + PATIENCE;
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        loop {
            tick.tick().await;
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the process did not end");
        }
    }

    fn end(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// The objects of the chart but the CRD, which takes longer to read than all others; rendered by helm with these arguments.
pub fn chart(arguments: &[&str], release: &str) -> Vec<Value> {
    chart_with_crd(&[&["--set", "crds.enabled=false"], arguments].concat(), release)
}

/// The objects of the chart, rendered by helm with these arguments.
pub fn chart_with_crd(arguments: &[&str], release: &str) -> Vec<Value> {
    let output = helm_template(arguments, release);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    yaml_documents(&String::from_utf8(output.stdout).unwrap())
}

/// What the chart says when it is told what it cannot do.
pub fn refused_chart(arguments: &[&str]) -> String {
    let output = helm_template(arguments, "release");
    assert!(!output.status.success(), "the chart is rendered");
    String::from_utf8(output.stderr).unwrap()
}

fn helm_template(arguments: &[&str], release: &str) -> Output {
    Command::new("helm")
        .args(["template", release, "charts/orders-operator"])
        .args(arguments)
        .current_dir(root())
        .output()
        .expect("helm is not on the PATH: run `make test`")
}

pub fn yaml_documents(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap()
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A client of the cluster and the account of this kubeconfig.
pub async fn client_by(kubeconfig: impl AsRef<Path>) -> Client {
    client(Kubeconfig::read_from(kubeconfig).unwrap()).await
}

async fn client(kubeconfig: Kubeconfig) -> Client {
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

/// Has the cluster serve the CRD of this checkout.
pub async fn install_crd(client: &Client) {
    let text = std::fs::read_to_string(root().join("crds/ordersservices.yaml")).unwrap();
    let crd: Value = serde_saphyr::from_str(&text).unwrap();
    let name = crd["metadata"]["name"].as_str().unwrap().to_owned();
    let crds = Api::<CustomResourceDefinition>::all(client.clone());
    crds.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(crd)).await.unwrap();
    eventually("the CRD is served", || async {
        let crd = crds.get(&name).await.unwrap();
        crd.status?.conditions?.iter().any(|c| c.type_ == "Established" && c.status == "True").then_some(())
    })
    .await;
    eventually("the resource is served", || async {
        // Whatever there is of them: what others made is theirs.
        let any = ListParams::default().limit(1);
        Api::<PartialObjectMeta<OrdersService>>::all(client.clone()).list(&any).await.ok()
    })
    .await;
}

/// Applies an object of any kind, as `kubectl apply --server-side` does.
pub async fn apply_any(client: &Client, object: Value) -> DynamicObject {
    let object: DynamicObject = serde_json::from_value(object).unwrap();
    let types = object.types.clone().unwrap();
    let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(&types).unwrap());
    let api: Api<DynamicObject> = match &object.metadata.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let name = object.metadata.name.clone().unwrap();
    eventually(&format!("{types:?} are served"), async || {
        match api.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(&object)).await {
            // A CRD is established a moment before what is of it can be written.
            Err(kube::Error::Api(status)) if status.message == "404 page not found" => None,
            applied => Some(applied.unwrap()),
        }
    })
    .await
}

/// The message of an API server's refusal.
pub fn refusal<T: Debug>(result: Result<T, kube::Error>) -> String {
    match result {
        Err(kube::Error::Api(status)) => status.message,
        other => panic!("expected a refusal, got {other:?}"),
    }
}
