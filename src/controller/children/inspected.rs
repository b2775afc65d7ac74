//! What a look at the pods of a Deployment has found.

use super::rollout::{Counts, Rollout};
use crate::controller::problem::Problem;

/// What a look at the pods of the current template has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspected {
    /// What keeps them from running.
    pub problem: Option<Problem>,
    /// How many there were; none if it was not known which pods have that template.
    pub pods: Option<Pods>,
}

/// How many pods of the current template there were, and what the Deployment counted at that moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pods {
    /// All of them.
    pub all: i32,
    /// Those that were ready.
    pub ready: i32,
    /// What the Deployment counted.
    pub of: Counts,
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
        let pods =
            self.pods.as_ref().filter(|pods| pods.of == rollout.counts() && pods.all == rollout.updated)?;
        (least..=most).contains(&pods.ready).then_some(pods.ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_pods_of_the_current_template_are_told_from_the_others_or_not_counted() {
        let rollout = |replicas, updated, ready| Rollout { replicas, updated, ready, ..Rollout::default() };
        let seen = |all, ready, of: &Rollout| Inspected {
            problem: None,
            pods: Some(Pods { all, ready, of: of.counts() }),
        };
        let nothing = Inspected::default();
        assert_eq!(nothing.ready_of_current(&rollout(1, 0, 1)), Some(0), "there is none");
        assert_eq!(nothing.ready_of_current(&rollout(3, 1, 3)), Some(1), "all are");
        assert_eq!(nothing.ready_of_current(&rollout(3, 1, 0)), Some(0), "none is");
        assert_eq!(nothing.ready_of_current(&rollout(2, 2, 1)), Some(1), "all are current");
        let surge = rollout(2, 1, 1);
        assert_eq!(nothing.ready_of_current(&surge), None, "it may be either");
        assert_eq!(seen(1, 0, &surge).ready_of_current(&surge), Some(0));
        assert_eq!(seen(1, 1, &surge).ready_of_current(&surge), Some(1));
        assert_eq!(seen(0, 0, &surge).ready_of_current(&surge), None, "the list was older");
        assert_eq!(seen(1, 0, &rollout(2, 1, 2)).ready_of_current(&surge), None, "that was before");
    }
}
