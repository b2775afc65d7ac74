//! Whoever tries to get in by another way than a session that the auth service signed.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header, crypto::sign, encode, get_current_timestamp};
use mongodb::bson::doc;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    api_process::Process,
    cluster::PATIENCE,
    mongo::{JWT_KEY, TestApi, TestDatabase, answer, by_way_of, uri},
};

fn signed(algorithm: Algorithm, key: &str, claims: &Value) -> String {
    encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(key.as_bytes())).unwrap()
}

/// A token whose header says `header`, whatever that is, and whose signature is right by HS256 and our key:
/// nothing but the header can give it away.
fn confused(header: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(&json!({ "id": "u1" })));
    let key = EncodingKey::from_secret(JWT_KEY.as_bytes());
    let signature = sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

/// A token without its signature.
fn unsigned(token: &str) -> String {
    format!("{}.", token.rsplit_once('.').unwrap().0)
}

fn sealed(token: &str) -> String {
    STANDARD.encode(json!({ "jwt": token }).to_string())
}

/// Tokens that sign nobody in.
fn false_tokens() -> Vec<String> {
    let (user, now) = (json!({ "id": "u1" }), get_current_timestamp());
    let headers = ["none", "None", "RS256", "ES256", "PS256", "EdDSA", "HS384", "HS512", "hs256", ""]
        .map(|algorithm| json!({ "alg": algorithm, "typ": "JWT" }));
    let mut tokens: Vec<String> = headers.iter().map(confused).collect();
    tokens.extend([
        confused(&json!({ "typ": "JWT" })),
        confused(&json!({ "alg": ["HS256"] })),
        unsigned(&confused(&json!({ "alg": "none" }))),
        unsigned(&signed(Algorithm::HS256, JWT_KEY, &user)),
        signed(Algorithm::HS384, JWT_KEY, &user),
        signed(Algorithm::HS512, JWT_KEY, &user),
        signed(Algorithm::HS256, "another key", &user),
        signed(Algorithm::HS256, "", &user),
        signed(Algorithm::HS256, JWT_KEY, &json!({ "id": "u1", "exp": now - 1 })),
        signed(Algorithm::HS256, JWT_KEY, &json!({ "id": { "$ne": null } })),
        signed(Algorithm::HS256, JWT_KEY, &json!({ "email": "u1@example.com" })),
        "x".repeat(32_000),
        String::new(),
    ]);
    tokens
}

/// Cookies that sign nobody in.
fn false_cookies() -> Vec<String> {
    let good = signed(Algorithm::HS256, JWT_KEY, &json!({ "id": "u1" }));
    let mut cookies: Vec<String> = false_tokens().iter().map(|token| sealed(token)).collect();
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
    // Or else none of the others would show anything.
    let right = sealed(&confused(&json!({ "alg": "HS256", "typ": "JWT" })));
    let request = api.request(Method::GET, "/api/orders").header("cookie", format!("session={right}"));
    assert_eq!(answer(request).await.0, StatusCode::OK);
    for token in false_tokens() {
        let request = api.request(Method::GET, "/api/orders").bearer_auth(&token);
        assert_eq!(answer(request).await, refused, "{token}");
    }
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
async fn a_cookie_beyond_all_bounds_is_refused_and_harms_nobody_else() {
    let database = TestDatabase::new().await;
    let process = Process::start(&uri(), &database.name, &[]);
    process.wait_until_ready(true).await;
    for (bytes, wanted) in [(32_000, 401), (60_000, 401), (100_000, 431), (1_000_000, 431)] {
        let cookie = format!("session={}", "A".repeat(bytes));
        // A connection of its own: on one that is kept, what its buffer has grown to is let through once more.
        let client = reqwest::Client::new();
        let request = client.get(format!("http://{}/api/orders", process.api)).header("cookie", cookie);
        // A client that is still sending may find the connection closed before it sees the answer.
        match request.send().await {
            Ok(response) => assert_eq!(response.status().as_u16(), wanted, "{bytes}"),
            Err(error) => assert!(bytes == 1_000_000 && !error.is_timeout(), "{bytes}: {error}"),
        }
        assert_eq!(answer(process.by("u1", Method::GET, "/api/orders")).await, (StatusCode::OK, json!([])));
    }
}

/// Logs all that we say, and of the libraries what one would turn on to look for a fault.
const LOUD: (&str, &str) = ("LOG_LEVEL", "info,orders_operator=trace,mongodb=debug,hyper=debug");

/// All that is logged from now on until the process has ended.
async fn ended(mut process: Process) -> Vec<String> {
    process.terminate();
    process.ended().await;
    process.lines.iter().collect()
}

#[tokio::test]
async fn no_session_is_logged_however_much_is_logged() {
    let database = TestDatabase::new().await;
    let process = Process::start(&uri(), &database.name, &[LOUD]);
    process.wait_until_ready(true).await;
    let good = signed(Algorithm::HS256, JWT_KEY, &json!({ "id": "u1" }));
    let mut tokens = false_tokens();
    tokens.push(good.clone());
    let mut cookies = false_cookies();
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

    let log = ended(process).await;
    assert!(log.iter().any(|line| line.contains("answered") && line.contains("201")), "{log:?}");
    let mut secrets = [tokens, cookies, vec![JWT_KEY.into()]].concat();
    // The part that makes it valid, should only that be shown.
    secrets.push(good.rsplit_once('.').unwrap().1.into());
    // Of very long ones a beginning would be telling too.
    secrets.iter_mut().for_each(|secret| secret.truncate(200));
    secrets.retain(|secret| !secret.is_empty());
    for line in log {
        for secret in &secrets {
            assert!(!line.contains(secret), "{secret} is in {line}");
        }
    }
}

#[tokio::test]
async fn no_password_of_the_database_is_logged_whether_it_is_there_or_not() {
    let database = TestDatabase::new().await;
    let there = format!("mongodb://ada:hunter2@{}/?directConnection=true", by_way_of(0).1);
    let away = "mongodb://ada:hunter2@127.0.0.1:1/?serverSelectionTimeoutMS=100";
    for uri in [there.as_str(), away] {
        let process = Process::start(uri, &database.name, &[LOUD]);
        let mut log = Vec::new();
        // Either of them ends the first try: a server may refuse the password.
        while !log.iter().any(|line: &String| line.contains("not ready") || line.contains("is there")) {
            log.push(process.lines.recv_timeout(PATIENCE).unwrap());
        }
        answer(process.by("u1", Method::GET, "/api/orders")).await;
        log.extend(ended(process).await);
        assert!(!log.iter().any(|line| line.contains("hunter2")), "{log:?}");
    }
}
