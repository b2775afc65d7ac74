//! `kubectl osvc` on a real API server: what it says of an OrdersService, of a URL, and what it sweeps.

use std::{
    os::unix::{fs::symlink, process::CommandExt},
    process::{Command, Output},
};

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams, PostParams};
use orders_operator::crd::ConditionType::*;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::spawn_blocking};

use crate::{
    bed::setting,
    cluster::{TestNamespace, apply_any, eventually},
    controller::conflicts::{claiming, host_of, next_second},
    mongo::{TestDatabase, uri},
    sweeper::{cancelled, order, service, state},
};

/// What a command printed, and how it ended.
pub(crate) struct Told {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Told {
    fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.err))
    }

    /// Checks the exit code and that all of this is printed.
    fn says(&self, code: i32, expected: &[&str]) {
        assert_eq!(self.code, Some(code), "{}{}", self.out, self.err);
        for expected in expected {
            assert!(self.out.contains(expected), "{expected:?} is missing in {}{}", self.out, self.err);
        }
    }
}

/// Runs the program by the name that it has as a plugin, with this kubeconfig.
pub(crate) async fn osvc(kubeconfig: &str, arguments: &[&str]) -> Told {
    let mut command = Command::new(env!("CARGO_BIN_EXE_orders-operator"));
    command.arg0("/somewhere/kubectl-osvc").args(arguments).env("KUBECONFIG", kubeconfig);
    Told::of(spawn_blocking(move || command.output().unwrap()).await.unwrap())
}

impl TestNamespace {
    /// Asks of this namespace.
    async fn osvc(&self, arguments: &[&str]) -> Told {
        osvc(&setting("KUBECONFIG"), &[arguments, &["-n", &self.name]].concat()).await
    }
}

#[tokio::test]
async fn the_status_of_a_ready_one_has_its_routes_in_order_and_as_the_spec_changes_it_is_not_ready() {
    let namespace = TestNamespace::create("osvc").await;
    namespace.secrets(&uri()).await;
    let database = TestDatabase::new().await;
    let host = host_of(&namespace);
    let spec = |port: i32| {
        let ingress = json!({
            "hosts": [host], "routes": [{"path": "/api/users", "service": "auth-srv", "port": 80}],
            "client": {"service": "client-srv"}
        });
        service(&namespace, "orders", &database, json!({"ingress": ingress, "port": port}))
    };
    namespace.apply(&spec(3000)).await.unwrap();
    let before = namespace.osvc(&["status", "orders"]).await;
    before.says(1, &["not ready (Unknown)", "kubectl osvc check"]);
    let (controller, _sweeper) = (namespace.run("controller").await, namespace.run_sweeper().await);
    namespace.condition("orders", DatabaseReady, "True", "AsExpected").await;
    namespace.ready("orders").await;

    let text = namespace.osvc(&["status", "orders"]).await;
    let rule = |number, path: &str, rest| format!("{number}. {path:<11} -> {rest}");
    text.says(
        0,
        &[
            &format!("{}/orders: ready (", namespace.name),
            "DatabaseReady AsExpected",
            &host,
            &rule(1, "/api/orders", "orders:3000"),
            &rule(2, "/api/users", "auth-srv:80"),
            &rule(3, "/", "client-srv:3000 (the client)"),
        ],
    );
    assert!(!text.out.contains('\u{1b}'), "no colours without a terminal: {}", text.out);
    let answer = namespace.osvc(&["status", "orders", "-o", "json"]).await;
    let report = answer.json();
    assert_eq!((answer.code, &report["ready"]), (Some(0), &json!(true)), "{report:#}");
    let paths: Vec<_> = report["routes"].as_array().unwrap().iter().map(|route| &route["path"]).collect();
    assert_eq!(paths, ["/api/orders", "/api/users", "/"]);
    assert_eq!(report["routes"][2]["client"], true);
    assert_eq!(report["conditions"][0]["type"], "Ready");
    assert_eq!(report["pods"], json!([]));
    let yaml = namespace.osvc(&["status", "orders", "-o", "yaml"]).await;
    assert_eq!(serde_saphyr::from_str::<Value>(&yaml.out).unwrap()["routes"], report["routes"]);

    // Nobody reports on the next generation.
    assert_eq!(controller.terminate().await.code(), Some(0));
    namespace.apply(&spec(4000)).await.unwrap();
    let outdated = namespace.osvc(&["status", "orders", "-o", "json"]).await;
    assert_eq!((outdated.code, &outdated.json()["reason"]), (Some(1), &json!("Outdated")));

    // As kubectl itself finds it.
    symlink(env!("CARGO_BIN_EXE_orders-operator"), namespace.folder().join("kubectl-osvc")).unwrap();
    let path = format!("{}:{}", namespace.folder().display(), std::env::var("PATH").unwrap());
    let mut kubectl = Command::new("kubectl");
    kubectl.args(["osvc", "status", "orders", "-n", &namespace.name]).env("PATH", path);
    let by_kubectl = Told::of(spawn_blocking(move || kubectl.output().unwrap()).await.unwrap());
    by_kubectl.says(1, &["not ready (Outdated)"]);
    namespace.remove().await;
}

