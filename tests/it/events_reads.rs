//! What whoever publishes reads of the database: nothing that is older than what was marked before, and never all that is pending.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use mongodb::bson::{Bson, Document, Timestamp};
use orders_operator::{
    order::{OrderId, UserId, Version},
    store::Published,
};
use reqwest::StatusCode;

use crate::{
    cluster::eventually,
    events::{Kind, System, cancel, check_history, leader, on_both, reserve, reserve_in},
    fault_proxy::{Fault, FaultProxy, Rule},
};

/// Any time: the clock of a replica set.
const BEFORE: u32 = 1_795_368_564;

/// A replica set whose primary was elected after the last orders were marked as published. It has them as they are, and knows of what a
/// majority has only what it knew before: so it answers, unless whoever asks says how far the answers before were. Then the real
/// answer shows what the server would have waited for.
struct Elected {
    state: Arc<Mutex<State>>,
    /// The queries that were answered by an older state.
    older: Vec<Rule>,
}

#[derive(Default)]
struct State {
    /// The time of the last write.
    written: u32,
    /// The time of the last write that has marked something as published; 0 before that.
    marked: u32,
    /// What queries have found before, by whether they ask for tickets.
    found: HashMap<bool, Bson>,
}

/// Whether it is the relay's query for pending orders.
fn is_look(find: &Document) -> bool {
    is_about_pending(find) && !find.contains_key("sort")
}

fn is_about_pending(find: &Document) -> bool {
    find.get_document("filter").is_ok_and(|filter| filter.contains_key("outbox"))
}

/// Whether it marks something as published.
fn is_marking(update: &Document) -> bool {
    let updates = update.get_array("updates").into_iter().flatten();
    let mut updates = updates.filter_map(|update| update.as_document()?.get_document("u").ok());
    update.get_str("update").is_ok_and(|name| name == "orders")
        && updates.any(|update| update.contains_key("$unset"))
}

fn asks_for_tickets(find: &Document) -> bool {
    find.get_document("filter").is_ok_and(|filter| filter.contains_key("ticket"))
}

/// How far the answers were that whoever asks has got before.
fn after(find: &Document) -> u32 {
    let concern = find.get_document("readConcern");
    concern.and_then(|concern| concern.get_timestamp("afterClusterTime")).map_or(0, |after| after.time)
}

impl Elected {
    fn behind(proxy: &FaultProxy) -> Self {
        let state = Arc::<Mutex<State>>::default();
        let write = |is_marking: bool| {
            let state = state.clone();
            Fault::change("with its time", move |reply| {
                let mut state = state.lock().unwrap();
                state.written += 1;
                if is_marking {
                    state.marked = state.written;
                }
                let time = BEFORE + state.written;
                reply.insert("operationTime", Timestamp { time, increment: 1 });
            })
        };
        proxy.when("update", usize::MAX, is_marking, write(true));
        proxy.on("update", write(false));
        let mut older = Vec::new();
        for tickets in [false, true] {
            let known = state.clone();
            let is_behind = move |find: &Document| {
                let state = known.lock().unwrap();
                let is_known = state.found.contains_key(&tickets);
                is_look(find)
                    && asks_for_tickets(find) == tickets
                    && is_known
                    && state.marked > 0
                    && after(find) < BEFORE + state.marked
            };
            let known = state.clone();
            let as_before = move |reply: &mut Document| {
                let found = known.lock().unwrap().found[&tickets].clone();
                reply.get_document_mut("cursor").unwrap().insert("firstBatch", found);
            };
            older.push(proxy.when("find", usize::MAX, is_behind, Fault::change("as before", as_before)));
            let seen = state.clone();
            let remember = move |reply: &mut Document| {
                let found = reply.get_document("cursor").unwrap().get_array("firstBatch").unwrap();
                if !found.is_empty() {
                    seen.lock().unwrap().found.insert(tickets, Bson::Array(found.clone()));
                }
            };
            let is_meant = move |find: &Document| is_look(find) && asks_for_tickets(find) == tickets;
            proxy.when("find", usize::MAX, is_meant, Fault::change("it is remembered", remember));
        }
        Self { state, older }
    }

    fn marked(&self) -> u32 {
        self.state.lock().unwrap().marked
    }

    fn has_answered_by_an_older_state(&self) -> bool {
        self.older.iter().any(|rule| rule.happened() > 0)
    }
}

