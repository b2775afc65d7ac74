//! Replies that never come, on connections that stay open: what a load balancer does that forgets a connection.

use std::time::{Duration, Instant};

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

#[tokio::test]
async fn inserts_whose_replies_are_lost_end_and_keep_nobody_else_from_reserving() {
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
    let started = Instant::now();
    let others = join_all((AT_ONCE..tickets.len()).map(reserve)).await;
    assert!(others.iter().all(Result::is_ok), "{others:?}");
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    // Each buyer gets the order that was inserted for it, though not its first reply.
    for lost in lost {
        let reserved = lost.await.unwrap();
        assert!(matches!(reserved, Ok(Reserved::New(_))), "{reserved:?}");
    }
    assert_eq!(database.orders().count_documents(doc! {}).await.unwrap(), tickets.len() as u64);
    held.wait_until_abandoned(AT_ONCE).await;
}

#[tokio::test]
async fn reads_whose_replies_are_lost_delay_the_others_briefly() {
    let (database, proxy) = (TestDatabase::new().await, FaultProxy::start().await);
    let store = proxy.store(&database).await;
    let tickets = join_all((0..AT_ONCE + 20).map(|_| database.ticket())).await;
    let read = |number: usize| {
        let (store, ticket) = (store.clone(), tickets[number]);
        async move { store.ticket(ticket).await }.boxed()
    };
    let held = proxy.when("find", AT_ONCE, |_| true, Fault::HoldReply);
    let lost = lose_replies(&held, read).await;
    let started = Instant::now();
    let others = join_all((AT_ONCE..tickets.len()).map(read)).await;
    assert!(others.iter().all(|ticket| matches!(ticket, Ok(Some(_)))), "{others:?}");
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    for lost in lost {
        assert!(lost.await.unwrap().is_err_and(|error| error.is_unavailable()));
    }
    held.wait_until_abandoned(AT_ONCE).await;
}