#[tokio::test]
async fn what_is_not_ready_or_not_there_says_why_and_who_may_see_less_is_told_what_is_not_known() {
    let namespace = TestNamespace::create("osvc-not").await;
    namespace.secret("jwt-secret", "JWT_KEY", "a-key").await;
    let _controller = namespace.run("controller").await;
    namespace.apply(&namespace.service("orders", json!({"ingress": null}))).await.unwrap();
    namespace.condition("orders", Ready, "False", "SecretNotFound").await;
    let report = namespace.osvc(&["status", "orders", "-o", "json"]).await;
    assert_eq!(report.code, Some(1));
    let report = report.json();
    assert_eq!((&report["ready"], &report["reason"]), (&json!(false), &json!("SecretNotFound")));
    assert!(report["message"].as_str().unwrap().contains("orders-mongo"), "{report:#}");
    // What the controller has written of it, and nothing of other objects.
    eventually("the Event of the missing Secret", || async {
        let report = namespace.osvc(&["status", "orders", "-o", "json"]).await.json();
        let events = report["events"].as_array().unwrap().clone();
        let is_it = |event: &Value| event["type"] == "Warning" && event["reason"] == "SecretNotFound";
        events.iter().any(is_it).then_some(())
    })
    .await;
    namespace
        .osvc(&["status", "orders"])
        .await
        .says(1, &["Events, the latest first", "Warning SecretNotFound at "]);

    let absent = namespace.osvc(&["status", "nobody"]).await;
    assert_eq!((absent.code, absent.out.as_str()), (Some(1), ""));
    assert!(absent.err.contains("there is no OrdersService \"nobody\" in namespace"), "{}", absent.err);
    for wrong in [&["status"][..], &["status", "orders", "-o", "table"], &["stat", "orders"]] {
        let told = namespace.osvc(wrong).await;
        assert_eq!(told.code, Some(2), "{}{}", told.out, told.err);
    }
    let nowhere = osvc("/nonexistent", &["status", "orders"]).await;
    assert_eq!(nowhere.code, Some(1));
    assert!(nowhere.err.contains("set KUBECONFIG"), "{}", nowhere.err);
    let other = namespace.osvc(&["status", "orders", "--context", "nowhere"]).await;
    assert!(other.code == Some(1) && other.err.contains("kubectl config get-contexts"), "{}", other.err);

    drop(namespace.tenant().await);
    let tenant = format!("system:serviceaccount:{}:tenant", namespace.name);
    let told = namespace.osvc(&["status", "orders", "--as", &tenant]).await;
    told.says(
        1,
        &[
            "Not known",
            "you lack the right to list pods",
            "you lack the right to list Events",
            "you lack the right to list OrdersServices",
        ],
    );
    let nobody = namespace.osvc(&["status", "orders", "--as", "nobody"]).await;
    assert_eq!(nobody.code, Some(1));
    assert!(nobody.err.contains("you lack the right to read OrdersService"), "{}", nobody.err);
    namespace.remove().await;
}

