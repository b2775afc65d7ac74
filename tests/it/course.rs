//! The course author's tests of the orders service over HTTP, in the same order and with the same names; and what
//! copies of the service usually test in addition.
//!
//! Of the 17, those for published events and acknowledged messages do not apply: there are no events here. What
//! the listeners did to the data is tested on its replacements, the import of tickets and the sweeper's query.

use std::time::Duration;

use jiff::Timestamp;
use mongodb::bson::{DateTime, doc, oid::ObjectId};
use orders_operator::{
    import::OnError,
    order::{Ticket, TicketId, Version},
    store::ExpiryQuery,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    import,
    mongo::{TestApi, answer, ticket_id},
};

fn ids(orders: &Value) -> Vec<&str> {
    orders.as_array().unwrap().iter().map(|order| order["id"].as_str().unwrap()).collect()
}

async fn import(api: &TestApi, id: TicketId, title: &str, version: u32) {
    let line = json!({ "id": id.to_string(), "title": title, "price": 20, "version": version });
    import::run(api, &line.to_string(), OnError::Stop).await.unwrap();
}

#[tokio::test]
async fn index_fetches_orders_for_a_particular_user() {
    let api = TestApi::new().await;
    api.reserved("user one", api.ticket().await).await;
    let (two, three) = (api.ticket().await, api.ticket().await);
    let first = api.reserved("user two", two).await;
    let second = api.reserved("user two", three).await;
    let (status, orders) = api.get("user two", "/api/orders").await;
    assert_eq!((status, ids(&orders)), (StatusCode::OK, vec![first.as_str(), &second]));
    assert_eq!(orders[0]["ticket"]["id"], json!(two.to_string()));
    assert_eq!(orders[1]["ticket"]["id"], json!(three.to_string()));
}

#[tokio::test]
async fn show_fetches_the_order() {
    let api = TestApi::new().await;
    let (status, order) = api.reserve("u1", api.ticket().await).await;
    assert_eq!(status, StatusCode::CREATED);
    let path = format!("/api/orders/{}", order["id"].as_str().unwrap());
    assert_eq!(api.get("u1", &path).await, (StatusCode::OK, order));
}

#[tokio::test]
async fn show_returns_an_error_if_one_user_tries_to_fetch_another_users_order() {
    let api = TestApi::new().await;
    let id = api.reserved("u1", api.ticket().await).await;
    assert_eq!(api.get("u2", &format!("/api/orders/{id}")).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn new_returns_an_error_if_the_ticket_does_not_exist() {
    let api = TestApi::new().await;
    assert_eq!(api.reserve("u1", ticket_id()).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn new_returns_an_error_if_the_ticket_is_already_reserved() {
    let api = TestApi::new().await;
    for status in ["created", "awaiting:payment", "complete"] {
        let ticket = api.ticket().await;
        api.mongoose_order(doc! { "ticket": ObjectId::from(ticket.bytes()), "status": status }).await;
        assert_eq!(api.reserve("u2", ticket).await.0, StatusCode::BAD_REQUEST, "{status}");
    }
    let ticket = api.ticket().await;
    api.mongoose_order(doc! { "ticket": ObjectId::from(ticket.bytes()), "status": "cancelled" }).await;
    assert_eq!(api.reserve("u2", ticket).await.0, StatusCode::CREATED);
}

#[tokio::test]
async fn new_reserves_a_ticket() {
    let api = TestApi::new().await;
    assert_eq!(api.reserve("u1", api.ticket().await).await.0, StatusCode::CREATED);
}

#[tokio::test]
async fn delete_marks_an_order_as_cancelled() {
    let api = TestApi::new().await;
    let ticket = api.ticket().await;
    let id = api.reserved("u1", ticket).await;
    assert_eq!(api.cancel("u1", &id).await.0, StatusCode::NO_CONTENT);
    assert_eq!(api.stored(&id).await.get_str("status").unwrap(), "cancelled");
    assert_eq!(api.reserve("u2", ticket).await.0, StatusCode::CREATED, "and it can be reserved again");
}

#[tokio::test]
async fn ticket_created_creates_and_saves_a_ticket() {
    let api = TestApi::new().await;
    let id = ticket_id();
    import(&api, id, "concert", 0).await;
    let wanted = Ticket { id, title: "concert".into(), price: 20.0, version: Version(0) };
    assert_eq!(api.store.ticket(id).await.unwrap(), Some(wanted));
}

#[tokio::test]
async fn ticket_updated_finds_updates_and_saves_a_ticket_and_not_from_an_older_version() {
    let api = TestApi::new().await;
    let id = ticket_id();
    import(&api, id, "concert", 1).await;
    import(&api, id, "new concert", 2).await;
    import(&api, id, "the event before", 1).await;
    let (_, order) = api.reserve("u1", id).await;
    assert_eq!((&order["ticket"]["title"], &order["ticket"]["version"]), (&json!("new concert"), &json!(2)));
}

#[tokio::test]
async fn expiration_complete_updates_the_order_status_to_cancelled() {
    let api = TestApi::new().await;
    let past = DateTime::from_millis(DateTime::now().timestamp_millis() - 1000);
    let overdue = api.mongoose_order(doc! { "expiresAt": past }).await;
    let paid = api.mongoose_order(doc! { "expiresAt": past, "status": "complete" }).await;
    let now = Timestamp::now();
    let look = api.store.find_expiring(&ExpiryQuery::due(now, Duration::ZERO, 100)).await.unwrap();
    api.store.expire(&look, now, Duration::ZERO).await.unwrap();
    assert_eq!(api.stored(&overdue).await.get_str("status").unwrap(), "cancelled");
    assert_eq!(api.stored(&paid).await.get_str("status").unwrap(), "complete", "payment came first");
}

#[tokio::test]
async fn every_route_answers_401_without_a_session_and_something_else_with_one() {
    let api = TestApi::new().await;
    let id = api.reserved("u1", api.ticket().await).await;
    let one = format!("/api/orders/{id}");
    for (method, path) in [
        (Method::POST, "/api/orders"),
        (Method::GET, "/api/orders"),
        (Method::GET, one.as_str()),
        (Method::DELETE, one.as_str()),
    ] {
        let without = answer(api.request(method.clone(), path)).await;
        assert_eq!(without.0, StatusCode::UNAUTHORIZED, "{method} {path}");
        let with = answer(api.by("u1", method.clone(), path)).await;
        assert_ne!(with.0, StatusCode::UNAUTHORIZED, "{method} {path}");
    }
}
