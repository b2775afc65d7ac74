//! Host names in canonical form: lower case, no trailing dot, a DNS name or a `*.` wildcard.

use std::{fmt, sync::Arc};

use thiserror::Error;

/// A DNS name, or a wildcard for the names one label below it. Exact names sort before wildcards.
///
/// Clones share the string, since the index of claims has several clones of each host.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CanonicalHost {
    wildcard: bool,
    name: Arc<str>,
}

/// Why a string is not a host name.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum HostError {
    /// It has a scheme, a port or a path.
    #[error("host {0:?} is more than a host name: write only {1:?}, without scheme, port and path")]
    NotOnlyAHost(String, String),
    /// It has a character that is not allowed in a DNS name.
    #[error(
        "host {0:?} has the character {1:?}: a DNS name has letters, digits, hyphens and dots only, such as ticketing.dev, \
         and may begin with *. as in *.ticketing.dev"
    )]
    Character(String, char),
    /// A label is empty, too long, or begins or ends with a hyphen.
    #[error(
        "host {0:?} is not a DNS name: labels of letters, digits and inner hyphens (at most 63 each, 253 in all), \
         separated by dots, such as ticketing.dev or *.ticketing.dev"
    )]
    NotADnsName(String),
    /// It is an IP address, which the Ingress API does not accept.
    #[error("host {0:?} is an IP address: an Ingress takes DNS names only")]
    IpAddress(String),
}

impl CanonicalHost {
    /// Parses a host name as a user writes it.
    ///
    /// # Errors
    /// When it is not a DNS name or a `*.` wildcard of one.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        if let Some(bare) = bare_host(text) {
            return Err(HostError::NotOnlyAHost(text.to_owned(), bare));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let (wildcard, name) = match name.strip_prefix("*.") {
            Some(rest) => (true, rest.to_owned()),
            None => (false, name),
        };
        if name.parse::<std::net::IpAddr>().is_ok() {
            return Err(HostError::IpAddress(text.to_owned()));
        }
        let is_odd = |character: &char| !character.is_ascii_alphanumeric() && !matches!(character, '-' | '.');
        if let Some(character) = name.chars().find(is_odd) {
            return Err(HostError::Character(text.to_owned(), character));
        }
        let length = name.len() + if wildcard { 2 } else { 0 };
        if length > 253 || !name.split('.').all(is_label) {
            return Err(HostError::NotADnsName(text.to_owned()));
        }
        Ok(Self { wildcard, name: name.into() })
    }

    /// Whether it matches all names one label below.
    pub fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    /// The wildcard that would match this host if there were no rule for the host itself.
    pub fn wildcard_above(&self) -> Option<Self> {
        let (_, above) = self.name.split_once('.').filter(|_| !self.wildcard)?;
        Some(Self { wildcard: true, name: above.into() })
    }
}

/// The host name in `text`, if that is a URL or `host:port`.
fn bare_host(text: &str) -> Option<String> {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    // An IPv6 address has several colons but no port.
    let end = if rest.parse::<std::net::IpAddr>().is_ok() {
        rest.len()
    } else {
        rest.find([':', '/']).unwrap_or(rest.len())
    };
    (end < rest.len() || rest.len() < text.len()).then(|| rest[..end].to_owned())
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

impl fmt::Display for CanonicalHost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}{}", if self.wildcard { "*." } else { "" }, self.name)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hosts_become_lower_case_without_a_trailing_dot() {
        for (text, canonical) in [
            ("Ticketing.DEV.", "ticketing.dev"),
            ("*.Example.com", "*.example.com"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(CanonicalHost::parse(text).unwrap().to_string(), canonical);
        }
    }

    #[test]
    fn an_invalid_host_is_refused_with_a_message_that_says_what_to_write() {
        let error = CanonicalHost::parse("https://ticketing.dev:443/x").unwrap_err().to_string();
        assert!(error.contains("write only \"ticketing.dev\""), "{error}");
        for text in [
            "",
            ".",
            "a..b",
            "-a",
            "a-",
            "a_b",
            "*",
            "*.",
            "a.*.b",
            "10.0.0.1",
            "::1",
            "ticketing.dev:80",
            &"a".repeat(64),
        ] {
            assert!(CanonicalHost::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn exact_hosts_sort_before_wildcards() {
        let (exact, wildcard) =
            (CanonicalHost::parse("z.dev").unwrap(), CanonicalHost::parse("*.a.dev").unwrap());
        assert!(exact < wildcard);
    }

    proptest! {
        #![proptest_config(crate::routing::cases::cases())]

        #[test]
        fn parsing_never_panics_and_is_idempotent(text in ".{0,300}") {
            if let Ok(host) = CanonicalHost::parse(&text) {
                prop_assert_eq!(CanonicalHost::parse(&host.to_string()), Ok(host));
            }
        }

        #[test]
        fn dns_names_are_accepted(text in r"(\*\.)?[a-zA-Z0-9]([-a-zA-Z0-9]{0,20}[a-zA-Z0-9])?(\.[a-z][a-z0-9]{0,10}){1,3}\.?") {
            prop_assert!(CanonicalHost::parse(&text).is_ok());
        }
    }
}