/// A pod as the kubelet would tell of it.
async fn pod(namespace: &TestNamespace, name: &str, labels: Value, status: Value) {
    let pod = json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "orders-api", "image": "registry.example/orders:7",
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}
            }]
        }
    });
    let pods = namespace.api::<Pod>();
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    let status = Patch::Merge(json!({"status": status}));
    pods.patch_status(name, &PatchParams::default(), &status).await.unwrap();
}

#[tokio::test]
async fn the_last_words_of_a_pod_are_shown_and_no_terminal_obeys_them() {
    let namespace = TestNamespace::create("osvc-words").await;
    namespace.apply(&namespace.service("orders", json!({"ingress": null}))).await.unwrap();
    let labels = json!({"app.kubernetes.io/name": "orders-service", "app.kubernetes.io/instance": "orders"});
    let words = "no\u{1b}[2J memory\u{9b}31m\u{202e}\nready";
    let status = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}], "containerStatuses": [{
        "name": "orders-api", "image": "registry.example/orders:7", "imageID": "", "ready": false, "restartCount": 3,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled", "message": words}}
    }]});
    pod(&namespace, "orders-1", labels, status).await;
    let text = namespace.osvc(&["status", "orders"]).await;
    text.says(
        1,
        &[
            "not ready orders-1 Running, 3 restarts, registry.example/orders:7",
            "waits: orders-api: CrashLoopBackOff",
            "last: orders-api exited with code 137 (OOMKilled): no\\u{1b}[2J memory\\u{9b}31m\\u{202e}\\nready",
        ],
    );
    let json = namespace.osvc(&["status", "orders", "-o", "json"]).await;
    let told = json.json()["pods"][0]["lastWords"].as_str().unwrap().to_owned();
    assert!(told.ends_with(words), "{told:?}");
    let yaml = namespace.osvc(&["status", "orders", "-o", "yaml"]).await;
    for Told { out, .. } in [text, json, yaml] {
        let obeyed = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!out.chars().any(obeyed), "{out:?}");
    }
    namespace.remove().await;
}

