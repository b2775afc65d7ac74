//! What others write reaches the log, and what commands print, as text and as nothing else.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
    sync::mpsc::channel,
};

use axum::{Router, http::StatusCode};
use mongodb::bson::doc;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::spawn_blocking};

use crate::{
    api_process::Process,
    cluster::{PATIENCE, eventually},
    fault_proxy::{Fault, FaultProxy},
    mongo::{TestDatabase, answer, uri},
};

/// Clears the screen in two ways, turns around what follows, and forges a line.
const ATTACK: &str = "a\u{1b}[2J\u{9b}2Jb\u{202e}\r\n2026-11-26T00:00:00.000000Z ERROR forged";

/// The same as it may be shown, in a text and in JSON.
const SHOWN: [&str; 2] = [
    "a\\u{1b}[2J\\u{9b}2Jb\\u{202e}\\r\\n2026-11-26T00:00:00.000000Z ERROR forged",
    "a\\u001b[2J\\u009b2Jb\\u202e\\r\\n2026-11-26T00:00:00.000000Z ERROR forged",
];

/// A file of this test.
fn file(name: &str, content: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("orders-operator-{:08x}-{name}", fastrand::u32(..)));
    std::fs::write(&path, content).unwrap();
    path
}

/// The kubeconfig of an API server that refuses everything in these words.
async fn refusing(words: &'static str) -> PathBuf {
    let answer = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403, "message": words
    });
    let json = [("content-type", "application/json")];
    let router =
        Router::new().fallback(move || async move { (StatusCode::FORBIDDEN, json, answer.to_string()) });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": format!("http://{address}")}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    });
    file("kubeconfig", &config.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn in_neither_format_of_the_log_is_a_control_character_and_no_line_can_be_forged() {
    let kubeconfig = refusing(ATTACK).await;
    for (format, shown) in ["text", "json"].into_iter().zip(SHOWN) {
        let mut sweeper = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", env!("CARGO_BIN_EXE_orders-operator"), "sweeper"])
            .args(["--admin-port", "0", "--log-format", format])
            .env("KUBECONFIG", &kubeconfig)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let log = BufReader::new(sweeper.stderr.take().unwrap());
        std::thread::spawn(move || log.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        loop {
            let line = lines.recv_timeout(PATIENCE).expect("the refusal is logged");
            assert!(!line.chars().any(char::is_control) && !line.contains('\u{202e}'), "{line:?}");
            if format == "json" {
                let fields: Value = serde_json::from_str(&line).unwrap();
                assert!(fields["timestamp"].is_string(), "{line}");
                if let Some(error) = fields["error"].as_str() {
                    assert!(line.contains(shown) && error.contains(ATTACK), "{line}");
                    break;
                }
            } else {
                let level = line.split_whitespace().nth(1).unwrap();
                assert!(["INFO", "WARN"].contains(&level), "a line was forged: {line}");
                if line.contains("the watch on OrdersServices failed") {
                    assert!(line.contains(shown), "{line}");
                    break;
                }
            }
        }
        sweeper.kill().unwrap();
        sweeper.wait().unwrap();
    }
    // The last words of a process are no line of the log, but are written in the same place.
    let once = Command::new(env!("CARGO_BIN_EXE_orders-operator"))
        .args(["sweeper", "--once"])
        .env("KUBECONFIG", &kubeconfig)
        .output()
        .unwrap();
    let last = String::from_utf8(once.stderr).unwrap();
    assert_eq!(last.lines().count(), 1, "{last:?}");
    assert!(last.contains(SHOWN[0]) && last.starts_with("orders-operator: "), "{last:?}");
    std::fs::remove_file(kubeconfig).unwrap();
}

#[tokio::test]
async fn what_a_command_prints_of_others_has_no_control_character() {
    let database = TestDatabase::new().await;
    let order = doc! { "_id": "a\u{1b}[2J\u{9b}2J", "userId": "u1", "status": "created" };
    database.orders().insert_one(order).await.unwrap();
    let service = file(
        "service",
        r#"{apiVersion: ticketing.dev/v1alpha1, kind: OrdersService, metadata: {name: a}, spec: {"a\e[2J": 1}}"#,
    );
    let ticket = file("ticket", r#"{"id": "\u009b2J"}"#);
    for (arguments, shown) in [
        (["render", service.to_str().unwrap()].as_slice(), "\\u{1b}[2J"),
        (&["tickets", "import", "--on-error", "skip", ticket.to_str().unwrap()], "\\u{9b}2J"),
        (&["orders", "check"], "a\\u{1b}[2J\\u{9b}2J"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_orders-operator"));
        command.args(arguments).env("MONGO_URI", uri()).env("MONGO_DATABASE", &database.name);
        let output = spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let printed = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(printed.contains(shown), "{arguments:?}: {printed:?}");
        assert!(!printed.chars().any(|c| c.is_control() && c != '\n'), "{arguments:?}: {printed:?}");
    }
    for input in [service, ticket] {
        std::fs::remove_file(input).unwrap();
    }
}

/// Waits for a line of the log with this in it.
async fn line_with(process: &Process, words: &str) -> String {
    eventually(words, || {
        let line = process.lines.try_iter().find(|line| line.contains(words));
        async move { line }
    })
    .await
}

#[tokio::test]
async fn of_a_path_that_a_stranger_chooses_the_log_has_the_beginning() {
    let database = TestDatabase::bare().await;
    let process = Process::start(&uri(), &database.name, &[]);
    let path = format!("/api/orders/{}", "x".repeat(20_000));
    answer(process.request(Method::GET, &path)).await;
    let line = line_with(&process, "\"answered\"").await;
    assert!(line.len() < 1_000 && line.contains("/api/orders/xxx"), "{line}");
}

#[tokio::test]
async fn a_request_that_is_too_long_for_its_time_says_what_the_database_did_and_is_counted() {
    let (database, proxy) = (TestDatabase::bare().await, FaultProxy::start().await);
    let process = Process::start(&proxy.uri, &database.name, &[]);
    process.wait_until_ready(true).await;
    let ticket = database.ticket().await;
    let body = json!({ "ticketId": ticket.to_string() });
    let reserve = || process.by("u1", Method::POST, "/api/orders").json(&body);
    let held = proxy.on("insert", Fault::HoldRequest);
    let (status, _) = answer(reserve()).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let line = line_with(&process, "the database is unavailable").await;
    assert!(line.contains("storing an order") || line.contains("reserving a ticket"), "{line}");
    let outcome = |outcome: &str| format!("orders_api_reservations_total{{outcome=\"{outcome}\"}}");
    assert_eq!(process.metric(&outcome("unavailable")).await, 1);

    // Nobody waits for the answer to this one.
    let known = held.happened();
    let given_up = tokio::spawn(reserve().send());
    held.wait(known + 1).await;
    given_up.abort();
    eventually("it is counted", || async {
        (process.metric(&outcome("unanswered")).await == 1).then_some(())
    })
    .await;
    held.lift();
}
