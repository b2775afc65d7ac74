//! The outbox of an order: what the write that changes it puts there, and that it is marked as published.

use std::{collections::HashSet, time::Duration};

use jiff::Timestamp;
use mongodb::bson::{Bson, DateTime, Document, doc};
use orders_operator::{
    order::{OrderId, ReservationTerms, ReservationWindow, TicketId, UserId, Version},
    store::{ChangeKind, ConnectOptions, ExpiryQuery, PendingOrder, Positions, Published, RelayLease, Store},
};

use crate::{
    cluster::eventually,
    fault_proxy::FaultProxy,
    mongo::{TestDatabase, make_indexes, uri},
};

const LASTS: Duration = Duration::from_secs(6);

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

/// Another process with the same database.
async fn other(database: &TestDatabase) -> Store {
    let uri = uri();
    Store::connect(ConnectOptions { database: Some(&database.name), ..ConnectOptions::new(&uri) })
        .await
        .unwrap()
}

/// A database with events, and the store of a process that publishes them.
async fn with_events() -> (TestDatabase, Store) {
    let database = TestDatabase::bare().await;
    let store = other(&database).await.with_events();
    make_indexes(&store).await;
    (database, store)
}

async fn reserve(store: &Store, ticket: TicketId) -> OrderId {
    let reserved = store.reserve(&user("u1"), ticket, None, &ReservationTerms::default()).await;
    reserved.unwrap().reservation().order.id
}

async fn cancel(store: &Store, id: OrderId) {
    store.cancel(id, &user("u1")).await.unwrap();
}

/// What is pending, as `version` and kind, in the order of the orders' ids.
async fn pending(store: &Store) -> Vec<(OrderId, Vec<(u32, ChangeKind)>)> {
    let mut orders = store.pending_after(None, 1000).await.unwrap().0.orders;
    orders.sort_by_key(|pending| pending.order.id);
    let changes = |pending: PendingOrder| {
        let changes = pending.changes.iter().map(|change| (change.version.0, change.kind)).collect();
        (pending.order.id, changes)
    };
    orders.into_iter().map(changes).collect()
}

fn published(id: OrderId, version: u32) -> Published {
    Published { id, version: Version(version), again: None }
}

/// Makes an order overdue.
async fn expire(database: &TestDatabase, id: OrderId) {
    let past = DateTime::from_millis(DateTime::now().timestamp_millis() - 60_000);
    let id = mongodb::bson::oid::ObjectId::from(id.bytes());
    database.orders().update_one(doc! { "_id": id }, doc! { "$set": { "expiresAt": past } }).await.unwrap();
}

async fn sweep(store: &Store) -> u64 {
    let cutoff = Timestamp::now();
    let due = store.find_expiring(&ExpiryQuery::due(cutoff, Duration::ZERO, 1000)).await.unwrap();
    store.expire(&due, cutoff, Duration::ZERO).await.unwrap()
}

const CREATED: (u32, ChangeKind) = (0, ChangeKind::Created { price: 20.0 });
const CANCELLED: (u32, ChangeKind) = (1, ChangeKind::Cancelled);

#[tokio::test]
async fn without_events_nothing_is_noted_and_there_is_no_index_for_it() {
    let database = TestDatabase::new().await;
    let id = reserve(&database.store, database.ticket().await).await;
    let overdue = reserve(&database.store, database.ticket().await).await;
    cancel(&database.store, id).await;
    expire(&database, overdue).await;
    assert_eq!(sweep(&database.store).await, 1);
    let pending = database.orders().count_documents(doc! { "outbox": { "$exists": true } }).await.unwrap();
    let indexes = database.orders().list_index_names().await.unwrap();
    assert_eq!((pending, indexes.iter().any(|name| name.contains("untold"))), (0, false));
    assert!(!database.store.has_events());
}

