//! A request as a person writes it down: `/path`, `host/path`, or a URL.

use thiserror::Error;

use super::{
    host::{CanonicalHost, HostError},
    path,
};

/// Where a request goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The host; none stands for every host.
    pub host: Option<CanonicalHost>,
    /// The path, without query.
    pub path: String,
}

/// Why a text is not a request.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RequestError {
    /// What comes before the path is not a host.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A character that no request has.
    #[error("{0:?} has the character {1:?}, which no request has unescaped: percent-encode it")]
    Character(String, char),
    /// A `%` is not followed by two hexadecimal digits.
    #[error(
        "{0:?} has a % that is not followed by two hexadecimal digits: write %25 for the character % itself"
    )]
    Escape(String),
}

impl Request {
    /// Reads a path, a host with a path, or a URL; a port and a query are left out.
    ///
    /// # Errors
    /// When it is none of them.
    pub fn parse(text: &str) -> Result<Self, RequestError> {
        let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        let host = Some(host).filter(|host| !host.is_empty()).map(CanonicalHost::parse).transpose()?;
        if let Some(character) = path.chars().find(|character| !character.is_ascii_graphic()) {
            return Err(RequestError::Character(text.to_owned(), character));
        }
        let path = path::normalise_escapes(path).ok_or_else(|| RequestError::Escape(text.to_owned()))?;
        Ok(Self { host, path: if path.is_empty() { "/".to_owned() } else { path } })
    }

    /// Whether servers may resolve it to another path before they look for its route.
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
        let Request { host, path } = Request::parse(text).unwrap();
        format!("{} {path}", host.map_or("(any)".into(), |host| host.to_string()))
    }

    #[test]
    fn a_path_a_host_with_a_path_and_a_url_are_read() {
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
            assert!(Request::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_path_that_servers_may_resolve_in_different_ways_is_told_apart() {
        for (text, ambiguous) in [
            ("/a/b/", false),
            ("/", false),
            ("//", true),
            ("/a//b", true),
            ("/a/../b", true),
            ("/.", true),
            ("/a//", true),
        ] {
            assert_eq!(Request::parse(text).unwrap().is_ambiguous(), ambiguous, "{text}");
        }
    }

    proptest! {
        #![proptest_config(crate::routing::cases::cases())]

        #[test]
        fn parsing_never_panics(text in ".{0,60}") {
            drop(Request::parse(&text));
        }
    }
}
