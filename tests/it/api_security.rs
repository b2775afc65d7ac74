//! Attempts to get access other than by a session that the auth service has signed.

use base64::{Engine, engine::general_purpose::STANDARD};
use jsonwebtoken::get_current_timestamp;
use mongodb::bson::doc;
use reqwest::{Method, StatusCode};
use ring::hmac;
use serde_json::{Value, json};

use crate::{
    api_process::Process,
    cluster::PATIENCE,
    jwt::{signed, with_header},
    mongo::{JWT_KEY, TestApi, TestDatabase, answer, by_way_of, uri},
};

/// A token with any `header` that is signed with HS256 and our key, so that it can only be rejected for its header.
fn with_confused_header(header: &Value) -> String {
    with_header(header, hmac::HMAC_SHA256, JWT_KEY, &json!({ "id": "u1" }))
}

/// A token without its signature.
fn unsigned(token: &str) -> String {
    format!("{}.", token.rsplit_once('.').unwrap().0)
}

fn sealed(token: &str) -> String {
    STANDARD.encode(json!({ "jwt": token }).to_string())
}

/// Tokens that must not sign anyone in.
fn invalid_tokens() -> Vec<String> {
    let (user, now) = (json!({ "id": "u1" }), get_current_timestamp());
    let headers = ["none", "None", "RS256", "ES256", "PS256", "EdDSA", "HS384", "HS512", "hs256", ""]
        .map(|algorithm| json!({ "alg": algorithm, "typ": "JWT" }));
    let mut tokens: Vec<String> = headers.iter().map(with_confused_header).collect();
    tokens.extend([
        with_confused_header(&json!({ "typ": "JWT" })),
        with_confused_header(&json!({ "alg": ["HS256"] })),
        unsigned(&with_confused_header(&json!({ "alg": "none" }))),
        unsigned(&signed(JWT_KEY, &user)),
        with_header(&json!({ "alg": "HS384", "typ": "JWT" }), hmac::HMAC_SHA384, JWT_KEY, &user),
        with_header(&json!({ "alg": "HS512", "typ": "JWT" }), hmac::HMAC_SHA512, JWT_KEY, &user),
        signed("another key", &user),
        signed("", &user),
        signed(JWT_KEY, &json!({ "id": "u1", "exp": now - 1 })),
        signed(JWT_KEY, &json!({ "id": { "$ne": null } })),
        signed(JWT_KEY, &json!({ "email": "u1@example.com" })),
        "x".repeat(16_000),
        String::new(),
    ]);
    tokens
}

/// Cookies that must not sign anyone in.
fn invalid_cookies() -> Vec<String> {
    let good = signed(JWT_KEY, &json!({ "id": "u1" }));
    let mut cookies: Vec<String> = invalid_tokens().iter().map(|token| sealed(token)).collect();
    cookies.push(STANDARD.encode(sealed(&good)));
    cookies.push(sealed(&sealed(&good)));
    cookies.push(sealed(&good).replace('=', "%3D").replace('e', "%65"));
    cookies.push(good.clone());
    cookies.push(STANDARD.encode(json!({ "jwt": { "jwt": good } }).to_string()));
    cookies.push("A".repeat(30_000));
    cookies
}

#[tokio::test]
async fn no_invalid_session_is_accepted() {
    let api = TestApi::new().await;
    let refused = (StatusCode::UNAUTHORIZED, json!({ "errors": [{ "message": "Not authorized" }] }));
    // A valid one is accepted, so the others are rejected for what is wrong with them.
    let right = sealed(&with_confused_header(&json!({ "alg": "HS256", "typ": "JWT" })));
    let request = api.request(Method::GET, "/api/orders").header("cookie", format!("session={right}"));
    assert_eq!(answer(request).await.0, StatusCode::OK);
    for token in invalid_tokens() {
        let request = api.request(Method::GET, "/api/orders").bearer_auth(&token);
        assert_eq!(answer(request).await, refused, "{token}");
    }
    for value in invalid_cookies() {
        for name in ["session", "express:sess"] {
            let request = api.request(Method::GET, "/api/orders").header("cookie", format!("{name}={value}"));
            assert_eq!(answer(request).await, refused, "{name}={value}");
        }
        let request =
            api.request(Method::GET, "/api/orders").header("authorization", format!("Bearer {value}"));
        let (status, _) = answer(request).await;
        // The bare token is not a valid cookie, but it is a valid bearer token.
        let is_token = value.split('.').count() == 3;
        assert_eq!(status, if is_token { StatusCode::OK } else { refused.0 }, "{value}");
    }
}

