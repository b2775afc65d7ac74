//! The sweeper without a cluster, and its one-shot mode.

use std::{
    process::{Command, Output},
    time::{Duration, Instant},
};

use mongodb::bson::{Bson, DateTime, Document, doc, oid::ObjectId};
use serde_json::json;
use tokio::task::spawn_blocking;

use crate::{
    cluster::TestNamespace,
    fault_proxy::{Fault, FaultProxy},
    mongo::{TestDatabase, uri},
    sweeper::{cancelled, order, service, state},
};

/// Runs the sweeper to its end, without access to a cluster.
async fn sweeper(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_orders-operator"));
    command.arg("sweeper").args(arguments).env("KUBECONFIG", "/nonexistent");
    spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn printed(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[tokio::test]
async fn one_database_is_counted_and_swept_once_without_a_cluster() {
    let database = TestDatabase::bare().await;
    let (overdue, later) =
        (order(&database, "created", -60_000).await, order(&database, "created", 60_000).await);
    let paying = order(&database, "awaiting:payment", -60_000).await;
    let target = ["--uri", &uri(), "--database", &database.name, "--payment-grace", "3600"];

    let counted = sweeper(&[&target[..], &["--dry-run"]].concat()).await;
    assert_eq!(counted.status.code(), Some(0));
    assert!(printed(&counted).ends_with("1 order due in 1 database, 0 failed\n"), "{counted:?}");
    assert_eq!(state(&database, overdue).await, ("created".into(), 0));
    let indexes = database.orders().list_index_names().await.unwrap();
    assert!(indexes.len() <= 1, "a dry run made {indexes:?}");

    let swept = sweeper(&[&target[..], &["--once"]].concat()).await;
    assert_eq!(swept.status.code(), Some(0));
    assert!(printed(&swept).ends_with("1 order expired in 1 database, 0 failed\n"), "{swept:?}");
    cancelled(&database, overdue).await;
    for (id, status) in [(later, "created"), (paying, "awaiting:payment")] {
        assert_eq!(state(&database, id).await, (status.to_owned(), 0));
    }
    // More than one batch, with a rate limit.
    database.many_orders("u1", 1500, doc! { "expiresAt": DateTime::from_millis(0) }).await;
    let swept = sweeper(&[&target[..], &["--once", "--max-per-second", "5000"]].concat()).await;
    assert!(printed(&swept).contains("1500 orders expired"), "{swept:?}");
}

#[tokio::test]
async fn it_ends_its_sessions_before_it_ends_itself_but_does_not_wait_for_ever() {
    let database = TestDatabase::new().await;
    let proxy = FaultProxy::start().await;
    let target = ["--uri", &proxy.uri, "--database", &database.name];
    for (round, mode) in (1..).zip(["--once", "--dry-run"]) {
        let swept = sweeper(&[&target[..], &[mode]].concat()).await;
        assert!(swept.status.success() && swept.stderr.is_empty(), "{swept:?}");
        assert_eq!(proxy.seen("endSessions").len(), round, "{mode}");
    }
    let held = proxy.on("endSessions", Fault::HoldReply);
    let started = Instant::now();
    let swept = sweeper(&[&target[..], &["--once"]].concat()).await;
    assert!(swept.status.success() && swept.stderr.is_empty(), "{swept:?}");
    assert_eq!(held.happened(), 1);
    assert!(started.elapsed() >= Duration::from_secs(2), "it did not wait for the database");
}

#[tokio::test]
async fn orders_that_nobody_can_read_or_cancel_delay_no_other() {
    let database = TestDatabase::bare().await;
    let target = ["--uri", &uri(), "--database", &database.name, "--once", "--max-per-second", "8"];
    // By these the query is answered first, and it cannot be said when they are due.
    let (long_ago, late) = (DateTime::from_millis(0), DateTime::from_millis(1000));
    let mut left = Vec::new();
    for _ in 0..2 {
        left.push(database.mongoose_order(doc! { "expiresAt": [Bson::DateTime(long_ago)] }).await);
        left.push(database.mongoose_order(doc! { "expiresAt": long_ago, "version": "one" }).await);
    }
    let due = database.mongoose_order(doc! { "expiresAt": late }).await;
    let swept = sweeper(&target).await;
    let log = String::from_utf8_lossy(&swept.stderr);
    assert!(printed(&swept).contains("1 order expired in 1 database, 0 failed"), "{swept:?}");
    assert_eq!(database.stored(&due).await.get_str("status").unwrap(), "cancelled");
    for id in left {
        assert!(log.contains(&id), "{log}");
        assert_eq!(database.stored(&id).await.get_str("status").unwrap(), "created");
    }
}

#[tokio::test]
async fn what_is_only_counted_keeps_no_order_from_being_cancelled() {
    let database = TestDatabase::bare().await;
    database.store.ensure_indexes().await.unwrap();
    let (overdue, proxy) = (order(&database, "created", -60_000).await, FaultProxy::start().await);
    // As if there were so many orders that the server does not find those without a due time in time.
    let counts = |command: &Document| command.to_string().contains("$not");
    let held = proxy.when("find", usize::MAX, counts, Fault::HoldReply);
    let swept = sweeper(&["--uri", &proxy.uri, "--database", &database.name, "--once"]).await;
    assert!(held.happened() > 0);
    assert!(printed(&swept).contains("1 order expired in 1 database, 0 failed"), "{swept:?}");
    cancelled(&database, overdue).await;
}

#[tokio::test]
async fn orders_without_a_due_time_are_named_and_left_as_they_are() {
    let database = TestDatabase::bare().await;
    let target = ["--uri", &uri(), "--database", &database.name, "--once"];
    database.mongoose_order(doc! { "expiresAt": Bson::Null, "status": "complete" }).await;
    let swept = sweeper(&target).await;
    assert!(!String::from_utf8_lossy(&swept.stderr).contains("without a due time"), "{swept:?}");

    let far = DateTime::from_millis(8_640_000_000_000_000);
    database.mongoose_order(doc! { "expiresAt": far }).await;
    let long_ago =
        database.mongoose_order(doc! { "expiresAt": DateTime::from_millis(-far.timestamp_millis()) }).await;
    let mut never = Vec::new();
    for value in [Bson::Null, "tomorrow".into(), Bson::Int64(0), Bson::Double(0.0)] {
        never.push(database.mongoose_order(doc! { "expiresAt": value }).await);
    }
    let missing = database.mongoose_order(doc! {}).await;
    let unset = doc! { "$unset": { "expiresAt": 1 } };
    database
        .orders()
        .update_one(doc! { "_id": ObjectId::parse_str(&missing).unwrap() }, unset)
        .await
        .unwrap();
    never.push(missing);
    let swept = sweeper(&target).await;
    let log = String::from_utf8_lossy(&swept.stderr);
    assert!(log.contains("count=5") && never.iter().filter(|id| log.contains(*id)).count() == 3, "{log}");
    assert!(printed(&swept).ends_with("1 order expired in 1 database, 0 failed\n"), "{swept:?}");
    assert_eq!(database.stored(&long_ago).await.get_str("status").unwrap(), "cancelled");
    for id in never {
        assert_eq!(database.stored(&id).await.get_str("status").unwrap(), "created");
    }
}

#[tokio::test]
async fn all_of_a_backlog_is_swept_whether_it_became_due_at_one_moment_or_over_years_and_nothing_else() {
    let database = TestDatabase::new().await;
    let now = DateTime::now().timestamp_millis();
    let at = |before: i64| doc! { "expiresAt": DateTime::from_millis(now - before) };
    let paying = |before| {
        let mut fields = at(before);
        fields.insert("status", "awaiting:payment");
        fields
    };
    // The oldest are not inserted first, and more expire at one moment than fit into a batch.
    for (count, fields) in [
        (2500, at(3_600_000)),
        (2500, paying(86_400_000)),
        (20, at(10 * 365 * 86_400_000)),
        (40, paying(30_000)),
        (40, at(-3_600_000)),
    ] {
        database.many_orders("u1", count, fields).await;
    }
    for minute in 0..60 {
        database.many_orders("u1", 20, at(minute * 60_000 + 1)).await;
    }
    let [spoiled, other] = [at(1_800_000), at(1_800_000)];
    let spoiled = database.mongoose_order(spoiled).await;
    let other = database.mongoose_order(other).await;
    let text = doc! { "$set": { "version": "one" } };
    database.orders().update_one(doc! { "_id": ObjectId::parse_str(&spoiled).unwrap() }, text).await.unwrap();

    let target = ["--uri", &uri(), "--database", &database.name, "--payment-grace", "3600", "--once"];
    let swept = sweeper(&target).await;
    assert!(printed(&swept).ends_with("6221 orders expired in 1 database, 0 failed\n"), "{swept:?}");
    let left = |filter| async { database.orders().count_documents(filter).await.unwrap() };
    assert_eq!(left(doc! { "status": "awaiting:payment", "version": 0 }).await, 40);
    assert_eq!(left(doc! { "status": "created", "version": 0 }).await, 40);
    assert_eq!(left(doc! { "status": "cancelled", "version": 1 }).await, 6221);
    assert_eq!(database.stored(&other).await.get_str("status").unwrap(), "cancelled");
    assert_eq!(database.stored(&spoiled).await.get_str("status").unwrap(), "created");
}

#[tokio::test]
async fn once_prints_a_result_for_each_resource_of_the_cluster() {
    let namespace = TestNamespace::create("once").await;
    namespace.secrets(&uri()).await;
    let (first, second) = (TestDatabase::new().await, TestDatabase::new().await);
    let (due, left) = (order(&first, "created", -1).await, order(&second, "created", -1).await);
    let suspended = json!({"expiration": {"suspend": true}});
    namespace.apply(&service(&namespace, "first", &first, json!({}))).await.unwrap();
    namespace.apply(&service(&namespace, "second", &second, suspended)).await.unwrap();
    let missing = json!({"database": {"uriSecretRef": {"name": "missing"}}});
    namespace.apply(&service(&namespace, "third", &second, missing)).await.unwrap();

    let (code, text) = namespace.output("sweeper", &["--once"]).await;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(&format!("{}: 1 order expired in", first.name)), "{text}");
    assert!(text.contains(&format!("{}: suspended, left alone", second.name)), "{text}");
    assert!(text.contains("/third: failed: Secret \"missing\" does not exist"), "{text}");
    assert!(text.ends_with("1 order expired in 3 databases, 1 failed\n"), "{text}");
    assert_eq!(state(&first, due).await, ("cancelled".into(), 1));
    assert_eq!(state(&second, left).await, ("created".into(), 0));
    namespace.remove().await;
}

#[tokio::test]
async fn an_error_ends_it_with_a_message_about_the_remedy() {
    let away = sweeper(&["--uri", "mongodb://127.0.0.1:1/orders", "--once"]).await;
    assert_eq!(away.status.code(), Some(1));
    assert!(printed(&away).contains("127.0.0.1:1/orders: failed: the database is unavailable"), "{away:?}");
    let uncounted = sweeper(&["--uri", "mongodb://127.0.0.1:1/orders", "--dry-run"]).await;
    assert_eq!(uncounted.status.code(), Some(1));
    assert!(printed(&uncounted).ends_with("0 orders due in 1 database, 1 failed\n"), "{uncounted:?}");

    let (garbage, nowhere) = (sweeper(&["--uri", "localhost/orders"]).await, sweeper(&["--once"]).await);
    assert_eq!(garbage.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&garbage.stderr).contains("write mongodb://HOST"), "{garbage:?}");
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("set KUBECONFIG"), "{nowhere:?}");
    assert_eq!(sweeper(&["--database", "x"]).await.status.code(), Some(2));

    let help = printed(&sweeper(&["--help"]).await);
    for part in ["Exit status:", "Signals:", "Examples:", "Metrics:", "--dry-run", "SWEEPER_URI"] {
        assert!(help.contains(part), "{part} is not in\n{help}");
    }
}
