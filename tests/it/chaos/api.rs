//! Many buyers compete for many tickets, under faults: what the API answered is what the database holds.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt, future::join_all, stream};
use mongodb::bson::{DateTime, Document, doc, oid::ObjectId};
use orders_operator::order::{ReservationTerms, TicketId};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    bed::{SPARE_MONGO, restart, setting},
    mongo::{TestApi, TestDatabase, answer},
};

const TICKETS: usize = 200;
const BUYERS: usize = 10;
/// How many tickets are on sale at the same time.
const CONCURRENT_TICKETS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(60);

/// An order as it was answered to its buyer.
#[derive(Debug)]
struct AnsweredOrder {
    id: String,
    cancelled: bool,
}

/// Repeats a request while the database is unavailable, which is safe with an idempotency key and for a
/// cancellation.
async fn retry(request: impl Fn() -> reqwest::RequestBuilder) -> (StatusCode, Value) {
    let started = Instant::now();
    loop {
        let (status, body) = answer(request()).await;
        if status != StatusCode::SERVICE_UNAVAILABLE {
            return (status, body);
        }
        assert_eq!(body, json!({ "errors": [{ "message": "Service unavailable" }] }));
        assert!(started.elapsed() < PATIENCE, "the database does not recover");
    }
}

/// One buyer's attempt. Every second one that succeeds is cancelled at once.
async fn buy(api: &TestApi, ticket: TicketId, number: usize, buyer: usize) -> Option<AnsweredOrder> {
    let (user, body) = (format!("u{number}-{buyer}"), json!({ "ticketId": ticket.to_string() }));
    let reserve = || api.by(&user, Method::POST, "/api/orders").header("idempotency-key", "once").json(&body);
    let (status, order) = retry(reserve).await;
    if status == StatusCode::BAD_REQUEST {
        assert_eq!(order, json!({ "errors": [{ "message": "Ticket is already reserved" }] }));
        return None;
    }
    assert_eq!(status, StatusCode::CREATED, "{order}");
    let id = order["id"].as_str().unwrap().to_owned();
    let cancelled = (number + buyer).is_multiple_of(2);
    if cancelled {
        let (status, body) = retry(|| api.by(&user, Method::DELETE, &format!("/api/orders/{id}"))).await;
        assert_eq!(status, StatusCode::NO_CONTENT, "{body}");
    }
    Some(AnsweredOrder { id, cancelled })
}

/// Sells all tickets, a quarter of which are held by an overdue order, while `fault` runs. Then compares the answers
/// with what is stored.
async fn sell_all(api: &TestApi, fault: impl AsyncFnOnce()) {
    let mut overdue = HashMap::new();
    let mut tickets = Vec::new();
    for number in 0..TICKETS {
        let ticket = api.ticket().await;
        if number % 4 == 0 {
            let past = DateTime::from_millis(DateTime::now().timestamp_millis() - 1000);
            let holder = doc! { "ticket": ObjectId::from(ticket.bytes()), "expiresAt": past, "version": 5 };
            overdue.insert(ticket, api.mongoose_order(holder).await);
        }
        tickets.push((number, ticket));
    }
    let sell = |(number, ticket)| async move {
        let answered = join_all((0..BUYERS).map(|buyer| buy(api, ticket, number, buyer))).await;
        (ticket, answered.into_iter().flatten().collect::<Vec<_>>())
    };
    let (first, rest) = tickets.split_at(TICKETS / 4);
    let mut answered: Vec<_> =
        stream::iter(first.to_vec()).map(sell).buffer_unordered(CONCURRENT_TICKETS).collect().await;
    let rest = stream::iter(rest.to_vec()).map(sell).buffer_unordered(CONCURRENT_TICKETS).collect::<Vec<_>>();
    let (rest, ()) = tokio::join!(rest, fault());
    answered.extend(rest);

    let stored: Vec<Document> = api.orders().find(doc! {}).await.unwrap().try_collect().await.unwrap();
    let mut stored: HashMap<String, (&str, i32)> = stored
        .iter()
        .map(|order| {
            let id = order.get_object_id("_id").unwrap().to_hex();
            (id, (order.get_str("status").unwrap(), order.get_i32("version").unwrap()))
        })
        .collect();
    for (ticket, orders) in answered {
        assert!(!orders.is_empty(), "nobody got {ticket}");
        let kept = orders.iter().filter(|order| !order.cancelled).count();
        assert!(kept <= 1, "{ticket} was sold {kept} times: {orders:?}");
        for order in orders {
            let wanted = if order.cancelled { ("cancelled", 1) } else { ("created", 0) };
            assert_eq!(stored.remove(&order.id), Some(wanted), "{order:?} of {ticket}");
        }
        if let Some(holder) = overdue.remove(&ticket) {
            assert_eq!(stored.remove(&holder), Some(("cancelled", 6)), "the overdue order of {ticket}");
        }
    }
    assert!(stored.is_empty(), "stored orders that were never answered: {stored:?}");
}

#[tokio::test]
async fn ten_buyers_for_each_of_200_tickets_with_cancels_and_overdue_orders() {
    let api = TestApi::new().await;
    sell_all(&api, async || {}).await;
}

#[tokio::test]
async fn ten_buyers_for_each_of_200_tickets_while_the_database_is_killed_and_restarted() {
    let _alone = SPARE_MONGO.write().await;
    let database = TestDatabase::at(setting("SPARE_MONGO_URI")).await;
    database.store.ensure_indexes().await.unwrap();
    let api = TestApi::over(database, ReservationTerms::default()).await;
    sell_all(&api, async || {
        for _ in 0..2 {
            restart("SPARE_MONGO_RESTART").await;
        }
    })
    .await;
}
