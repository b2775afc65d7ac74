//! A primary that has lost its secondaries: what it carries out no majority has, and it is taken back later. Nobody is
//! answered by it, at the first attempt or at the next one, which sees what the first has written.
//!
//! The database of the test bed has no secondaries, so the proxy says what such a server would.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use futures::future::join_all;
use jiff::Timestamp;
use mongodb::bson::{Bson, DateTime, Document, doc, oid::ObjectId};
use orders_operator::{
    order::{OrderId, Refusal, ReservationTerms, Ticket, TicketId, Version},
    store::{DeadLetter, PaymentError, Settled, Store, StoreError, Upserted},
};

use crate::{
    fault_proxy::{Fault, FaultProxy, Rule},
    mongo::TestDatabase,
};

fn no_majority() -> Fault {
    Fault::write_concern_error(64, "waiting for replication timed out")
}

/// Whether a command reads what a majority has.
fn is_of_majority(find: &Document) -> bool {
    find.get_document("readConcern").is_ok_and(|concern| concern.get_str("level").ok() == Some("majority"))
}

fn is_about(collection: &'static str) -> impl Fn(&Document) -> bool + Clone {
    move |find| find.get_str("find").is_ok_and(|name| name == collection)
}

/// The documents that a `find` has found.
fn found(reply: &mut Document) -> &mut Vec<Bson> {
    reply.get_document_mut("cursor").unwrap().get_array_mut("firstBatch").unwrap()
}

fn has_lost_its_secondaries(proxy: &FaultProxy) -> Vec<Rule> {
    ["insert", "update", "delete", "findAndModify"].map(|command| proxy.on(command, no_majority())).into()
}

fn ticket(version: u32) -> Ticket {
    let id = TicketId::from_bytes(ObjectId::new().bytes());
    Ticket { id, title: "a concert".into(), price: 20.0, version: Version(version) }
}

/// Whether every write of this kind waits for a majority.
fn all_for_majority(writes: &[Document]) -> bool {
    let waits = |write: &Document| {
        write.get_document("writeConcern").is_ok_and(|concern| concern.get_str("w").ok() == Some("majority"))
    };
    writes.iter().all(waits)
}

#[tokio::test]
async fn tickets_that_no_majority_has_are_not_taken_for_written_by_the_next_attempt() {
    let (database, proxy) = (TestDatabase::new().await, FaultProxy::start().await);
    let store = proxy.store(&database).await;
    let older = ticket(0);
    store.upsert_tickets(std::slice::from_ref(&older)).await.unwrap();
    let tickets = [ticket(0), Ticket { version: Version(1), ..older.clone() }];

    // A majority has the older version of one, and the other not at all.
    let new = ObjectId::from(tickets[0].id.bytes());
    let rules = has_lost_its_secondaries(&proxy);
    let as_before = proxy.when(
        "find",
        usize::MAX,
        |find| is_about("tickets")(find) && is_of_majority(find),
        Fault::change("as a majority has it", move |reply| {
            found(reply).retain(|found| found.as_document().unwrap().get_object_id("_id").ok() != Some(new));
            for found in found(reply) {
                found.as_document_mut().unwrap().insert("version", 0);
            }
        }),
    );
    for written in join_all(tickets.chunks(1).map(|ticket| store.upsert_tickets(ticket))).await {
        let Err(error) = written else { panic!("{written:?}") };
        assert!(error.is_unavailable(), "{error}");
    }
    assert!(rules[0].happened() > 0 && rules[1].happened() > 0);
    assert!(all_for_majority(&proxy.seen("insert")) && all_for_majority(&proxy.seen("update")));

    rules.iter().for_each(Rule::lift);
    as_before.lift();
    assert_eq!(store.upsert_tickets(&tickets).await.unwrap(), Upserted { written: 0, unchanged: 2 });
}

#[tokio::test]
async fn a_ticket_whose_write_was_not_acknowledged_is_written_again_before_it_counts() {
    for (command, stored) in [("insert", None), ("update", Some(0))] {
        let (database, proxy) = (TestDatabase::new().await, FaultProxy::start().await);
        let store = proxy.store(&database).await;
        let ticket = ticket(1);
        if let Some(version) = stored {
            let older = Ticket { version: Version(version), ..ticket.clone() };
            store.upsert_tickets(&[older]).await.unwrap();
        }
        let before = proxy.seen(command).len();
        let failed = proxy.once(command, no_majority());
        // Until a later write was acknowledged, a majority has what it had.
        let (acknowledged, is_later) = (Arc::new(AtomicBool::new(false)), failed.clone());
        let acknowledge = acknowledged.clone();
        proxy.when(
            command,
            1,
            move |_| is_later.happened() > 0,
            Fault::change("it is acknowledged", move |_| acknowledge.store(true, Ordering::SeqCst)),
        );
        proxy.when(
            "find",
            usize::MAX,
            move |find| {
                is_about("tickets")(find) && is_of_majority(find) && !acknowledged.load(Ordering::SeqCst)
            },
            Fault::change("as a majority has it", move |reply| match stored {
                Some(version) => {
                    for found in found(reply) {
                        found.as_document_mut().unwrap().insert("version", version);
                    }
                }
                None => found(reply).clear(),
            }),
        );
        store.upsert_tickets(&[ticket]).await.unwrap();
        let writes = proxy.seen(command).split_off(before);
        assert!(writes.len() >= 2 && all_for_majority(&writes), "{command}: {writes:?}");
    }
}

