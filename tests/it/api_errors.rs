//! Every error of the API, and the order in which a request is checked.

use orders_operator::{
    api,
    order::ReservationTerms,
    store::{ConnectOptions, Store},
};
use prometheus_client::registry::Registry;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::mongo::{JWT_KEY, TestApi, answer, cookie};

fn error(status: u16, message: &str) -> (StatusCode, Value) {
    (StatusCode::from_u16(status).unwrap(), json!({ "errors": [{ "message": message }] }))
}

fn missing_ticket_id() -> (StatusCode, Value) {
    let errors = json!([
        { "message": "Invalid value", "field": "ticketId" },
        { "message": "TicketId must be provided", "field": "ticketId" },
    ]);
    (StatusCode::BAD_REQUEST, json!({ "errors": errors }))
}

fn wrong_ticket_id() -> (StatusCode, Value) {
    let errors = json!([{ "message": "TicketId must be provided", "field": "ticketId" }]);
    (StatusCode::BAD_REQUEST, json!({ "errors": errors }))
}

#[tokio::test]
async fn every_route_needs_a_session() {
    let api = TestApi::new().await;
    let refused = error(401, "Not authorized");
    let garbage =
        ["session=garbage", "session=e30=", "session=", "session=eyJqd3QiOiJ4LnkueiJ9", "session=%%%; a"];
    for (method, path) in [
        (Method::GET, "/api/orders"),
        (Method::POST, "/api/orders"),
        (Method::GET, "/api/orders/x"),
        (Method::DELETE, "/api/orders/x"),
    ] {
        assert_eq!(answer(api.request(method.clone(), path)).await, refused, "{method} {path}");
        for cookie in garbage {
            let request = api.request(method.clone(), path).header("cookie", cookie);
            assert_eq!(answer(request).await, refused, "{method} {path} {cookie}");
        }
    }
}

#[tokio::test]
async fn an_order_of_another_user_is_not_shown_and_not_cancelled() {
    let api = TestApi::new().await;
    let id = api.reserved("u1", api.ticket().await).await;
    let refused = error(401, "Not authorized");
    assert_eq!(api.get("u2", &format!("/api/orders/{id}")).await, refused);
    assert_eq!(api.cancel("u2", &id).await, refused);
    assert_eq!(api.stored(&id).await.get_str("status").unwrap(), "created");
    api.cancel("u1", &id).await;
    assert_eq!(api.cancel("u2", &id).await, refused, "not even when it is cancelled already");
}

#[tokio::test]
async fn unknown_routes_and_methods_are_not_found() {
    let api = TestApi::new().await;
    let not_found = error(404, "Not Found");
    for (method, path) in [
        (Method::GET, "/"),
        (Method::GET, "/api"),
        (Method::GET, "/api/ordersX"),
        (Method::GET, "/api/orders//"),
        (Method::GET, "/api/orders/1/2"),
        (Method::PUT, "/api/orders"),
        (Method::DELETE, "/api/orders"),
        (Method::POST, "/api/orders/65f0c1d2a3b4c5d6e7f80912"),
        (Method::PATCH, "/api/orders/65f0c1d2a3b4c5d6e7f80912"),
        (Method::OPTIONS, "/api/nothing"),
    ] {
        assert_eq!(answer(api.request(method.clone(), path)).await, not_found, "{method} {path}");
    }
}

