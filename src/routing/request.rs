//! The target of a request as a person writes it: `/path`, `host/path`, or a URL.

use thiserror::Error;

use super::{
    host::{CanonicalHost, HostError},
    path,
};

/// The host and path of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestTarget {
    /// The host; `None` for any host.
    pub host: Option<CanonicalHost>,
    /// The path, without the query.
    pub path: String,
}

/// Why a string is not the target of a request.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RequestTargetError {
    /// The part before the path is not a host.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A character that must be escaped in a request.
    #[error("{0:?} has the character {1:?}, which no request has unescaped: percent-encode it")]
    Character(String, char),
    /// A `%` is not followed by two hexadecimal digits.
    #[error(
        "{0:?} has a % that is not followed by two hexadecimal digits: write %25 for the character % itself"
    )]
    Escape(String),
}

impl RequestTarget {
    /// Parses a path, a host with a path, or a URL. A port and a query are ignored.
    ///
    /// # Errors
    /// When it is none of these.
    pub fn parse(text: &str) -> Result<Self, RequestTargetError> {
        let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        let host = Some(host).filter(|host| !host.is_empty()).map(CanonicalHost::parse).transpose()?;
        if let Some(character) = path.chars().find(|character| !character.is_ascii_graphic()) {
            return Err(RequestTargetError::Character(text.to_owned(), character));
        }
        let path =
            path::normalise_escapes(path).ok_or_else(|| RequestTargetError::Escape(text.to_owned()))?;
        Ok(Self { host, path: if path.is_empty() { "/".to_owned() } else { path } })
    }

    /// Whether servers may normalise the path before they match it with a route.
    pub fn is_ambiguous(&self) -> bool {
        let inner = self.path.trim_start_matches('/').split('/');
        let last = inner.clone().count();
        self.path.starts_with("//")
            || inner
                .enumerate()
                .any(|(at, segment)| matches!(segment, "." | "..") || (segment.is_empty() && at + 1 < last))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> String {
        let RequestTarget { host, path } = RequestTarget::parse(text).unwrap();
        format!("{} {path}", host.map_or("(any)".into(), |host| host.to_string()))
    }

    #[test]
    fn a_path_a_host_with_a_path_and_a_url_are_accepted() {
        for (text, expected) in [
            ("/api/orders/5", "(any) /api/orders/5"),
            ("Ticketing.dev/api", "ticketing.dev /api"),
            ("ticketing.dev", "ticketing.dev /"),
            ("https://ticketing.dev:8443/a%2fb?x=/y#z", "ticketing.dev /a%2Fb"),
            ("http://ticketing.dev?x", "ticketing.dev /"),
            ("/%61", "(any) /a"),
            ("", "(any) /"),
        ] {
            assert_eq!(parsed(text), expected, "{text}");
        }
        for text in ["-x/y", "/a b", "/é", "/%4"] {
            assert!(RequestTarget::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_path_that_servers_may_normalise_differently_is_ambiguous() {
        for (text, ambiguous) in [
            ("/a/b/", false),
            ("/", false),
            ("//", true),
            ("/a//b", true),
            ("/a/../b", true),
            ("/.", true),
            ("/a//", true),
        ] {
            assert_eq!(RequestTarget::parse(text).unwrap().is_ambiguous(), ambiguous, "{text}");
        }
    }

    proptest! {
        #![proptest_config(crate::routing::cases::cases())]

        #[test]
        fn parsing_never_panics(text in ".{0,60}") {
            drop(RequestTarget::parse(&text));
        }
    }
}
