//! Authentication: a signed token in the session cookie, or in the `Authorization` header.
//!
//! A token with anything wrong with it is treated as absent: there is no error but "not signed in".

use std::{fmt, sync::Arc};

use axum::{
    extract::{FromRef, FromRequestParts},
    http::{HeaderMap, header, request::Parts},
};
use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde::Deserialize;

use super::{error::ApiError, hs256};
use crate::order::UserId;

/// The cookies of cookie-session 2 and of cookie-session 1.
const COOKIES: [&str; 2] = ["session", "express:sess"];

/// As lenient about padding and trailing bits as Node's decoder.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Verifies the tokens that the auth service signs. Clones share the key.
#[derive(Clone)]
pub(super) struct Sessions(Arc<Verification>);

struct Verification {
    key: DecodingKey,
    validation: Validation,
}

#[derive(Deserialize)]
struct Cookie {
    jwt: String,
}

#[derive(Deserialize)]
struct Claims {
    id: String,
}

impl Sessions {
    /// Accepts tokens that are signed with `key`.
    pub(super) fn new(key: &str) -> Self {
        hs256::install();
        let mut validation = Validation::new(Algorithm::HS256);
        validation.required_spec_claims.clear();
        // Expiry is exact to the second, as in Node's library: a token is expired from the second of its `exp` on.
        validation.leeway = 0;
        validation.reject_tokens_expiring_in_less_than = 1;
        validation.validate_nbf = true;
        // The auth service sets no audience; a token that has one is accepted too.
        validation.validate_aud = false;
        Self(Arc::new(Verification { key: DecodingKey::from_secret(key.as_bytes()), validation }))
    }

    /// The user who sent these headers. Of the two cookies only the first that is present is used; a bearer token
    /// counts if no cookie signs the user in.
    pub(super) fn user(&self, headers: &HeaderMap) -> Option<UserId> {
        let cookie = COOKIES.iter().find_map(|name| cookie(headers, name));
        cookie
            .and_then(token_of)
            .and_then(|token| self.verify(&token))
            .or_else(|| self.verify(bearer(headers)?))
    }

    fn verify(&self, token: &str) -> Option<UserId> {
        let claims = decode::<Claims>(token, &self.0.key, &self.0.validation).ok()?.claims;
        UserId::new(claims.id).ok()
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").finish_non_exhaustive()
    }
}

/// The value of the first cookie with this name.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim_start().split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.trim_end().trim_matches('"'))
}

