//! Orders last as long as they should by the database's clock, however wrong the clock of a pod is.

use std::time::Duration;

use jiff::Timestamp;
use mongodb::bson::{DateTime, doc, oid::ObjectId};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    api_process::Process,
    bed::setting,
    cluster::{PATIENCE, eventually},
    mongo::{TestDatabase, answer, uri},
};

/// A pod whose clock is ahead of the database's by so many seconds.
async fn pod(database: &TestDatabase, ahead: i64) -> Process {
    let (library, clock) = (setting("LIBFAKETIME"), format!("{ahead:+}s"));
    let environment =
        [("LD_PRELOAD", library.as_str()), ("FAKETIME", &clock), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
    let process = Process::start(&uri(), &database.name, &environment);
    process.wait_until_ready(true).await;
    process
}

#[tokio::test]
async fn an_order_lasts_its_window_by_the_databases_clock_and_a_wrong_clock_is_told_once() {
    for ahead in [-1000, 3600] {
        let database = TestDatabase::bare().await;
        let ticket = database.ticket().await;
        let pod = pod(&database, ahead).await;
        let before = database.store.server_time().await.unwrap();
        let reserve =
            pod.by("u1", Method::POST, "/api/orders").json(&json!({ "ticketId": ticket.to_string() }));
        let (status, order) = answer(reserve).await;
        let after = database.store.server_time().await.unwrap();
        assert_eq!(status, StatusCode::CREATED);
        let expires_at: Timestamp = order["expiresAt"].as_str().unwrap().parse().unwrap();
        let window = Duration::from_secs(900);
        // The estimate is wrong by no more than a reply took, which makes the window longer and never shorter. The clock
        // is wrong by much more than that.
        let (earliest, latest) = (before + window, after + window + PATIENCE);
        let millis = Duration::from_millis(1);
        assert!(
            (earliest - millis..=latest).contains(&expires_at),
            "{expires_at} after {before}, clock {ahead:+}"
        );

        let offset = eventually("the metric is there", || async {
            let metrics = pod.metrics().await;
            let line =
                metrics.lines().find_map(|line| line.strip_prefix("orders_api_clock_offset_seconds "))?;
            line.parse::<f64>().ok()
        })
        .await;
        assert!((offset + ahead as f64).abs() < PATIENCE.as_secs_f64(), "{offset}");
        // It has been checked more than once by the time that a later check is reported.
        database.drop_index("user_orders").await;
        let mut told = 0;
        loop {
            let line = pod.lines.recv_timeout(PATIENCE).unwrap();
            let line: Value = serde_json::from_str(&line).unwrap();
            let message = line["message"].as_str().unwrap_or_default();
            told += usize::from(message.contains("clock differs"));
            if message.contains("not ready") {
                break;
            }
        }
        assert_eq!(told, 1);
    }
}

#[tokio::test]
async fn an_overdue_order_is_told_from_others_by_the_databases_clock() {
    let database = TestDatabase::bare().await;
    for ahead in [-1000, 3600] {
        let pod = pod(&database, ahead).await;
        for (seconds, status) in [(-1, StatusCode::CREATED), (120, StatusCode::BAD_REQUEST)] {
            let ticket = database.ticket().await;
            let now = database.store.server_time().await.unwrap().as_millisecond();
            let held = doc! {
                "ticket": ObjectId::from(ticket.bytes()),
                "expiresAt": DateTime::from_millis(now + seconds * 1000),
            };
            database.mongoose_order(held).await;
            let body = json!({ "ticketId": ticket.to_string() });
            let answer = answer(pod.by("u2", Method::POST, "/api/orders").json(&body)).await;
            assert_eq!(answer.0, status, "{seconds} s left, clock {ahead:+}");
        }
    }
}
