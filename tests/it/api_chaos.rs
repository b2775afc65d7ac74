//! Many buyers for many tickets, with everything going on at once: what was said is what is.

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
    bed::{restart, setting},
    mongo::{TestApi, TestDatabase, answer},
};

const TICKETS: usize = 200;
const BUYERS: usize = 10;
/// How many tickets are fought for at any moment.
const AT_ONCE: usize = 8;
const PATIENCE: Duration = Duration::from_secs(60);

/// An order that a buyer was told of.
#[derive(Debug)]
struct Told {
    id: String,
    cancelled: bool,
}

/// Repeats a request while the answer is that the database is away; with an idempotency key, or for a
/// cancellation, that is what a careful client does.
async fn persist(request: impl Fn() -> reqwest::RequestBuilder) -> (StatusCode, Value) {
    let started = Instant::now();
    loop {
        let (status, body) = answer(request()).await;
        if status != StatusCode::SERVICE_UNAVAILABLE {
            return (status, body);
        }
        assert_eq!(body, json!({ "errors": [{ "message": "Service unavailable" }] }));
        assert!(started.elapsed() < PATIENCE, "the database does not come back");
    }
}

/// One buyer's attempt; every second one that succeeds changes its mind at once.
async fn buy(api: &TestApi, ticket: TicketId, number: usize, buyer: usize) -> Option<Told> {
    let (user, body) = (format!("u{number}-{buyer}"), json!({ "ticketId": ticket.to_string() }));
    let reserve = || api.by(&user, Method::POST, "/api/orders").header("idempotency-key", "once").json(&body);
    let (status, order) = persist(reserve).await;
    if status == StatusCode::BAD_REQUEST {
        assert_eq!(order, json!({ "errors": [{ "message": "Ticket is already reserved" }] }));
        return None;
    }
    assert_eq!(status, StatusCode::CREATED, "{order}");
    let id = order["id"].as_str().unwrap().to_owned();
    let cancelled = (number + buyer).is_multiple_of(2);
    if cancelled {
        let (status, body) = persist(|| api.by(&user, Method::DELETE, &format!("/api/orders/{id}"))).await;
        assert_eq!(status, StatusCode::NO_CONTENT, "{body}");
    }
    Some(Told { id, cancelled })
}

/// All tickets with their buyers, a quarter of them held by an order that is overdue; in the middle
/// of it `disturb` runs. Then what the buyers were told is compared with what is stored.
async fn market(api: &TestApi, disturb: impl AsyncFnOnce()) {
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
    let fight = |(number, ticket)| async move {
        let told = join_all((0..BUYERS).map(|buyer| buy(api, ticket, number, buyer))).await;
        (ticket, told.into_iter().flatten().collect::<Vec<_>>())
    };
    let (first, rest) = tickets.split_at(TICKETS / 4);
    let mut told: Vec<_> = stream::iter(first.to_vec()).map(fight).buffer_unordered(AT_ONCE).collect().await;
    let rest = stream::iter(rest.to_vec()).map(fight).buffer_unordered(AT_ONCE).collect::<Vec<_>>();
    let (rest, ()) = tokio::join!(rest, disturb());
    told.extend(rest);

    let stored: Vec<Document> = api.orders().find(doc! {}).await.unwrap().try_collect().await.unwrap();
    let mut stored: HashMap<String, (&str, i32)> = stored
        .iter()
        .map(|order| {
            let id = order.get_object_id("_id").unwrap().to_hex();
            (id, (order.get_str("status").unwrap(), order.get_i32("version").unwrap()))
        })
        .collect();
    for (ticket, orders) in told {
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
    assert!(stored.is_empty(), "orders that nobody was told of: {stored:?}");
}

#[tokio::test]
async fn ten_buyers_for_each_of_200_tickets_with_cancels_and_overdue_orders() {
    let api = TestApi::new().await;
    market(&api, async || {}).await;
}

#[tokio::test]
async fn the_same_while_the_database_is_killed_and_started_again() {
    let database = TestDatabase::at(setting("SPARE_MONGO_URI")).await;
    database.store.ensure_indexes().await.unwrap();
    let api = TestApi::over(database, ReservationTerms::default()).await;
    market(&api, async || {
        for _ in 0..2 {
            restart("SPARE_MONGO_RESTART").await;
        }
    })
    .await;
}
