//! Host names in canonical form: lower case, no trailing dot, a DNS name or a `*.` wildcard.

use std::{cmp::Ordering, fmt, net::Ipv6Addr, sync::Arc};

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
    /// It is an IP address, however it is written. Neither the Ingress API nor the Gateway API accepts one.
    #[error("host {0:?} is an IP address: use a DNS name, such as ticketing.dev")]
    IpAddress(String),
}

impl CanonicalHost {
    /// Parses a host name as a user writes it.
    ///
    /// # Errors
    /// When it is not a DNS name or a `*.` wildcard of one.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        if is_ipv6(text) {
            return Err(HostError::IpAddress(text.to_owned()));
        }
        if let Some(bare) = bare_host(text) {
            return Err(HostError::NotOnlyAHost(text.to_owned(), bare));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let (wildcard, name) = match name.strip_prefix("*.") {
            Some(rest) => (true, rest.to_owned()),
            None => (false, name),
        };
        if ends_in_a_number(&name) {
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

    /// Every host: what rules are for that name none.
    pub fn any() -> Self {
        Self { wildcard: true, name: "".into() }
    }

    /// Parses a host as it is shown, where `*` is every host.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn parse_shown(text: &str) -> Result<Self, HostError> {
        if text == "*" { Ok(Self::any()) } else { Self::parse(text) }
    }

    /// Whether it is every host.
    pub fn is_any(&self) -> bool {
        self.wildcard && self.name.is_empty()
    }

    /// Whether it matches the names below.
    pub fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    /// Whether every name that `other` matches is one that this host matches as well. An Ingress's wildcard matches one
    /// label, a Gateway's any number. Here it is any number, so that the answer is right for both.
    pub fn covers(&self, other: &Self) -> bool {
        if !self.wildcard {
            return self == other;
        }
        self == other
            || self.is_any()
            || other.name.strip_suffix(&*self.name).is_some_and(|below| below.ends_with('.'))
    }

    /// Whether there is a name that both match.
    pub fn meets(&self, other: &Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// The wildcards that cover this host, other than itself, the nearest first.
    pub fn wildcards_above(&self) -> impl Iterator<Item = Self> + '_ {
        let mut rest = &*self.name;
        std::iter::from_fn(move || {
            rest = rest.split_once('.')?.1;
            Some(Self { wildcard: true, name: rest.into() })
        })
    }

    /// Its labels from the last to the first. So the names that a wildcard covers are next to each other, and follow it.
    fn labels(&self) -> impl Iterator<Item = &str> {
        // No label is empty, so a wildcard is before the names below it.
        let wildcard = self.wildcard.then_some("");
        self.name.rsplit('.').filter(|label| !label.is_empty()).chain(wildcard)
    }

    /// Compares two hosts by their domains, the top one first.
    pub fn cmp_by_domain(&self, other: &Self) -> Ordering {
        self.labels().cmp(other.labels())
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
    let end = rest.find([':', '/']).unwrap_or(rest.len());
    (end < rest.len() || rest.len() < text.len()).then(|| rest[..end].to_owned())
}

/// Whether `text` is an IPv6 address: bare or in brackets, below a wildcard, with a zone, or with a port.
fn is_ipv6(text: &str) -> bool {
    let text = text.strip_prefix("*.").unwrap_or(text);
    let address = match text.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => text.strip_suffix('.').unwrap_or(text),
    };
    let address = address.split('%').next().unwrap_or_default();
    address.parse::<Ipv6Addr>().is_ok()
}

/// Whether the last label is a number, decimal or hexadecimal. Browsers and libraries read every such name as an IPv4
/// address (`127.1`, `0x7f.0.0.1`, `2130706433`), and no top-level domain is a number.
fn ends_in_a_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_decimal = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit());
    let is_hexadecimal =
        last.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    is_decimal || is_hexadecimal
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

