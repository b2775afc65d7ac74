//! Paying for orders: only in time, and only once.

use std::time::Duration;

use futures::future::join_all;
use mongodb::bson::{Bson, DateTime, doc};
use orders_operator::{
    order::{OrderId, OrderStatus, ReservationTerms, UserId},
    store::{CancelError, PaymentError, Transitioned},
};

use crate::mongo::TestDatabase;

/// Terms with a grace period of one hour.
fn grace() -> ReservationTerms {
    ReservationTerms { payment_grace: Duration::from_secs(3600), ..ReservationTerms::default() }
}

async fn order(database: &TestDatabase, status: &str, seconds_left: i64) -> OrderId {
    let expires_at = DateTime::from_millis(DateTime::now().timestamp_millis() + 1000 * seconds_left);
    let fields = doc! { "status": status, "expiresAt": expires_at, "version": 3 };
    database.mongoose_order(fields).await.parse().unwrap()
}

async fn stored(database: &TestDatabase, id: OrderId) -> (OrderStatus, u32) {
    let order = database.store.order(id).await.unwrap().unwrap().order;
    (order.status, order.version.0)
}

#[tokio::test]
async fn an_order_without_a_due_time_can_be_paid_for() {
    let database = TestDatabase::new().await;
    for value in [Bson::Null, "2026-11-22".into(), Bson::Int64(0)] {
        let id = database.mongoose_order(doc! { "expiresAt": value }).await.parse().unwrap();
        assert!(matches!(database.store.begin_payment(id, &grace()).await.unwrap(), Transitioned::Now(_)));
        assert!(matches!(database.store.complete(id, &grace()).await.unwrap(), Transitioned::Now(_)));
    }
}

#[tokio::test]
async fn a_payment_begins_and_completes_with_one_version_each_and_repeating_it_changes_nothing() {
    let database = TestDatabase::new().await;
    let (id, terms) = (order(&database, "created", 60).await, ReservationTerms::default());
    assert!(matches!(database.store.begin_payment(id, &terms).await.unwrap(), Transitioned::Now(_)));
    assert_eq!(stored(&database, id).await, (OrderStatus::AwaitingPayment, 4));
    assert!(matches!(database.store.begin_payment(id, &terms).await.unwrap(), Transitioned::Already(_)));
    assert!(matches!(database.store.complete(id, &terms).await.unwrap(), Transitioned::Now(_)));
    assert!(matches!(database.store.complete(id, &terms).await.unwrap(), Transitioned::Already(_)));
    assert_eq!(stored(&database, id).await, (OrderStatus::Complete, 5));

    let directly = order(&database, "created", 60).await;
    assert!(matches!(database.store.complete(directly, &terms).await.unwrap(), Transitioned::Now(_)));
    assert_eq!(stored(&database, directly).await, (OrderStatus::Complete, 4));
}

#[tokio::test]
async fn a_late_payment_is_refused_and_revives_no_order() {
    let database = TestDatabase::new().await;
    let terms = ReservationTerms::default();
    let late = order(&database, "created", -1).await;
    assert!(matches!(database.store.begin_payment(late, &terms).await, Err(PaymentError::TooLate(_))));
    assert!(matches!(database.store.complete(late, &terms).await, Err(PaymentError::TooLate(_))));
    assert_eq!(stored(&database, late).await, (OrderStatus::Created, 3));

    let cancelled = order(&database, "cancelled", 60).await;
    for result in [
        database.store.begin_payment(cancelled, &terms).await,
        database.store.complete(cancelled, &terms).await,
    ] {
        let error = result.unwrap_err();
        assert!(
            matches!(&error, PaymentError::Refused { source, .. } if source.from == OrderStatus::Cancelled)
        );
        assert!(error.to_string().contains("cancelled cannot become"), "{error}");
    }
    assert_eq!(stored(&database, cancelled).await, (OrderStatus::Cancelled, 3));
}

#[tokio::test]
async fn only_a_payment_that_has_begun_has_a_grace_period() {
    let database = TestDatabase::new().await;
    let begun = order(&database, "awaiting:payment", -60).await;
    assert!(matches!(
        database.store.complete(begun, &ReservationTerms::default()).await,
        Err(PaymentError::TooLate(_))
    ));
    assert!(matches!(database.store.complete(begun, &grace()).await.unwrap(), Transitioned::Now(_)));
    let created = order(&database, "created", -60).await;
    assert!(matches!(database.store.complete(created, &grace()).await, Err(PaymentError::TooLate(_))));
    let long_ago = order(&database, "awaiting:payment", -3601).await;
    assert!(matches!(database.store.complete(long_ago, &grace()).await, Err(PaymentError::TooLate(_))));
}

#[tokio::test]
async fn a_complete_order_has_no_transition_and_an_unknown_one_is_not_found() {
    let database = TestDatabase::new().await;
    let (terms, paid) = (ReservationTerms::default(), order(&database, "complete", 60).await);
    assert!(matches!(database.store.begin_payment(paid, &terms).await, Err(PaymentError::Refused { .. })));
    let unknown = OrderId::from_bytes([7; 12]);
    assert!(matches!(database.store.complete(unknown, &terms).await, Err(PaymentError::NotFound(_))));
}

#[tokio::test]
async fn of_concurrent_payments_and_cancellations_exactly_one_succeeds() {
    let database = TestDatabase::new().await;
    let (terms, user) = (ReservationTerms::default(), UserId::new("u1").unwrap());
    for _ in 0..20 {
        let id = order(&database, "created", 60).await;
        let store = &database.store;
        let (paid, cancelled) = tokio::join!(
            join_all((0..4).map(|_| store.complete(id, &terms))),
            join_all((0..4).map(|_| store.cancel(id, &user))),
        );
        let payments = paid.iter().filter(|result| matches!(result, Ok(Transitioned::Now(_)))).count();
        let cancellations =
            cancelled.iter().filter(|result| matches!(result, Ok(Transitioned::Now(_)))).count();
        let (status, version) = stored(&database, id).await;
        assert_eq!((payments + cancellations, version), (1, 4), "{paid:?} {cancelled:?}");
        if status == OrderStatus::Complete {
            assert!(cancelled.iter().all(|result| matches!(result, Err(CancelError::Complete(_)))));
        } else {
            assert!(paid.iter().all(|result| matches!(result, Err(PaymentError::Refused { .. }))));
        }
    }
}