fn token_of(cookie: &str) -> Option<String> {
    let standard: String = cookie
        .chars()
        .map(|c| {
            if c == '-' {
                '+'
            } else if c == '_' {
                '/'
            } else {
                c
            }
        })
        .collect();
    let json = BASE64.decode(standard).ok()?;
    serde_json::from_slice::<Cookie>(&json).ok().map(|cookie| cookie.jwt)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Extracts the user who is signed in, and answers 401 if nobody is.
pub(super) struct SignedIn(pub(super) UserId);

impl<S> FromRequestParts<S> for SignedIn
where
    Sessions: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Sessions::from_ref(state).user(&parts.headers).map(Self).ok_or(ApiError::NotAuthorized)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;
    use jsonwebtoken::get_current_timestamp;
    use proptest::prelude::*;
    use ring::hmac;
    use serde_json::{Value, json};

    use super::*;

    const KEY: &str = "test-key";

    /// A token whose header names `named`, signed by `algorithm`.
    fn signed(named: &str, algorithm: hmac::Algorithm, key: &str, claims: &Value) -> String {
        let part = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(json!({ "alg": named, "typ": "JWT" })), part(claims.clone()));
        let signature = hmac::sign(&hmac::Key::new(algorithm, key.as_bytes()), message.as_bytes());
        format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }

    fn token(key: &str, claims: &Value) -> String {
        signed("HS256", hmac::HMAC_SHA256, key, claims)
    }

    fn good(user: &str) -> String {
        token(KEY, &json!({ "id": user, "email": "a@b.c", "iat": 1 }))
    }

    fn sealed(token: &str) -> String {
        BASE64.encode(json!({ "jwt": token }).to_string())
    }

    fn user(name: HeaderName, value: &str) -> Option<String> {
        let headers = HeaderMap::from_iter([(name, value.parse().ok()?)]);
        Sessions::new(KEY).user(&headers).map(|user| user.as_str().to_owned())
    }

    fn by_cookie(value: &str) -> Option<String> {
        user(header::COOKIE, value)
    }

    fn by_bearer(token: &str) -> Option<String> {
        user(header::AUTHORIZATION, &format!("Bearer {token}"))
    }

    #[test]
    fn either_cookie_or_a_bearer_token_signs_in() {
        let value = sealed(&good("u1"));
        assert_eq!(by_cookie(&format!("session={value}")).as_deref(), Some("u1"));
        assert_eq!(by_cookie(&format!("a=b; express:sess={value}; c=d")).as_deref(), Some("u1"));
        assert_eq!(by_cookie(&format!("session={}", value.trim_end_matches('='))).as_deref(), Some("u1"));
        assert_eq!(by_bearer(&good("u1")).as_deref(), Some("u1"));
        assert_eq!(user(header::AUTHORIZATION, &format!("bearer {}", good("u1"))).as_deref(), Some("u1"));
    }

    #[test]
    fn the_newer_cookie_takes_precedence_and_a_bearer_token_is_the_fallback() {
        let (one, two) = (sealed(&good("u1")), sealed(&good("u2")));
        assert_eq!(by_cookie(&format!("express:sess={one}; session={two}")).as_deref(), Some("u2"));
        assert_eq!(by_cookie(&format!("session=e30=; express:sess={one}")), None);
        let headers = HeaderMap::from_iter([
            (header::COOKIE, "session=stale".parse().unwrap()),
            (header::AUTHORIZATION, format!("Bearer {}", good("u3")).parse().unwrap()),
        ]);
        assert_eq!(Sessions::new(KEY).user(&headers).unwrap().as_str(), "u3");
    }

    #[test]
    fn only_hs256_with_our_key_and_a_user_id_is_accepted() {
        let claims = json!({ "id": "u1" });
        assert!(by_bearer(&token(KEY, &claims)).is_some());
        assert_eq!(by_bearer(&signed("HS384", hmac::HMAC_SHA384, KEY, &claims)), None);
        assert_eq!(by_bearer(&signed("HS512", hmac::HMAC_SHA512, KEY, &claims)), None);
        for other in ["none", "RS256", "PS256", "ES256", "EdDSA", "HS512", "hs256", ""] {
            assert_eq!(by_bearer(&signed(other, hmac::HMAC_SHA256, KEY, &claims)), None, "{other}");
        }
        assert_eq!(by_bearer(&token("other", &claims)), None);
        assert_eq!(by_bearer("eyJhbGciOiJub25lIn0.eyJpZCI6InUxIn0."), None);
        for claims in [json!({}), json!({ "id": "" }), json!({ "id": 7 }), json!("u1")] {
            assert_eq!(by_bearer(&token(KEY, &claims)), None);
        }
        assert_eq!(by_bearer(&token(KEY, &json!({ "id": "u1", "aud": "x" }))).as_deref(), Some("u1"));
    }

    /// Made by jsonwebtoken 9.0.3 for Node, with `KEY` and the default options.
    const BY_NODE: &str = concat!(
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.",
        "eyJpZCI6IjY1ZjBjMWQyYTNiNGM1ZDZlN2Y4MDkxMiIsImVtYWlsIjoiYWRhQGV4YW1wbGUuY29tIiwiaWF0IjoxNzAwMDAwMDAwfQ.",
        "m9aX7PY4jKwRMXOAc3cHkvzi1LoajIcTvKWHh9fqGhU",
    );

    #[test]
    fn a_token_of_nodes_jsonwebtoken_signs_in_and_a_truncated_one_does_not() {
        assert_eq!(by_bearer(BY_NODE).as_deref(), Some("65f0c1d2a3b4c5d6e7f80912"));
        assert_eq!(
            by_cookie(&format!("session={}", sealed(BY_NODE))).as_deref(),
            Some("65f0c1d2a3b4c5d6e7f80912")
        );
        for end in 0..BY_NODE.len() {
            assert_eq!(by_bearer(&BY_NODE[..end]), None, "{end}");
        }
    }

    #[test]
    fn an_expiry_is_optional_and_exact_to_the_second() {
        let now = get_current_timestamp();
        let with = |name: &str, at: Value| by_bearer(&token(KEY, &json!({ "id": "u1", name: at })));
        assert_eq!(with("exp", json!(now - 1)), None);
        assert_eq!(with("exp", json!(now)), None);
        assert_eq!(with("exp", json!(0)), None);
        assert_eq!(with("exp", json!("tomorrow")), None);
        assert_eq!(with("exp", json!(-5)), None);
        assert_eq!(with("nbf", json!(now + 60)), None);
        assert!(with("exp", json!(now + 60)).is_some());
        assert!(with("nbf", json!(now - 60)).is_some());
    }

    proptest! {
        #[test]
        fn garbage_neither_signs_in_nor_panics(garbage in "[ -~]{0,80}") {
            prop_assert_eq!(by_cookie(&format!("session={garbage}")), None);
            prop_assert_eq!(by_cookie(&garbage), None);
            prop_assert_eq!(by_cookie(&format!("session={}", BASE64.encode(&garbage))), None);
            prop_assert_eq!(by_cookie(&format!("session={}", sealed(&garbage))), None);
            prop_assert_eq!(by_bearer(&garbage), None);
            prop_assert_eq!(user(header::AUTHORIZATION, &garbage), None);
        }

        #[test]
        fn a_modified_token_does_not_sign_in(at in 0_usize..100, to in "[A-Za-z0-9_.-]") {
            let mut changed = good("u1");
            let at = at % changed.len();
            changed.replace_range(at..=at, &to);
            // The last character of a signature has unused bits, so changing it may leave the signature as it is.
            if changed != good("u1") && at + 1 < changed.len() {
                prop_assert_eq!(by_bearer(&changed), None);
            }
        }
    }
}
