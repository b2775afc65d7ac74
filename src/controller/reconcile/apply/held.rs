//! A Deployment that is left as it is: a new version of the operator would make another, and its resource waits for its turn.

use crate::controller::children::fingerprint::Fingerprint;

/// Whether the Deployment is left as it is although it would be made differently now.
#[derive(Clone, Debug, Default)]
pub struct HeldDeployment {
    /// The fingerprint of what the Deployment is made from, apart from what the operator itself is.
    pub inputs: Option<Fingerprint>,
    /// The hash of it that the status has, if it is left so while it has that hash.
    pub held: Option<String>,
}

impl HeldDeployment {
    /// The hash of a Deployment of which these fields are ours.
    pub fn hash(&self, owned_fields: Option<Fingerprint>) -> Option<String> {
        Some(format!("{}{}", owned_fields?, self.inputs?))
    }

    /// Whether the Deployment with these fields is to be left as it is.
    pub fn holds(&self, owned_fields: Option<Fingerprint>) -> bool {
        self.held.is_some() && self.hash(owned_fields) == self.held
    }
}
