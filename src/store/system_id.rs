//! Which system a database is that of: an identity by which two systems at one broker are distinguished. It comes back with a
//! backup, and goes with the database wherever that is moved.

use std::{fmt, str::FromStr};

use mongodb::bson::{Document, doc};
use serde::Deserialize;
use thiserror::Error;

use super::{database::Store, driver_error::is_duplicate, error::StoreError, retry};

/// Its document, in the collection of the relay.
const IDENTITY: &str = "identity";
const FIELD: &str = "system";

const LOOKING: &str = "looking which system this is";
const STORING: &str = "storing which system this is";

/// How many characters an identity has.
const LENGTH: usize = 16;

/// The identity of a system: sixteen hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct SystemId(String);

/// Why something is no identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("an identity is 16 lower-case hexadecimal digits, such as 0123456789abcdef")]
pub struct InvalidSystemId;

impl SystemId {
    fn random() -> Self {
        Self(format!("{:016x}", fastrand::u64(..)))
    }

    /// It.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SystemId {
    type Err = InvalidSystemId;

    fn from_str(text: &str) -> Result<Self, InvalidSystemId> {
        let is_digit = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
        let is_one = text.len() == LENGTH && text.bytes().all(is_digit);
        if is_one { Ok(Self(text.to_owned())) } else { Err(InvalidSystemId) }
    }
}

impl TryFrom<String> for SystemId {
    type Error = InvalidSystemId;

    fn try_from(text: String) -> Result<Self, InvalidSystemId> {
        text.parse()
    }
}

impl fmt::Display for SystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Store {
    /// The identity of the system whose database this is. One that has none gets one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn system_id(&self) -> Result<SystemId, StoreError> {
        let relays = self.relay_leases();
        loop {
            let found =
                retry::transient(LOOKING, || async { relays.find_one(doc! { "_id": IDENTITY }).await })
                    .await?;
            if let Some(found) = found {
                return identity(&found);
            }
            let new = doc! { "_id": IDENTITY, FIELD: SystemId::random().as_str() };
            retry::transient(STORING, || async {
                match relays.insert_one(new.clone()).await {
                    // Another pod was first.
                    Err(error) if is_duplicate(&error) => Ok(()),
                    result => result.map(drop),
                }
            })
            .await?;
        }
    }

    /// Makes this the database of the system `id`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_system_id(&self, id: &SystemId) -> Result<(), StoreError> {
        let (relays, update) = (self.relay_leases(), doc! { "$set": { FIELD: id.as_str() } });
        retry::transient(STORING, || async {
            relays.update_one(doc! { "_id": IDENTITY }, update.clone()).upsert(true).await
        })
        .await
        .map(drop)
    }
}

fn identity(found: &Document) -> Result<SystemId, StoreError> {
    let text = found.get_str(FIELD).unwrap_or_default();
    text.parse()
        .map_err(|error: InvalidSystemId| StoreError::Failed { doing: LOOKING, detail: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_sixteen_digits_and_nothing_else() {
        assert_eq!(SystemId::random().as_str().parse::<SystemId>().map(|id| id.0.len()), Ok(LENGTH));
        for other in ["", "0123456789abcde", "0123456789abcdef0", "0123456789ABCDEF", "0123456789abcde\n"] {
            assert_eq!(other.parse::<SystemId>(), Err(InvalidSystemId), "{other:?}");
            assert!(identity(&doc! { FIELD: other }).is_err());
        }
    }
}
