//! `migrate --from-cluster`: what runs is translated as the files from which it was made, by an account that may read no more
//! than is needed.

use std::{path::Path, process::Command};

use futures::{StreamExt, stream};
use kube::api::DeleteParams;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::{
    cluster::{TestNamespace, apply_any, root, yaml_documents},
    render::program,
};

/// The cases that an API server of today takes: all but those of old versions, and the one with a Service that cannot be.
const CASES: [&str; 9] = [
    "03-strip-prefix",
    "04-no-host",
    "05-two-hosts",
    "06-api-elsewhere",
    "07-regex-inside",
    "08-default-backend",
    "09-exact",
    "10-named-port",
    "12-several-ingresses",
];

/// What `migrate` gives: the exit code, the YAML and the table.
struct Migrated {
    code: Option<i32>,
    yaml: String,
    table: String,
}

impl Migrated {
    /// From the cluster of this kubeconfig, of the namespace that it names.
    async fn from_cluster(kubeconfig: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_orders-operator"));
        command.args(["migrate", "--from-cluster"]).env("KUBECONFIG", kubeconfig);
        let output = spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), yaml: text(output.stdout), table: text(output.stderr) }
    }

    fn from_files(text: &str) -> Self {
        let output = program(&["migrate", "-"], text);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), yaml: text(output.stdout), table: text(output.stderr) }
    }

    /// What was made, without the namespace, which files need not name.
    fn objects(&self) -> Vec<Value> {
        let mut objects = yaml_documents(&self.yaml);
        for object in &mut objects {
            object["metadata"].as_object_mut().unwrap().remove("namespace");
        }
        objects
    }

    /// The lines that say what becomes of something, with single spaces: the columns are as wide as they need to be. What stays
    /// is another thing in a namespace, where others have put something too; and what the API server has filled in is dropped.
    fn told(&self) -> Vec<String> {
        let is_filled_in = |line: &&str| {
            [
                "strategy, progressDeadlineSeconds",
                "terminationGracePeriodSeconds, securityContext",
                "  resources: ",
            ]
            .iter()
            .any(|field| line.starts_with("dropped") && line.contains(field))
        };
        let lines = self.table.lines().filter(|line| !line.starts_with("stays") && !is_filled_in(line));
        lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }
}

fn case(name: &str) -> String {
    std::fs::read_to_string(root().join(format!("tests/migrate/{name}.yaml"))).unwrap()
}

/// Applies these documents in the namespace.
async fn apply(namespace: &TestNamespace, text: &str) -> Vec<Value> {
    let mut objects = yaml_documents(text);
    for object in &mut objects {
        object["metadata"]["namespace"] = json!(namespace.name);
        apply_any(&namespace.client, object.clone()).await;
    }
    objects
}