#[tokio::test]
async fn every_write_that_changes_an_order_notes_what_is_to_be_told_of_it() {
    let (database, store) = with_events().await;
    let ticket = database.ticket().await;
    let first = reserve(&store, ticket).await;
    assert_eq!(pending(&store).await, [(first, vec![CREATED])]);
    // The price is that of its making.
    let stored = database.stored(&first.to_string()).await;
    assert_eq!(stored.get_document("outbox").unwrap().get("created"), Some(&Bson::Int32(20)));

    cancel(&store, first).await;
    assert_eq!(pending(&store).await, [(first, vec![CREATED, CANCELLED])]);

    // By the sweeper, in bulk.
    let second = reserve(&store, ticket).await;
    expire(&database, second).await;
    assert_eq!(sweep(&store).await, 1);
    // By a reservation that finds it overdue.
    let third = reserve(&store, ticket).await;
    expire(&database, third).await;
    let fourth = reserve(&store, ticket).await;
    // By a payment that has begun, and one that has come.
    store.payment_started(fourth, Timestamp::MAX, &ReservationTerms::default()).await.unwrap();
    store.settle(fourth, "p1", Timestamp::MAX, &ReservationTerms::default()).await.unwrap();
    let wanted = [
        (first, vec![CREATED, CANCELLED]),
        (second, vec![CREATED, CANCELLED]),
        (third, vec![CREATED, CANCELLED]),
        (fourth, vec![CREATED, (1, ChangeKind::Updated), (2, ChangeKind::Completed)]),
    ];
    assert_eq!(pending(&store).await, wanted);
    assert_eq!(store.count_pending(1000).await.unwrap(), 4);
}

#[tokio::test]
async fn whoever_sees_the_index_notes_changes_too() {
    let (database, store) = with_events().await;
    let [pod, sweeper] = [other(&database).await, other(&database).await];
    pod.check_indexes().await.unwrap();
    sweeper.look_for_events().await.unwrap();
    assert!(pod.has_events() && sweeper.has_events());
    let id = reserve(&pod, database.ticket().await).await;
    expire(&database, id).await;
    assert_eq!(sweep(&sweeper).await, 1);
    assert_eq!(pending(&store).await, [(id, vec![CREATED, CANCELLED])]);
    // It is one of ours.
    assert_eq!(pod.foreign_indexes().await.unwrap(), []);

    database.drop_index("untold_orders").await;
    pod.check_indexes().await.unwrap();
    assert!(!pod.has_events());
    assert!(store.check_indexes().await.is_err(), "who publishes needs it");
}

#[tokio::test]
async fn what_changes_while_it_is_told_is_still_to_be_told() {
    let (database, store) = with_events().await;
    let [published_at_once, overtaken, paid] = [
        reserve(&store, database.ticket().await).await,
        reserve(&store, database.ticket().await).await,
        reserve(&store, database.ticket().await).await,
    ];
    cancel(&store, overtaken).await;
    store.payment_started(paid, Timestamp::MAX, &ReservationTerms::default()).await.unwrap();
    store.settle(paid, "p1", Timestamp::MAX, &ReservationTerms::default()).await.unwrap();
    // They were read before they were changed.
    store
        .mark_published(&[published(published_at_once, 0), published(overtaken, 0), published(paid, 1)])
        .await
        .unwrap();
    let left = [(overtaken, vec![CANCELLED]), (paid, vec![(2, ChangeKind::Completed)])];
    assert_eq!(pending(&store).await, left);
    store.mark_published(&[published(overtaken, 1), published(paid, 2)]).await.unwrap();
    assert_eq!(pending(&store).await, []);
    // Nothing of it is left in the documents.
    for id in [published_at_once, overtaken, paid] {
        assert!(!database.stored(&id.to_string()).await.contains_key("outbox"));
    }
}

