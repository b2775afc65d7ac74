//! A database that answers what none should: more than was asked for, larger than anybody needs, or plainly untrue. That
//! costs the product no memory, no thread and no log.

use std::process::Command;

use jiff::{SignedDuration, Timestamp};
use mongodb::bson::{DateTime, Document, doc, oid::ObjectId};
use orders_operator::store::{ExpiryQuery, StoreError};
use tokio::task::spawn_blocking;

use crate::{
    fault_proxy::{Fault, FaultProxy},
    mongo::TestDatabase,
};

const LIMIT: u32 = 10;

fn query() -> ExpiryQuery {
    ExpiryQuery::due(Timestamp::now(), std::time::Duration::ZERO, LIMIT)
}

/// A part of an answer to a query, after which there is always more.
fn part(name: &str, documents: Vec<Document>) -> Document {
    doc! { "ok": 1, "cursor": { "id": 77_i64, "ns": "orders.orders", name: documents } }
}

fn due() -> Document {
    let at = Timestamp::now() - SignedDuration::from_secs(60);
    doc! { "_id": ObjectId::new(), "status": "created", "expiresAt": DateTime::from_millis(at.as_millisecond()) }
}

#[tokio::test]
async fn a_query_without_end_gives_what_was_asked_for() {
    let (database, proxy) = (TestDatabase::new().await, FaultProxy::start().await);
    let store = proxy.store(&database).await;
    let first = proxy.on("find", Fault::Answer(part("firstBatch", vec![due(); 4])));
    let next = proxy.on("getMore", Fault::Answer(part("nextBatch", vec![due(); 4])));
    let found = store.find_expiring(&query()).await.unwrap();
    assert_eq!((found.due().len(), found.is_full()), (LIMIT as usize, true));
    assert_eq!((first.happened(), next.happened()), (1, 2));
}

#[tokio::test]
async fn a_list_of_indexes_without_end_is_read_no_further_than_its_beginning() {
    let (database, proxy) = (TestDatabase::new().await, FaultProxy::start().await);
    let store = proxy.store(&database).await;
    let others = || (0..300).map(|number| doc! { "v": 2, "key": { "a": 1 }, "name": format!("a{number}") });
    let listed = proxy.on("listIndexes", Fault::Answer(part("firstBatch", others().collect())));
    let next = proxy.on("getMore", Fault::Answer(part("nextBatch", others().collect())));
    // Ours seem to be missing, and the database is asked for them.
    let error = store.ensure_indexes().await.unwrap_err();
    assert!(matches!(error, StoreError::MissingIndex { .. }), "{error}");
    assert_eq!((listed.happened(), next.happened()), (2, 0));
    assert_eq!(proxy.seen("createIndexes").len(), 5);
}

#[tokio::test]
async fn an_order_whose_id_is_huge_is_not_kept() {
    let (database, proxy) = (TestDatabase::new().await, FaultProxy::start().await);
    let store = proxy.store(&database).await;
    let with_id = |length: usize| {
        let mut order = due();
        order.insert("_id", "x".repeat(length));
        order
    };
    let answer = doc! { "ok": 1, "cursor": {
        "id": 0_i64, "ns": "orders.orders", "firstBatch": [due(), with_id(1_000_000), with_id(100)],
    } };
    let huge = proxy.once("find", Fault::Answer(answer));
    assert_eq!(store.find_expiring(&query()).await.unwrap().due().len(), 2);
    assert_eq!(huge.happened(), 1);
}

#[tokio::test]
async fn of_a_server_s_words_the_log_gets_the_beginning_and_no_control_characters() {
    let (database, proxy) = (TestDatabase::new().await, FaultProxy::start().await);
    let store = proxy.store(&database).await;
    let words = format!("no\u{1b}[2J\nway {}", "x".repeat(1_000_000));
    let refused = proxy.once("find", Fault::error(2, &words));
    let error = store.find_expiring(&query()).await.unwrap_err().to_string();
    assert!(error.contains("no [2J way xxx") && error.len() < 2000, "{} bytes: {error:.2000}", error.len());
    assert_eq!(refused.happened(), 1);
}

#[tokio::test]
async fn a_server_that_claims_to_have_cancelled_more_orders_than_there_are_is_not_believed() {
    let (database, proxy) = (TestDatabase::new().await, FaultProxy::start().await);
    database.many_orders("u1", 1500, doc! { "expiresAt": DateTime::from_millis(0) }).await;
    for minute in 1..30 {
        let at = Timestamp::now() - SignedDuration::from_mins(minute);
        let fields = doc! { "expiresAt": DateTime::from_millis(at.as_millisecond()) };
        database.many_orders("u1", 100, fields).await;
    }
    let untrue = proxy.on(
        "update",
        Fault::change("all orders of the world are cancelled", |reply| {
            reply.insert("n", i64::MAX);
            reply.insert("nModified", i64::MAX);
        }),
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_orders-operator"));
    command.args(["sweeper", "--once", "--uri", &proxy.uri, "--database", &database.name]);
    let ended = spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(ended.status.success(), "{ended:?}");
    assert!(untrue.happened() > 1);
    let open = database.orders().count_documents(doc! { "status": { "$ne": "cancelled" } }).await.unwrap();
    assert_eq!(open, 0);
}
