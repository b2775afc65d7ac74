//! What `kubectl osvc check` tells without an installation of its own; `installs` has the rest.

use orders_operator::osvc::MIN_KUBERNETES;
use serde_json::{Value, json};

use crate::{
    bed::setting,
    cluster::{TestNamespace, root},
    osvc::osvc,
};

/// The lines of a level, each with what to do.
pub(crate) fn lines(report: &Value, level: &str) -> Vec<String> {
    let groups = report["groups"].as_array().unwrap().iter();
    let lines = groups.flat_map(|group| group["lines"].as_array().unwrap());
    let text = |line: &Value| {
        let todo = line["todo"].as_str().unwrap_or_default();
        assert!(level == "ok" || !todo.is_empty(), "it is not said what to do: {line}");
        format!("{} | {todo}", line["text"].as_str().unwrap())
    };
    lines.filter(|line| line["level"] == level).map(text).collect()
}

pub(crate) fn is_one_each(found: &[String], expected: &[&str]) -> bool {
    let count = |text: &&str| found.iter().filter(|line| line.contains(*text)).count();
    found.len() == expected.len() && expected.iter().all(|text| count(text) == 1)
}

/// Checks that there is one line for each of these texts, and no other.
pub(crate) fn one_each(found: &[String], expected: &[&str]) {
    assert!(is_one_each(found, expected), "{expected:?}: {found:#?}");
}

#[tokio::test]
async fn two_resources_with_the_same_subjects_at_one_broker_and_a_database_each_are_told_before_any_pod_runs()
{
    let namespace = TestNamespace::create("osvc-subjects").await;
    for (name, database) in [("one", "a"), ("two", "b")] {
        let events = json!({"nats": {"servers": ["nats://nats:4222"]}});
        let patch = json!({"database": {"name": database}, "events": events, "ingress": null});
        namespace.apply(&namespace.service(name, patch)).await.unwrap();
    }
    let told = osvc(&setting("KUBECONFIG"), &["check", "-n", &namespace.name, "-o", "json"]).await;
    let warnings = lines(&told.json(), "warning");
    for other in ["one", "two"] {
        let expected = format!("OrdersService \"{other}\" has the same subjects at the same broker");
        let count = warnings.iter().filter(|line| line.starts_with(&expected)).count();
        assert_eq!(count, 1, "{warnings:#?}");
    }
    namespace.remove().await;
}

#[tokio::test]
async fn a_cluster_that_does_not_answer_is_one_failure() {
    let kubeconfig = std::env::temp_dir().join(format!("orders-operator-osvc-{:016x}", fastrand::u64(..)));
    let away = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "away",
        "clusters": [{"name": "away", "cluster": {"server": "http://127.0.0.1:1"}}],
        "contexts": [{"name": "away", "context": {"cluster": "away", "user": "nobody"}}],
        "users": [{"name": "nobody", "user": {}}]
    });
    std::fs::write(&kubeconfig, away.to_string()).unwrap();
    let told = osvc(kubeconfig.to_str().unwrap(), &["check", "-o", "json"]).await;
    let report = told.json();
    one_each(&lines(&report, "failure"), &["cannot read the version of the API server"]);
    assert_eq!(told.code, Some(1));
    let text = osvc(kubeconfig.to_str().unwrap(), &["check"]).await;
    assert!(text.out.ends_with("\n0 ok, 0 warnings, 1 failure\n"), "{}", text.out);
    std::fs::remove_file(kubeconfig).unwrap();
}

#[test]
fn the_oldest_kubernetes_is_the_one_that_the_chart_and_the_page_about_versions_name() {
    let (major, minor) = MIN_KUBERNETES;
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
    let of_chart = format!("kubeVersion: \">={major}.{minor}.0-0\"");
    assert!(read("charts/orders-operator/Chart.yaml").contains(&of_chart), "{of_chart}");
    assert!(read("docs/versions.md").contains(&format!("| {major}.{minor} and newer |")));
}