#[tokio::test]
async fn the_oldest_change_or_refusal_that_is_to_be_told_says_how_far_back_to_look() {
    let (database, store) = with_events().await;
    assert_eq!(store.oldest_pending().await.unwrap(), None);
    let id = reserve(&store, database.ticket().await).await;
    let age = store.oldest_pending().await.unwrap().unwrap();
    assert!(age < Duration::from_secs(60), "{age:?}");
    let hour_ago = DateTime::from_millis(DateTime::now().timestamp_millis() - 3_600_000);
    let ages = |age: Duration| (age.as_secs() + 60) / 3600;
    let older = doc! { "$set": { "outbox.since": hour_ago } };
    database.orders().update_one(doc! {}, older).await.unwrap();
    reserve(&store, database.ticket().await).await;
    assert_eq!(store.oldest_pending().await.unwrap().map(ages), Some(1), "not the newer one");
    cancel(&store, id).await;
    store.mark_published(&[published(id, 0), published(id, 1)]).await.unwrap();
    // A refusal has a time of its own.
    store.settle(id, "p1", Timestamp::now(), &ReservationTerms::default()).await.unwrap();
    let older = doc! { "$set": { "outbox.refused.0.since": hour_ago } };
    database.orders().update_one(doc! { "outbox.refused": { "$exists": true } }, older).await.unwrap();
    assert_eq!(store.oldest_pending().await.unwrap().map(ages), Some(1));
}

#[tokio::test]
async fn events_are_stuck_once_a_change_or_a_refusal_has_not_been_told_for_a_minute() {
    let (database, store) = with_events().await;
    let is_stuck = async || store.events_health().await.unwrap().is_stuck;
    let older = async |field: &str| {
        let long_ago = DateTime::from_millis(DateTime::now().timestamp_millis() - 120_000);
        database.orders().update_one(doc! {}, doc! { "$set": { field: long_ago } }).await.unwrap();
    };
    let id = reserve(&store, database.ticket().await).await;
    assert!(!is_stuck().await, "it was made just now");
    older("outbox.since").await;
    assert!(is_stuck().await);
    cancel(&store, id).await;
    store.mark_published(&[published(id, 1)]).await.unwrap();
    // A refusal alone is no change of the order.
    store.settle(id, "p1", Timestamp::now(), &ReservationTerms::default()).await.unwrap();
    assert!(!is_stuck().await, "it was refused just now");
    older("outbox.refused.0.since").await;
    assert!(is_stuck().await);
    store.mark_refusal_published(id, "p1").await.unwrap();
    assert!(!is_stuck().await);
}

#[tokio::test]
async fn whatever_comes_before_an_order_is_read_with_it_however_small_the_batch() {
    let (database, store) = with_events().await;
    let ticket = database.ticket().await;
    let mut ids = Vec::new();
    for _ in 0..6 {
        let id = reserve(&store, ticket).await;
        cancel(&store, id).await;
        ids.push(id);
    }
    let last = reserve(&store, ticket).await;
    let mut seen = HashSet::new();
    // Three orders at most fit into the first look, and twelve into the second.
    for limit in [3, 1] {
        let read = store.pending_after(None, limit).await.unwrap().0;
        assert!(read.is_full);
        let here: HashSet<_> = read.orders.iter().map(|pending| pending.order.id).collect();
        assert!(!here.contains(&last) || here.len() == 7, "it is read without those before it: {here:?}");
        seen.extend(here);
    }
    assert!(!seen.is_empty());
    // Whatever is read is published, until nothing is left; the last order comes last.
    let mut publishing_order = Vec::new();
    while let orders = store.pending_after(None, 1).await.unwrap().0.orders
        && !orders.is_empty()
    {
        let cancelled_first = |pending: &PendingOrder| pending.order.id == last;
        let mut orders = orders;
        orders.sort_by_key(cancelled_first);
        let done: Vec<_> =
            orders.iter().map(|pending| published(pending.order.id, pending.order.version.0)).collect();
        publishing_order.extend(done.iter().map(|published| published.id));
        store.mark_published(&done).await.unwrap();
    }
    assert_eq!(publishing_order.last(), Some(&last));
    assert_eq!(publishing_order.len(), 7);
}

