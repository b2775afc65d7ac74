//! Who is signed in: a signed token in the session cookie, or in the `Authorization` header.
//!
//! Anything wrong with it, whatever it is, means "not signed in" and is no error of its own: a
//! visitor with a stale cookie is a visitor.

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

use super::error::ApiError;
use crate::order::UserId;

/// The cookie of cookie-session 2, and that of cookie-session 1.
const COOKIES: [&str; 2] = ["session", "express:sess"];

/// As lenient as Node's decoder is about padding and left-over bits.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Checks the tokens that the auth service signs. Clones share the key.
#[derive(Clone)]
pub(super) struct Sessions(Arc<Check>);

struct Check {
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
    /// Accepts tokens signed with `key`.
    pub(super) fn new(key: &str) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.required_spec_claims.clear();
        // To the second, as the auth service's library has it: a token is over once its `exp` has
        // come, and not one second later.
        validation.leeway = 0;
        validation.reject_tokens_expiring_in_less_than = 1;
        validation.validate_nbf = true;
        // The system's tokens name no audience; one that does is as good.
        validation.validate_aud = false;
        Self(Arc::new(Check { key: DecodingKey::from_secret(key.as_bytes()), validation }))
    }

    /// Who sent these headers. The first of the two cookies that is there decides; a bearer token
    /// is asked when no cookie signs anyone in.
    pub(super) fn user(&self, headers: &HeaderMap) -> Option<UserId> {
        let cookie = COOKIES.iter().find_map(|name| cookie(headers, name));
        cookie
            .and_then(token_of)
            .and_then(|token| self.check(&token))
            .or_else(|| self.check(bearer(headers)?))
    }

    fn check(&self, token: &str) -> Option<UserId> {
        let claims = decode::<Claims>(token, &self.0.key, &self.0.validation).ok()?.claims;
        UserId::new(claims.id).ok()
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").finish_non_exhaustive()
    }
}

/// The value of the first cookie called `name`.
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

/// The user who is signed in; a handler that takes it answers 401 to everyone else.
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
    use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const KEY: &str = "test-key";

    fn token(algorithm: Algorithm, key: &str, claims: &Value) -> String {
        encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(key.as_bytes())).unwrap()
    }

    fn good(user: &str) -> String {
        token(Algorithm::HS256, KEY, &json!({ "id": user, "email": "a@b.c", "iat": 1 }))
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
    fn either_cookie_and_a_bearer_token_sign_in() {
        let value = sealed(&good("u1"));
        assert_eq!(by_cookie(&format!("session={value}")).as_deref(), Some("u1"));
        assert_eq!(by_cookie(&format!("a=b; express:sess={value}; c=d")).as_deref(), Some("u1"));
        assert_eq!(by_cookie(&format!("session={}", value.trim_end_matches('='))).as_deref(), Some("u1"));
        assert_eq!(by_bearer(&good("u1")).as_deref(), Some("u1"));
        assert_eq!(user(header::AUTHORIZATION, &format!("bearer {}", good("u1"))).as_deref(), Some("u1"));
    }

    #[test]
    fn the_newer_cookie_decides_and_a_bearer_token_helps_where_no_cookie_does() {
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
    fn only_our_algorithm_our_key_and_a_user_are_accepted() {
        let claims = json!({ "id": "u1" });
        assert_eq!(by_bearer(&token(Algorithm::HS512, KEY, &claims)), None);
        assert_eq!(by_bearer(&token(Algorithm::HS256, "other", &claims)), None);
        assert_eq!(by_bearer("eyJhbGciOiJub25lIn0.eyJpZCI6InUxIn0."), None);
        for claims in [json!({}), json!({ "id": "" }), json!({ "id": 7 }), json!("u1")] {
            assert_eq!(by_bearer(&token(Algorithm::HS256, KEY, &claims)), None);
        }
        assert_eq!(
            by_bearer(&token(Algorithm::HS256, KEY, &json!({ "id": "u1", "aud": "x" }))).as_deref(),
            Some("u1")
        );
    }

    #[test]
    fn an_expiry_is_honoured_to_the_second_and_not_required() {
        let now = get_current_timestamp();
        let with = |name: &str, at: Value| {
            by_bearer(&token(Algorithm::HS256, KEY, &json!({ "id": "u1", name: at })))
        };
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
        fn no_garbage_signs_in_or_panics(garbage in "[ -~]{0,80}") {
            prop_assert_eq!(by_cookie(&format!("session={garbage}")), None);
            prop_assert_eq!(by_cookie(&garbage), None);
            prop_assert_eq!(by_cookie(&format!("session={}", BASE64.encode(&garbage))), None);
            prop_assert_eq!(by_cookie(&format!("session={}", sealed(&garbage))), None);
            prop_assert_eq!(by_bearer(&garbage), None);
            prop_assert_eq!(user(header::AUTHORIZATION, &garbage), None);
        }

        #[test]
        fn no_changed_token_signs_in(at in 0_usize..100, to in "[A-Za-z0-9_.-]") {
            let mut changed = good("u1");
            let at = at % changed.len();
            changed.replace_range(at..=at, &to);
            // The last digit of a signature carries bits that are not part of it.
            if changed != good("u1") && at + 1 < changed.len() {
                prop_assert_eq!(by_bearer(&changed), None);
            }
        }
    }
}
