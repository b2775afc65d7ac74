//! The sweeper's queries: what is due is cancelled once, and nothing else is touched.

use std::time::Duration;

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use mongodb::bson::{Bson, DateTime, Document, doc, oid::ObjectId};

use crate::mongo::{TestDatabase, answer_of};

const NO_GRACE: Duration = Duration::ZERO;

fn at(moment: Timestamp) -> DateTime {
    DateTime::from_millis(moment.as_millisecond())
}

fn now() -> Timestamp {
    Timestamp::from_millisecond(Timestamp::now().as_millisecond()).unwrap()
}

fn seconds(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

/// Many orders of one user, each on a ticket of its own.
async fn orders(database: &TestDatabase, count: u32, status: &str, expires_at: Timestamp) {
    let order = |_| {
        doc! {
            "_id": ObjectId::new(), "userId": "u1", "status": status, "expiresAt": at(expires_at),
            "ticket": ObjectId::new(), "version": 7, "extra": "kept",
        }
    };
    database.orders().insert_many((0..count).map(order)).await.unwrap();
}

async fn count(database: &TestDatabase, filter: Document) -> u64 {
    database.orders().count_documents(filter).await.unwrap()
}

#[tokio::test]
async fn what_is_due_is_cancelled_once_though_many_sweep_at_once() {
    let database = TestDatabase::new().await;
    let cutoff = now();
    orders(&database, 300, "created", cutoff - seconds(1)).await;
    orders(&database, 100, "awaiting:payment", cutoff).await;
    orders(&database, 10, "created", cutoff + SignedDuration::from_millis(1)).await;
    orders(&database, 10, "complete", cutoff - seconds(1)).await;
    orders(&database, 10, "cancelled", cutoff - seconds(1)).await;

    let mut expired = 0;
    loop {
        let sweeps = (0..4).map(|_| database.store.expire_batch(cutoff, NO_GRACE, 50));
        let batches: Vec<_> = join_all(sweeps).await.into_iter().map(Result::unwrap).collect();
        assert!(batches.iter().all(|batch| batch.claimed <= 50 && batch.expired <= batch.claimed));
        expired += batches.iter().map(|batch| batch.expired).sum::<u64>();
        if batches.iter().all(|batch| batch.claimed == 0) {
            break;
        }
    }
    assert_eq!(expired, 400);
    assert_eq!(count(&database, doc! { "status": "cancelled", "version": 8, "extra": "kept" }).await, 400);
    assert_eq!(count(&database, doc! { "version": 7 }).await, 30);
    assert_eq!(count(&database, doc! { "status": "created" }).await, 10);
    assert_eq!(count(&database, doc! { "status": "complete" }).await, 10);
}

#[tokio::test]
async fn an_order_that_is_being_paid_for_has_the_grace_on_top() {
    let database = TestDatabase::new().await;
    let (cutoff, grace) = (now(), Duration::from_secs(60));
    orders(&database, 2, "created", cutoff).await;
    orders(&database, 3, "awaiting:payment", cutoff - seconds(59)).await;
    orders(&database, 4, "awaiting:payment", cutoff - seconds(60)).await;
    let batch = database.store.expire_batch(cutoff, grace, 100).await.unwrap();
    assert_eq!((batch.claimed, batch.expired), (6, 6));
    assert_eq!(count(&database, doc! { "status": "awaiting:payment" }).await, 3);
    assert_eq!(database.store.expire_batch(cutoff, grace, 100).await.unwrap().claimed, 0);
}

#[tokio::test]
async fn payments_and_cancellations_that_race_with_the_sweep_win_or_lose_whole() {
    let database = TestDatabase::new().await;
    for _ in 0..5 {
        let cutoff = now();
        orders(&database, 40, "created", cutoff - seconds(1)).await;
        let open = doc! { "status": "created" };
        let pay = doc! { "$set": { "status": "complete" }, "$inc": { "version": 1 } };
        let orders = database.orders();
        let ids: Vec<Bson> = orders.distinct("_id", open.clone()).await.unwrap();
        let payments = join_all(ids.iter().map(|id| {
            let (orders, pay) = (database.orders(), pay.clone());
            async move {
                answer_of(|| {
                    orders.update_one(doc! { "_id": id, "status": "created" }, pay.clone()).into_future()
                })
                .await
            }
        }));
        let sweeps = join_all((0..3).map(|_| database.store.expire_batch(cutoff, NO_GRACE, 40)));
        let (paid, swept) = tokio::join!(payments, sweeps);
        let paid: u64 = paid.iter().map(|result| result.modified_count).sum();
        let swept: u64 = swept.iter().map(|batch| batch.as_ref().unwrap().expired).sum();
        let left = count(&database, open).await;
        assert_eq!(paid + swept + left, 40, "each order moved once, or not at all");
        while database.store.expire_batch(cutoff, NO_GRACE, 40).await.unwrap().claimed > 0 {}
    }
    assert_eq!(count(&database, doc! { "version": { "$ne": 8 } }).await, 0);
}

#[tokio::test]
async fn the_next_moment_is_found_within_its_bounds_and_with_the_grace() {
    let database = TestDatabase::new().await;
    let (start, grace) = (now(), Duration::from_secs(60));
    let store = &database.store;
    orders(&database, 1, "created", start + seconds(20)).await;
    orders(&database, 1, "created", start + seconds(30)).await;
    orders(&database, 1, "awaiting:payment", start - seconds(45)).await;
    orders(&database, 1, "complete", start + seconds(1)).await;

    let within = |after: i64, until: i64, grace: Duration| async move {
        let found = store.next_due(start + seconds(after), start + seconds(until), grace).await.unwrap();
        found.map(|moment| moment.duration_since(start).as_secs())
    };
    assert_eq!(within(0, 10, NO_GRACE).await, None);
    assert_eq!(within(0, 20, NO_GRACE).await, Some(20));
    assert_eq!(within(20, 60, NO_GRACE).await, Some(30));
    assert_eq!(within(-60, 60, NO_GRACE).await, Some(-45));
    assert_eq!(within(0, 60, grace).await, Some(15));
    assert_eq!(within(15, 60, grace).await, Some(20));
    assert_eq!(within(0, 14, grace).await, None);
}

#[tokio::test]
async fn the_claim_uses_the_partial_index() {
    let database = TestDatabase::new().await;
    let cutoff = now();
    orders(&database, 2000, "cancelled", cutoff - seconds(1)).await;
    orders(&database, 20, "created", cutoff - seconds(1)).await;
    let due = doc! {
        "status": { "$in": ["created", "awaiting:payment"] }, "expiresAt": { "$lte": at(cutoff) },
        "$or": [{ "status": "created" }, { "expiresAt": { "$lte": at(cutoff - seconds(60)) } }],
    };
    let plan = database
        .explain(doc! { "find": "orders", "filter": due, "projection": { "_id": 1 }, "limit": 10 })
        .await;
    assert!(plan.contains("open_orders_by_expiry"), "{plan}");
}