#[tokio::test]
async fn after_an_election_a_look_finds_nothing_again_that_was_noted_as_told() {
    let (system, proxy) = (System::new().await, FaultProxy::start().await);
    system.silent_store().await;
    let store = proxy.store(&system.database).await.with_events();
    let elected = Elected::behind(&proxy);
    let ticket = system.database.ticket().await;
    let first = reserve_in(&store, ticket).await;
    store.cancel(first, &UserId::new("u1").unwrap()).await.unwrap();
    let second = reserve_in(&store, ticket).await;
    assert_eq!(store.pending_after(None, 10).await.unwrap().0.orders.len(), 2);
    let published = |id: OrderId, version| Published { id, version: Version(version), again: None };
    store.mark_published(&[published(first, 1), published(second, 0)]).await.unwrap();
    assert!(elected.marked() > 0);
    assert_eq!(store.pending_after(None, 10).await.unwrap().0.orders, []);
    assert!(!store.has_pending().await.unwrap());
    assert!(!elected.has_answered_by_an_older_state());
    // Another process that has seen nothing of it takes the lease first.
    let next = proxy.store(&system.database).await.with_events();
    next.take_relay_lease("next", Duration::from_secs(6)).await.unwrap().unwrap();
    assert_eq!(next.pending_after(None, 10).await.unwrap().0.orders, []);
    assert!(!elected.has_answered_by_an_older_state());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_election_nothing_is_told_again() {
    on_both(an_election).await;
}

async fn an_election(kind: Kind) {
    let (system, proxy) = (System::on(kind).await, FaultProxy::start().await);
    let elected = Elected::behind(&proxy);
    let pod = system.pod_by(&proxy.uri);
    pod.wait_until_ready(true).await;
    let ticket = system.database.ticket().await;
    for _ in 0..3 {
        let id = reserve(&pod, "ada", ticket).await.unwrap();
        assert_eq!(cancel(&pod, "ada", &id).await, StatusCode::NO_CONTENT);
    }
    assert!(reserve(&pod, "bob", ticket).await.is_some());
    system.all_told().await;
    let looks = || proxy.seen("find").iter().filter(|find| is_look(find)).count();
    let before = looks();
    eventually("it has looked again", || async { (looks() >= before + 3).then_some(()) }).await;
    assert!(elected.marked() > 0 && !elected.has_answered_by_an_older_state());
    check_history(&system, false).await;
}

/// Whether a query sorts all that waits.
fn sorts_what_waits(find: &Document) -> bool {
    is_about_pending(find) && find.contains_key("sort")
}

#[tokio::test(flavor = "multi_thread")]
async fn however_much_waits_it_is_told_though_to_sort_it_takes_longer_than_a_call_may() {
    on_both(very_much_waits).await;
}

async fn very_much_waits(kind: Kind) {
    let (system, proxy) = (System::on(kind).await, FaultProxy::start().await);
    let store = system.silent_store().await;
    reserve_in(&store, system.database.ticket().await).await;
    proxy.when("find", usize::MAX, sorts_what_waits, Fault::DelayReply(Duration::from_secs(6)));
    let _pod = system.pod_by(&proxy.uri);
    check_history(&system, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_takes_over_need_not_sort_what_waits() {
    on_both(another_takes_over).await;
}

async fn another_takes_over(kind: Kind) {
    let system = System::on(kind).await;
    let (by_first, by_next) = (FaultProxy::start().await, FaultProxy::start().await);
    let first = system.pod_by(&by_first.uri);
    first.wait_until_ready(true).await;
    eventually("it is known until when all is published", || async {
        system.lease().await.contains_key("toldUntil").then_some(())
    })
    .await;
    // It is killed after it has published an order, and before it has marked that.
    let noting = by_first.when("update", usize::MAX, is_marking, Fault::HoldRequest);
    let id = reserve(&first, "ada", system.database.ticket().await).await.unwrap();
    noting.wait(1).await;
    drop(first);

    by_next.when("find", usize::MAX, sorts_what_waits, Fault::error(50, "it takes too long"));
    let next = system.pod_by(&by_next.uri);
    next.wait_until_ready(true).await;
    assert_eq!(leader(&[&next]).await, 0);
    assert_eq!(cancel(&next, "ada", &id).await, StatusCode::NO_CONTENT);
    check_history(&system, false).await;
}
