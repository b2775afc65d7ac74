//! Authentication: a signed token in the session cookie, or in the `Authorization` header.
//!
//! A token with anything wrong with it is treated as absent: there is no error but "not signed in". What was wrong is in the
//! log at `debug`, without a part of the token, and in a metric.

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
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, errors::ErrorKind};
use serde::Deserialize;
use serde_json::Value;

use super::{
    error::ApiError,
    hs256,
    metrics::{Metrics, Unauthenticated},
};
use crate::order::{Foreign, UserId};

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
    #[serde(default)]
    id: Value,
}

impl From<jsonwebtoken::errors::Error> for Unauthenticated {
    fn from(error: jsonwebtoken::errors::Error) -> Self {
        match error.kind() {
            ErrorKind::ExpiredSignature => Self::Expired,
            ErrorKind::ImmatureSignature => Self::NotYetValid,
            ErrorKind::InvalidSignature => Self::Signature,
            ErrorKind::InvalidAlgorithm
            | ErrorKind::InvalidAlgorithmName
            | ErrorKind::UnsupportedAlgorithm
            | ErrorKind::MissingAlgorithm => Self::Algorithm,
            _ => Self::Malformed,
        }
    }
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
    ///
    /// # Errors
    /// Why nobody is signed in: by the bearer token if there is one, else by the cookie.
    pub(super) fn user(&self, headers: &HeaderMap) -> Result<UserId, Unauthenticated> {
        let by_cookie = || {
            let cookie = COOKIES.iter().find_map(|name| cookie(headers, name));
            self.verify(&token_of(cookie.ok_or(Unauthenticated::Absent)?).ok_or(Unauthenticated::Malformed)?)
        };
        by_cookie().or_else(|why| match headers.get(header::AUTHORIZATION) {
            None => Err(why),
            Some(value) => {
                self.verify(value.to_str().ok().and_then(bearer).ok_or(Unauthenticated::Malformed)?)
            }
        })
    }

    fn verify(&self, token: &str) -> Result<UserId, Unauthenticated> {
        let claims = decode::<Claims>(token, &self.0.key, &self.0.validation)?.claims;
        Foreign::from(&claims.id).id().and_then(|id| UserId::new(id).ok()).ok_or(Unauthenticated::NoUser)
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").finish_non_exhaustive()
    }
}

/// The value of the first cookie with this name. Cookies are bytes: others of them may have any, such as a name in UTF-8.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b';'))
        .filter_map(|pair| {
            let pair = pair.trim_ascii_start();
            let (key, value) = pair.split_at(pair.iter().position(|byte| *byte == b'=')?);
            (key == name.as_bytes()).then(|| value.get(1..).unwrap_or_default().trim_ascii_end())
        })
        .next()
        .map(|value| match value {
            [b'"', unquoted @ .., b'"'] => unquoted,
            value => value,
        })
}

fn token_of(cookie: &[u8]) -> Option<String> {
    let standard: Vec<u8> = cookie
        .iter()
        .map(|byte| match byte {
            b'-' => b'+',
            b'_' => b'/',
            other => *other,
        })
        .collect();
    let json = BASE64.decode(standard).ok()?;
    serde_json::from_slice::<Cookie>(&json).ok().map(|cookie| cookie.jwt)
}

/// The token in the value of `Authorization`.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Extracts the user who is signed in, and answers 401 if nobody is.
pub(super) struct SignedIn(pub(super) UserId);

impl<S> FromRequestParts<S> for SignedIn
where
    Sessions: FromRef<S>,
    Metrics: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Sessions::from_ref(state).user(&parts.headers).map(Self).map_err(|why| {
            tracing::debug!(why = why.label(), "not signed in");
            Metrics::from_ref(state).unauthenticated(why);
            ApiError::NotAuthorized
        })
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
        Sessions::new(KEY).user(&headers).ok().map(|user| user.as_str().to_owned())
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
        for claims in
            [json!({}), json!({ "id": "" }), json!({ "id": 7.5 }), json!({ "id": true }), json!("u1")]
        {
            assert_eq!(by_bearer(&token(KEY, &claims)), None);
        }
        assert_eq!(by_bearer(&token(KEY, &json!({ "id": "u1", "aud": "x" }))).as_deref(), Some("u1"));
    }

    #[test]
    fn a_whole_number_is_a_user_id_as_javascript_writes_it() {
        for (id, user) in [
            (json!(7), Some("7")),
            (json!(7.0), Some("7")),
            (json!(-0.0), Some("0")),
            (json!(-12), Some("-12")),
            (json!(9_007_199_254_740_991_u64), Some("9007199254740991")),
            (json!(9_007_199_254_740_992_u64), None),
            (json!(1e300), None),
        ] {
            assert_eq!(by_bearer(&token(KEY, &json!({ "id": id }))).as_deref(), user, "{id}");
        }
    }

    #[test]
    fn a_cookie_with_any_bytes_does_not_hide_the_session() {
        let value = sealed(&good("u1"));
        for cookies in [
            format!("name=José; session={value}").into_bytes(),
            [b"a=\xff\xfe; session=".as_slice(), value.as_bytes(), b"; b=\xc3"].concat(),
            format!("session={value}; name=José").into_bytes(),
            format!("flag; session=\"{value}\" ; =").into_bytes(),
        ] {
            let headers = HeaderMap::from_iter([(
                header::COOKIE,
                axum::http::HeaderValue::from_bytes(&cookies).unwrap(),
            )]);
            assert_eq!(Sessions::new(KEY).user(&headers).unwrap().as_str(), "u1");
        }
    }

    #[test]
    fn why_a_session_is_not_taken_is_known() {
        let now = get_current_timestamp();
        let why = |name: HeaderName, value: String| {
            Sessions::new(KEY).user(&HeaderMap::from_iter([(name, value.parse().unwrap())])).unwrap_err()
        };
        assert_eq!(Sessions::new(KEY).user(&HeaderMap::new()), Err(Unauthenticated::Absent));
        assert_eq!(why(header::COOKIE, "other=1".into()), Unauthenticated::Absent);
        assert_eq!(why(header::COOKIE, "session=x".into()), Unauthenticated::Malformed);
        assert_eq!(why(header::AUTHORIZATION, "Basic eA==".into()), Unauthenticated::Malformed);
        for (token, reason) in [
            ("x".to_owned(), Unauthenticated::Malformed),
            (signed("HS384", hmac::HMAC_SHA384, KEY, &json!({ "id": "u1" })), Unauthenticated::Algorithm),
            (signed("none", hmac::HMAC_SHA256, KEY, &json!({ "id": "u1" })), Unauthenticated::Malformed),
            (token("other", &json!({ "id": "u1" })), Unauthenticated::Signature),
            (token(KEY, &json!({ "id": "u1", "exp": now - 1 })), Unauthenticated::Expired),
            (token(KEY, &json!({ "id": "u1", "nbf": now + 60 })), Unauthenticated::NotYetValid),
            (token(KEY, &json!({ "email": "a@b.c" })), Unauthenticated::NoUser),
        ] {
            assert_eq!(why(header::COOKIE, format!("session={}", sealed(&token))), reason, "{token}");
            assert_eq!(why(header::AUTHORIZATION, format!("Bearer {token}")), reason, "{token}");
        }
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