#[tokio::test]
async fn a_url_is_taken_by_a_route_by_the_client_by_nobody_or_by_another_namespace() {
    let mut first = TestNamespace::create("osvc-z").await;
    let second = TestNamespace::create("osvc-a").await;
    first.watch_also(&second);
    let host = host_of(&first);
    for team in [&first, &second] {
        team.secrets("mongodb://127.0.0.1:1/orders").await;
    }
    let _controller = first.run("controller").await;
    let mut theirs = claiming(&first, "theirs", &host, "/api/orders", &["/api/users"]);
    theirs["spec"]["ingress"]["client"] = json!({"service": "client-srv"});
    first.apply(&theirs).await.unwrap();
    first.condition("theirs", Reconciled, "True", "AsExpected").await;
    next_second(&first).await;
    second.apply(&claiming(&second, "ours", &host, "/api/orders", &["/api/shop"])).await.unwrap();
    second.condition("ours", IngressReady, "False", "HostPathConflict").await;
    // A Service whose pods are told by hand.
    let named = |name: &str| json!({"name": name, "namespace": first.name});
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "a-srv-1", "namespace": first.name, "labels": {"kubernetes.io/service-name": "a-srv"}},
        "ports": [{"port": 3000}],
        "endpoints": [
            {"addresses": ["10.0.0.7"], "targetRef": {"kind": "Pod", "name": "users-1"}, "conditions": {"ready": true}},
            {"addresses": ["10.0.0.8"], "targetRef": {"kind": "Pod", "name": "users-2"}, "conditions": {"ready": false}},
        ]
    });
    let a_srv = json!({"apiVersion": "v1", "kind": "Service", "metadata": named("a-srv"), "spec": {"ports": [{"port": 3000}]}});
    for object in [a_srv, slice] {
        apply_any(&first.client, object).await;
    }

    let kubeconfig = setting("KUBECONFIG");
    let explain = async |url: &str| osvc(&kubeconfig, &["explain", url]).await;
    let (owner, rival) =
        (format!("OrdersService {}/theirs", first.name), format!("OrdersService {}/ours", second.name));
    let by_route = explain(&format!("https://{host}/api/users/5?x=1")).await;
    by_route.says(
        0,
        &[
            &format!("{host}/api/users/5 goes to a-srv:3000 by rule /api/users of {owner}"),
            &format!("Service {}/a-srv: taken by pod users-1; not ready: pod users-2", first.name),
        ],
    );
    let by_client = explain(&format!("{host}/anything")).await;
    by_client.says(
        0,
        &[
            &format!("{host}/anything goes to client-srv:3000 by rule / of {owner}"),
            "no other rule matches, so the client gets it",
            &format!("Service {}/client-srv: it does not exist", first.name),
        ],
    );
    let of_other = explain(&format!("{host}/api/orders")).await;
    of_other.says(
        0,
        &[
            &format!("{host}/api/orders goes to theirs:3000 by rule /api/orders of {owner}"),
            &format!(
                "not rendered: {host}/api/orders, by which {rival} would send it to ours:3000: {owner} has it"
            ),
        ],
    );
    explain(&format!("{host}/api/shop")).await.says(0, &[&format!("of {rival}")]);
    // In the whole cluster there may be rules for any host, of other tests.
    let by_nobody = second.osvc(&["explain", "nobody.example/api/orders"]).await;
    by_nobody.says(1, &["no rule has host nobody.example"]);
    assert_eq!(explain("/a b").await.code, Some(2));
    // Of one namespace only, there is no client.
    let alone = second.osvc(&["explain", &format!("{host}/anything")]).await;
    alone.says(1, &["is not served: no rule matches"]);

    let lost = second.osvc(&["status", "ours", "-o", "json"]).await.json();
    let told = (&lost["notRendered"][0]["path"], &lost["notRendered"][0]["hadBy"]);
    assert_eq!(told, (&json!("/api/orders"), &json!(owner)), "{lost:#}");
    first.ready("theirs").await;
    let kept = first.osvc(&["status", "theirs"]).await;
    kept.says(0, &[&format!("conflict: {rival} asks for {host}/api/orders too")]);
    first.remove().await;
    second.remove().await;
}

#[tokio::test]
async fn a_sweep_is_of_one_database_and_a_dry_run_only_counts() {
    let namespace = TestNamespace::create("osvc-sweep").await;
    namespace.secrets(&uri()).await;
    let (mine, other) = (TestDatabase::new().await, TestDatabase::new().await);
    let (due, left) = (order(&mine, "created", -60_000).await, order(&other, "created", -60_000).await);
    namespace.apply(&service(&namespace, "mine", &mine, json!({}))).await.unwrap();
    namespace.apply(&service(&namespace, "other", &other, json!({}))).await.unwrap();
    let counted = namespace.osvc(&["sweep", "mine", "--dry-run"]).await;
    counted.says(0, &["1 order due in 1 database, 0 failed"]);
    assert_eq!(state(&mine, due).await, ("created".into(), 0));
    namespace.osvc(&["sweep", "mine"]).await.says(0, &["1 order expired in 1 database, 0 failed"]);
    cancelled(&mine, due).await;
    assert_eq!(state(&other, left).await, ("created".into(), 0));

    // What another resource of the namespace says of the same database holds too.
    let suspended = json!({"expiration": {"suspend": true}});
    namespace.apply(&service(&namespace, "twin", &mine, suspended)).await.unwrap();
    namespace.osvc(&["sweep", "mine"]).await.says(0, &["suspended, left alone"]);
    let absent = namespace.osvc(&["sweep", "nobody"]).await;
    assert!(absent.code == Some(1) && absent.err.contains("there is no OrdersService"), "{}", absent.err);
    let missing = json!({"database": {"uriSecretRef": {"name": "missing"}}});
    namespace.apply(&service(&namespace, "third", &other, missing)).await.unwrap();
    namespace.osvc(&["sweep", "third"]).await.says(1, &["Secret \"missing\" does not exist"]);
    // From the operator's pod, with its rights: it may not get an OrdersService, only list them.
    let account = namespace.chart_account("sweeper").await.display().to_string();
    let by_operator = osvc(&account, &["sweep", "other", "--dry-run", "-n", &namespace.name]).await;
    by_operator.says(0, &["1 order due in 1 database, 0 failed"]);
    namespace.remove().await;
}

