//! Paying for orders: only in time, and only once.

use std::time::{Duration, Instant};

use fastrand::Rng;
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use mongodb::bson::{Bson, DateTime, doc, oid::ObjectId};
use orders_operator::{
    order::{OrderId, OrderStatus, Refusal, ReservationTerms, UserId},
    store::{CancelError, ExpiryQuery, PaymentError, ServerClock, Settled, Transitioned},
};

use crate::{bed::seed, mongo::TestDatabase};

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

/// Its payment has begun, as a neighbour tells whose broker's clock does not matter.
async fn begin(
    database: &TestDatabase,
    id: OrderId,
    terms: &ReservationTerms,
) -> Result<Transitioned, PaymentError> {
    database.store.payment_started(id, Timestamp::MAX, terms).await
}

/// A payment has come for it, likewise.
async fn pay(database: &TestDatabase, id: OrderId, payment: &str, terms: &ReservationTerms) -> Settled {
    database.store.settle(id, payment, Timestamp::MAX, terms).await.unwrap()
}

#[tokio::test]
async fn an_order_without_a_due_time_can_be_paid_for() {
    let database = TestDatabase::new().await;
    for value in [Bson::Null, "2026-11-22".into(), Bson::Int64(0)] {
        let id = database.mongoose_order(doc! { "expiresAt": value }).await.parse().unwrap();
        assert!(matches!(begin(&database, id, &grace()).await.unwrap(), Transitioned::Now(_)));
        assert_eq!(pay(&database, id, "p1", &grace()).await, Settled::Completed);
    }
}

#[tokio::test]
async fn a_payment_begins_and_completes_with_one_version_each_and_repeating_it_changes_nothing() {
    let database = TestDatabase::new().await;
    let (id, terms) = (order(&database, "created", 60).await, ReservationTerms::default());
    assert!(matches!(begin(&database, id, &terms).await.unwrap(), Transitioned::Now(_)));
    assert_eq!(stored(&database, id).await, (OrderStatus::AwaitingPayment, 4));
    assert!(matches!(begin(&database, id, &terms).await.unwrap(), Transitioned::Already(_)));
    assert_eq!(pay(&database, id, "p1", &terms).await, Settled::Completed);
    assert_eq!(pay(&database, id, "p1", &terms).await, Settled::Repeated);
    assert_eq!(stored(&database, id).await, (OrderStatus::Complete, 5));

    let directly = order(&database, "created", 60).await;
    assert_eq!(pay(&database, directly, "p1", &terms).await, Settled::Completed);
    assert_eq!(stored(&database, directly).await, (OrderStatus::Complete, 4));
}

#[tokio::test]
async fn a_late_payment_is_refused_and_revives_no_order() {
    let database = TestDatabase::new().await;
    let terms = ReservationTerms::default();
    let late = order(&database, "created", -1).await;
    assert!(matches!(begin(&database, late, &terms).await, Err(PaymentError::TooLate(_))));
    assert_eq!(pay(&database, late, "p1", &terms).await, Settled::Refused(Refusal::TooLate));
    assert_eq!(stored(&database, late).await, (OrderStatus::Created, 3));

    let cancelled = order(&database, "cancelled", 60).await;
    let error = begin(&database, cancelled, &terms).await.unwrap_err();
    assert!(matches!(&error, PaymentError::Refused { source, .. } if source.from == OrderStatus::Cancelled));
    assert!(error.to_string().contains("cancelled cannot become"), "{error}");
    assert_eq!(pay(&database, cancelled, "p1", &terms).await, Settled::Refused(Refusal::OrderCancelled));
    assert_eq!(stored(&database, cancelled).await, (OrderStatus::Cancelled, 3));
}

#[tokio::test]
async fn only_a_payment_that_has_begun_has_a_grace_period() {
    let database = TestDatabase::new().await;
    let begun = order(&database, "awaiting:payment", -60).await;
    let too_late = Settled::Refused(Refusal::TooLate);
    assert_eq!(pay(&database, begun, "p1", &ReservationTerms::default()).await, too_late);
    assert_eq!(pay(&database, begun, "p2", &grace()).await, Settled::Completed);
    let created = order(&database, "created", -60).await;
    assert_eq!(pay(&database, created, "p1", &grace()).await, too_late);
    let long_ago = order(&database, "awaiting:payment", -3601).await;
    assert_eq!(pay(&database, long_ago, "p1", &grace()).await, too_late);
}

#[tokio::test]
async fn a_complete_order_has_no_transition_and_an_unknown_one_is_not_found() {
    let database = TestDatabase::new().await;
    let (terms, paid) = (ReservationTerms::default(), order(&database, "complete", 60).await);
    assert!(matches!(begin(&database, paid, &terms).await, Err(PaymentError::Refused { .. })));
    let unknown = OrderId::from_bytes([7; 12]);
    assert!(matches!(begin(&database, unknown, &terms).await, Err(PaymentError::NotFound(_))));
    assert_eq!(pay(&database, unknown, "p1", &terms).await, Settled::OrderNotFound);
}

