//! The numbers of Ingresses and Middlewares. Each is made from what the object is for, and the name of the object from the
//! number: so no such object ever becomes one for something else, which Ingress and Middleware, that are read apart from each
//! other, would do at different moments.

use sha2::{Digest, Sha256};

/// What an Ingress or a Middleware is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The routes that are sent on as they are: the Ingress with the name of the OrdersService.
    Plain,
    /// The routes of this priority that are served while Traefik does not know their Middleware.
    Guard(u16),
    /// The routes of one path, of which that is taken off.
    Strip(PathHash),
}

/// A short hash of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathHash(usize);

/// Set in the number of every [`PathHash`], and in no other.
const IS_HASH: usize = 1 << (usize::BITS - 1);

impl Purpose {
    /// For the routes of `path` of which that is taken off.
    pub fn strip(path: &str) -> Self {
        let mut bytes = usize::MIN.to_be_bytes();
        bytes.iter_mut().zip(Sha256::digest(path)).for_each(|(to, from)| *to = from);
        Self::Strip(PathHash(usize::from_be_bytes(bytes) | IS_HASH))
    }

    /// The number of a child that is for this.
    pub fn number(self) -> usize {
        match self {
            Self::Plain => 0,
            Self::Guard(priority) => priority.into(),
            Self::Strip(PathHash(hash)) => hash,
        }
    }

    /// What a child with this number is for.
    pub fn of_number(number: usize) -> Self {
        match u16::try_from(number) {
            Ok(0) => Self::Plain,
            Ok(priority) => Self::Guard(priority),
            Err(_) => Self::Strip(PathHash(number | IS_HASH)),
        }
    }

    /// The name of a child of `owner` that is for this.
    pub fn name(self, owner: &str) -> String {
        match self {
            Self::Plain => owner.to_owned(),
            Self::Guard(priority) => format!("{owner}.guard-{priority}"),
            Self::Strip(PathHash(hash)) => format!("{owner}.strip-{hash:x}"),
        }
    }

    /// What a child of this name is for.
    pub fn of_name(name: &str) -> Self {
        let Some((_, purpose)) = name.split_once('.') else { return Self::Plain };
        let guard = || purpose.strip_prefix("guard-")?.parse().ok().map(Self::Guard);
        let strip = || {
            let hash = usize::from_str_radix(purpose.strip_prefix("strip-")?, 16).ok()?;
            Some(Self::Strip(PathHash(hash)))
        };
        guard().or_else(strip).unwrap_or(Self::Plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_and_name_say_what_a_child_is_for_and_nothing_else_has_them() {
        let all = [
            Purpose::Plain,
            Purpose::Guard(1),
            Purpose::Guard(u16::MAX),
            Purpose::strip("/reports"),
            Purpose::strip("/reports/all"),
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
    }
}
