//! Payments that arrive as events: each completes its order or is refused, once.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures::{
    TryStreamExt,
    future::{Either, join_all},
};
use jiff::Timestamp;
use mongodb::bson::{Bson, DateTime, Document, doc, oid::ObjectId};
use orders_operator::{
    order::{OrderId, Refusal, ReservationTerms, UserId, Version},
    store::{DeadLetter, Published, Settled, Store},
};

use crate::{
    events::System,
    fault_proxy::{Fault, FaultProxy},
};

struct Shop {
    system: System,
    store: Store,
}

impl Shop {
    async fn new() -> Self {
        let system = System::new().await;
        let store = system.silent_store().await;
        Self { system, store }
    }

    async fn order(&self) -> OrderId {
        let ticket = self.system.database.ticket().await;
        crate::events::reserve_in(&self.store, ticket).await
    }

    async fn settle(&self, order: OrderId, payment: &str) -> Settled {
        self.settle_at(order, payment, Timestamp::now()).await
    }

    async fn settle_at(&self, order: OrderId, payment: &str, published: Timestamp) -> Settled {
        self.store.settle(order, payment, published, &ReservationTerms::default()).await.unwrap()
    }

    async fn cancel(&self, order: OrderId) {
        self.store.cancel(order, &UserId::new("u1").unwrap()).await.unwrap();
    }

    async fn stored(&self, order: OrderId) -> Document {
        self.system.database.stored(&order.to_string()).await
    }

    async fn set(&self, order: OrderId, fields: Document) {
        let id = ObjectId::from(order.bytes());
        self.system.database.orders().update_one(doc! { "_id": id }, doc! { "$set": fields }).await.unwrap();
    }

    /// The refusals that are pending, as payment and reason.
    async fn refused(&self) -> Vec<(String, Refusal)> {
        let pending = self.store.pending_after(None, 1000).await.unwrap().0.orders;
        let all = pending.into_iter().flat_map(|pending| pending.refused);
        all.map(|refused| (refused.payment, refused.reason)).collect()
    }
}

fn published(id: OrderId, version: u32) -> Published {
    Published { id, version: Version(version), again: None }
}

#[tokio::test]
async fn a_payment_completes_its_order_once_and_every_other_is_refused() {
    let shop = Shop::new().await;
    let order = shop.order().await;
    assert_eq!(shop.settle(order, "p1").await, Settled::Completed);
    assert_eq!(shop.settle(order, "p1").await, Settled::Repeated);
    assert_eq!(shop.settle(order, "p2").await, Settled::Refused(Refusal::AlreadyPaid));
    assert_eq!(shop.settle(order, "p2").await, Settled::Repeated);
    let stored = shop.stored(order).await;
    assert_eq!(
        (stored.get_str("status").ok(), stored.get_str("paymentId").ok(), stored.get_i32("version").ok()),
        (Some("complete"), Some("p1"), Some(1))
    );
    assert_eq!(shop.refused().await, [("p2".to_owned(), Refusal::AlreadyPaid)]);
    assert_eq!(shop.settle(OrderId::from_bytes([7; 12]), "p3").await, Settled::OrderNotFound);
}

#[tokio::test]
async fn a_cancelled_order_stays_cancelled_and_its_payment_is_refused() {
    let shop = Shop::new().await;
    let order = shop.order().await;
    shop.cancel(order).await;
    assert_eq!(shop.settle(order, "p1").await, Settled::Refused(Refusal::OrderCancelled));
    assert_eq!(shop.settle(order, "p1").await, Settled::Repeated);
    let stored = shop.stored(order).await;
    assert_eq!((stored.get_str("status").ok(), stored.get_i32("version").ok()), (Some("cancelled"), Some(1)));
}

#[tokio::test]
async fn whether_a_payment_is_in_time_depends_on_when_it_was_published() {
    let shop = Shop::new().await;
    let (first, second, third) = (shop.order().await, shop.order().await, shop.order().await);
    let hour = jiff::SignedDuration::from_hours(1);
    let end = Timestamp::now() - hour;
    for order in [first, second, third] {
        shop.set(order, doc! { "expiresAt": DateTime::from_millis(end.as_millisecond()) }).await;
    }
    // It was under way for long, and nobody has cancelled the order.
    let before = end - jiff::SignedDuration::from_millis(2);
    assert_eq!(shop.settle_at(first, "p1", before).await, Settled::Completed);
    assert_eq!(shop.settle_at(second, "p2", end).await, Settled::Refused(Refusal::TooLate));
    // Whatever the clock of the broker says: by that of the database it is over.
    let future = Timestamp::now() + hour;
    assert_eq!(shop.settle_at(third, "p3", future).await, Settled::Refused(Refusal::TooLate));
    assert_eq!(shop.stored(second).await.get_str("status").ok(), Some("created"), "the sweeper cancels it");
    // Published in time as well, but it comes a second time, as another.
    assert_eq!(shop.settle_at(second, "p2", before).await, Settled::Repeated, "it is refused already");
}