#[tokio::test]
async fn what_is_left_out_keeps_nothing_else_from_being_read_however_much_it_is() {
    let (database, store) = with_events().await;
    let mut orders = std::collections::BTreeMap::new();
    for _ in 0..20 {
        let ticket = database.ticket().await;
        orders.insert(ticket, reserve(&store, ticket).await);
    }
    let tickets: Vec<_> = orders.keys().copied().collect();
    let wanted = [tickets[3], tickets[18], tickets[19]];
    let (mut after, mut read) = (None, Vec::new());
    loop {
        let (pending, next) = store.pending_past(after, 2, |ticket| !wanted.contains(&ticket)).await.unwrap();
        assert_eq!(pending.is_full, next.is_some());
        read.extend(pending.orders.iter().map(|pending| pending.ticket));
        match next {
            Some(next) => after = Some(next),
            None => break,
        }
        // Any page has it, after what was published meanwhile too.
        let done: Vec<_> = pending.orders.iter().map(|pending| published(pending.order.id, 0)).collect();
        store.mark_published(&done).await.unwrap();
    }
    read.sort_unstable();
    assert_eq!(read, wanted);
    // Those are asked for by themselves.
    let (pending, is_all) = store.pending_of_tickets(&tickets[..4], 10).await.unwrap();
    let mut found: Vec<_> = pending.orders.iter().map(|pending| pending.order.id).collect();
    found.sort_unstable();
    let mut held: Vec<_> = tickets[..3].iter().map(|ticket| orders[ticket]).collect();
    held.sort_unstable();
    assert_eq!((found, is_all), (held, true), "one is published");
    assert!(!store.pending_of_tickets(&tickets[..4], 3).await.unwrap().1);
}

#[tokio::test]
async fn what_is_to_be_told_is_read_as_a_majority_of_the_servers_has_it() {
    let (database, store) = with_events().await;
    let id = reserve(&store, database.ticket().await).await;
    let proxy = FaultProxy::start().await;
    let relay = proxy.store(&database).await.with_events();
    assert_eq!(pending(&relay).await, [(id, vec![CREATED])]);
    relay.oldest_pending().await.unwrap();
    let mut reads = proxy.seen("find");
    reads.retain(|find| find.get_str("find").is_ok_and(|collection| collection == "orders"));
    // Both queries for what is pending, and those for the oldest change and the oldest refusal. Each may be repeated.
    let filters: HashSet<_> =
        reads.iter().map(|find| find.get_document("filter").unwrap().to_string()).collect();
    assert_eq!(filters.len(), 4, "{reads:?}");
    for read in reads {
        let concern = read.get_document("readConcern").and_then(|concern| concern.get_str("level"));
        assert_eq!(concern.ok(), Some("majority"), "{read}");
    }
}