#[tokio::test]
async fn a_dead_letter_that_no_majority_has_is_not_kept() {
    let (database, proxy) = (TestDatabase::new().await, FaultProxy::start().await);
    let store = proxy.store(&database).await;
    let letter = DeadLetter {
        subject: "ticket:created",
        data: b"{",
        reason: "not-json",
        detail: "it is not JSON",
        stream: "tickets",
        sequence: 7,
        published: Timestamp::now(),
    };
    let rules = has_lost_its_secondaries(&proxy);
    let kept = store.keep_dead_letter(&letter).await;
    assert!(kept.is_err_and(|error| error.is_unavailable()));
    rules.iter().for_each(Rule::lift);
    store.keep_dead_letter(&letter).await.unwrap();
    assert_eq!(database.dead_letters().count_documents(doc! {}).await.unwrap(), 1);
}

/// A database with an order whose time is over, and a store by way of a proxy.
struct Overdue {
    database: TestDatabase,
    proxy: FaultProxy,
    store: Store,
    order: OrderId,
}

impl Overdue {
    async fn new() -> Self {
        let (database, proxy) = (TestDatabase::new().await, FaultProxy::start().await);
        let store = proxy.store(&database).await.with_events();
        let order = database.mongoose_order(doc! { "expiresAt": DateTime::from_millis(0) }).await;
        Self { database, proxy, store, order: order.parse().unwrap() }
    }

    async fn settle(&self, order: OrderId) -> Result<Settled, StoreError> {
        self.store.settle(order, "p1", Timestamp::now(), &ReservationTerms::default()).await
    }

    /// From now on whoever reads orders is told what a server says that is no primary any more, or that takes it back.
    fn reads(&self, what: &str, change: impl Fn(&mut Vec<Bson>) + Send + Sync + 'static) -> Rule {
        let change = Fault::change(what, move |reply| change(found(reply)));
        self.proxy.when("find", usize::MAX, is_about("orders"), change)
    }

    /// Nothing is noted of a payment.
    async fn is_as_it_was(&self) -> bool {
        let stored = self.database.stored(&self.order.to_string()).await;
        !stored.contains_key("outbox") && !stored.contains_key("refusedPayments")
    }
}

/// Sets a field of each order that is found.
fn set(field: &'static str, value: impl Into<Bson>) -> impl Fn(&mut Vec<Bson>) {
    let value = value.into();
    move |found| {
        for order in found {
            order.as_document_mut().unwrap().insert(field, value.clone());
        }
    }
}

/// What a read may say that is not so.
type Change = Box<dyn Fn(&mut Vec<Bson>) + Send + Sync>;

#[tokio::test]
async fn no_payment_is_answered_by_what_a_read_alone_says_of_its_order() {
    let many: Vec<_> = (0..100).map(|number| Bson::String(format!("old-{number}"))).collect();
    let said: [(&str, Change); 5] = [
        ("there is no such order", Box::new(Vec::clear)),
        ("it is cancelled", Box::new(set("status", "cancelled"))),
        ("it has refused the payment", Box::new(set("refusedPayments", vec![Bson::from("p1")]))),
        ("it has the payment", Box::new(set("paymentId", "p1"))),
        ("it has refused too many", Box::new(set("refusedPayments", many))),
    ];
    join_all(said.map(|(what, change)| async move {
        let overdue = Overdue::new().await;
        let reads = overdue.reads(what, change);
        let settled = overdue.settle(overdue.order).await;
        let Err(error) = settled else { panic!("{what}: {settled:?}") };
        assert!(error.is_unavailable(), "{what}: {error}");
        assert!(reads.happened() > 0 && overdue.is_as_it_was().await, "{what}");
        reads.lift();
        let settled = overdue.settle(overdue.order).await.unwrap();
        assert_eq!(settled, Settled::Refused(Refusal::TooLate), "{what}");
    }))
    .await;
}

#[tokio::test]
async fn that_an_order_never_was_is_said_only_by_a_server_that_a_majority_follows() {
    let overdue = Overdue::new().await;
    let unknown = OrderId::from_bytes(ObjectId::new().bytes());
    let rules = has_lost_its_secondaries(&overdue.proxy);
    // What was asked to be changed, and was not, was acknowledged a moment ago.
    rules[3].lift();
    let settled = overdue.settle(unknown).await;
    assert!(settled.as_ref().is_err_and(StoreError::is_unavailable), "{settled:?}");
    let started =
        overdue.store.payment_started(unknown, Timestamp::now(), &ReservationTerms::default()).await;
    let Err(PaymentError::Store(error)) = &started else { panic!("{started:?}") };
    assert!(error.is_unavailable(), "{error}");
    rules.iter().for_each(Rule::lift);
    assert_eq!(overdue.settle(unknown).await.unwrap(), Settled::OrderNotFound);
    let started =
        overdue.store.payment_started(unknown, Timestamp::now(), &ReservationTerms::default()).await;
    assert!(matches!(started, Err(PaymentError::NotFound(_))), "{started:?}");
    // It has changed nothing to find that out.
    assert_eq!(overdue.database.orders().count_documents(doc! {}).await.unwrap(), 1);
}
