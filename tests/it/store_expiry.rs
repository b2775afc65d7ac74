//! The sweeper's queries: due orders are cancelled once, and no others.

use std::time::Duration;

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use mongodb::bson::{Bson, DateTime, Document, doc, oid::ObjectId};

use orders_operator::store::ExpiryQuery;

use crate::mongo::{TestDatabase, answer_of};

const NO_GRACE: Duration = Duration::ZERO;

fn at(timestamp: Timestamp) -> DateTime {
    DateTime::from_millis(timestamp.as_millisecond())
}

fn now() -> Timestamp {
    Timestamp::from_millisecond(Timestamp::now().as_millisecond()).unwrap()
}

fn seconds(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

/// Stores `count` orders of one user, each for another ticket.
async fn orders(database: &TestDatabase, count: u32, status: &str, expires_at: Timestamp) {
    let order = |_| {
        doc! {
            "_id": ObjectId::new(), "userId": "u1", "status": status, "expiresAt": at(expires_at),
            "ticket": ObjectId::new(), "version": 7, "extra": "kept",
        }
    };
    database.orders().insert_many((0..count).map(order)).await.unwrap();
}

/// Reads up to `limit` due orders and cancels them. Returns how many were read, and how many cancelled.
async fn swept(database: &TestDatabase, cutoff: Timestamp, grace: Duration, limit: u32) -> (u64, u64) {
    let expiring = database.store.find_expiring(&ExpiryQuery::due(cutoff, grace, limit)).await.unwrap();
    let expired = database.store.expire(&expiring, cutoff, grace).await.unwrap();
    (expiring.due().len() as u64, expired)
}

async fn count(database: &TestDatabase, filter: Document) -> u64 {
    database.orders().count_documents(filter).await.unwrap()
}

#[tokio::test]
async fn due_orders_are_cancelled_once_by_concurrent_sweeps() {
    let database = TestDatabase::new().await;
    let cutoff = now();
    orders(&database, 300, "created", cutoff - seconds(1)).await;
    orders(&database, 100, "awaiting:payment", cutoff).await;
    orders(&database, 10, "created", cutoff + SignedDuration::from_millis(1)).await;
    orders(&database, 10, "complete", cutoff - seconds(1)).await;
    orders(&database, 10, "cancelled", cutoff - seconds(1)).await;

    let mut expired = 0;
    loop {
        let batches = join_all((0..4).map(|_| swept(&database, cutoff, NO_GRACE, 50))).await;
        assert!(batches.iter().all(|(due, now)| *due <= 50 && now <= due));
        expired += batches.iter().map(|(_, now)| now).sum::<u64>();
        if batches.iter().all(|(due, _)| *due == 0) {
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
async fn an_order_whose_payment_has_begun_has_the_grace_period() {
    let database = TestDatabase::new().await;
    let (cutoff, grace) = (now(), Duration::from_secs(60));
    orders(&database, 2, "created", cutoff).await;
    orders(&database, 3, "awaiting:payment", cutoff - seconds(59)).await;
    orders(&database, 4, "awaiting:payment", cutoff - seconds(60)).await;
    assert_eq!(database.store.count_due(&ExpiryQuery::due(cutoff, grace, 100)).await.unwrap(), 6);
    assert_eq!(database.store.count_due(&ExpiryQuery::due(cutoff, grace, 4)).await.unwrap(), 4);
    assert_eq!(swept(&database, cutoff, grace, 100).await, (6, 6));
    assert_eq!(count(&database, doc! { "status": "awaiting:payment" }).await, 3);
    assert_eq!(swept(&database, cutoff, grace, 100).await, (0, 0));
}

#[tokio::test]
async fn a_payment_that_races_with_the_sweep_either_succeeds_or_fails_as_a_whole() {
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
        let sweeps = join_all((0..3).map(|_| swept(&database, cutoff, NO_GRACE, 40)));
        let all = ExpiryQuery { after: Some(cutoff - seconds(2)), ..ExpiryQuery::due(cutoff, NO_GRACE, 40) };
        let range = async { database.store.expire_matching(&all).await.unwrap() };
        let (paid, batches, in_range) = tokio::join!(payments, sweeps, range);
        let paid: u64 = paid.iter().map(|result| result.modified_count).sum();
        let expired = in_range + batches.iter().map(|(_, expired)| expired).sum::<u64>();
        let left = count(&database, open).await;
        assert_eq!(paid + expired + left, 40, "each order moved once, or not at all");
        while swept(&database, cutoff, NO_GRACE, 40).await.0 > 0 {}
    }
    assert_eq!(count(&database, doc! { "version": { "$ne": 8 } }).await, 0);
}

#[tokio::test]
async fn the_result_tells_due_orders_from_later_ones_and_when_the_next_is_due_with_the_grace_period() {
    let database = TestDatabase::new().await;
    let (start, grace) = (now(), Duration::from_secs(60));
    let store = &database.store;
    orders(&database, 1, "created", start + seconds(20)).await;
    orders(&database, 1, "created", start + seconds(30)).await;
    orders(&database, 1, "awaiting:payment", start - seconds(45)).await;
    orders(&database, 1, "complete", start + seconds(1)).await;

    // How long each due order has been due, when the next will be, and whether the limit was reached.
    let find = |cutoff: i64, until: i64, grace: Duration, limit: u32| async move {
        let cutoff = start + seconds(cutoff);
        let query = ExpiryQuery { until: start + seconds(until), ..ExpiryQuery::due(cutoff, grace, limit) };
        let found = store.find_expiring(&query).await.unwrap();
        let overdue: Vec<_> = found.due().iter().map(|at| cutoff.duration_since(*at).as_secs()).collect();
        (overdue, found.next().map(|at| at.duration_since(start).as_secs()), found.is_full())
    };
    assert_eq!(find(-50, -46, NO_GRACE, 9).await, (vec![], None, false));
    assert_eq!(find(0, 10, NO_GRACE, 9).await, (vec![45], None, false));
    assert_eq!(find(0, 30, NO_GRACE, 9).await, (vec![45], Some(20), false));
    assert_eq!(find(0, 10, grace, 9).await, (vec![], None, false));
    assert_eq!(find(0, 15, grace, 9).await, (vec![], Some(15), false));
    assert_eq!(find(16, 60, grace, 9).await, (vec![1], Some(20), false));
    assert!(find(40, 40, NO_GRACE, 3).await.2 && !find(40, 40, NO_GRACE, 4).await.2);

    let late = ExpiryQuery {
        after: Some(start + seconds(20)),
        ..ExpiryQuery::due(start + seconds(60), NO_GRACE, 9)
    };
    assert_eq!(store.find_expiring(&late).await.unwrap().due(), [start + seconds(30)]);

    // Orders that will be due later are not cancelled.
    let ahead = ExpiryQuery { until: start + seconds(60), ..ExpiryQuery::due(start, grace, 9) };
    let expiring = store.find_expiring(&ahead).await.unwrap();
    assert_eq!(store.expire(&expiring, start, grace).await.unwrap(), 0);
    assert_eq!(
        (store.count_due(&ahead).await.unwrap(), store.expire_matching(&ahead).await.unwrap()),
        (0, 0)
    );
    assert_eq!(count(&database, doc! { "version": 7 }).await, 4);
}

#[tokio::test]
async fn a_range_excludes_its_start_includes_its_end_and_applies_the_grace_period_to_the_cutoff() {
    let database = TestDatabase::new().await;
    let (start, grace) = (now(), Duration::from_secs(60));
    for (status, at) in
        [("created", 0), ("created", 10), ("created", 20), ("awaiting:payment", 11), ("complete", 12)]
    {
        orders(&database, 1, status, start + seconds(at)).await;
    }
    let store = &database.store;
    let range = |cutoff, after, until| ExpiryQuery {
        after: Some(start + seconds(after)),
        until: start + seconds(until),
        ..ExpiryQuery::due(start + seconds(cutoff), grace, 9)
    };
    for (cutoff, after, until, expected) in
        [(70, 0, 20, 2), (71, 0, 20, 3), (71, 10, 20, 2), (71, -1, 0, 1), (71, 20, 60, 0), (15, -1, 60, 2)]
    {
        let counted = store.count_due(&range(cutoff, after, until)).await.unwrap();
        assert_eq!(counted, expected, "{cutoff} {after} {until}");
    }
    assert_eq!(store.count_due(&ExpiryQuery { limit: 2, ..range(71, -1, 60) }).await.unwrap(), 2);

    assert_eq!(store.expire_matching(&range(71, 20, 60)).await.unwrap(), 0);
    assert_eq!(store.expire_matching(&range(71, 0, 19)).await.unwrap(), 2);
    assert_eq!(store.expire_matching(&range(71, 0, 19)).await.unwrap(), 0, "each order is cancelled once");
    assert_eq!(count(&database, doc! { "status": "cancelled", "version": 8 }).await, 2);
    assert_eq!(count(&database, doc! { "version": 7 }).await, 3);
}

#[tokio::test]
async fn the_expiry_queries_use_the_partial_index() {
    let database = TestDatabase::new().await;
    let cutoff = now();
    orders(&database, 2000, "cancelled", cutoff - seconds(1)).await;
    orders(&database, 20, "created", cutoff - seconds(1)).await;
    let due = doc! {
        "status": { "$in": ["created", "awaiting:payment"] }, "expiresAt": { "$lte": at(cutoff) },
        "$or": [{ "status": "created" }, { "expiresAt": { "$lte": at(cutoff - seconds(60)) } }],
    };
    let mut within = due.clone();
    within.insert("expiresAt", doc! { "$lte": at(cutoff), "$gt": at(cutoff - seconds(2)) });
    for command in [
        doc! { "find": "orders", "filter": due, "projection": { "_id": 1 }, "limit": 10 },
        doc! { "count": "orders", "query": within, "limit": 10 },
    ] {
        let plan = database.explain(command).await;
        assert!(plan.contains("open_orders_by_expiry"), "{plan}");
    }
}
