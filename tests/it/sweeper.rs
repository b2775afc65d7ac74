//! The sweeper as a process with exactly the permissions of the chart, against a real API server and database.

use std::{sync::Mutex, time::Instant};

use jiff::{SignedDuration, Timestamp};
use mongodb::bson::{DateTime, doc, oid::ObjectId};
use orders_operator::crd::ConditionType::*;
use serde_json::{Value, json};

use crate::{
    cluster::{TestNamespace, eventually},
    mongo::{TestDatabase, uri},
};

/// An OrdersService whose orders are in `database`.
pub(crate) fn service(namespace: &TestNamespace, name: &str, database: &TestDatabase, patch: Value) -> Value {
    let mut object = namespace.service(name, json!({"ingress": null, "database": {"name": database.name}}));
    json_patch::merge(&mut object["spec"], &patch);
    object
}

/// Inserts an order that expires in so many milliseconds.
pub(crate) async fn order(database: &TestDatabase, status: &str, expires_in_ms: i64) -> ObjectId {
    let (id, expires_at) = (ObjectId::new(), Timestamp::now() + SignedDuration::from_millis(expires_in_ms));
    let order = doc! {
        "_id": id, "userId": "u1", "status": status, "ticket": ObjectId::new(), "version": 0,
        "expiresAt": DateTime::from_millis(expires_at.as_millisecond()),
    };
    database.orders().insert_one(order).await.unwrap();
    id
}

/// The status and version of an order.
pub(crate) async fn state(database: &TestDatabase, id: ObjectId) -> (String, i32) {
    let order = database.stored(&id.to_hex()).await;
    (order.get_str("status").unwrap().to_owned(), order.get_i32("version").unwrap())
}

/// Waits until the order is cancelled, and checks that it changed only once.
pub(crate) async fn cancelled(database: &TestDatabase, id: ObjectId) {
    eventually("the order is cancelled", || async {
        let (status, version) = state(database, id).await;
        (status == "cancelled").then(|| assert_eq!(version, 1))
    })
    .await;
}

#[tokio::test]
async fn orders_expire_in_the_databases_of_all_resources_and_others_stay() {
    let namespace = TestNamespace::create("sweep").await;
    namespace.secrets(&uri()).await;
    let (first, second) = (TestDatabase::new().await, TestDatabase::new().await);
    let overdue = order(&first, "created", -60_000).await;
    let paid = order(&first, "complete", -60_000).await;
    let later = order(&second, "created", 3_600_000).await;
    namespace.apply(&service(&namespace, "first", &first, json!({}))).await.unwrap();
    let sweeper = namespace.run("sweeper").await;
    cancelled(&first, overdue).await;

    // A resource is created and an order becomes due while the sweeper runs.
    namespace.apply(&service(&namespace, "second", &second, json!({}))).await.unwrap();
    let soon = order(&second, "created", 1_500).await;
    cancelled(&second, soon).await;
    let expires_at = *second.stored(&soon.to_hex()).await.get_datetime("expiresAt").unwrap();
    assert!(expires_at <= DateTime::now(), "cancelled before its time");

    // An order that becomes due while no sweeper runs is found by the next one.
    sweeper.kill();
    let missed = order(&first, "created", -1).await;
    let _sweeper = namespace.run("sweeper").await;
    cancelled(&first, missed).await;
    for (database, id, status) in [(&first, paid, "complete"), (&second, later, "created")] {
        assert_eq!(state(database, id).await, (status.to_owned(), 0));
    }
    namespace.remove().await;
}

#[tokio::test]
async fn what_is_cancelled_is_noted_where_a_resource_has_events_and_nowhere_else() {
    let namespace = TestNamespace::create("events").await;
    namespace.secrets(&uri()).await;
    let (told, silent) = (TestDatabase::bare().await, TestDatabase::bare().await);
    // One of two resources with this database has them; nobody has made the index before.
    let events = json!({"events": {"nats": {"servers": ["nats://nats"]}}});
    namespace.apply(&service(&namespace, "told", &told, events)).await.unwrap();
    namespace.apply(&service(&namespace, "other", &told, json!({}))).await.unwrap();
    namespace.apply(&service(&namespace, "silent", &silent, json!({}))).await.unwrap();
    let (first, second) = (order(&told, "created", -1000).await, order(&silent, "created", -1000).await);
    let _sweeper = namespace.run("sweeper").await;
    cancelled(&told, first).await;
    cancelled(&silent, second).await;
    let noted = told.stored(&first.to_hex()).await;
    assert!(noted.get_document("outbox").unwrap().get_datetime("since").is_ok(), "{noted}");
    assert!(!silent.stored(&second.to_hex()).await.contains_key("outbox"));
    let has_index = async |database: &TestDatabase| {
        let names = database.orders().list_index_names().await.unwrap();
        names.contains(&"untold_orders".to_owned())
    };
    assert!(has_index(&told).await && !has_index(&silent).await);
    namespace.remove().await;
}

