//! Faults between the store and the database: lost replies, and errors that are to be retried.
//!
//! The proxy writes the errors of a failover itself, since the database of the test bed has no failover.

use std::time::Duration;

use jiff::Timestamp;
use mongodb::bson::{DateTime, doc};
use orders_operator::{
    order::{IdempotencyKey, OrderId, OrderStatus, ReservationTerms, UserId},
    store::{ExpiryQuery, ReserveError, Reserved, Settled},
};

use crate::{
    cluster::eventually,
    fault_proxy::{Fault, FaultProxy},
    mongo::TestDatabase,
};

/// What a writer sees of a conflicting write or a failover: it cannot know whether its write has happened.
fn faults() -> [Fault; 7] {
    [
        Fault::LoseReply,
        Fault::error(112, "WriteConflict error: this operation conflicted with another operation"),
        Fault::error(1, "deadlock detected"),
        Fault::error(10107, "not primary"),
        Fault::error_after(189, "the primary stepped down while the operation was in progress"),
        Fault::error_after(91, "the server is in quiesce mode and will shut down"),
        Fault::error_after(11602, "operation was interrupted because of a change of state"),
    ]
}

#[tokio::test]
async fn a_reservation_is_made_once_and_succeeds_despite_any_fault() {
    for fault in faults() {
        let database = TestDatabase::new().await;
        let ticket = database.ticket().await;
        let proxy = FaultProxy::start().await;
        let (store, fault) = (proxy.store(&database).await, proxy.once("insert", fault));
        let (user, terms) = (UserId::new("u1").unwrap(), ReservationTerms::default());
        let reserved = store.reserve(&user, ticket, None, &terms).await;
        let Ok(Reserved::New(reservation)) = reserved else { panic!("{fault:?}: {reserved:?}") };
        assert_eq!(fault.happened(), 1);
        assert_eq!(database.orders().count_documents(doc! {}).await.unwrap(), 1, "{fault:?}");
        let stored = database.store.order(reservation.order.id).await.unwrap().unwrap();
        assert_eq!(stored, reservation);
    }
}

#[tokio::test]
async fn a_cancellation_adds_one_version_despite_any_fault() {
    for fault in faults() {
        let database = TestDatabase::new().await;
        let id = database.mongoose_order(doc! {}).await.parse().unwrap();
        let proxy = FaultProxy::start().await;
        let (store, fault) = (proxy.store(&database).await, proxy.once("findAndModify", fault));
        store.cancel(id, &UserId::new("u1").unwrap()).await.unwrap();
        assert_eq!(fault.happened(), 1);
        assert_eq!(status_and_version(&database, id).await, (OrderStatus::Cancelled, 1), "{fault:?}");
    }
}

#[tokio::test]
async fn a_payment_adds_one_version_despite_any_fault() {
    for fault in faults() {
        let database = TestDatabase::new().await;
        let id = database.mongoose_order(doc! {}).await.parse().unwrap();
        let proxy = FaultProxy::start().await;
        let (store, fault) = (proxy.store(&database).await, proxy.once("findAndModify", fault));
        let settled = store.settle(id, "p1", Timestamp::now(), &ReservationTerms::default()).await.unwrap();
        assert!(matches!(settled, Settled::Completed | Settled::Repeated), "{fault:?}: {settled:?}");
        assert_eq!(fault.happened(), 1);
        assert_eq!(status_and_version(&database, id).await, (OrderStatus::Complete, 1), "{fault:?}");
    }
}

#[tokio::test]
async fn an_expiry_adds_one_version_despite_any_fault() {
    for fault in faults() {
        let database = TestDatabase::new().await;
        let overdue = database.mongoose_order(doc! { "expiresAt": DateTime::from_millis(0) }).await;
        let proxy = FaultProxy::start().await;
        let (store, fault) = (proxy.store(&database).await, proxy.once("update", fault));
        let now = Timestamp::now();
        let expiring = store.find_expiring(&ExpiryQuery::due(now, Duration::ZERO, 10)).await.unwrap();
        assert_eq!(expiring.due().len(), 1, "{fault:?}");
        store.expire(&expiring, now, Duration::ZERO).await.unwrap();
        assert_eq!(fault.happened(), 1);
        let id = overdue.parse().unwrap();
        assert_eq!(status_and_version(&database, id).await, (OrderStatus::Cancelled, 1), "{fault:?}");
    }
}

#[tokio::test]
async fn a_reservation_is_not_refused_for_certain_while_the_server_may_still_carry_out_its_insert() {
    let (database, proxy) = (TestDatabase::new().await, FaultProxy::start().await);
    let (store, ticket) = (proxy.store(&database).await, database.ticket().await);
    let (alice, bob) = (UserId::new("alice").unwrap(), UserId::new("bob").unwrap());
    let (key, terms) = ("once".parse::<IdempotencyKey>().unwrap(), ReservationTerms::default());
    let late = proxy.on("insert", Fault::HoldRequest);
    let reserve = async || store.reserve(&alice, ticket, Some(&key), &terms).await;
    let of_bob = async {
        late.wait(1).await;
        database.store.reserve(&bob, ticket, None, &terms).await.unwrap().reservation().order.id
    };
    let (refused, of_bob) = tokio::join!(reserve(), of_bob);
    let Err(ReserveError::Store(error)) = refused else { panic!("{refused:?}") };
    assert!(error.is_unavailable() && error.to_string().contains("may still be carried out"), "{error}");

    // The ticket is free when the server comes to it.
    database.store.cancel(of_bob, &bob).await.unwrap();
    late.lift();
    let made = eventually("it is carried out", || async {
        database.orders().find_one(doc! { "userId": "alice" }).await.unwrap()
    })
    .await;
    let again = reserve().await;
    let Ok(Reserved::Replayed(reservation)) = again else { panic!("{again:?}") };
    assert_eq!(reservation.order.id.to_string(), made.get_object_id("_id").unwrap().to_hex());
}

async fn status_and_version(database: &TestDatabase, id: OrderId) -> (OrderStatus, u32) {
    let order = database.store.order(id).await.unwrap().unwrap().order;
    (order.status, order.version.0)
}