#[tokio::test]
async fn database_operators_in_a_request_have_no_effect() {
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
    // A user id that looks like an operator is just a user id.
    assert_eq!(api.get(r#"{"$ne":null}"#, "/api/orders").await, (StatusCode::OK, json!([])));
    assert_eq!(api.orders().count_documents(doc! {}).await.unwrap(), 1);
    assert_eq!(api.stored(&mine).await.get_str("status").unwrap(), "created");
}

#[tokio::test]
async fn an_oversized_cookie_is_rejected_and_affects_no_other_client() {
    let database = TestDatabase::new().await;
    let process = Process::start(&uri(), &database.name, &[]);
    process.wait_until_ready(true).await;
    for (bytes, wanted) in [(15_000, 401), (30_000, 401), (100_000, 431), (1_000_000, 431)] {
        let cookie = format!("session={}", "A".repeat(bytes));
        // Each has a connection of its own: on a reused one, the buffer has grown and a larger head is accepted.
        let client = reqwest::Client::new();
        let request = client.get(format!("http://{}/api/orders", process.api)).header("cookie", cookie);
        // A client that is still sending may see the connection closed before it reads the response.
        match request.send().await {
            Ok(response) => assert_eq!(response.status().as_u16(), wanted, "{bytes}"),
            Err(error) => assert!(bytes == 1_000_000 && !error.is_timeout(), "{bytes}: {error}"),
        }
        assert_eq!(answer(process.by("u1", Method::GET, "/api/orders")).await, (StatusCode::OK, json!([])));
    }
}

/// Logs everything of ours, and of the libraries what one would enable for debugging.
const VERBOSE: (&str, &str) = ("LOG_LEVEL", "info,orders_operator=trace,mongodb=debug,hyper=debug");

/// Terminates the process and returns its remaining log lines.
async fn terminated(mut process: Process) -> Vec<String> {
    process.terminate();
    process.ended().await;
    process.lines.iter().collect()
}

#[tokio::test]
async fn no_session_is_logged_at_any_level() {
    let database = TestDatabase::new().await;
    let process = Process::start(&uri(), &database.name, &[VERBOSE]);
    process.wait_until_ready(true).await;
    let good = signed(JWT_KEY, &json!({ "id": "u1" }));
    let mut tokens = invalid_tokens();
    tokens.push(good.clone());
    let mut cookies = invalid_cookies();
    cookies.extend([sealed(&good), "garbage-of-a-visitor".into()]);
    let ticket = database.ticket().await.to_string();
    let body = json!({ "ticketId": ticket });
    for value in &cookies {
        for (method, path) in
            [(Method::GET, "/api/orders"), (Method::POST, "/api/orders"), (Method::DELETE, "/api/orders/x")]
        {
            let request = process.request(method, path).header("cookie", format!("session={value}"));
            request.json(&body).send().await.unwrap();
        }
    }
    for token in &tokens {
        process.request(Method::GET, "/api/orders").bearer_auth(token).body("{").send().await.unwrap();
    }

    let log = terminated(process).await;
    assert!(log.iter().any(|line| line.contains("answered") && line.contains("201")), "{log:?}");
    let mut secrets = [tokens, cookies, vec![JWT_KEY.into()]].concat();
    // The signature alone, which is what makes a token valid.
    secrets.push(good.rsplit_once('.').unwrap().1.into());
    // For very long ones, the beginning is enough to recognize them.
    secrets.iter_mut().for_each(|secret| secret.truncate(200));
    secrets.retain(|secret| !secret.is_empty());
    for line in log {
        for secret in &secrets {
            assert!(!line.contains(secret), "{secret} is in {line}");
        }
    }
}

#[tokio::test]
async fn the_password_of_the_database_is_never_logged() {
    let database = TestDatabase::new().await;
    let reachable = format!("mongodb://ada:hunter2@{}/?directConnection=true", by_way_of(0).1);
    let unreachable = "mongodb://ada:hunter2@127.0.0.1:1/?serverSelectionTimeoutMS=100";
    for uri in [reachable.as_str(), unreachable] {
        let process = Process::start(uri, &database.name, &[VERBOSE]);
        let mut log = Vec::new();
        // Until the first attempt is over: the server may refuse the password.
        while !log.iter().any(|line: &String| line.contains("not ready") || line.contains("is available")) {
            log.push(process.lines.recv_timeout(PATIENCE).unwrap());
        }
        answer(process.by("u1", Method::GET, "/api/orders")).await;
        log.extend(terminated(process).await);
        assert!(!log.iter().any(|line| line.contains("hunter2")), "{log:?}");
    }
}
