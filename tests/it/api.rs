//! The four routes, over real HTTP and a real database.

use std::collections::HashSet;

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use mongodb::bson::{DateTime, doc, oid::ObjectId};
use orders_operator::order::{ReservationTerms, ReservationWindow};
use proptest::{
    prelude::*, sample::select, strategy::ValueTree, string::string_regex, test_runner::TestRunner,
};
use reqwest::{Method, StatusCode, Url};
use serde_json::{Value, json};

use crate::{
    cluster::eventually,
    mongo::{TestApi, answer, cookie, ticket_id},
};

#[tokio::test]
async fn a_reservation_is_answered_and_stored_as_by_the_node_service() {
    let window = ReservationWindow::from_seconds(60).unwrap();
    let api = TestApi::with(ReservationTerms { window, ..ReservationTerms::default() }).await;
    // Without an idempotency key. Where the database does not answer in time, the ticket may be taken.
    let (ticket, before, status, order, after) = eventually("it is answered", || async {
        let ticket = api.ticket().await;
        let body = json!({ "ticketId": ticket.to_string() });
        let before = Timestamp::now();
        let (status, order) = answer(api.by("u1", Method::POST, "/api/orders").json(&body)).await;
        let is_in_time = status != StatusCode::SERVICE_UNAVAILABLE;
        is_in_time.then(|| (ticket, before, status, order, Timestamp::now()))
    })
    .await;
    assert_eq!(status, StatusCode::CREATED);

    let id = order["id"].as_str().unwrap();
    let expires_at = order["expiresAt"].as_str().unwrap();
    let wanted = json!({
        "userId": "u1", "status": "created", "expiresAt": expires_at, "version": 0, "id": id,
        "ticket": { "title": "concert", "price": 20, "version": 0, "id": ticket.to_string() },
    });
    assert_eq!(order, wanted);
    assert_eq!(expires_at.len(), "2026-11-22T17:29:24.464Z".len());
    let lasts = expires_at.parse::<Timestamp>().unwrap().duration_since(before);
    let most = SignedDuration::from_secs(61) + after.duration_since(before);
    assert!((SignedDuration::from_secs(59)..most).contains(&lasts), "{lasts}");

    let stored = api.stored(id).await;
    assert_eq!(
        stored.keys().collect::<Vec<_>>(),
        ["_id", "userId", "status", "expiresAt", "ticket", "version"]
    );
    assert_eq!(stored.get_i32("version").unwrap(), 0);
    assert_eq!(stored.get_object_id("ticket").unwrap().to_hex(), ticket.to_string());
    assert_eq!(api.get("u1", &format!("/api/orders/{id}")).await, (StatusCode::OK, wanted));
}

#[tokio::test]
async fn of_twenty_concurrent_buyers_exactly_one_gets_the_ticket() {
    let api = TestApi::new().await;
    for round in 0..5 {
        let ticket = api.ticket().await;
        let buyers: Vec<String> = (0..20).map(|buyer| format!("u{buyer}")).collect();
        let answers = join_all(buyers.iter().map(|buyer| api.reserve(buyer, ticket))).await;
        let (won, lost): (Vec<_>, Vec<_>) =
            answers.into_iter().partition(|(status, _)| *status == StatusCode::CREATED);
        assert_eq!((won.len(), lost.len()), (1, 19), "round {round}");
        for answer in lost {
            assert_eq!(
                answer,
                (StatusCode::BAD_REQUEST, json!({ "errors": [{ "message": "Ticket is already reserved" }] }))
            );
        }
        let held =
            api.orders().count_documents(doc! { "ticket": ObjectId::from(ticket.bytes()) }).await.unwrap();
        assert_eq!(held, 1, "round {round}");
    }
}

#[tokio::test]
async fn a_user_lists_only_own_orders_oldest_first_with_their_tickets() {
    let api = TestApi::new().await;
    assert_eq!(api.get("u1", "/api/orders").await, (StatusCode::OK, json!([])));
    let mut mine = Vec::new();
    for _ in 0..3 {
        mine.push(api.reserved("u1", api.ticket().await).await);
        api.reserved("u2", api.ticket().await).await;
    }
    let (status, orders) = api.get("u1", "/api/orders").await;
    assert_eq!(status, StatusCode::OK);
    let ids: Vec<_> = orders.as_array().unwrap().iter().map(|order| order["id"].as_str().unwrap()).collect();
    assert_eq!(ids, mine);
    assert!(orders.as_array().unwrap().iter().all(|order| order["ticket"]["title"] == "concert"));
}

