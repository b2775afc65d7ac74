//! The chart as a package: what is generated of it is current, what it cannot take is refused, and its versions agree.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::cluster::{chart, refused_chart, root, yaml_documents};

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn run(program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root()).output().unwrap_or_else(|error| panic!("{program}: {error}"))
}

/// The value sets in the chart's folder `ci`, which continuous integration of charts looks for there.
fn value_sets() -> Vec<String> {
    let files = std::fs::read_dir(root().join("charts/orders-operator/ci")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names.map(|name| format!("charts/orders-operator/ci/{name}")).collect()
}

#[test]
fn the_readme_the_schema_and_the_rendered_value_sets_are_current() {
    let output = run("dev/chart", &["check"]);
    let (told, why) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}{why}");
    assert!(value_sets().len() >= 12);
}

#[test]
fn helm_lint_finds_nothing_with_any_of_the_value_sets() {
    for values in value_sets() {
        let output =
            run("helm", &["lint", "--strict", "--quiet", "charts/orders-operator", "--values", &values]);
        assert!(output.status.success(), "{values}: {}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn what_the_chart_does_not_have_or_cannot_take_is_refused_with_its_name() {
    for (set, told) in [
        ("replicaCount=1", "additional properties 'replicaCount' not allowed"),
        ("controller.replicas=1", "at '/controller': additional properties 'replicas'"),
        ("controller.resources.limit.cpu=1", "at '/controller/resources': additional properties 'limit'"),
        (
            "controller.hostPolicy=Namespace",
            "at '/controller/hostPolicy': value must be one of 'shared', 'namespace'",
        ),
        ("networkPolicy.mesh=istio", "value must be one of '', 'IstioAmbient', 'Linkerd'"),
        ("replicas=two", "at '/replicas': got string, want integer"),
        ("crds.enabled=yes", "at '/crds/enabled': got string, want boolean"),
        ("controller.concurrency=0", "at '/controller/concurrency': minimum: got 0, want 1"),
        ("controller.concurrency=null", "at '/controller': missing property 'concurrency'"),
        ("image=null", "missing property 'image'"),
        (
            "image.repository=registry.example/orders:1",
            "at '/image/repository': 'registry.example/orders:1' does not match",
        ),
        ("image.digest=abc", "at '/image/digest': 'abc' does not match"),
        ("podAnnotations.safe=true", "at '/podAnnotations/safe': got boolean, want string"),
        ("extraEnv[0].name=A,extraEnv[0].value=5", "at '/extraEnv/0/value': got number, want string"),
        (
            "extraEnv[0].name=LOG_LEVEL,extraEnv[0].value=x",
            "extraEnv has LOG_LEVEL, which the chart itself sets",
        ),
        ("watchNamespaces={Shop}", "at '/watchNamespaces/0': 'Shop' does not match"),
        ("podDisruptionBudget.unhealthyPodEvictionPolicy=Always", "'AlwaysAllow', 'IfHealthyBudget'"),
        (
            "sweeper.separate=true,serviceAccount.name=one,sweeper.serviceAccount.name=one",
            "controller and sweeper both have the ServiceAccount one",
        ),
    ] {
        let refusal = refused_chart(&["--set", set]);
        assert!(refusal.contains(told), "{set}: {refusal}");
    }
    // What a chart that depends on this one adds.
    chart(&["--set", "global.registry=example,enabled=true"], "release");
}

/// The images of a Deployment's containers, and the one that the pods of the orders API have.
fn images(arguments: &[&str]) -> Vec<String> {
    let objects = chart(arguments, "release");
    let deployment = objects.iter().find(|object| object["kind"] == "Deployment").unwrap();
    let containers = deployment["spec"]["template"]["spec"]["containers"].as_array().unwrap();
    let env = containers[0]["env"].as_array().unwrap();
    let default = env.iter().find(|variable| variable["name"] == "DEFAULT_IMAGE").unwrap();
    let images = containers.iter().map(|container| &container["image"]).chain([&default["value"]]);
    images.map(|image| image.as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_image_is_named_by_its_digest_or_its_tag_also_by_one_that_helm_takes_for_a_number() {
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    for (set, expected) in [
        ("image.tag=20240101", "orders-operator:20240101".to_owned()),
        ("image.tag=1.50", "orders-operator:1.50".to_owned()),
        ("image.tag=007", "orders-operator:007".to_owned()),
        ("image.tag=null", format!("orders-operator:{}", env!("CARGO_PKG_VERSION"))),
        (&format!("image.tag=1,image.digest={digest}"), format!("orders-operator@{digest}")),
    ] {
        assert_eq!(images(&["--set", set]), [&*expected; 3], "{set}");
    }
    // From a file, a number is a float.
    let values = std::env::temp_dir().join(format!("orders-operator-values-{:016x}.yaml", fastrand::u64(..)));
    for (tag, expected) in [("20240101", Some("20240101")), ("\"1.10\"", Some("1.10")), ("1.10", None)] {
        std::fs::write(&values, format!("image: {{tag: {tag}}}\n")).unwrap();
        let arguments = ["--values", values.to_str().unwrap()];
        match expected {
            Some(expected) => assert_eq!(images(&arguments), [&*format!("orders-operator:{expected}"); 3]),
            None => assert!(
                refused_chart(&arguments).contains("at '/image/tag': got number, want integer or string")
            ),
        }
    }
    std::fs::remove_file(values).unwrap();
}

#[test]
fn security_contexts_add_to_those_of_the_chart_and_take_nothing_away_unasked() {
    let set = "podSecurityContext.fsGroup=5,podSecurityContext.runAsUser=1000,securityContext.seLinuxOptions.level=s0";
    let objects = chart(&["--set", set], "release");
    let deployment = objects.iter().find(|object| object["kind"] == "Deployment").unwrap();
    let pod = &deployment["spec"]["template"]["spec"];
    let expected = json!({"fsGroup": 5, "runAsUser": 1000, "runAsGroup": 65532, "runAsNonRoot": true,
                          "seccompProfile": {"type": "RuntimeDefault"}});
    assert_eq!(pod["securityContext"], expected);
    let expected = json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "runAsNonRoot": true,
                          "capabilities": {"drop": ["ALL"]}, "seLinuxOptions": {"level": "s0"}});
    for container in pod["containers"].as_array().unwrap() {
        assert_eq!(container["securityContext"], expected);
    }
}

/// What tells objects apart in a cluster.
fn identities(objects: &[Value]) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let identity = |object: &Value| {
        let metadata = &object["metadata"];
        [&object["kind"], &metadata["namespace"], &metadata["name"]].map(text).join("/")
    };
    objects.iter().map(identity).collect()
}

#[test]
fn releases_that_differ_in_their_namespace_or_their_name_have_no_object_in_common() {
    let more = ["--set", "crds.enabled=false,sweeper.separate=true,controller.hosts.shop={shop.dev}"];
    let of =
        |release: &str, namespace: &str| chart(&[&["--namespace", namespace], &more[..]].concat(), release);
    let all = [of("one", "a"), of("one", "b"), of("two", "a"), of("a", "one")];
    let mut identities: Vec<_> = all.iter().flat_map(|objects| identities(objects)).collect();
    let made = identities.len();
    identities.sort_unstable();
    identities.dedup();
    assert_eq!(identities.len(), made);
    assert!(made > 60, "{made}");
}

#[test]
fn whoever_renames_the_objects_or_brings_accounts_has_them_bound_to_the_rights() {
    let set = "sweeper.separate=true,fullnameOverride=other,serviceAccount.name=mine,serviceAccount.create=false,\
               sweeper.serviceAccount.create=false";
    let objects = chart(&["--namespace", "here", "--set", set], "release");
    assert!(objects.iter().all(|object| object["kind"] != "ServiceAccount"));
    let accounts = objects.iter().filter(|object| object["kind"] == "Deployment").map(|deployment| {
        let account = &deployment["spec"]["template"]["spec"]["serviceAccountName"];
        (deployment["metadata"]["name"].as_str().unwrap(), account.as_str().unwrap())
    });
    assert_eq!(accounts.collect::<Vec<_>>(), [("other", "mine"), ("other-sweeper", "default")]);
    let mut bound = 0;
    for binding in objects.iter().filter(|object| object["kind"].as_str().unwrap().ends_with("Binding")) {
        let role = binding["roleRef"]["name"].as_str().unwrap();
        let account = if role.contains("sweeper") { "default" } else { "mine" };
        assert_eq!(
            binding["subjects"],
            json!([{"kind": "ServiceAccount", "name": account, "namespace": "here"}])
        );
        bound += 1;
    }
    assert_eq!(bound, 5);
}

#[test]
fn the_versions_of_program_chart_changelog_and_api_agree() {
    let version = env!("CARGO_PKG_VERSION");
    let metadata = yaml_documents(&read("charts/orders-operator/Chart.yaml")).remove(0);
    assert_eq!((&metadata["version"], &metadata["appVersion"]), (&json!(version), &json!(version)));
    let told = run(env!("CARGO_BIN_EXE_orders-operator"), &["--version"]);
    assert_eq!(String::from_utf8(told.stdout).unwrap().trim(), format!("orders-operator {version}"));
    let openapi: Value = serde_json::from_str(&read("docs/openapi.json")).unwrap();
    assert_eq!(openapi["info"]["version"], version);
    let changelog = read("CHANGELOG.md");
    let mut released = changelog.lines().filter_map(|line| line.strip_prefix("## "));
    let newest = released.find(|title| *title != "Unreleased").unwrap();
    assert_eq!(newest.split(' ').next(), Some(version), "the newest version in CHANGELOG.md");
    for page in ["README.md", "docs/installing.md", "charts/orders-operator/README.md"] {
        assert!(read(page).contains(version), "{page} does not name {version}");
    }
}

#[test]
fn artifact_hub_is_told_of_the_crd_and_has_an_example_that_is_valid() {
    let metadata = yaml_documents(&read("charts/orders-operator/Chart.yaml")).remove(0);
    let annotation = |name: &str| {
        let text = metadata["annotations"][format!("artifacthub.io/{name}")].as_str().unwrap();
        yaml_documents(text).remove(0)
    };
    let crd = yaml_documents(&read("crds/ordersservices.yaml")).remove(0);
    let told = &annotation("crds")[0];
    assert_eq!(told["kind"], crd["spec"]["names"]["kind"]);
    assert_eq!(told["name"], crd["metadata"]["name"]);
    assert_eq!(told["version"], crd["spec"]["versions"][0]["name"]);
    let example = std::env::temp_dir().join(format!("orders-operator-hub-{:016x}.json", fastrand::u64(..)));
    std::fs::write(&example, annotation("crdsExamples")[0].to_string()).unwrap();
    let render = ["render", "--default-image", "orders:1", example.to_str().unwrap()];
    let rendered = run(env!("CARGO_BIN_EXE_orders-operator"), &render);
    std::fs::remove_file(example).unwrap();
    assert!(rendered.status.success(), "{}", String::from_utf8_lossy(&rendered.stderr));
}
