//! Whoever tries to get in by another way than a session that the auth service signed.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use mongodb::bson::doc;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    api_process::{PATIENCE, Process},
    mongo::{JWT_KEY, TestApi, TestDatabase, answer, cookie, uri},
};

fn signed(algorithm: Algorithm, key: &str, claims: &Value) -> String {
    encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(key.as_bytes())).unwrap()
}

/// A token whose header says `header`, with `signature` as it is.
fn forged(header: &Value, signature: &str) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{signature}", part(header), part(&json!({ "id": "u1" })))
}

fn sealed(token: &str) -> String {
    STANDARD.encode(json!({ "jwt": token }).to_string())
}

/// Cookies that sign nobody in.
fn false_cookies() -> Vec<String> {
    let (user, now) = (json!({ "id": "u1" }), get_current_timestamp());
    let good = signed(Algorithm::HS256, JWT_KEY, &user);
    let (_, signature) = good.rsplit_once('.').unwrap();
    let tokens = [
        forged(&json!({ "alg": "none", "typ": "JWT" }), ""),
        forged(&json!({ "alg": "None" }), signature),
        forged(&json!({ "alg": "RS256", "typ": "JWT" }), signature),
        forged(&json!({ "typ": "JWT" }), signature),
        signed(Algorithm::HS384, JWT_KEY, &user),
        signed(Algorithm::HS512, JWT_KEY, &user),
        signed(Algorithm::HS256, "another key", &user),
        signed(Algorithm::HS256, "", &user),
        signed(Algorithm::HS256, JWT_KEY, &json!({ "id": "u1", "exp": now - 1 })),
        signed(Algorithm::HS256, JWT_KEY, &json!({ "id": { "$ne": null } })),
        signed(Algorithm::HS256, JWT_KEY, &json!({ "email": "u1@example.com" })),
        "x".repeat(32_000),
        String::new(),
    ];
    let mut cookies: Vec<String> = tokens.iter().map(|token| sealed(token)).collect();
    cookies.push(STANDARD.encode(sealed(&good)));
    cookies.push(sealed(&sealed(&good)));
    cookies.push(sealed(&good).replace('=', "%3D").replace('e', "%65"));
    cookies.push(good.clone());
    cookies.push(STANDARD.encode(json!({ "jwt": { "jwt": good } }).to_string()));
    cookies.push("A".repeat(40_000));
    cookies
}

#[tokio::test]
async fn no_false_session_gets_in() {
    let api = TestApi::new().await;
    let refused = (StatusCode::UNAUTHORIZED, json!({ "errors": [{ "message": "Not authorized" }] }));
    for value in false_cookies() {
        for name in ["session", "express:sess"] {
            let request = api.request(Method::GET, "/api/orders").header("cookie", format!("{name}={value}"));
            assert_eq!(answer(request).await, refused, "{name}={value}");
        }
        let request =
            api.request(Method::GET, "/api/orders").header("authorization", format!("Bearer {value}"));
        let (status, _) = answer(request).await;
        // The token itself is a good bearer token, as it is a bad cookie.
        let is_token = value.split('.').count() == 3;
        assert_eq!(status, if is_token { StatusCode::OK } else { refused.0 }, "{value}");
    }
}

#[tokio::test]
async fn no_operator_of_the_database_gets_in_by_a_request() {
    let api = TestApi::new().await;
    let ticket = api.ticket().await;
    let mine = api.reserved("u1", ticket).await;
    for value in [
        json!({ "$ne": null }),
        json!({ "$gt": "" }),
        json!([ticket.to_string()]),
        json!({ "$oid": ticket.to_string() }),
    ] {
        let request = api.by("u2", Method::POST, "/api/orders").json(&json!({ "ticketId": value }));
        assert_eq!(answer(request).await.0, StatusCode::BAD_REQUEST, "{value}");
    }
    for path in [
        "/api/orders?userId=u1",
        "/api/orders?userId[$ne]=u2",
        "/api/orders?after[$gt]=",
        "/api/orders?status[$ne]=created",
    ] {
        assert_eq!(api.get("u2", path).await, (StatusCode::OK, json!([])), "{path}");
    }
    for path in ["/api/orders/[$ne]", "/api/orders/%7B%22$ne%22:null%7D"] {
        assert_eq!(api.get("u2", path).await.0, StatusCode::BAD_REQUEST, "{path}");
    }
    // A user whose name looks like an operator is a user of that name.
    assert_eq!(api.get(r#"{"$ne":null}"#, "/api/orders").await, (StatusCode::OK, json!([])));
    assert_eq!(api.orders().count_documents(doc! {}).await.unwrap(), 1);
    assert_eq!(api.stored(&mine).await.get_str("status").unwrap(), "created");
}

#[tokio::test]
async fn no_secret_is_logged_however_much_is_logged() {
    let database = TestDatabase::bare().await;
    let key = ("LOG_LEVEL", "info,orders_operator=trace,mongodb=debug,hyper=debug");
    let mut process = Process::start(&uri(), &database.name, &[key]);
    process.wait_until_ready(true).await;
    let token = signed(Algorithm::HS256, JWT_KEY, &json!({ "id": "u1" }));
    for value in [cookie("u1"), format!("session={}", sealed(&token)), "session=garbage-of-a-visitor".into()]
    {
        for (method, path) in
            [(Method::GET, "/api/orders"), (Method::POST, "/api/orders"), (Method::DELETE, "/api/orders/x")]
        {
            let url = format!("http://{}{path}", process.api);
            let request = process.client.request(method, url).header("cookie", &value).bearer_auth(&token);
            request.header("content-type", "application/json").body("{").send().await.unwrap();
        }
    }
    process.terminate();
    process.ended().await;
    let log: Vec<String> = process.lines.iter().collect();
    assert!(log.iter().any(|line| line.contains("answered")), "{log:?}");
    for line in log {
        for secret in [JWT_KEY, &token, &sealed(&token), "garbage-of-a-visitor"] {
            assert!(!line.contains(secret), "{line}");
        }
    }

    // A password in the URI, where the database cannot be reached and every error is logged.
    let elsewhere = "mongodb://ada:hunter2@127.0.0.1:1/?serverSelectionTimeoutMS=100";
    let mut process = Process::start(elsewhere, &database.name, &[key]);
    assert_eq!(answer(process.by("u1", Method::GET, "/api/orders")).await.0, StatusCode::SERVICE_UNAVAILABLE);
    let mut log = vec![process.lines.recv_timeout(PATIENCE).unwrap()];
    while !log.iter().any(|line| line.contains("not ready")) {
        log.push(process.lines.recv_timeout(PATIENCE).unwrap());
    }
    process.terminate();
    process.ended().await;
    log.extend(process.lines.iter());
    assert!(!log.iter().any(|line| line.contains("hunter2")), "{log:?}");
}
