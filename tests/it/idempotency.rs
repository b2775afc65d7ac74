//! `Idempotency-Key`: repeating a reservation makes one order.

use futures::future::join_all;
use mongodb::bson::doc;
use orders_operator::order::TicketId;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::mongo::{TestApi, answer, ticket_id};

async fn reserve(api: &TestApi, user: &str, ticket: TicketId, key: &str) -> (StatusCode, Value) {
    let request = api.by(user, Method::POST, "/api/orders").header("idempotency-key", key);
    answer(request.json(&json!({ "ticketId": ticket.to_string() }))).await
}

#[tokio::test]
async fn the_same_key_returns_the_same_order_and_another_key_does_not() {
    let api = TestApi::new().await;
    let ticket = api.ticket().await;
    let (status, order) = reserve(&api, "u1", ticket, "a").await;
    assert_eq!(status, StatusCode::CREATED);
    for _ in 0..3 {
        assert_eq!(reserve(&api, "u1", ticket, "a").await, (status, order.clone()));
    }
    let taken = json!({ "errors": [{ "message": "Ticket is already reserved" }] });
    for (user, key) in [("u1", "b"), ("u1", "A"), ("u2", "a")] {
        assert_eq!(reserve(&api, user, ticket, key).await, (StatusCode::BAD_REQUEST, taken.clone()));
    }
    assert_eq!(api.reserve("u1", ticket).await, (StatusCode::BAD_REQUEST, taken));
    assert_eq!(api.orders().count_documents(doc! {}).await.unwrap(), 1);
}

#[tokio::test]
async fn a_key_returns_its_order_whatever_its_status() {
    let api = TestApi::new().await;
    let ticket = api.ticket().await;
    let (_, order) = reserve(&api, "u1", ticket, "a").await;
    let id = order["id"].as_str().unwrap();
    api.cancel("u1", id).await;
    let other = api.reserved("u2", ticket).await;

    let (status, again) = reserve(&api, "u1", ticket, "a").await;
    assert_eq!((status, &again["id"]), (StatusCode::CREATED, &json!(id)));
    assert_eq!((&again["status"], &again["version"]), (&json!("cancelled"), &json!(1)));
    assert_eq!(api.stored(&other).await.get_str("status").unwrap(), "created");
}

#[tokio::test]
async fn twenty_concurrent_requests_with_one_key_return_one_order() {
    let api = TestApi::new().await;
    for round in 0..5 {
        let (ticket, key) = (api.ticket().await, format!("round {round}").replace(' ', "-"));
        let answers = join_all((0..20).map(|_| reserve(&api, "u1", ticket, &key))).await;
        let (status, order) = &answers[0];
        assert_eq!(*status, StatusCode::CREATED, "{order}");
        assert!(answers.iter().all(|answer| answer == &answers[0]), "{answers:?}");
    }
    assert_eq!(api.orders().count_documents(doc! {}).await.unwrap(), 5);
}

#[tokio::test]
async fn concurrent_requests_with_one_key_for_two_tickets_reserve_one_of_them() {
    let api = TestApi::new().await;
    for round in 0..5 {
        let (key, tickets) = (format!("key-{round}"), [api.ticket().await, api.ticket().await]);
        let answers = join_all((0..10).map(|n| reserve(&api, "u1", tickets[n % 2], &key))).await;
        let mut statuses: Vec<u16> = answers.iter().map(|(status, _)| status.as_u16()).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [[201; 5], [422; 5]].concat(), "{answers:?}");
    }
    assert_eq!(api.orders().count_documents(doc! {}).await.unwrap(), 5);
}

#[tokio::test]
async fn a_key_used_for_another_ticket_and_an_invalid_key_are_refused() {
    let api = TestApi::new().await;
    let error = |message: &str| json!({ "errors": [{ "message": message, "field": "Idempotency-Key" }] });
    let ticket = api.ticket().await;
    reserve(&api, "u1", ticket, "a").await;
    let reused = (StatusCode::UNPROCESSABLE_ENTITY, error("Idempotency-Key was used for another ticket"));
    assert_eq!(reserve(&api, "u1", api.ticket().await, "a").await, reused);
    assert_eq!(reserve(&api, "u1", ticket_id(), "a").await, reused);
    let unfit = (StatusCode::BAD_REQUEST, error("Idempotency-Key must be 1 to 255 visible ASCII characters"));
    for key in ["", "two words", &"k".repeat(256)] {
        assert_eq!(reserve(&api, "u1", ticket, key).await, unfit, "{key}");
    }
}

#[tokio::test]
async fn a_refused_reservation_leaves_its_key_unused() {
    let api = TestApi::new().await;
    let ticket = api.ticket().await;
    let holder = api.reserved("u2", ticket).await;
    assert_eq!(reserve(&api, "u1", ticket, "a").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(reserve(&api, "u1", ticket_id(), "a").await.0, StatusCode::NOT_FOUND);
    api.cancel("u2", &holder).await;
    assert_eq!(reserve(&api, "u1", ticket, "a").await.0, StatusCode::CREATED);
}
