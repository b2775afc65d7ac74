//! Which system this is, to the broker: a database, and whatever pods it has. Two systems that were given the same subjects would
//! take each other's messages; each leaves its identity where it publishes and consumes, so the second one notices.
//!
//! What an older version has made says nothing, and is taken for ours. The identity is in the database, and so in its backups.

use std::fmt;

use serde::Deserialize;
use thiserror::Error;

use crate::store::{Store, StoreError, SystemId};

/// The most characters of a name that are repeated: it is somebody else's text.
const LONGEST: usize = 63;

/// A system.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct System {
    #[serde(rename = "system")]
    id: SystemId,
    /// The name of its database, for whoever reads it.
    #[serde(default)]
    database: String,
}

impl System {
    /// That of a database, which gets an identity if it has none.
    pub(super) async fn of(store: &Store) -> Result<Self, StoreError> {
        Ok(Self { id: store.system_id().await?, database: store.target().database.clone() })
    }

    /// As a message says it; none if this is something else.
    pub(super) fn parse(data: &[u8]) -> Option<Self> {
        serde_json::from_slice(data).ok()
    }

    /// With this identity; none if it is none.
    pub(super) fn new(id: &str, database: &str) -> Option<Self> {
        Some(Self { id: id.parse().ok()?, database: database.to_owned() })
    }

    pub(super) fn id(&self) -> &str {
        self.id.as_str()
    }

    pub(super) fn database(&self) -> &str {
        &self.database
    }

    /// As a message says it.
    pub(super) fn json(&self) -> Vec<u8> {
        serde_json::json!({ "system": self.id.as_str(), "database": self.database }).to_string().into_bytes()
    }

    /// That what was found at a place is ours, or says nothing.
    pub(super) fn must_be(
        &self,
        found: Option<Self>,
        place: impl FnOnce() -> String,
    ) -> Result<(), Box<OtherSystem>> {
        match found {
            Some(theirs) if theirs.id != self.id => {
                Err(Box::new(OtherSystem { place: place(), theirs, ours: self.clone() }))
            }
            _ => Ok(()),
        }
    }
}

/// That a place at the broker is another system's.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{place} has the messages of another system: {theirs}, while this is {ours}; give this one its own broker or \
     subjects, or, if it replaces the other, which no longer runs: orders-operator events identity --set {}",
    .theirs.id
)]
pub(super) struct OtherSystem {
    place: String,
    theirs: System,
    ours: System,
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_plain = |letter: &char| letter.is_ascii_alphanumeric() || "-_".contains(*letter);
        let database: String = self.database.chars().filter(is_plain).take(LONGEST).collect();
        write!(f, "the system {} with the database {database:?}", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_nothing_is_ours_and_what_names_another_system_is_not() {
        let ours = System::new("0123456789abcdef", "shop").unwrap();
        let found = |data: &[u8]| ours.must_be(System::parse(data), || "the stream x".into());
        assert_eq!(found(&ours.json()), Ok(()));
        for nothing in [b"{}".as_slice(), b"", br#"{"system":7}"#, br#"{"system":"<script>"}"#] {
            assert_eq!(found(nothing), Ok(()));
        }
        let theirs = System::new("fedcba9876543210", "a\nb<i>").unwrap();
        let error = found(&theirs.json()).unwrap_err().to_string();
        assert!(error.contains("fedcba9876543210") && error.contains("\"abi\""), "{error}");
        let moved = System { database: "elsewhere".into(), ..ours.clone() };
        assert_eq!(found(&moved.json()), Ok(()), "it is the same system");
    }
}
