//! A short hash that stands for a whole object.

use std::fmt;

use serde::Serialize;
use sha2::{Digest, Sha256};

/// The hash of something that has a form as JSON, such as a child as it was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Print([u8; 16]);

impl Print {
    /// The hash of `object`; none of what is no JSON.
    pub fn of(object: &impl Serialize) -> Option<Self> {
        let text = serde_json::to_vec(object).ok()?;
        let mut print = [0; 16];
        print.iter_mut().zip(Sha256::digest(text)).for_each(|(to, from)| *to = from);
        Some(Self(print))
    }
}

impl fmt::Display for Print {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}
