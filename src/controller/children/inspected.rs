//! What a look at the pods of a Deployment has found.

use std::collections::BTreeMap;

use super::rollout::Rollout;
use crate::controller::problem::Problem;

/// What a look at the pods has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspected {
    /// What keeps them from running.
    pub problem: Option<Problem>,
    /// The pods of each ReplicaSet, by its name.
    pub replica_sets: BTreeMap<String, Pods>,
}

/// How many pods there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pods {
    /// All of them.
    pub all: i32,
    /// Those that are ready.
    pub ready: i32,
}

impl Inspected {
    /// How many pods of the current template are ready; none if that is not known.
    ///
    /// A Deployment's status has the ready pods of all templates together. Often only one division of them is possible; in
    /// other cases the last look at the pods decides, unless it was before a change of their numbers.
    pub fn ready_of_current(&self, rollout: &Rollout) -> Option<i32> {
        let former = rollout.former();
        let (least, most) = ((rollout.ready - former).max(0), rollout.updated.min(rollout.ready));
        if least == most {
            return Some(least);
        }
        let current = self.replica_sets.get(rollout.replica_set.as_ref()?).copied().unwrap_or_default();
        let sum = |of: fn(&Pods) -> i32| self.replica_sets.values().map(of).sum::<i32>();
        let seen = (current.all, sum(|pods| pods.all), sum(|pods| pods.ready));
        (seen == (rollout.updated, rollout.replicas, rollout.ready)).then_some(current.ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_pods_of_the_current_template_are_told_from_the_others_or_not_counted() {
        let rollout = |replicas, updated, ready| Rollout {
            replicas,
            updated,
            ready,
            replica_set: Some("new".into()),
            ..Rollout::default()
        };
        let seen = |sets: &[(&str, i32, i32)]| Inspected {
            problem: None,
            replica_sets: sets
                .iter()
                .map(|(name, all, ready)| ((*name).into(), Pods { all: *all, ready: *ready }))
                .collect(),
        };
        let nothing = seen(&[]);
        assert_eq!(nothing.ready_of_current(&rollout(1, 0, 1)), Some(0), "there is none");
        assert_eq!(nothing.ready_of_current(&rollout(3, 1, 3)), Some(1), "all are");
        assert_eq!(nothing.ready_of_current(&rollout(3, 1, 0)), Some(0), "none is");
        assert_eq!(nothing.ready_of_current(&rollout(2, 2, 1)), Some(1), "all are current");
        let surge = rollout(2, 1, 1);
        assert_eq!(nothing.ready_of_current(&surge), None, "it may be either");
        assert_eq!(seen(&[("new", 1, 0), ("old", 1, 1)]).ready_of_current(&surge), Some(0));
        assert_eq!(seen(&[("new", 1, 1), ("old", 1, 0)]).ready_of_current(&surge), Some(1));
        assert_eq!(seen(&[("old", 1, 1)]).ready_of_current(&surge), None, "that was before");
        assert_eq!(seen(&[("new", 1, 1), ("old", 1, 1)]).ready_of_current(&surge), None, "so was that");
        let unnamed = Rollout { replica_set: None, ..surge };
        assert_eq!(seen(&[("new", 1, 0), ("old", 1, 1)]).ready_of_current(&unnamed), None);
    }
}
