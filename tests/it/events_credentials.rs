//! How pods show a NATS server who they are: by a user and a password, a token, or the credentials of an operator's user.

use std::process::{Command, Stdio};

use serde_json::Value;
use tokio::task::spawn_blocking;

use crate::{
    api_process::Process,
    cluster::{eventually, root},
    events::{System, reserve},
    nats::Nats,
};

/// Reserves something, and waits until the broker has acknowledged its event.
async fn is_told(system: &System, pod: &Process) {
    pod.wait_until_ready(true).await;
    reserve(pod, "ada", system.database.ticket().await).await.unwrap();
    system.all_told().await;
    let page = pod.metrics().await;
    assert!(page.contains("orders_events_published_total{subject=\"order:created\"} 1"), "{page}");
}

async fn is_refused(pod: &Process) -> String {
    eventually("the log says that the server refuses", || {
        let line = pod.lines.try_iter().find(|line| line.contains("BrokerRefused"));
        async move { line }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_a_password_and_a_token_are_taken_from_the_url() {
    for (config, login, wrong) in [
        ("authorization { user: orders, password: \"p@ss/%\" }", "orders:p%40ss%2F%25@", "orders:hunter2@"),
        ("authorization { token: \"t0k/n\" }", "t0k%2Fn@", "hunter2@"),
    ] {
        let server = Nats::with(config).await;
        let url = |login: &str| server.url().replace("//", &format!("//{login}"));
        let system = System::with(url(login)).await;
        is_told(&system, &system.pod()).await;
        let line = is_refused(&system.pod_by_broker(&url(wrong))).await;
        assert!(line.contains("check the credentials") && !line.contains("hunter2"), "{line}");
    }
}

/// The configuration of a server, and a user's credentials.
async fn credentials() -> (String, String) {
    let mut node = Command::new("node");
    node.arg(root().join("tests/mongoose/credentials.js")).stdin(Stdio::null());
    let output = spawn_blocking(move || node.output().expect("node is installed")).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let made: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    (text("config"), text("creds"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_credentials_of_an_operators_user_are_read_from_a_file_again_and_again() {
    let (config, creds) = credentials().await;
    let (_, of_another_operator) = credentials().await;
    let server = Nats::with(&config).await;
    let system = System::with(server.url()).await;
    let file = server.folder().join("orders.creds");
    let pod = system.pod_set(&[("NATS_CREDS_FILE", file.to_str().unwrap())]);
    let line = is_refused(&pod).await;
    assert!(line.contains("the credentials in") && line.contains("orders.creds"), "{line}");
    std::fs::write(&file, of_another_operator).unwrap();
    eventually("the server has refused them", || async {
        let page = pod.metrics().await;
        let failures = "orders_events_failures_total{reason=\"BrokerRefused\"} ";
        let count: u32 = page.lines().find_map(|line| line.strip_prefix(failures))?.parse().ok()?;
        (count > 4).then_some(())
    })
    .await;
    assert_eq!(pod.metric("orders_events_connected").await, 0);
    std::fs::write(&file, &creds).unwrap();
    is_told(&system, &pod).await;
    // Nothing of them is in the log.
    let seed = creds.lines().find(|line| line.starts_with("SU")).unwrap();
    assert!(!pod.lines.try_iter().any(|line| line.contains(seed)));
}