impl fmt::Display for CanonicalHost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.wildcard, &*self.name) {
            (true, "") => formatter.write_str("*"),
            (true, name) => write!(formatter, "*.{name}"),
            (false, name) => formatter.write_str(name),
        }
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
    fn an_ip_address_is_refused_in_every_spelling_and_below_a_wildcard() {
        for text in [
            "10.0.0.1",
            "10.0.0.1.",
            "127.1",
            "2130706433",
            "0x7f.0.0.1",
            "0X7F000001",
            "0x",
            "017700000001",
            "127.0.0.01",
            "1.2.3.4.5",
            "999.999.999.999",
            "*.0.0.1",
            "*.1",
            "a.b.1",
            "a.0xff",
            "::1",
            "::",
            "[::1]",
            "[::1]:80",
            "*.::1",
            "::ffff:10.0.0.1",
            "fe80::1%eth0",
            "[fe80::1%25eth0]",
            "2001:DB8::1",
        ] {
            let refused = CanonicalHost::parse(text);
            assert!(matches!(refused, Err(HostError::IpAddress(_))), "{text:?}: {refused:?}");
        }
        for text in ["10.0.0.1.nip.io", "1.dev", "0x7f.dev", "a1", "1a", "x0", "4.3.2.1.in-addr.arpa"] {
            assert!(CanonicalHost::parse(text).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn a_wildcard_covers_the_names_below_at_any_depth_and_neither_its_own_nor_a_longer_label() {
        let host = |text: &str| CanonicalHost::parse(text).unwrap();
        for (wildcard, covered) in [
            ("*.t.dev", "a.t.dev"),
            ("*.t.dev", "b.a.t.dev"),
            ("*.t.dev", "*.a.t.dev"),
            ("*.t.dev", "*.t.dev"),
        ] {
            assert!(host(wildcard).covers(&host(covered)), "{wildcard} {covered}");
            assert!(host(covered).meets(&host(wildcard)));
        }
        for (one, other) in
            [("*.t.dev", "t.dev"), ("*.t.dev", "a.xt.dev"), ("a.dev", "b.dev"), ("*.a.dev", "*.b.dev")]
        {
            assert!(!host(one).meets(&host(other)), "{one} {other}");
        }
        assert!(!host("a.t.dev").covers(&host("*.t.dev")) && !host("a.t.dev").covers(&host("b.a.t.dev")));
        assert!(CanonicalHost::any().covers(&host("a.dev")) && CanonicalHost::any().covers(&host("*.dev")));
        assert!(!host("*.dev").covers(&CanonicalHost::any()));
        let above: Vec<_> = host("b.a.t.dev").wildcards_above().map(|host| host.to_string()).collect();
        assert_eq!(above, ["*.a.t.dev", "*.t.dev", "*.dev"]);
        let above: Vec<_> = host("*.t.dev").wildcards_above().map(|host| host.to_string()).collect();
        assert_eq!(above, ["*.dev"]);
    }

    #[test]
    fn by_domain_a_wildcard_is_right_before_all_names_that_it_covers() {
        let names = ["t.dev", "*.t.dev", "a.t.dev", "*.a.t.dev", "b.a.t.dev", "ta.dev", "u.dev"];
        let mut hosts: Vec<_> = names.map(|name| CanonicalHost::parse(name).unwrap()).into();
        hosts.reverse();
        hosts.sort_by(CanonicalHost::cmp_by_domain);
        assert_eq!(hosts.iter().map(ToString::to_string).collect::<Vec<_>>(), names);
    }

    #[test]
    fn every_host_is_written_as_a_star_where_hosts_are_shown_and_nowhere_else() {
        assert_eq!(CanonicalHost::parse_shown(&CanonicalHost::any().to_string()), Ok(CanonicalHost::any()));
        assert_eq!(CanonicalHost::parse_shown("A.dev"), CanonicalHost::parse("a.dev"));
        assert!(CanonicalHost::parse("*").is_err() && CanonicalHost::parse_shown("**").is_err());
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
