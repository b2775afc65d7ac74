//! Replies that never come, on connections that stay open: what a load balancer does that forgets a connection.

use futures::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use mongodb::bson::doc;
use orders_operator::{
    order::{ReservationTerms, UserId},
    store::Reserved,
};
use tokio::task::JoinHandle;

use crate::{
    fault_proxy::{Fault, FaultProxy, Rule},
    mongo::TestDatabase,
};

/// How many commands of one kind a store sends at the same time.
const AT_ONCE: usize = 4;

/// Makes calls until so many replies are held as commands are sent at the same time; one after the other, since they would
/// share a command.
async fn lose_replies<T: Send + 'static>(
    held: &Rule,
    call: impl Fn(usize) -> BoxFuture<'static, T>,
) -> Vec<JoinHandle<T>> {
    let mut calls = Vec::new();
    for number in 0..AT_ONCE {
        calls.push(tokio::spawn(call(number)));
        held.wait(number + 1).await;
    }
    calls
}

/// Whether what is asked for while replies are held is answered before the first of them is given up. On a machine with other
/// work it may take as long as that, once; if it waited for them it would each time.
async fn is_soon_enough(attempt: impl AsyncFn() -> bool) {
    let mut tries = 1;
    while !attempt().await {
        assert!(tries < 5, "in {tries} tries others were answered only when replies had been given up");
        tries += 1;
    }
}

#[tokio::test]
async fn inserts_whose_replies_are_lost_end_and_keep_nobody_else_from_reserving() {
    is_soon_enough(inserts_overtake).await;
}

async fn inserts_overtake() -> bool {
    let (database, proxy) = (TestDatabase::new().await, FaultProxy::start().await);
    let store = proxy.store(&database).await;
    let tickets = join_all((0..AT_ONCE + 20).map(|_| database.ticket())).await;
    let reserve = |number: usize| {
        let (store, ticket) = (store.clone(), tickets[number]);
        async move {
            let (user, terms) = (UserId::new("u1").unwrap(), ReservationTerms::default());
            store.reserve(&user, ticket, None, &terms).await
        }
        .boxed()
    };
    let held = proxy.when("insert", AT_ONCE, |_| true, Fault::HoldReply);
    let lost = lose_replies(&held, reserve).await;
    let others = join_all((AT_ONCE..tickets.len()).map(reserve)).await;
    let is_soon = held.abandoned() == 0;
    assert!(others.iter().all(Result::is_ok), "{others:?}");
    // Each buyer gets the order that was inserted for it, though not its first reply.
    for lost in lost {
        let reserved = lost.await.unwrap();
        assert!(matches!(reserved, Ok(Reserved::New(_))), "{reserved:?}");
    }
    assert_eq!(database.orders().count_documents(doc! {}).await.unwrap(), tickets.len() as u64);
    held.wait_until_abandoned(AT_ONCE).await;
    is_soon
}

#[tokio::test]
async fn reads_whose_replies_are_lost_delay_the_others_briefly() {
    is_soon_enough(reads_overtake).await;
}

async fn reads_overtake() -> bool {
    let (database, proxy) = (TestDatabase::new().await, FaultProxy::start().await);
    let store = proxy.store(&database).await;
    let tickets = join_all((0..AT_ONCE + 20).map(|_| database.ticket())).await;
    let read = |number: usize| {
        let (store, ticket) = (store.clone(), tickets[number]);
        async move { store.ticket(ticket).await }.boxed()
    };
    let held = proxy.when("find", AT_ONCE, |_| true, Fault::HoldReply);
    let lost = lose_replies(&held, read).await;
    let others = join_all((AT_ONCE..tickets.len()).map(read)).await;
    let is_soon = held.abandoned() == 0;
    assert!(others.iter().all(|ticket| matches!(ticket, Ok(Some(_)))), "{others:?}");
    for lost in lost {
        assert!(lost.await.unwrap().is_err_and(|error| error.is_unavailable()));
    }
    held.wait_until_abandoned(AT_ONCE).await;
    is_soon
}
