//! The numbers of Ingresses, Middlewares and HTTPRoutes. Each is made from what the object is for, and the name of the
//! object from the number: so no such object ever becomes one for something else. Ingress and Middleware, that are read apart
//! from each other, would do that at different moments; and an HTTPRoute would lose rules that no other one has yet.

use sha2::{Digest, Sha256};

/// What an Ingress, a Middleware or an HTTPRoute is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The routes that are sent on as they are, or all of them in the only HTTPRoute: what has the name of the OrdersService.
    Plain,
    /// The routes of this priority that are served while Traefik does not know their Middleware.
    Guard(u16),
    /// The routes of one path, of which that is taken off.
    Strip(PathHash),
    /// All rules of some hosts, or some rules of theirs, where one HTTPRoute is not enough for all.
    Rules(RulesHash),
}

/// A short hash of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathHash(usize);

/// A short hash of hosts, and of rules unless it is all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RulesHash(usize);

/// Set in the number of every [`PathHash`], and in no other.
const IS_PATH: usize = 1 << (usize::BITS - 1);

/// Set in the number of every [`RulesHash`], without the one before.
const IS_RULES: usize = 1 << (usize::BITS - 2);

impl Purpose {
    /// For the routes of `path` of which that is taken off.
    pub fn strip(path: &str) -> Self {
        Self::strip_of(short_hash(path))
    }

    /// For all rules of these hosts, or for those of their rules with these matches.
    pub fn rules(hosts: &[String], matches: Option<&[String]>) -> Self {
        // None of them has a line break.
        let mut text = hosts.join("\n");
        if let Some(matches) = matches {
            text.push_str("\n\n");
            text.push_str(&matches.join("\n"));
        }
        Self::rules_of(short_hash(&text))
    }

    fn strip_of(hash: usize) -> Self {
        Self::Strip(PathHash(hash | IS_PATH))
    }

    fn rules_of(hash: usize) -> Self {
        Self::Rules(RulesHash((hash & !IS_PATH) | IS_RULES))
    }

    /// The number of a child that is for this.
    pub fn number(self) -> usize {
        match self {
            Self::Plain => 0,
            Self::Guard(priority) => priority.into(),
            Self::Strip(PathHash(hash)) | Self::Rules(RulesHash(hash)) => hash,
        }
    }

    /// What a child with this number is for.
    pub fn of_number(number: usize) -> Self {
        match u16::try_from(number) {
            Ok(0) => Self::Plain,
            Ok(priority) => Self::Guard(priority),
            Err(_) if number & IS_PATH == 0 => Self::rules_of(number),
            Err(_) => Self::strip_of(number),
        }
    }

    /// The name of a child of `owner` that is for this.
    pub fn name(self, owner: &str) -> String {
        match self {
            Self::Plain => owner.to_owned(),
            Self::Guard(priority) => format!("{owner}.guard-{priority}"),
            Self::Strip(PathHash(hash)) => format!("{owner}.strip-{hash:x}"),
            Self::Rules(RulesHash(hash)) => format!("{owner}.rules-{hash:x}"),
        }
    }

    /// What a child of this name is for.
    pub fn of_name(name: &str) -> Self {
        let Some((_, purpose)) = name.split_once('.') else { return Self::Plain };
        let guard = || purpose.strip_prefix("guard-")?.parse().ok().map(Self::Guard);
        let hash = |begins| usize::from_str_radix(purpose.strip_prefix(begins)?, 16).ok();
        let strip = || hash("strip-").map(Self::strip_of);
        let rules = || hash("rules-").map(Self::rules_of);
        guard().or_else(strip).or_else(rules).unwrap_or(Self::Plain)
    }
}

fn short_hash(text: &str) -> usize {
    let mut bytes = usize::MIN.to_be_bytes();
    bytes.iter_mut().zip(Sha256::digest(text)).for_each(|(to, from)| *to = from);
    usize::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn number_and_name_say_what_a_child_is_for_and_nothing_else_has_them() {
        let all = [
            Purpose::Plain,
            Purpose::Guard(1),
            Purpose::Guard(u16::MAX),
            Purpose::strip("/reports"),
            Purpose::strip("/reports/all"),
            Purpose::rules(&hosts(&["a.dev"]), None),
            Purpose::rules(&hosts(&["a.dev", "b.dev"]), None),
            Purpose::rules(&hosts(&["a.dev", "b.dev"]), Some(&[])),
            Purpose::rules(&hosts(&["a.dev"]), Some(&hosts(&["b.dev"]))),
            Purpose::rules(&[], None),
        ];
        for (at, purpose) in all.iter().enumerate() {
            assert_eq!(Purpose::of_number(purpose.number()), *purpose);
            assert_eq!(Purpose::of_name(&purpose.name("orders")), *purpose);
            for other in &all[..at] {
                assert_ne!(purpose.number(), other.number());
            }
        }
        assert_eq!(Purpose::strip("/reports"), Purpose::strip("/reports"));
        assert_eq!(Purpose::Guard(48).name("orders"), "orders.guard-48");
        assert!(Purpose::strip("/reports").name("orders").starts_with("orders.strip-"));
        assert!(Purpose::rules(&[], None).name("orders").starts_with("orders.rules-"));
        // As former versions called HTTPRoutes.
        assert_eq!(Purpose::of_name("orders.2"), Purpose::Plain);
    }
}
