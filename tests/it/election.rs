//! A database that is away for a while: requests wait for it, and those that cannot say so.

use std::time::{Duration, Instant};

use futures::future::join_all;
use mongodb::bson::{Document, doc};
use orders_operator::store::DEADLINE;
use reqwest::{Method, StatusCode, header::RETRY_AFTER};
use serde_json::json;

use crate::{
    api_process::Process,
    cluster::eventually,
    fault_proxy::{Fault, FaultProxy, Rule},
    mongo::{TestDatabase, answer},
};

/// All commands of requests and checks.
const COMMANDS: [&str; 5] = ["find", "insert", "update", "findAndModify", "listIndexes"];

#[tokio::test]
async fn a_request_waits_out_an_election_and_the_pod_stays_ready() {
    let database = TestDatabase::bare().await;
    let (ticket, order) = (database.ticket().await, database.mongoose_order(doc! {}).await);
    let proxy = FaultProxy::start().await;
    let process = Process::start(&proxy.uri, &database.name, &[]);
    process.wait_until_ready(true).await;

    let election = COMMANDS.map(|command| proxy.on(command, Fault::error(10107, "not primary")));
    let (started, path) = (Instant::now(), format!("/api/orders/{order}"));
    let body = json!({ "ticketId": ticket.to_string() });
    let requests = [
        (process.by("u2", Method::POST, "/api/orders").json(&body), StatusCode::CREATED),
        (process.by("u1", Method::GET, &path), StatusCode::OK),
        (process.by("u1", Method::DELETE, &path), StatusCode::NO_CONTENT),
        (process.by("u1", Method::GET, "/api/orders?limit=10"), StatusCode::OK),
    ];
    let requests =
        join_all(requests.map(|(request, status)| async move { (answer(request).await.0, status) }));
    let end = async {
        let over = DEADLINE + Duration::from_secs(2);
        eventually("it takes longer than one attempt may", || async {
            (started.elapsed() > over).then_some(())
        })
        .await;
        assert_eq!(process.readyz().await.0, StatusCode::OK);
        election.iter().for_each(Rule::lift);
    };
    let (answers, ()) = tokio::join!(requests, end);
    for (status, wanted) in answers {
        assert_eq!(status, wanted);
    }
    assert!(election.iter().any(|rule| rule.happened() > 4));
}

#[tokio::test]
async fn whatever_says_that_the_database_is_away_or_too_slow_is_answered_with_503_and_retry_after() {
    let database = TestDatabase::bare().await;
    let proxy = FaultProxy::start().await;
    let process = Process::start(&proxy.uri, &database.name, &[]);
    process.wait_until_ready(true).await;
    let labelled =
        doc! { "ok": 0.0, "errmsg": "no more", "code": 4711, "errorLabels": ["RetryableWriteError"] };
    let codes = [50, 133, 134, 175, 202, 462, 10058, 11601];
    let replies = codes.map(|code| doc! { "ok": 0.0, "errmsg": "not now", "code": code });
    let mut requests = Vec::new();
    for (at, reply) in replies.into_iter().chain([labelled]).enumerate() {
        let key = format!("key-{at}");
        let ticket = database.ticket().await;
        let request = process.by("u1", Method::POST, "/api/orders").header("idempotency-key", &key);
        let has_key = move |find: &Document| {
            find.get_document("filter").and_then(|filter| filter.get_str("idempotencyKey")).ok()
                == Some(key.as_str())
        };
        let rule = proxy.when("find", usize::MAX, has_key, Fault::Answer(reply));
        let body = json!({ "ticketId": ticket.to_string() });
        requests.push(async move { (rule, request.json(&body).send().await.unwrap()) });
    }
    for (rule, response) in join_all(requests).await {
        assert!(rule.happened() > 0);
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{rule:?}");
        assert!(response.headers().contains_key(RETRY_AFTER), "{rule:?}");
    }
    assert_eq!(database.orders().count_documents(doc! {}).await.unwrap(), 0);
}
