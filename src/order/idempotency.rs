//! The key that makes repeating a request safe.

use std::{fmt, str::FromStr};

use thiserror::Error;

/// Identifies one reservation among all of a user: 1 to 255 visible ASCII characters.
///
/// The header `Idempotency-Key` is an [IETF draft][draft]; the bounds are those of common payment APIs.
///
/// [draft]: https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(String);

/// A string is not an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("an idempotency key is 1 to {} visible ASCII characters, such as a UUID", IdempotencyKey::MAX_LENGTH)]
pub struct InvalidKey;

impl IdempotencyKey {
    /// The maximum length, in characters.
    pub const MAX_LENGTH: usize = 255;

    /// The key as a string.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IdempotencyKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let fits = (1..=Self::MAX_LENGTH).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        if fits { Ok(Self(text.to_owned())) } else { Err(InvalidKey) }
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_visible_ascii_and_not_too_long() {
        for good in ["a", "8e03978e-40d5-43dd-bc93-6894a57f9324", "\"quoted\"", &"k".repeat(255)] {
            assert_eq!(good.parse::<IdempotencyKey>().unwrap().as_str(), good);
        }
        for wrong in ["", " ", "two words", "é", "tab\t", &"k".repeat(256)] {
            assert_eq!(wrong.parse::<IdempotencyKey>(), Err(InvalidKey), "{wrong}");
        }
    }
}
