//! A short hash in place of a whole object.

use std::fmt;

use serde::Serialize;
use sha2::{Digest, Sha256};

/// The first 16 bytes of the SHA-256 of an object's JSON, such as of a child as it was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// The fingerprint of `object`; none if it has no form in JSON.
    pub fn of(object: &impl Serialize) -> Option<Self> {
        let json = serde_json::to_vec(object).ok()?;
        let mut bytes = [0; 16];
        bytes.iter_mut().zip(Sha256::digest(json)).for_each(|(to, from)| *to = from);
        Some(Self(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}
