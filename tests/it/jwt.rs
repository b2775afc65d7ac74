//! JSON Web Tokens as the auth service signs them, and as an attacker might. They are put together by hand:
//! what the API verifies is not made by the library that it verifies with.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::hmac;
use serde_json::{Value, json};

/// A token with these claims, as the auth service signs it when its key is `key`.
pub(crate) fn signed(key: &str, claims: &Value) -> String {
    with_header(&json!({ "alg": "HS256", "typ": "JWT" }), hmac::HMAC_SHA256, key, claims)
}

/// A token with any `header`, signed by `algorithm` whatever the header says.
pub(crate) fn with_header(header: &Value, algorithm: hmac::Algorithm, key: &str, claims: &Value) -> String {
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let signature = hmac::sign(&hmac::Key::new(algorithm, key.as_bytes()), message.as_bytes());
    format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}