#[tokio::test]
async fn an_unreachable_database_and_a_missing_secret_delay_no_other_database() {
    let namespace = TestNamespace::create("away").await;
    let database = TestDatabase::new().await;
    namespace.secrets(&uri()).await;
    namespace.secret("away", "MONGO_URI", "mongodb://127.0.0.1:1/orders").await;
    namespace.secret("garbage", "MONGO_URI", "no connection string").await;
    for name in ["away", "garbage", "missing"] {
        let secret = json!({"database": {"uriSecretRef": {"name": name}}});
        namespace.apply(&service(&namespace, name, &database, secret)).await.unwrap();
    }
    let _sweeper = namespace.run("sweeper").await;
    namespace.apply(&service(&namespace, "well", &database, json!({}))).await.unwrap();
    let soon = order(&database, "created", 500).await;
    cancelled(&database, soon).await;

    // The sweeper's conditions are beside the controller's.
    let _controller = namespace.run("controller").await;
    for (name, reason) in [
        ("away", "DatabaseUnreachable"),
        ("garbage", "InvalidDatabaseUri"),
        ("missing", "DatabaseUnreachable"),
    ] {
        let message = namespace.condition(name, DatabaseReady, "False", reason).await;
        assert!(!message.is_empty());
        namespace.condition(name, Sweeping, "False", reason).await;
    }
    namespace.condition("well", DatabaseReady, "True", "AsExpected").await;
    namespace.condition("well", Sweeping, "True", "AsExpected").await;
    namespace.ready("well").await;
    namespace.condition("away", Ready, "False", "DatabaseUnreachable").await;
    namespace.condition("away", Reconciled, "True", "AsExpected").await;
    namespace.condition("well", DatabaseReady, "True", "AsExpected").await;
    namespace.remove().await;
}

#[tokio::test]
async fn a_suspended_database_is_not_swept_until_it_is_resumed_and_the_payment_grace_applies() {
    let namespace = TestNamespace::create("paused").await;
    namespace.secrets(&uri()).await;
    let (paused, witness) = (TestDatabase::new().await, TestDatabase::new().await);
    let overdue = order(&paused, "created", -60_000).await;
    let paying = order(&paused, "awaiting:payment", -60_000).await;
    let spec = |suspend| json!({"expiration": {"suspend": suspend, "paymentGraceSeconds": 3600}});
    namespace.apply(&service(&namespace, "paused", &paused, spec(true))).await.unwrap();
    namespace.apply(&service(&namespace, "witness", &witness, json!({}))).await.unwrap();
    let _sweeper = namespace.run("sweeper").await;
    // Once these two are cancelled, the sweeper has processed all targets more than once.
    for expires_in_ms in [-1, 2_500] {
        let seen = order(&witness, "created", expires_in_ms).await;
        cancelled(&witness, seen).await;
    }
    assert_eq!(state(&paused, overdue).await.0, "created");
    let _controller = namespace.run("controller").await;
    namespace.condition("paused", Sweeping, "False", "Suspended").await;

    namespace.apply(&service(&namespace, "paused", &paused, spec(false))).await.unwrap();
    cancelled(&paused, overdue).await;
    assert_eq!(state(&paused, paying).await.0, "awaiting:payment");
    namespace.remove().await;
}

#[tokio::test]
async fn no_more_orders_expire_per_second_than_the_resource_allows() {
    let namespace = TestNamespace::create("pace").await;
    namespace.secrets(&uri()).await;
    let database = TestDatabase::new().await;
    let mut orders = Vec::new();
    for _ in 0..24 {
        orders.push(order(&database, "created", -60_000).await);
    }
    let slow = json!({"expiration": {"maxPerSecond": 4}});
    namespace.apply(&service(&namespace, "orders", &database, slow)).await.unwrap();
    let begun = Mutex::new(Instant::now());
    let _sweeper = namespace.run("sweeper").await;
    let (collection, all) = (database.orders(), orders.len() as u64);
    // The last moment before which none was cancelled, for sure: whatever is slow makes the time longer, and the test
    // weaker, but never red.
    let begun = eventually("the first order is cancelled", || async {
        let now = Instant::now();
        let left = collection.count_documents(doc! {"status": "created"}).await.unwrap();
        let mut begun = begun.lock().unwrap();
        if left == all {
            *begun = now;
        }
        (left < all).then_some(*begun)
    })
    .await;
    for id in orders {
        cancelled(&database, id).await;
    }
    // One at a time, and each is begun a quarter of a second after the one before: but for the first two, whose writes may
    // have been begun earlier.
    let (took, most) = (begun.elapsed(), 4.0 * begun.elapsed().as_secs_f64() + 2.0);
    assert!(all as f64 <= most, "{all} in {took:?}");
    namespace.remove().await;
}

#[tokio::test]
async fn an_order_that_the_database_refuses_to_cancel_blocks_no_other() {
    let namespace = TestNamespace::create("refused").await;
    namespace.secrets(&uri()).await;
    let database = TestDatabase::new().await;
    let mut orders = Vec::new();
    for number in 0..20 {
        orders.push(order(&database, "created", -60_000 + number).await);
    }
    // A version that is text cannot be incremented.
    let spoiled = orders.remove(0);
    let text = doc! { "$set": { "version": "one" } };
    database.orders().update_one(doc! { "_id": spoiled }, text).await.unwrap();
    namespace.apply(&service(&namespace, "orders", &database, json!({}))).await.unwrap();
    let sweeper = namespace.run("sweeper").await;
    for id in orders {
        cancelled(&database, id).await;
    }
    let later = order(&database, "created", 500).await;
    cancelled(&database, later).await;
    assert_eq!(database.stored(&spoiled.to_hex()).await.get_str("status").unwrap(), "created");
    assert!(sweeper.metric("orders_operator_sweeper_errors_total{").await >= 1.0);
    namespace.remove().await;
}