#[tokio::test]
async fn an_api_server_that_does_not_answer_is_waited_for_as_long_as_is_asked() {
    // It accepts connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let file = std::env::temp_dir().join(format!("orders-operator-silent-{}", fastrand::u64(..)));
    let kubeconfig = file.display().to_string();
    let cluster =
        json!({"name": "c", "cluster": {"server": format!("http://{}", silent.local_addr().unwrap())}});
    let context = json!({"name": "c", "context": {"cluster": "c", "user": "u"}});
    let user = json!({"name": "u", "user": {}});
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [cluster], "contexts": [context], "users": [user],
    });
    std::fs::write(&file, config.to_string()).unwrap();
    for command in [&["status", "orders"], &["sweep", "orders"]] {
        let told = osvc(&kubeconfig, &[&command[..], &["--request-timeout", "2"]].concat()).await;
        let expected = "no answer within 2 s; --request-timeout allows more";
        assert!(told.code == Some(1) && told.err.contains(expected), "{command:?}: {}", told.err);
    }
    std::fs::remove_file(file).unwrap();
}

#[tokio::test]
async fn the_program_teaches_the_plugin_and_the_plugin_has_what_the_program_has() {
    let program = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_orders-operator")).args(arguments).output().unwrap();
        Told::of(output)
    };
    program(&["--help"]).says(0, &["osvc", "Look at the OrdersServices of a cluster"]);
    let help = program(&["osvc", "--help"]);
    let own = osvc("/nonexistent", &["--help"]).await;
    for command in ["status", "explain", "sweep", "check", "render", "migrate", "completion"] {
        let line = format!("\n  {command} ");
        help.says(0, &[&line]);
        own.says(0, &[&line]);
    }
    own.says(0, &["Usage: kubectl osvc <COMMAND>"]);
    let spec = "examples/30-orders.yaml";
    let render = |words: &[&str]| program(&[words, &[spec, "--default-image", "orders:1"]].concat()).out;
    assert_eq!(render(&["osvc", "render"]), render(&["render"]));
    assert_eq!(
        program(&["osvc", "migrate", "tests/migrate"]).err,
        program(&["migrate", "tests/migrate"]).err
    );
    for shell in ["bash", "zsh", "fish"] {
        let completions = osvc("/nonexistent", &["completion", shell]).await;
        completions.says(0, &["kubectl-osvc", "dry-run", "request-timeout"]);
        program(&["completion", shell]).says(0, &["orders-operator", "max-per-second"]);
    }
    let program = env!("CARGO_BIN_EXE_orders-operator");
    let script = format!("source <({program} completion bash) && complete -p orders-operator");
    let taken = Command::new("bash").args(["-c", &script]).output().unwrap();
    Told::of(taken).says(0, &["-F _orders__operator orders-operator"]);
}