/// Makes an account that may list these, each a group and a resource, and gives its kubeconfig, which names the namespace.
async fn account(namespace: &TestNamespace, name: &str, may_list: &[(&str, &str)]) -> std::path::PathBuf {
    let named = json!({"name": name, "namespace": namespace.name});
    let rule = |(group, resource): &(&str, &str)| json!({"apiGroups": [group], "resources": [resource], "verbs": ["list"]});
    let version = "rbac.authorization.k8s.io/v1";
    for object in [
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": named}),
        json!({"apiVersion": version, "kind": "Role", "metadata": named, "rules": may_list.iter().map(rule).collect::<Vec<_>>()}),
        json!({"apiVersion": version, "kind": "RoleBinding", "metadata": named,
               "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
               "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace.name}]}),
    ] {
        apply_any(&namespace.client, object).await;
    }
    let path = namespace.kubeconfig_of(name).await;
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    for context in config["contexts"].as_array_mut().unwrap() {
        context["context"]["namespace"] = json!(namespace.name);
    }
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

/// What is needed, and the autoscalers.
const NEEDED: [(&str, &str); 4] = [
    ("networking.k8s.io", "ingresses"),
    ("", "services"),
    ("apps", "deployments"),
    ("autoscaling", "horizontalpodautoscalers"),
];

#[tokio::test]
async fn what_runs_is_translated_as_its_files_are_and_no_secret_is_read() {
    let namespace = TestNamespace::create("migrate").await;
    // It may read neither Secrets nor ConfigMaps.
    let kubeconfig = account(&namespace, "needed", &NEEDED).await;
    namespace.secret("jwt-secret", "JWT_KEY", "not-to-be-told").await;
    apply(&namespace, &case("orders")).await;
    for name in CASES {
        let objects = apply(&namespace, &case(name)).await;
        let files = Migrated::from_files(&format!("{}---\n{}", case(name), case("orders")));
        let cluster = Migrated::from_cluster(&kubeconfig).await;
        let (unread, told): (Vec<_>, Vec<_>) =
            cluster.told().into_iter().partition(|line| line.contains("you lack the right"));
        let [unread] = unread.as_slice() else { panic!("{name}: {}", cluster.table) };
        let expected = format!("left you Namespace {} the ConfigMaps cannot be read", namespace.name);
        assert!(unread.starts_with(&expected) && unread.ends_with("to list configmaps."), "{name}: {unread}");
        assert_eq!(told, files.told(), "{name}");
        assert_eq!(cluster.objects(), files.objects(), "{name}");
        assert_eq!(cluster.code, Some(3), "{name}: {}", cluster.table);
        let service = yaml_documents(&cluster.yaml).pop().unwrap();
        assert_eq!(service["metadata"]["namespace"], *namespace.name, "{name}");
        assert!(!format!("{}{}", cluster.yaml, cluster.table).contains("not-to-be-told"), "{name}");
        for object in objects {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let api = namespace.dynamic(&text(&object["kind"]), &text(&object["apiVersion"]));
            api.delete(&text(&object["metadata"]["name"]), &DeleteParams::default()).await.unwrap();
        }
    }
    namespace.remove().await;
}

#[tokio::test]
async fn objects_are_read_page_by_page_and_without_what_is_needed_nothing_is_translated() {
    let namespace = TestNamespace::create("migrate-pages").await;
    let kubeconfig = account(&namespace, "all", &[NEEDED.as_slice(), &[("", "configmaps")]].concat()).await;
    let from_map = "MONGO_URI\n              valueFrom: {configMapKeyRef: {name: zz-last, key: URI}}";
    let literal = "{name: MONGO_URI, value: \"mongodb://orders-mongo-srv:27017/orders\"}";
    assert!(case("orders").contains(literal));
    let orders = case("orders").replace(literal, &format!("name: {from_map}"));
    apply(&namespace, &orders).await;
    apply(&namespace, &case("09-exact")).await;
    let map = |name: String, uri: &str| {
        let metadata = json!({"name": name, "namespace": namespace.name});
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"URI": uri}})
    };
    // Two pages are full before the one that is asked for comes.
    let maps = (0..205).map(|at| map(format!("a-{at}"), "mongodb://other:27017/x"));
    let maps = maps.chain([map("zz-last".into(), "mongodb://last:27017/orders")]);
    stream::iter(maps)
        .for_each_concurrent(8, |map| async { drop(apply_any(&namespace.client, map).await) })
        .await;
    let migrated = Migrated::from_cluster(&kubeconfig).await;
    assert_eq!(migrated.code, Some(0), "{}", migrated.table);
    let objects = yaml_documents(&migrated.yaml);
    let secret = objects.iter().find(|object| object["kind"] == "Secret").unwrap();
    assert_eq!(secret["stringData"]["MONGO_URI"], "mongodb://last:27017/orders");

    let [_, others @ ..] = NEEDED;
    let refused = Migrated::from_cluster(&account(&namespace, "blind", &others).await).await;
    assert_eq!((refused.code, refused.yaml.as_str()), (Some(1), ""), "{}", refused.table);
    let expected = "you lack the right to list ingresses.networking.k8s.io";
    assert!(refused.table.contains(expected), "{}", refused.table);
    namespace.remove().await;
}