#[tokio::test]
async fn what_has_changed_since_it_was_read_is_told_again_with_no_version_left_out() {
    let (database, store) = with_events().await;
    let terms = ReservationTerms::default();
    let (updated, completed) = (ChangeKind::Updated, ChangeKind::Completed);
    let mut wanted = Vec::new();
    for (begins, ends, changes) in [
        (false, None, vec![CREATED]),
        (false, Some(ChangeKind::Cancelled), vec![CREATED, CANCELLED]),
        (false, Some(completed), vec![CREATED, (1, completed)]),
        (true, None, vec![CREATED, (1, updated)]),
        (true, Some(ChangeKind::Cancelled), vec![CREATED, (1, updated), (2, ChangeKind::Cancelled)]),
        (true, Some(completed), vec![CREATED, (1, updated), (2, completed)]),
    ] {
        let id = reserve(&store, database.ticket().await).await;
        wanted.push((id, begins, ends, changes));
    }
    let published = |version| wanted.iter().map(move |(id, ..)| published(*id, version));
    store.mark_published(&published(0).collect::<Vec<_>>()).await.unwrap();
    let since = Timestamp::now() - jiff::SignedDuration::from_hours(1);
    let (lost, _) = store.lost_since(since, None, 1000).await.unwrap();
    assert_eq!(lost.len(), wanted.len());

    // Minutes later, of which everything is published.
    for (id, begins, ends, _) in &wanted {
        if *begins {
            store.payment_started(*id, Timestamp::MAX, &terms).await.unwrap();
        }
        match ends {
            Some(ChangeKind::Cancelled) => cancel(&store, *id).await,
            Some(_) => drop(store.settle(*id, "p1", Timestamp::MAX, &terms).await.unwrap()),
            None => {}
        }
    }
    store.mark_published(&(1..3).flat_map(published).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(pending(&store).await, []);

    store.requeue(&lost, "x").await.unwrap();
    let wanted: Vec<_> = wanted.into_iter().map(|(id, .., changes)| (id, changes)).collect();
    assert_eq!(pending(&store).await, wanted);
}

#[tokio::test]
async fn an_order_that_cannot_be_told_of_delays_no_other_and_is_kept() {
    let (database, store) = with_events().await;
    let spoilt =
        database.mongoose_order(doc! { "status": "cancelled", "ticket": "none", "outbox": {} }).await;
    let id = reserve(&store, database.ticket().await).await;
    assert_eq!(pending(&store).await, [(id, vec![CREATED])]);
    let stored: Document = database.stored(&spoilt).await;
    assert!(!stored.contains_key("outbox") && stored.contains_key("outboxUnreadable"), "{stored}");
}

#[tokio::test]
async fn one_process_at_a_time_has_the_lease_and_the_next_learns_how_far_it_came() {
    let (database, store) = with_events().await;
    let second = other(&database).await;
    let lease = store.take_relay_lease("first", LASTS).await.unwrap().unwrap();
    assert_eq!(lease.positions, Positions::new());
    assert!(second.take_relay_lease("second", LASTS).await.unwrap().is_none());
    // Whoever has it gets it again, as after a lost reply.
    assert!(store.take_relay_lease("first", LASTS).await.unwrap().is_some());

    let known = RelayLease {
        positions: Positions::from([("orders".to_owned(), 17)]),
        published_until: Timestamp::from_millisecond(1_795_368_564_464).ok(),
    };
    assert!(store.renew_relay_lease("first", &known).await.unwrap());
    assert!(!second.renew_relay_lease("second", &RelayLease::default()).await.unwrap());
    store.release_relay_lease("first", &known).await.unwrap();
    let lease = second.take_relay_lease("second", LASTS).await.unwrap().unwrap();
    assert_eq!(lease, known);

    // It does not renew it, and nobody waits for it longer than that.
    let short = Duration::from_millis(300);
    eventually("the lease is free", || async { store.take_relay_lease("first", short).await.unwrap() }).await;
    assert!(!second.renew_relay_lease("second", &known).await.unwrap(), "it is another's now");
}

#[tokio::test]
async fn of_many_processes_that_take_the_lease_at_once_one_gets_it() {
    let (database, _) = with_events().await;
    let mut stores = Vec::new();
    for _ in 0..8 {
        stores.push(other(&database).await);
    }
    let names: Vec<_> = (0..8).map(|number| format!("pod-{number}")).collect();
    let takes = stores.iter().zip(&names).map(|(store, name)| store.take_relay_lease(name, LASTS));
    let taken = futures::future::join_all(takes).await;
    assert_eq!(taken.into_iter().filter(|taken| taken.as_ref().unwrap().is_some()).count(), 1);
}

#[tokio::test]
async fn the_window_of_an_order_is_the_same_with_events() {
    let (database, store) = with_events().await;
    let terms = ReservationTerms { window: ReservationWindow::default(), ..ReservationTerms::default() };
    let reserved = store.reserve(&user("u1"), database.ticket().await, None, &terms).await.unwrap();
    let stored = database.stored(&reserved.reservation().order.id.to_string()).await;
    let fields: Vec<_> = stored.keys().map(String::as_str).collect();
    assert_eq!(fields, ["_id", "userId", "status", "expiresAt", "ticket", "version", "outbox"]);
}