#[tokio::test]
async fn an_order_that_the_node_service_has_completed_takes_the_payment_that_it_knows_not() {
    let shop = Shop::new().await;
    for payment in [doc! {}, doc! { "paymentId": Bson::Null }] {
        let order = shop.order().await;
        let mut complete = doc! { "status": "complete", "version": 1 };
        complete.extend(payment);
        shop.set(order, complete).await;
        assert_eq!(shop.settle(order, "p1").await, Settled::Repeated);
        assert_eq!(shop.stored(order).await.get_str("paymentId").ok(), Some("p1"));
        assert_eq!(shop.settle(order, "p2").await, Settled::Refused(Refusal::AlreadyPaid));
    }
}

#[tokio::test]
async fn the_payment_of_an_order_is_read_in_whatever_form_somebody_has_written_it() {
    let shop = Shop::new().await;
    let id = ObjectId::new();
    for (stored, known) in [
        (Bson::ObjectId(id), id.to_hex()),
        (Bson::Int32(7), "7".into()),
        (Bson::Boolean(true), "none".into()),
    ] {
        let order = shop.order().await;
        shop.set(order, doc! { "status": "complete", "version": 1, "paymentId": stored.clone() }).await;
        let again = if known == "none" { Settled::Refused(Refusal::AlreadyPaid) } else { Settled::Repeated };
        assert_eq!(shop.settle(order, &known).await, again, "{stored}");
        assert_eq!(shop.settle(order, "p2").await, Settled::Refused(Refusal::AlreadyPaid), "{stored}");
    }
}

#[tokio::test]
async fn what_is_told_of_refusals_and_of_changes_is_noted_apart() {
    let shop = Shop::new().await;
    let order = shop.order().await;
    shop.cancel(order).await;
    shop.settle(order, "p1").await;
    shop.settle(order, "p2").await;
    // The changes are published, and the refusals are not.
    shop.store.mark_published(&[published(order, 1)]).await.unwrap();
    let pending = shop.store.pending_after(None, 10).await.unwrap().0.orders;
    assert!(pending[0].changes.is_empty() && pending[0].refused.len() == 2, "{pending:?}");
    shop.store.mark_refusal_published(order, "p1").await.unwrap();
    assert_eq!(shop.refused().await, [("p2".to_owned(), Refusal::OrderCancelled)]);
    shop.store.mark_refusal_published(order, "p2").await.unwrap();
    assert!(!shop.stored(order).await.contains_key("outbox"));

    // The other way round.
    let other = shop.order().await;
    shop.cancel(other).await;
    shop.settle(other, "p3").await;
    shop.store.mark_refusal_published(other, "p3").await.unwrap();
    let pending = shop.store.pending_after(None, 10).await.unwrap().0.orders;
    assert!(pending[0].changes.len() == 2 && pending[0].refused.is_empty(), "{pending:?}");
    shop.store.mark_published(&[published(other, 1)]).await.unwrap();
    assert!(!shop.stored(other).await.contains_key("outbox"));
}

#[tokio::test]
async fn whatever_write_of_a_note_is_the_last_before_a_pod_is_killed_the_next_one_finishes_it() {
    let shop = Shop::new().await;
    let proxy = FaultProxy::start().await;
    let store = proxy.store(&shop.system.database).await.with_events();
    let mut interrupted = 0;
    for are_changes_published in [true, false] {
        for writes in 0..3 {
            let order = shop.order().await;
            shop.cancel(order).await;
            shop.settle(order, "p1").await;
            if are_changes_published {
                shop.store.mark_published(&[published(order, 1)]).await.unwrap();
            }
            let done = AtomicUsize::new(0);
            let is_next = move |_: &Document| done.fetch_add(1, Ordering::SeqCst) >= writes;
            let refused = proxy.when("update", usize::MAX, is_next, Fault::error(13, "not allowed"));
            interrupted += u32::from(store.mark_refusal_published(order, "p1").await.is_err());
            refused.lift();
        }
    }
    assert!(interrupted >= 4, "{interrupted}");
    let pod = shop.system.pod();
    pod.wait_until_ready(true).await;
    shop.system.all_told().await;
}