#[tokio::test]
async fn of_concurrent_payments_and_cancellations_exactly_one_succeeds() {
    let database = TestDatabase::new().await;
    let (terms, user) = (ReservationTerms::default(), UserId::new("u1").unwrap());
    for _ in 0..20 {
        let id = order(&database, "created", 60).await;
        let (paid, cancelled) = tokio::join!(
            join_all((0..4).map(|_| pay(&database, id, "p1", &terms))),
            join_all((0..4).map(|_| database.store.cancel(id, &user))),
        );
        let settled = |wanted| paid.iter().filter(|settled| **settled == wanted).count();
        let cancellations =
            cancelled.iter().filter(|result| matches!(result, Ok(Transitioned::Now(_)))).count();
        let (status, version) = stored(&database, id).await;
        assert_eq!((settled(Settled::Completed) + cancellations, version), (1, 4), "{paid:?} {cancelled:?}");
        assert_eq!(settled(Settled::Repeated), 3, "{paid:?}");
        if status == OrderStatus::Complete {
            assert!(cancelled.iter().all(|result| matches!(result, Err(CancelError::Complete(_)))));
        } else {
            assert_eq!(settled(Settled::Refused(Refusal::OrderCancelled)), 1, "{paid:?}");
        }
    }
}

/// Orders of which half are `created` and half `awaiting:payment`, and all become due at `due`.
async fn due_at(database: &TestDatabase, count: usize, due: Timestamp, grace: Duration) -> Vec<OrderId> {
    let ids: Vec<ObjectId> = (0..count).map(|_| ObjectId::new()).collect();
    let grace = SignedDuration::try_from(grace).unwrap();
    let order = |(number, id): (usize, &ObjectId)| {
        let (status, expires_at) =
            if number % 2 == 0 { ("created", due) } else { ("awaiting:payment", due - grace) };
        let expires_at = DateTime::from_millis(expires_at.as_millisecond());
        doc! {
            "_id": id, "userId": "u1", "status": status, "expiresAt": expires_at, "ticket": ObjectId::new(),
            "version": 3
        }
    };
    database.orders().insert_many(ids.iter().enumerate().map(order)).await.unwrap();
    ids.into_iter().map(|id| OrderId::from_bytes(id.bytes())).collect()
}

/// Cancels what is due until nothing is left to cancel, as a sweeper does. Gives how many it cancelled.
async fn sweep_all(database: &TestDatabase, clock: ServerClock, grace: Duration) -> u64 {
    let mut cancelled = 0;
    loop {
        let cutoff = clock.reached(Instant::now());
        let look = database.store.find_expiring(&ExpiryQuery::due(cutoff, grace, 100)).await.unwrap();
        cancelled += database.store.expire(&look, cutoff, grace).await.unwrap();
        let open = doc! { "status": { "$in": ["created", "awaiting:payment"] } };
        if database.orders().count_documents(open).await.unwrap() == 0 {
            return cancelled;
        }
    }
}

/// Rounds of orders that are paid for at random moments around the one at which they become due, while two sweepers cancel
/// what is due.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_payment_and_an_expiry_that_race_exactly_one_happens() {
    const ORDERS: usize = 24;
    let database = TestDatabase::new().await;
    let (terms, mut random) = (grace(), Rng::with_seed(seed()));
    let grace = terms.payment_grace;
    let (mut paid, mut late) = (0, 0);
    // How long before they become due orders are made, in milliseconds: longer on a machine on which all payments are late.
    let mut lead = 100;
    // On a busy machine one side may win for many rounds.
    for round in 0.. {
        if round >= 30 && paid >= 20 && late >= 20 {
            break;
        }
        assert!(round < 500, "{paid} were paid for and {late} were too late: there was no race");
        let clock = database.store.clock().await.unwrap();
        let due = clock.reached(Instant::now()) + SignedDuration::from_millis(lead);
        let ids = due_at(&database, ORDERS, due, grace).await;
        let payments = join_all(ids.iter().map(|id| {
            let moment = due + SignedDuration::from_millis(random.i64(-lead * 2 / 5..lead / 5));
            let (store, terms) = (&database.store, &terms);
            async move {
                let ahead = moment.duration_since(clock.reached(Instant::now()));
                tokio::time::sleep(Duration::try_from(ahead).unwrap_or_default()).await;
                store.settle(*id, "p1", Timestamp::MAX, terms).await.unwrap()
            }
        }));
        let (payments, one, other) =
            tokio::join!(payments, sweep_all(&database, clock, grace), sweep_all(&database, clock, grace));
        let mut cancelled = 0;
        for (id, payment) in ids.iter().zip(payments) {
            let seen = stored(&database, *id).await;
            match payment {
                Settled::Completed => {
                    assert_eq!(seen, (OrderStatus::Complete, 4), "{id}");
                    paid += 1;
                }
                Settled::Refused(Refusal::TooLate | Refusal::OrderCancelled) => {
                    assert_eq!(seen, (OrderStatus::Cancelled, 4), "{id}");
                    cancelled += 1;
                }
                other => panic!("{id}: {other:?}, and it is {seen:?}"),
            }
        }
        assert_eq!(one + other, cancelled, "each is cancelled by one sweeper");
        late += cancelled;
        if cancelled == ORDERS as u64 {
            lead = (lead * 2).min(20_000);
        } else if cancelled == 0 {
            lead = (lead / 2).max(50);
        }
    }
}
