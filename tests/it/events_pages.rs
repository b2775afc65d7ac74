//! Very many orders that wait: they are published page by page, and the next page is published while the one before it is marked.

use std::sync::atomic::{AtomicUsize, Ordering};

use mongodb::bson::{DateTime, Document, doc, oid::ObjectId};
use orders_operator::order::UserId;

use crate::{
    cluster::step_by_step,
    events::{Kind, System, check_history, on_both, reserve_in},
    fault_proxy::{Fault, FaultProxy, Rule},
};

/// More than are read at once.
const WAITING: usize = 2500;

/// A ticket before all others, and the distance of those that wait.
const FIRST: u32 = 7;
const DISTANCE: u32 = 10;

fn id(kind: u32, number: u32) -> ObjectId {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&kind.to_be_bytes());
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    ObjectId::from_bytes(bytes)
}

/// An order that waits, of the ticket with this number.
fn waiting(number: u32) -> Document {
    doc! {
        "_id": id(1, number), "userId": "u1", "status": "created", "version": 0, "ticket": id(2, number),
        "expiresAt": DateTime::from_millis(DateTime::now().timestamp_millis() + 900_000),
        "outbox": { "since": DateTime::now(), "created": 20.0 },
    }
}

fn numbers() -> impl Iterator<Item = u32> {
    (1..).map(|place| place * DISTANCE).take(WAITING)
}

async fn store_what_waits(system: &System) {
    let orders: Vec<_> = numbers().map(waiting).collect();
    system.database.orders().insert_many(orders).await.unwrap();
    let tickets = numbers()
        .map(|number| doc! { "_id": id(2, number), "title": "concert", "price": 20.0, "version": 0 });
    system.database.tickets().insert_many(tickets).await.unwrap();
}

/// Has every write that marks something as published held on its way, after so many that arrive.
fn hold_notes(proxy: &FaultProxy, after: usize) -> Rule {
    let arrived = AtomicUsize::new(0);
    let is_held = move |command: &Document| {
        command.to_string().contains("$unset") && arrived.fetch_add(1, Ordering::SeqCst) >= after
    };
    proxy.when("update", usize::MAX, is_held, Fault::HoldRequest)
}

/// Waits until all is published, the last page too, though the first one is not marked. If publishing was interrupted, as on a
/// machine that is too slow to renew the lease, what was published is marked before the rest: then until that is tried again.
async fn wait_for_pages(system: &System, held: &Rule) {
    step_by_step("all is published, or marking is tried again", || async {
        let published = system.published().await;
        (published >= WAITING as u64 || held.happened() > 1).then_some(()).ok_or(published)
    })
    .await;
    held.wait(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_killed_while_it_tells_a_page_and_notes_the_one_before_leaves_no_duplicate() {
    on_both(|kind| a_pod_is_killed_between_two_pages(kind, 0)).await;
    // One page is marked in several commands.
    on_both(|kind| a_pod_is_killed_between_two_pages(kind, 1)).await;
}

async fn a_pod_is_killed_between_two_pages(kind: Kind, notes: usize) {
    let (system, proxy) = (System::on(kind).await, FaultProxy::start().await);
    let silent = system.silent_store().await;
    store_what_waits(&system).await;
    let held = hold_notes(&proxy, notes);
    let pod = system.pod_by(&proxy.uri);
    pod.wait_until_ready(true).await;
    wait_for_pages(&system, &held).await;
    let left =
        system.database.orders().count_documents(doc! { "outbox": { "$exists": true } }).await.unwrap();
    assert!(left > 500, "the first page is noted, and only {left} are left");
    // Drop kills it, without a signal that it could handle.
    drop(pod);
    // Tickets of the first and of the last page change hands meanwhile.
    for number in numbers().step_by(250) {
        let order = id(1, number).to_hex().parse().unwrap();
        silent.cancel(order, &UserId::new("u1").unwrap()).await.unwrap();
        reserve_in(&silent, id(2, number).to_hex().parse().unwrap()).await;
    }
    let next = system.pod();
    next.wait_until_ready(true).await;
    check_history(&system, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_before_the_page_that_is_being_told_is_told_too() {
    let (system, proxy) = (System::new().await, FaultProxy::start().await);
    let silent = system.silent_store().await;
    store_what_waits(&system).await;
    let held = hold_notes(&proxy, 0);
    let pod = system.pod_by(&proxy.uri);
    pod.wait_until_ready(true).await;
    wait_for_pages(&system, &held).await;
    // One that is not published, and one that is published at this time.
    system.database.orders().insert_one(waiting(FIRST)).await.unwrap();
    let told = numbers().next().unwrap();
    let order = id(1, told).to_hex().parse().unwrap();
    silent.cancel(order, &UserId::new("u1").unwrap()).await.unwrap();
    reserve_in(&silent, id(2, told).to_hex().parse().unwrap()).await;
    held.lift();
    check_history(&system, false).await;
}
