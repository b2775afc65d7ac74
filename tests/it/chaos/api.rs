//! Many buyers compete for many tickets, under faults: what the API answered is what the database holds.

use std::{
    collections::{HashMap, HashSet},
    sync::Mutex,
    time::Instant,
};

use futures::{StreamExt, TryStreamExt, future::join_all, stream};
use mongodb::bson::{DateTime, Document, doc, oid::ObjectId};
use orders_operator::order::{ReservationTerms, TicketId};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{
    bed::{SPARE_MONGO, restart, setting},
    cluster::PATIENCE,
    mongo::{TestApi, TestDatabase, answer, make_indexes},
};

const TICKETS: usize = 200;
const BUYERS: usize = 10;
/// How many tickets are on sale at the same time.
const CONCURRENT_TICKETS: usize = 8;

/// An order as it was answered to its buyer.
#[derive(Debug)]
struct AnsweredOrder {
    id: String,
    cancelled: bool,
}

/// What all buyers share.
struct Market<'a> {
    api: &'a TestApi,
    /// When the fault ended.
    fault_ended: watch::Receiver<Option<Instant>>,
    /// Those who were told that the ticket is another's after they were told that the database is unavailable: what they had
    /// asked for first may be carried out later.
    doubted: Mutex<HashSet<String>>,
}

impl Market<'_> {
    /// Repeats a request while the database is unavailable, which is safe with an idempotency key and for a
    /// cancellation. Also gives whether it was.
    async fn retry(&self, request: impl Fn() -> reqwest::RequestBuilder) -> (StatusCode, Value, bool) {
        let (started, mut was_unavailable) = (Instant::now(), false);
        loop {
            let (status, body) = answer(request()).await;
            if status != StatusCode::SERVICE_UNAVAILABLE {
                return (status, body, was_unavailable);
            }
            was_unavailable = true;
            assert_eq!(body, json!({ "errors": [{ "message": "Service unavailable" }] }));
            if let Some(ended) = *self.fault_ended.borrow() {
                assert!(ended.max(started).elapsed() < PATIENCE, "the database does not recover");
            }
        }
    }

    /// One buyer's attempt. Every second one that succeeds is cancelled at once.
    async fn buy(&self, ticket: TicketId, number: usize, buyer: usize) -> Option<AnsweredOrder> {
        let user = format!("u{number}-{buyer}");
        let (status, order, was_unavailable) = self.retry(|| reserve(self.api, &user, ticket)).await;
        if status == StatusCode::BAD_REQUEST {
            assert_eq!(order, json!({ "errors": [{ "message": "Ticket is already reserved" }] }));
            if was_unavailable {
                self.doubted.lock().unwrap().insert(user);
            }
            return None;
        }
        assert_eq!(status, StatusCode::CREATED, "{order}");
        let id = order["id"].as_str().unwrap().to_owned();
        let cancelled = (number + buyer).is_multiple_of(2);
        if cancelled {
            let path = format!("/api/orders/{id}");
            let (status, body, _) = self.retry(|| self.api.by(&user, Method::DELETE, &path)).await;
            assert_eq!(status, StatusCode::NO_CONTENT, "{body}");
        }
        Some(AnsweredOrder { id, cancelled })
    }

    /// An order that nobody was answered. Only one who was left in doubt may have it, and the same call returns it.
    async fn is_of_a_doubt(&self, order: &Document) {
        let user = order.get_str("userId").unwrap();
        let is_doubted = self.doubted.lock().unwrap().contains(user);
        assert!(is_doubted, "{order} was never answered, and {user} was in no doubt");
        let ticket = TicketId::from_bytes(order.get_object_id("ticket").unwrap().bytes());
        let (status, again, _) = self.retry(|| reserve(self.api, user, ticket)).await;
        let id = order.get_object_id("_id").unwrap().to_hex();
        assert_eq!((status, again["id"].as_str()), (StatusCode::CREATED, Some(id.as_str())), "{again}");
    }
}

/// The one call by which a user reserves a ticket.
fn reserve(api: &TestApi, user: &str, ticket: TicketId) -> reqwest::RequestBuilder {
    let body = json!({ "ticketId": ticket.to_string() });
    api.by(user, Method::POST, "/api/orders").header("idempotency-key", "once").json(&body)
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
    let (ending, fault_ended) = watch::channel(None);
    let market = &Market { api, fault_ended, doubted: Mutex::default() };
    let sell = |(number, ticket)| async move {
        let answered = join_all((0..BUYERS).map(|buyer| market.buy(ticket, number, buyer))).await;
        (ticket, answered.into_iter().flatten().collect::<Vec<_>>())
    };
    let (first, rest) = tickets.split_at(TICKETS / 4);
    let mut answered: Vec<_> =
        stream::iter(first.to_vec()).map(sell).buffer_unordered(CONCURRENT_TICKETS).collect().await;
    let rest = stream::iter(rest.to_vec()).map(sell).buffer_unordered(CONCURRENT_TICKETS).collect::<Vec<_>>();
    let disturb = async {
        fault().await;
        ending.send_replace(Some(Instant::now()));
    };
    let (rest, ()) = tokio::join!(rest, disturb);
    answered.extend(rest);

    let stored: Vec<Document> = api.orders().find(doc! {}).await.unwrap().try_collect().await.unwrap();
    let by_id = |order: &Document| (order.get_object_id("_id").unwrap().to_hex(), order.clone());
    let mut stored: HashMap<String, Document> = stored.iter().map(by_id).collect();
    let mut ended = |id: &str| {
        let order = stored.remove(id)?;
        Some((order.get_str("status").unwrap().to_owned(), order.get_i32("version").unwrap()))
    };
    for (ticket, orders) in answered {
        assert!(!orders.is_empty(), "nobody got {ticket}");
        let kept = orders.iter().filter(|order| !order.cancelled).count();
        assert!(kept <= 1, "{ticket} was sold {kept} times: {orders:?}");
        for order in orders {
            let wanted = if order.cancelled { ("cancelled", 1) } else { ("created", 0) };
            let found = ended(&order.id);
            let found = found.as_ref().map(|(status, version)| (status.as_str(), *version));
            assert_eq!(found, Some(wanted), "{order:?} of {ticket}");
        }
        if let Some(holder) = overdue.remove(&ticket) {
            let wanted = ("cancelled".to_owned(), 6);
            assert_eq!(ended(&holder), Some(wanted), "the overdue order of {ticket}");
        }
    }
    for order in stored.values() {
        market.is_of_a_doubt(order).await;
    }
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
    make_indexes(&database.store).await;
    let api = TestApi::over(database, ReservationTerms::default()).await;
    sell_all(&api, async || {
        for _ in 0..2 {
            restart("SPARE_MONGO_RESTART").await;
        }
    })
    .await;
}
