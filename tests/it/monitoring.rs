//! Watching the product: what panels and alerts name is there, and each alert leads to a runbook and is tried.

use std::collections::BTreeSet;

use kube::api::{Patch, PatchParams};
use orders_operator::crd::{ConditionType::Ready, OrdersService};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::{
    api_process::Process,
    cluster::{TestNamespace, chart, eventually, root, yaml_documents},
    events::{System, leader},
    fault_proxy::{Fault, FaultProxy},
    mongo::{TestDatabase, answer, cookie},
    packaging::monitoring,
    sweeper_status::metrics_in,
};

/// What the names of our metrics begin with, and where a test compares those that panels and alerts name with a live page:
/// this module, `sweeper_status` and `events_optional`.
const PREFIXES: [&str; 7] = [
    "orders_api_",
    "orders_events_",
    "orders_operator_build",
    "orders_operator_controller_",
    "orders_operator_log_lines_",
    "orders_operator_sweeper_",
    "process_",
];

/// What the names of those begin with that only some processes have.
const OF_SOME: [&str; 4] =
    ["orders_api_", "orders_events_", "orders_operator_controller_", "orders_operator_sweeper_"];

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The alerts of the chart.
fn alerts(values: &[&str]) -> Vec<Value> {
    let objects = chart(&[&["--set", "monitoring.alerts.enabled=true"], values].concat(), "release");
    let rule = objects.into_iter().find(|object| object["kind"] == "PrometheusRule").unwrap();
    let groups = rule["spec"]["groups"].as_array().unwrap().clone();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

fn name_of(alert: &Value) -> String {
    alert["alert"].as_str().unwrap().to_owned()
}

/// The expressions of all panels, variables and alerts.
fn expressions() -> Vec<String> {
    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    match value {
                        Value::String(text) if name == "expr" => found.push(text.clone()),
                        Value::String(text) if name == "query" && text.contains('(') => {
                            let inner = text.strip_prefix("label_values(").unwrap();
                            found.push(inner.rsplit_once(',').unwrap().0.to_owned());
                        }
                        _ => collect(value, found),
                    }
                }
            }
            Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    for object in monitoring() {
        collect(&object, &mut found);
        for (_, data) in object["data"].as_object().into_iter().flatten() {
            collect(&serde_json::from_str(data.as_str().unwrap()).unwrap(), &mut found);
        }
    }
    found
}

/// Without what is between `open` and `close`.
fn without(text: &str, open: &str, close: char) -> String {
    let mut parts = text.split(open);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |all, part| all + " " + part.split_once(close).map_or("", |(_, rest)| rest))
}

/// The names of the metrics in an expression: the words that are neither functions nor operators nor labels.
fn metrics_of(expression: &str) -> BTreeSet<String> {
    const WORDS: [&str; 9] = ["and", "or", "unless", "by", "on", "ignoring", "without", "count", "sum"];
    let mut text = without(&without(expression, "{", '}'), "[", ']');
    for clause in ["by (", "on (", "group_left ("] {
        text = without(&text, clause, ')');
    }
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut names = BTreeSet::new();
    let mut rest = text.as_str();
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic()) {
        rest = &rest[start..];
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if !after.trim_start().starts_with('(') && !WORDS.contains(&word) {
            names.insert(word.to_owned());
        }
        rest = after;
    }
    names
}

#[test]
fn panels_and_alerts_name_metrics_that_a_test_compares_with_a_live_page_and_no_others() {
    let all = expressions();
    assert!(all.len() > 90, "{}", all.len());
    let mut used = BTreeSet::new();
    for expression in &all {
        let names = metrics_of(expression);
        assert!(!names.is_empty(), "{expression}");
        for name in names {
            let prefix = PREFIXES.iter().find(|prefix| name.starts_with(**prefix));
            used.insert(prefix.unwrap_or_else(|| panic!("{name} in {expression}")));
        }
    }
    assert_eq!(used.len(), PREFIXES.len(), "{used:?}");
    let example = r#"max by (a) (b_c{d="e"}) and on (job) rate(f_g[5m]) or vector(0)"#;
    assert_eq!(metrics_of(example), BTreeSet::from(["b_c".into(), "f_g".into()]));
}