#[tokio::test]
async fn a_cancelled_order_can_still_be_shown_and_frees_its_ticket() {
    let api = TestApi::new().await;
    let ticket = api.ticket().await;
    let id = api.reserved("u1", ticket).await;
    assert_eq!(api.reserve("u2", ticket).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(api.cancel("u1", &id).await, (StatusCode::NO_CONTENT, Value::Null));

    let (_, order) = api.get("u1", &format!("/api/orders/{id}")).await;
    assert_eq!((&order["status"], &order["version"]), (&json!("cancelled"), &json!(1)));
    let second = api.reserved("u2", ticket).await;
    assert_ne!(second, id);

    // Cancelling again makes no new version and does not affect the new holder.
    assert_eq!(api.cancel("u1", &id).await, (StatusCode::NO_CONTENT, Value::Null));
    assert_eq!(api.stored(&id).await.get_i32("version").unwrap(), 1);
    assert_eq!(api.stored(&second).await.get_str("status").unwrap(), "created");
}

#[tokio::test]
async fn twenty_concurrent_cancellations_make_one_version() {
    let api = TestApi::new().await;
    let id = api.reserved("u1", api.ticket().await).await;
    let answers = join_all((0..20).map(|_| api.cancel("u1", &id))).await;
    assert!(answers.iter().all(|(status, _)| *status == StatusCode::NO_CONTENT), "{answers:?}");
    assert_eq!(api.stored(&id).await.get_i32("version").unwrap(), 1);
}

#[tokio::test]
async fn an_overdue_order_does_not_block_and_is_cancelled_once_by_many_buyers() {
    let api = TestApi::new().await;
    for status in ["created", "awaiting:payment"] {
        let ticket = api.ticket().await;
        let overdue = api.mongoose_order(doc! {
            "ticket": ObjectId::from(ticket.bytes()), "status": status, "version": 3,
            "expiresAt": DateTime::from_millis(DateTime::now().timestamp_millis() - 1000),
        });
        let overdue = overdue.await;
        let buyers: Vec<String> = (0..10).map(|buyer| format!("u{buyer}")).collect();
        let answers = join_all(buyers.iter().map(|buyer| api.reserve(buyer, ticket))).await;
        let won = answers.iter().filter(|(status, _)| *status == StatusCode::CREATED).count();
        assert_eq!(won, 1, "{answers:?}");
        assert!(
            answers.iter().all(|(status, _)| status.as_u16() == 201 || status.as_u16() == 400),
            "{answers:?}"
        );
        let stored = api.stored(&overdue).await;
        assert_eq!((stored.get_str("status").unwrap(), stored.get_i32("version").unwrap()), ("cancelled", 4));
    }
}

#[tokio::test]
async fn a_complete_order_never_releases_its_ticket() {
    let api = TestApi::new().await;
    let ticket = api.ticket().await;
    let paid = doc! {
        "ticket": ObjectId::from(ticket.bytes()), "status": "complete", "expiresAt": DateTime::from_millis(0),
    };
    let id = api.mongoose_order(paid).await;
    assert_eq!(api.reserve("u2", ticket).await.0, StatusCode::BAD_REQUEST);
    let refused = json!({ "errors": [{ "message": "Order is already complete" }] });
    assert_eq!(api.cancel("u1", &id).await, (StatusCode::BAD_REQUEST, refused));
    assert_eq!(api.stored(&id).await.get_str("status").unwrap(), "complete");
}

#[tokio::test]
async fn an_order_whose_payment_has_begun_keeps_its_ticket_for_the_grace_period() {
    let grace = std::time::Duration::from_secs(3600);
    let api = TestApi::with(ReservationTerms { payment_grace: grace, ..ReservationTerms::default() }).await;
    let ticket = api.ticket().await;
    let paying = doc! {
        "ticket": ObjectId::from(ticket.bytes()), "status": "awaiting:payment",
        "expiresAt": DateTime::from_millis(DateTime::now().timestamp_millis() - 1000),
    };
    let id = api.mongoose_order(paying).await;
    assert_eq!(api.reserve("u2", ticket).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(api.stored(&id).await.get_str("status").unwrap(), "awaiting:payment");
}

#[tokio::test]
async fn paths_are_matched_without_regard_to_case_or_a_trailing_slash_and_head_works() {
    let api = TestApi::new().await;
    let id = api.reserved("u1", api.ticket().await).await;
    for path in ["/api/orders/", "/API/Orders", "/Api/ORDERS/", "/api/orders?x=1"] {
        let (status, orders) = api.get("u1", path).await;
        assert_eq!((status, orders.as_array().unwrap().len()), (StatusCode::OK, 1), "{path}");
    }
    let upper = id.to_uppercase();
    for path in
        [format!("/api/orders/{id}/"), format!("/API/ORDERS/{upper}"), format!("/api/orders/{upper}/")]
    {
        assert_eq!(api.get("u1", &path).await.1["id"], json!(id), "{path}");
        let head = api.by("u1", Method::HEAD, &path).send().await.unwrap();
        assert_eq!(head.status(), StatusCode::OK);
        assert!(head.content_length().is_some() && head.bytes().await.unwrap().is_empty());
    }
    assert_eq!(
        api.request(Method::HEAD, "/api/orders").send().await.unwrap().status(),
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(api.cancel("u1", &format!("{upper}/")).await.0, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn documents_of_the_node_service_are_read_and_their_unknown_fields_are_kept() {
    let api = TestApi::new().await;
    let ticket = ObjectId::new();
    let replica = doc! { "_id": ticket, "title": "concert", "price": 20.5, "version": 2_i64, "__v": 0, "userId": "seller" };
    api.tickets().insert_one(replica).await.unwrap();
    let plain =
        api.mongoose_order(doc! { "ticket": ticket, "version": 1.0, "extra": { "kept": true } }).await;
    let gone = api.mongoose_order(doc! { "ticket": ObjectId::new() }).await;
    let none = api.mongoose_order(doc! { "status": "cancelled", "ticket": mongodb::bson::Bson::Null }).await;
    api.orders()
        .update_one(doc! { "_id": ObjectId::parse_str(&none).unwrap() }, doc! { "$unset": { "version": 1 } })
        .await
        .unwrap();
    api.mongoose_order(doc! { "status": "no such status" }).await;

    let (status, orders) = api.get("u1", "/api/orders").await;
    assert_eq!(status, StatusCode::OK);
    let ids: Vec<_> = orders.as_array().unwrap().iter().map(|order| order["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [plain.as_str(), &gone, &none], "the malformed one hides no other");
    let nested = json!({ "title": "concert", "price": 20.5, "version": 2, "id": ticket.to_hex() });
    assert_eq!((&orders[0]["ticket"], &orders[0]["version"]), (&nested, &json!(1)));
    assert_eq!(
        (&orders[1]["ticket"], &orders[2]["ticket"], &orders[2]["version"]),
        (&Value::Null, &Value::Null, &json!(0))
    );

    assert_eq!(api.cancel("u1", &plain).await.0, StatusCode::NO_CONTENT);
    let stored = api.stored(&plain).await;
    assert_eq!(stored.get_document("extra").unwrap(), &doc! { "kept": true });
    assert_eq!(stored.get_i32("__v").unwrap(), 0);
    assert_eq!((stored.get_str("status").unwrap(), stored.get_f64("version").unwrap()), ("cancelled", 2.0));
}

#[tokio::test]
async fn every_response_has_a_request_id_and_keeps_that_of_the_request() {
    let api = TestApi::new().await;
    let request = api.by("u1", Method::GET, "/api/orders").header("x-request-id", "abc-1");
    assert_eq!(request.send().await.unwrap().headers()["x-request-id"], "abc-1");
    let mut made = HashSet::new();
    for path in ["/api/orders", "/nowhere", "/api/orders/x"] {
        let response = api.request(Method::GET, path).send().await.unwrap();
        made.insert(response.headers()["x-request-id"].to_str().unwrap().to_owned());
    }
    assert_eq!(made.len(), 3);
}

#[tokio::test]
async fn a_bearer_token_and_the_older_cookie_sign_in_too() {
    let api = TestApi::new().await;
    let sealed = cookie("u1");
    let older = sealed.replace("session=", "other=1; express:sess=");
    let request = api.request(Method::GET, "/api/orders").header("cookie", older);
    assert_eq!(answer(request).await, (StatusCode::OK, json!([])));
    let session =
        base64::Engine::decode(&base64::engine::general_purpose::STANDARD, &sealed["session=".len()..]);
    let session: Value = serde_json::from_slice(&session.unwrap()).unwrap();
    let request = api.request(Method::GET, "/api/orders").bearer_auth(session["jwt"].as_str().unwrap());
    assert_eq!(answer(request).await, (StatusCode::OK, json!([])));
}

#[tokio::test]
async fn unknown_tickets_and_orders_are_not_found() {
    let api = TestApi::new().await;
    let not_found = (StatusCode::NOT_FOUND, json!({ "errors": [{ "message": "Not Found" }] }));
    assert_eq!(api.reserve("u1", ticket_id()).await, not_found);
    assert_eq!(api.get("u1", &format!("/api/orders/{}", ticket_id())).await, not_found);
    assert_eq!(api.cancel("u1", &ticket_id().to_string()).await, not_found);
}

#[test]
fn the_checked_in_openapi_description_is_current() {
    let path = crate::cluster::root().join("docs/openapi.json");
    let on_disk = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(on_disk, orders_operator::api::openapi_json().unwrap(), "it is stale: run `make generate`");
}

#[tokio::test]
async fn the_openapi_description_and_its_page_need_no_session_and_load_nothing_from_other_hosts() {
    let api = TestApi::new().await;
    let (status, description) = answer(api.request(Method::GET, "/api/orders/openapi.json")).await;
    assert_eq!((status, &description["openapi"]), (StatusCode::OK, &json!("3.1.0")));
    let page = api.request(Method::GET, "/api/orders/docs/").send().await.unwrap();
    assert_eq!(page.status(), StatusCode::OK);
    assert!(page.headers().contains_key("content-security-policy"));
    let page = page.text().await.unwrap();
    let named: Vec<&str> =
        page.split('"').filter(|text| text.starts_with('/') || text.contains("://")).collect();
    assert_eq!(named.len(), 4, "{named:?}");
    for path in named {
        let file = api.request(Method::GET, path).send().await.unwrap();
        assert_eq!(file.status(), StatusCode::OK, "{path}");
    }
    let absent = api.request(Method::GET, "/api/orders/docs/index.html").send().await.unwrap();
    assert_eq!(absent.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn orders_and_errors_are_answered_as_the_openapi_description_says() {
    let api = TestApi::new().await;
    let (_, description) = answer(api.request(Method::GET, "/api/orders/openapi.json")).await;
    let (_, order) = api.reserve("u1", api.ticket().await).await;
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<HashSet<_>>();
    let schemas = &description["components"]["schemas"];
    assert_eq!(keys(&schemas["Order"]["properties"]), keys(&order));
    assert_eq!(keys(&schemas["Ticket"]["properties"]), keys(&order["ticket"]));

    let responses = &description["paths"]["/api/orders"]["post"]["responses"];
    let said = |status: StatusCode, body: &Value| {
        let examples = &responses[status.as_str()]["content"]["application/json"]["examples"];
        examples.as_object().unwrap().values().any(|example| example["value"] == *body)
    };
    let ticket = order["ticket"]["id"].as_str().unwrap();
    for body in [
        json!({}),
        json!({ "ticketId": 7 }),
        json!({ "ticketId": ticket }),
        json!({ "ticketId": ticket_id().to_string() }),
    ] {
        let (status, answered) = answer(api.by("u1", Method::POST, "/api/orders").json(&body)).await;
        assert!(said(status, &answered), "{status} {answered}");
    }
    let (status, answered) = answer(api.request(Method::POST, "/api/orders")).await;
    assert!(said(status, &answered), "{status} {answered}");
}

/// Values that a schema of the description allows.
fn allowed(description: &Value, schema: &Value) -> BoxedStrategy<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        return allowed(description, description.pointer(&reference[1..]).unwrap());
    }
    // A parameter that may be left out is one of null and the rest.
    if let Some(any) = schema["oneOf"].as_array() {
        let schema = any.iter().find(|schema| schema["type"] != "null").unwrap();
        return allowed(description, schema);
    }
    if let Some(values) = schema["enum"].as_array() {
        return select(values.iter().map(|value| value.as_str().unwrap().to_owned()).collect::<Vec<_>>())
            .boxed();
    }
    let is = |kind: &str| schema["type"] == kind || schema["type"][0] == kind;
    if is("integer") {
        let bound = |name: &str| schema[name].as_u64().unwrap();
        return (bound("minimum")..=bound("maximum")).prop_map(|number| number.to_string()).boxed();
    }
    if is("array") {
        let least = usize::try_from(schema["minItems"].as_u64().unwrap_or_default()).unwrap();
        let items = prop::collection::vec(allowed(description, &schema["items"]), least..4);
        return items.prop_map(|items| items.join(",")).boxed();
    }
    let length = |name: &str, default| {
        schema[name].as_u64().map_or(default, |length| usize::try_from(length).unwrap())
    };
    let (least, most) = (length("minLength", 0), length("maxLength", 50));
    let pattern = schema["pattern"]
        .as_str()
        .unwrap_or(".*")
        .trim_matches(['^', '$'])
        .replace('+', &format!("{{{least},{most}}}"));
    let fits = move |text: &String| (least..=most).contains(&text.chars().count());
    string_regex(&pattern).unwrap().prop_filter("of this length", fits).boxed()
}

#[tokio::test]
async fn no_request_that_the_openapi_description_allows_is_refused_as_invalid() {
    let api = TestApi::new().await;
    let (_, description) = answer(api.request(Method::GET, "/api/orders/openapi.json")).await;
    let mut runner = TestRunner::deterministic();
    let mut parameters = HashSet::new();
    for (template, operations) in description["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            for round in 0..20 {
                let (mut path, mut query, mut headers) = (template.clone(), Vec::new(), Vec::new());
                for parameter in operation["parameters"].as_array().into_iter().flatten() {
                    let name = parameter["name"].as_str().unwrap();
                    parameters.insert(name.to_owned());
                    let value =
                        allowed(&description, &parameter["schema"]).new_tree(&mut runner).unwrap().current();
                    match parameter["in"].as_str().unwrap() {
                        "path" => path = path.replace(&format!("{{{name}}}"), &value),
                        // Each of them is left out once in a while.
                        _ if (round + name.len()) % 3 == 0 => {}
                        "query" => query.push((name.to_owned(), value)),
                        _ => headers.push((name.to_owned(), value)),
                    }
                }
                let method: Method = method.to_uppercase().parse().unwrap();
                let target = Url::parse_with_params("http://x", &query).unwrap();
                let path = format!("{path}?{}", target.query().unwrap_or_default());
                let mut request = api.by("u1", method.clone(), &path);
                for (name, value) in &headers {
                    request = request.header(name, value);
                }
                let body = &operation["requestBody"]["content"]["application/json"]["schema"];
                if !body.is_null() {
                    let schema = description.pointer(&body["$ref"].as_str().unwrap()[1..]).unwrap();
                    let ticket = &schema["properties"]["ticketId"];
                    let ticket = allowed(&description, ticket).new_tree(&mut runner).unwrap().current();
                    request = request.json(&json!({ "ticketId": ticket }));
                }
                let (status, answered) = answer(request).await;
                let is_invalid = [400, 413, 415, 422].contains(&status.as_u16());
                assert!(!is_invalid, "{method} {path} {headers:?}: {status} {answered}");
            }
        }
    }
    let wanted = ["Idempotency-Key", "after", "limit", "order", "orderId", "status"].map(str::to_owned);
    assert_eq!(parameters, wanted.into());
}
