//! A Deployment that is left as it is: a new version of the operator would make another, and its resource waits for its turn,
//! or names an image of its own.

use crate::controller::children::fingerprint::Fingerprint;

/// Whether the Deployment is left as it is although it would be made differently now.
#[derive(Clone, Debug, Default)]
pub struct HeldDeployment {
    /// The fingerprint of what the Deployment is made from, apart from what the operator itself is.
    pub inputs: Option<Fingerprint>,
    /// Whether it is left so.
    pub hold: Hold,
    /// Whether that ends as soon as this controller knows what was applied: it has applied it itself, or would make the same.
    pub until_applied: bool,
}

/// Whether a Deployment is left as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Hold {
    /// It is made as it would be made now.
    #[default]
    No,
    /// It is left as long as it, and what it is made from, have this hash.
    While(String),
    /// It is left as it is found: a version that noted no hash has made it from this very spec.
    AsFound,
}

impl HeldDeployment {
    /// The hash of a Deployment of which these fields are ours.
    pub fn hash(&self, owned_fields: Option<Fingerprint>) -> Option<String> {
        Some(format!("{}{}", owned_fields?, self.inputs?))
    }

    /// The hash of the Deployment with these fields, if it is to be left as it is.
    pub fn held(&self, owned_fields: Option<Fingerprint>) -> Option<String> {
        let now = self.hash(owned_fields)?;
        match &self.hold {
            Hold::No => None,
            Hold::While(hash) => (*hash == now).then_some(now),
            Hold::AsFound => Some(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_is_left_while_neither_it_nor_what_it_is_made_from_has_changed() {
        let [fields, others] = ["a", "b"].map(|fields| Fingerprint::of(&fields));
        let held = |hold: Hold| HeldDeployment { inputs: Fingerprint::of(&1), hold, until_applied: false };
        let hash = held(Hold::No).hash(fields).unwrap();
        assert_eq!(held(Hold::No).held(fields), None);
        let known = held(Hold::While(hash.clone()));
        assert_eq!((known.held(fields), known.held(others)), (Some(hash.clone()), None));
        let of_another_spec = HeldDeployment { inputs: Fingerprint::of(&2), ..known };
        assert_eq!(of_another_spec.held(fields), None);
        // From now on that hash is known.
        assert_eq!(held(Hold::AsFound).held(fields), Some(hash));
        assert_eq!(held(Hold::AsFound).held(None), None, "it is not ours");
    }
}