#[test]
fn every_alert_leads_to_its_runbook_and_every_runbook_is_that_of_an_alert() {
    let page = read("docs/runbooks.md");
    let headings: BTreeSet<_> =
        page.lines().filter_map(|line| line.strip_prefix("### ")).map(str::to_owned).collect();
    let all = alerts(&[]);
    assert_eq!(headings, all.iter().map(name_of).collect());
    let elsewhere = "monitoring.alerts.runbooks=https://git.example/orders/runbooks.md";
    for (alert, of_elsewhere) in all.iter().zip(alerts(&["--set", elsewhere])) {
        let name = name_of(alert);
        let anchor = format!("#{}", name.to_lowercase());
        assert_eq!(alert["annotations"]["runbook_url"], format!("docs/runbooks.md{anchor}"));
        let url = &of_elsewhere["annotations"]["runbook_url"];
        assert_eq!(*url, format!("https://git.example/orders/runbooks.md{anchor}"));
        let section = page.split(&format!("### {name}\n")).nth(1).unwrap().split("\n##").next().unwrap();
        for part in ["**When:**", "**Meaning:**", "**To do:**"] {
            assert!(section.contains(part), "the runbook of {name} has no {part}");
        }
    }
}

#[test]
fn every_alert_is_tried_by_promtool_to_be_silent_to_fire_and_to_stop() {
    let minutes = |value: &Value| {
        let text = value["eval_time"].as_str().unwrap();
        text.strip_suffix('m').unwrap().parse::<u32>().unwrap()
    };
    let mut tried = BTreeSet::new();
    for entry in std::fs::read_dir(root().join("tests/alerts")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        for test in yaml_documents(&text).remove(0)["tests"].as_array().unwrap() {
            let name = test["name"].as_str().unwrap();
            let moments = test["alert_rule_test"].as_array().unwrap();
            assert!(moments.iter().all(|moment| moment["alertname"] == name), "{name}");
            let fires: Vec<_> = moments
                .iter()
                .map(|of| (minutes(of), of["exp_alerts"].as_array().is_some_and(|all| !all.is_empty())))
                .collect();
            assert!(fires.is_sorted(), "{name}: {fires:?}");
            let states: Vec<_> = fires.iter().map(|(_, fires)| *fires).collect();
            assert_eq!(states, [false, true, false], "{name}");
            tried.insert(name.to_owned());
        }
    }
    assert_eq!(tried, alerts(&[]).iter().map(name_of).collect());
}

/// The metrics of a page that have a value.
fn exported(page: &str) -> BTreeSet<&str> {
    page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect()
}

/// Compares the page of a live process with what panels and alerts name of this process and of every one, and with what the
/// documentation says that every process has: that and nothing else, besides what is of some processes.
pub(crate) fn compare(page: &str, of_process: &str) {
    let there = exported(page);
    let asked = serde_json::to_string(&monitoring()).unwrap();
    for prefix in PREFIXES.iter().filter(|prefix| **prefix == of_process || !OF_SOME.contains(prefix)) {
        let asked = metrics_in(&asked, prefix);
        assert!(!asked.is_empty(), "{prefix}");
        assert!(asked.is_subset(&there), "{:?} are not there", asked.difference(&there));
    }
    let is_of_some = |name: &str| OF_SOME.iter().any(|prefix| name.starts_with(prefix));
    let of_every: BTreeSet<_> = there.iter().copied().filter(|name| !is_of_some(name)).collect();
    for (documentation, column) in
        [("docs/monitoring.md", "metric"), ("docs/reference/metrics.md", "metric | type")]
    {
        let text = read(documentation);
        let table = text.rsplit_once(&format!("\n| {column} |")).unwrap().1;
        let explained = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        let explained: BTreeSet<_> = explained
            .map(|name| ["_total", "_info"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name))
            .collect();
        assert_eq!(explained, of_every, "what {documentation} says that every process has");
    }
}