#[tokio::test]
async fn a_missing_ticket_id_and_an_invalid_one_are_different_errors() {
    let api = TestApi::new().await;
    let post = |body: &str| {
        let request = api.by("u1", Method::POST, "/api/orders").header("content-type", "application/json");
        answer(request.body(body.to_owned()))
    };
    for body in ["{}", "[]", "", r#"{"ticketId":""}"#, r#"{"ticketId":null}"#, r#"{"ticketID":"x"}"#] {
        assert_eq!(post(body).await, missing_ticket_id(), "{body}");
    }
    for wrong in ["7", "true", "[]", "{}", r#"["65f0c1d2a3b4c5d6e7f80912"]"#, r#""abcdefghijkl""#, r#"" ""#] {
        assert_eq!(post(&format!(r#"{{"ticketId":{wrong}}}"#)).await, wrong_ticket_id(), "{wrong}");
    }
}

#[tokio::test]
async fn a_body_whose_content_type_is_not_json_is_ignored() {
    let api = TestApi::new().await;
    let body = json!({ "ticketId": api.ticket().await.to_string() }).to_string();
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/vnd.api+json"] {
        let request =
            api.by("u1", Method::POST, "/api/orders").header("content-type", kind).body(body.clone());
        assert_eq!(answer(request).await, missing_ticket_id(), "{kind}");
    }
    assert_eq!(
        answer(api.by("u1", Method::POST, "/api/orders").body(body.clone())).await,
        missing_ticket_id()
    );
    let request =
        api.by("u1", Method::POST, "/api/orders").header("content-type", "Application/JSON; charset=utf-8");
    assert_eq!(answer(request.body(body)).await.0, StatusCode::CREATED);
}

#[tokio::test]
async fn a_malformed_order_id_is_an_error_of_its_own() {
    let api = TestApi::new().await;
    let wrong = (
        StatusCode::BAD_REQUEST,
        json!({ "errors": [{ "message": "OrderId must be valid", "field": "orderId" }] }),
    );
    for id in ["x", "abcdefghijkl", "65f0c1d2a3b4c5d6e7f8091", "65f0c1d2a3b4c5d6e7f80912a", "%FF", "a%20b"] {
        assert_eq!(api.get("u1", &format!("/api/orders/{id}")).await, wrong, "{id}");
        assert_eq!(api.cancel("u1", id).await, wrong, "{id}");
    }
}

#[tokio::test]
async fn the_body_is_checked_before_the_session_and_the_session_before_the_fields() {
    let api = TestApi::new().await;
    let malformed = error(400, "Malformed JSON");
    for body in ["{", "nonsense", "null", "\"x\"", r#"{"ticketId":"x",}"#] {
        for (method, path) in
            [(Method::POST, "/api/orders"), (Method::GET, "/api/orders"), (Method::GET, "/nowhere")]
        {
            let request = api.request(method.clone(), path).header("content-type", "application/json");
            assert_eq!(answer(request.body(body)).await, malformed, "{method} {path} {body}");
        }
    }
    let request = api.request(Method::POST, "/api/orders").json(&json!({}));
    assert_eq!(answer(request).await, error(401, "Not authorized"));
}

#[tokio::test]
async fn a_body_over_100_kb_is_too_large_and_one_of_exactly_100_is_not() {
    let api = TestApi::new().await;
    let ticket = api.ticket().await;
    let padded = |bytes: usize| {
        let frame = json!({ "ticketId": ticket.to_string(), "padding": "" }).to_string().len();
        json!({ "ticketId": ticket.to_string(), "padding": "x".repeat(bytes - frame) }).to_string()
    };
    let post = |body: String| {
        let request = api.by("u1", Method::POST, "/api/orders").header("content-type", "application/json");
        answer(request.body(body))
    };
    assert_eq!(post(padded(102_401)).await, error(413, "Payload too large"));
    assert_eq!(post(padded(3_000_000)).await, error(413, "Payload too large"));
    let unsigned = api.request(Method::POST, "/api/orders").header("content-type", "application/json");
    assert_eq!(answer(unsigned.body(padded(200_000))).await, error(413, "Payload too large"));
    assert_eq!(post(padded(102_400)).await.0, StatusCode::CREATED);
}

#[tokio::test]
async fn without_its_database_the_api_answers_503_with_retry_after() {
    let store =
        Store::connect(ConnectOptions::new("mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=100")).await;
    let routes = api::router(store.unwrap(), JWT_KEY, ReservationTerms::default(), &mut Registry::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/api/orders", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, routes).await });

    let client = reqwest::Client::new();
    let response = client.get(&url).header("cookie", cookie("u1")).send().await.unwrap();
    assert!(response.headers().contains_key("retry-after"));
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let body: Value = response.json().await.unwrap();
    assert_eq!(body, error(503, "Service unavailable").1);
    // Checks that need no database still work.
    assert_eq!(client.get(&url).send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let response = client.post(&url).header("cookie", cookie("u1")).json(&json!({})).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
}
