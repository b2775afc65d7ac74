//! Targets: the databases to sweep. However many resources name a database, it is one target.

use std::{collections::HashMap, fmt, time::Duration};

use kube::ResourceExt;

use crate::{crd::OrdersService, store::TargetId};

/// One database to sweep, and how.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// Which database.
    pub id: TargetId,
    /// The connection string from the Secret.
    pub uri: String,
    /// The Kubernetes namespace in which short host names are resolved.
    pub namespace: Option<String>,
    /// How much later orders expire whose payment has begun.
    pub grace: Duration,
    /// The most orders to cancel in a second; none for no limit.
    pub max_per_second: Option<u32>,
    /// Whether it is not to be swept.
    pub suspended: bool,
    /// The resources that name it, as namespace/name, sorted.
    pub resources: Vec<String>,
}

impl Target {
    /// Whether a running sweep of `other` need not be restarted for this target; another resource that names the same
    /// database makes no difference.
    pub fn is_swept_like(&self, other: &Self) -> bool {
        (&self.id, &self.uri, &self.namespace, self.grace, self.max_per_second, self.suspended)
            == (&other.id, &other.uri, &other.namespace, other.grace, other.max_per_second, other.suspended)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the connection string, which has a password.
        formatter
            .debug_struct("Target")
            .field("id", &self.id)
            .field("resources", &self.resources)
            .finish_non_exhaustive()
    }
}

/// The name of a resource as `namespace/name`.
pub fn resource_key(service: &OrdersService) -> String {
    format!("{}/{}", service.namespace().unwrap_or_default(), service.name_any())
}

/// Merges targets that are the same database. The result does not depend on the order of the input.
///
/// Where the resources differ, the most cautious setting applies: suspended if any resource suspends it, the longest
/// grace, and the lowest limit.
pub fn merge(targets: impl IntoIterator<Item = Target>) -> HashMap<TargetId, Target> {
    let mut merged = HashMap::<TargetId, Target>::new();
    let mut targets: Vec<_> = targets.into_iter().collect();
    targets.sort_by(|left, right| left.resources.cmp(&right.resources));
    for target in targets {
        match merged.get_mut(&target.id) {
            None => {
                merged.insert(target.id.clone(), target);
            }
            Some(same) => {
                same.suspended |= target.suspended;
                same.grace = same.grace.max(target.grace);
                let limits = [same.max_per_second, target.max_per_second];
                same.max_per_second = limits.into_iter().flatten().min();
                same.resources.extend(target.resources);
            }
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(database: &str, resource: &str, grace: u64, suspended: bool) -> Target {
        Target {
            id: TargetId { hosts: vec!["mongo:27017".into()], database: database.into() },
            uri: format!("mongodb://user:hunter2@mongo/{database}"),
            namespace: Some("shop".into()),
            grace: Duration::from_secs(grace),
            max_per_second: if grace > 0 { Some(grace as u32) } else { None },
            suspended,
            resources: vec![resource.into()],
        }
    }

    #[test]
    fn resources_of_one_database_merge_to_the_most_cautious_settings_in_any_order() {
        let targets =
            [target("a", "x/1", 5, false), target("b", "x/2", 0, false), target("a", "w/3", 9, true)];
        let merged = merge(targets.clone());
        assert_eq!(merged.len(), 2);
        let both = &merged[&targets[0].id];
        assert_eq!((both.grace.as_secs(), both.suspended), (9, true));
        assert_eq!(both.max_per_second, Some(5));
        assert_eq!(both.resources, ["w/3", "x/1"]);
        assert_eq!(merge(targets.iter().rev().cloned()), merged);
    }

    #[test]
    fn the_password_is_not_shown() {
        assert!(!format!("{:?}", target("a", "x/1", 0, false)).contains("hunter2"));
    }
}