#[tokio::test]
async fn an_order_does_not_grow_without_bound() {
    let shop = Shop::new().await;
    let order = shop.order().await;
    shop.cancel(order).await;
    let many: Vec<Bson> = (0..100).map(|number| Bson::String(format!("old-{number}"))).collect();
    shop.set(order, doc! { "refusedPayments": many }).await;
    assert_eq!(shop.settle(order, "p1").await, Settled::TooManyRefused(Refusal::OrderCancelled));
    assert_eq!(shop.settle(order, "old-5").await, Settled::Repeated);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_payments_duplicates_and_cancellations_that_race_each_payment_is_settled_once() {
    let shop = Shop::new().await;
    for _ in 0..12 {
        let order = shop.order().await;
        let payments = ["p1", "p2", "p1", "p2", "p1"];
        let mut racing: Vec<_> = payments
            .iter()
            .map(|payment| Either::Left(async { Some((*payment, shop.settle(order, payment).await)) }))
            .collect();
        racing.insert(2, Either::Right(async { shop.cancel_quietly(order).await }));
        let settled: Vec<_> = join_all(racing).await.into_iter().flatten().collect();
        let stored = shop.stored(order).await;
        let mut outcomes = HashMap::<&str, Vec<Settled>>::new();
        for (payment, outcome) in settled.into_iter().filter(|(_, outcome)| *outcome != Settled::Repeated) {
            outcomes.entry(payment).or_default().push(outcome);
        }
        let completed_by = stored.get_str("paymentId").ok();
        for payment in ["p1", "p2"] {
            let outcomes = outcomes.get(payment).map_or(&[][..], Vec::as_slice);
            match outcomes {
                [Settled::Completed] => assert_eq!(completed_by, Some(payment)),
                [Settled::Refused(_)] => assert_ne!(completed_by, Some(payment)),
                other => panic!("{payment}: {other:?}, {stored}"),
            }
        }
        assert_eq!(stored.get_i32("version").ok(), Some(1), "{stored}");
    }
}

impl Shop {
    /// Cancels the order unless it is paid for.
    async fn cancel_quietly(&self, order: OrderId) -> Option<(&'static str, Settled)> {
        drop(self.store.cancel(order, &UserId::new("u1").unwrap()).await);
        None
    }
}

#[tokio::test]
async fn a_lost_reply_settles_nothing_twice() {
    let shop = Shop::new().await;
    let proxy = FaultProxy::start().await;
    let store = proxy.store(&shop.system.database).await.with_events();
    let (paid, cancelled) = (shop.order().await, shop.order().await);
    shop.cancel(cancelled).await;
    let lost = proxy.once("findAndModify", Fault::LoseReply);
    let settled = store.settle(paid, "p1", Timestamp::now(), &ReservationTerms::default()).await.unwrap();
    assert!(matches!(settled, Settled::Completed | Settled::Repeated), "{settled:?}");
    assert_eq!(lost.happened(), 1);
    let lost = proxy.once("update", Fault::LoseReply);
    let settled =
        store.settle(cancelled, "p2", Timestamp::now(), &ReservationTerms::default()).await.unwrap();
    assert!(matches!(settled, Settled::Refused(_) | Settled::Repeated), "{settled:?}");
    assert_eq!(lost.happened(), 1);
    assert_eq!(shop.refused().await, [("p2".to_owned(), Refusal::OrderCancelled)]);
    assert_eq!(shop.stored(paid).await.get_i32("version").ok(), Some(1));
}

#[tokio::test]
async fn a_dead_letter_is_kept_once_and_for_a_while() {
    let shop = Shop::new().await;
    shop.store.ensure_dead_letters().await.unwrap();
    let letter = DeadLetter {
        subject: "ticket:created",
        data: b"\x00{",
        reason: "not-json",
        detail: "it is not JSON",
        stream: "tickets",
        sequence: 7,
        published: Timestamp::now(),
    };
    shop.store.keep_dead_letter(&letter).await.unwrap();
    shop.store.keep_dead_letter(&letter).await.unwrap();
    let letters = shop.system.database.dead_letters();
    assert_eq!(letters.count_documents(doc! {}).await.unwrap(), 1);
    let kept = letters.find_one(doc! { "reason": "not-json", "size": 2 }).await.unwrap().unwrap();
    assert_eq!(kept.get_binary_generic("data").unwrap(), b"\x00{");
    let indexes: Vec<_> = letters.list_indexes().await.unwrap().try_collect().await.unwrap();
    let kept_for = indexes.iter().find_map(|index| {
        let is_by_age = index.keys == doc! { "at": 1 };
        index.options.as_ref().filter(|_| is_by_age)?.expire_after
    });
    assert_eq!(kept_for, Some(Duration::from_secs(30 * 24 * 3600)), "{indexes:?}");
}
