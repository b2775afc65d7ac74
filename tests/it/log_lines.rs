//! What others write reaches the log, and what commands print, as text and as nothing else.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
    sync::mpsc::channel,
};

use axum::{Router, http::StatusCode};
use mongodb::bson::doc;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::spawn_blocking};

use crate::{
    cluster::PATIENCE,
    mongo::{TestDatabase, uri},
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