#[tokio::test]
async fn the_metrics_of_the_controller_that_panels_and_alerts_name_are_on_its_page() {
    let namespace = TestNamespace::create("watched").await;
    namespace.secrets("mongodb://127.0.0.1:1/orders").await;
    let controller =
        namespace.run_with("controller", &["--default-image", "registry.example/orders:2"]).await;
    namespace.apply(&namespace.service("orders", json!({}))).await.unwrap();
    let broken = json!({"auth": {"jwtSecretRef": {"name": "nowhere"}}, "ingress": {"hosts": ["broken.dev"]}});
    namespace.apply(&namespace.service("broken", broken)).await.unwrap();
    namespace.ready("orders").await;
    namespace.condition("broken", Ready, "False", "SecretNotFound").await;
    let series = |name: &str| {
        format!("orders_operator_controller_not_ready{{resource=\"{}/{name}\",reason=", namespace.name)
    };
    let (of_broken, of_orders) = (series("broken") + "\"SecretNotFound\"}", series("orders"));
    let page = eventually("it is told which one is not ready", || async {
        let page = controller.admin("/metrics").await;
        let is_whole = page.contains(&of_broken) && page.contains("controller_image_upgrades{");
        (is_whole && !page.contains(&of_orders)).then_some(page)
    })
    .await;
    compare(&page, "orders_operator_controller_");

    let mended = json!({"spec": {"auth": {"jwtSecretRef": {"name": "jwt-secret"}}}});
    let services = namespace.api::<OrdersService>();
    services.patch("broken", &PatchParams::default(), &Patch::Merge(mended)).await.unwrap();
    namespace.ready("broken").await;
    eventually("none is not ready", || async {
        let page = controller.admin("/metrics").await;
        (!page.contains("orders_operator_controller_not_ready{")).then_some(())
    })
    .await;
    namespace.remove().await;
}

/// Two alerts that lead to different things: the broker is away, and nobody publishes.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_is_not_taken_for_a_broker_that_is() {
    let system = System::new().await;
    let proxy = FaultProxy::start().await;
    let pod = system.pod_by(&proxy.uri);
    pod.wait_until_ready(true).await;
    leader(&[&pod]).await;
    drop(proxy);
    let value = |line: &str| line.rsplit_once(' ').and_then(|(_, value)| value.parse::<u64>().ok());
    eventually("publishing has failed again and again", || async {
        let page = pod.metrics().await;
        assert!(page.contains("\norders_events_connected 1\n"), "{page}");
        let failures = page.lines().filter(|line| line.starts_with("orders_events_failures_total{"));
        (failures.filter_map(value).sum::<u64>() >= 3).then_some(())
    })
    .await;
    assert_eq!(pod.metric("orders_events_has_leader").await, 0);
}

#[tokio::test]
async fn the_metrics_of_the_orders_api_that_panels_and_alerts_name_are_on_its_page() {
    let database = TestDatabase::new().await;
    let proxy = FaultProxy::start().await;
    let process = Process::start(&proxy.uri, &database.name, &[]);
    process.wait_until_ready(true).await;
    let order = json!({ "ticketId": database.ticket().await.to_string() });
    let reserve = process.by("ada", Method::POST, "/api/orders").json(&order);
    assert!(answer(reserve).await.0.is_success());
    assert_eq!(answer(process.request(Method::GET, "/api/orders")).await.0, 401);
    // A client that gives up.
    let body = json!({ "ticketId": database.ticket().await.to_string() }).to_string();
    let insert = proxy.once("insert", Fault::HoldReply);
    let mut client = tokio::net::TcpStream::connect(&process.api).await.unwrap();
    let head = format!(
        "POST /api/orders HTTP/1.1\r\nhost: x\r\ncookie: {}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        cookie("ada"),
        body.len()
    );
    client.write_all(head.as_bytes()).await.unwrap();
    insert.wait(1).await;
    drop(client);
    let page = eventually("it is counted", || async {
        let page = process.metrics().await;
        page.contains("orders_api_requests_abandoned_total{").then_some(page)
    })
    .await;
    compare(&page, "orders_api_");
}
