//! Identifiers: 24 hexadecimal digits for orders and tickets, a string of the auth service for users.
//!
//! The course's service also accepts any 12 characters as an id; here it must be 24 hexadecimal digits. They are read
//! in either case and written in lower case, so that equal ids are equal strings.

use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};
use thiserror::Error;

/// Why a string is not an identifier.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidId {
    /// Not 24 hexadecimal digits.
    #[error("{0:?} is not an id; an id is 24 hexadecimal digits, such as 65f0c1d2a3b4c5d6e7f80912")]
    NotHex(String),
    /// A user's id is empty.
    #[error("a user's id is empty; the session's \"id\" must be a string")]
    EmptyUser,
}

/// How many characters of an invalid id an error quotes, since a request may contain 100 kB of it.
const MAX_QUOTED: usize = 40;

fn parse(text: &str) -> Result<[u8; 12], InvalidId> {
    let invalid = || InvalidId::NotHex(text.chars().take(MAX_QUOTED).collect());
    let digits = text.as_bytes();
    if digits.len() != 24 {
        return Err(invalid());
    }
    let mut bytes = [0; 12];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = pair else { return Err(invalid()) };
        *byte = digit(*high).ok_or_else(invalid)? << 4 | digit(*low).ok_or_else(invalid)?;
    }
    Ok(bytes)
}

const fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        b'A'..=b'F' => Some(character - b'A' + 10),
        _ => None,
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 12]);

        impl $name {
            /// The identifier with these bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 12]) -> Self {
                Self(bytes)
            }

            /// Its bytes.
            #[must_use]
            pub const fn bytes(self) -> [u8; 12] {
                self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                parse(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

id!(
    /// Identifies an order.
    OrderId
);
id!(
    /// Identifies a ticket; the tickets service generates it.
    TicketId
);

/// Identifies a user; the auth service generates it, in a format of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct UserId(String);

impl UserId {
    /// A user's id: any string that is not empty.
    ///
    /// # Errors
    /// When `id` is empty.
    pub fn new(id: impl Into<String>) -> Result<Self, InvalidId> {
        let id = id.into();
        if id.is_empty() { Err(InvalidId::EmptyUser) } else { Ok(Self(id)) }
    }

    /// The id as a string.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn twelve_characters_are_not_an_id_and_neither_is_a_multibyte_string_of_24_bytes() {
        for wrong in ["", "abcdefghijkl", "65f0c1d2a3b4c5d6e7f8091", "65f0c1d2a3b4c5d6e7f809123"] {
            assert!(wrong.parse::<OrderId>().is_err(), "{wrong}");
        }
        assert!("g5f0c1d2a3b4c5d6e7f80912".parse::<TicketId>().is_err());
        assert!("éééééééééééé".parse::<TicketId>().is_err());
        assert!("+5f0c1d2a3b4c5d6e7f80912".parse::<TicketId>().is_err());
    }

    #[test]
    fn an_error_quotes_only_the_beginning_of_a_long_id() {
        let error = "x".repeat(100_000).parse::<OrderId>().unwrap_err();
        assert!(error.to_string().len() < 200);
    }

    proptest! {
        #[test]
        fn every_id_round_trips(bytes: [u8; 12]) {
            let id = TicketId::from_bytes(bytes);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
            prop_assert_eq!(id.to_string().to_uppercase().parse(), Ok(id));
        }

        #[test]
        fn exactly_the_strings_of_24_hexadecimal_digits_are_ids(text in "[0-9a-fA-Fg ]{22,26}|.{0,30}") {
            let is_id = text.len() == 24 && text.bytes().all(|b| b.is_ascii_hexdigit());
            prop_assert_eq!(text.parse::<OrderId>().is_ok(), is_id);
            if let Ok(id) = text.parse::<OrderId>() {
                prop_assert_eq!(id.to_string(), text.to_lowercase());
            }
        }
    }
}
