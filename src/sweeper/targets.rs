//! Targets: the databases to sweep. However many resources of a namespace name a database, it is one target.
//!
//! Resources of different namespaces never share one, since neither may decide about the other's orders: each database is
//! then swept once for each namespace, which the conditional writes make harmless.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    time::Duration,
};

use kube::ResourceExt;

use crate::store::{ClientTls, ConnectOptions, TargetId};

/// Identifies a target.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetKey {
    /// The namespace of the resources that name the database, in which short host names are resolved; none if no
    /// resource does.
    pub namespace: Option<String>,
    /// Which database.
    pub id: TargetId,
}

impl TargetKey {
    /// The namespace and the servers: what shares a server's time with others.
    pub fn servers(&self) -> (Option<String>, Vec<String>) {
        (self.namespace.clone(), self.id.hosts.clone())
    }
}

impl fmt::Display for TargetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.id),
            None => self.id.fmt(f),
        }
    }
}

/// One database to sweep, and how.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// Which database, and whose.
    pub key: TargetKey,
    /// The connection string from the Secret.
    pub uri: String,
    /// The database's name, unless the connection string is to say it, or a default to be used.
    pub database: Option<String>,
    /// The CA and the client certificate.
    pub tls: Option<ClientTls>,
    /// How much later orders expire whose payment has begun.
    pub grace: Duration,
    /// The most orders to cancel in a second; none for no limit.
    pub max_per_second: Option<u32>,
    /// Whether it is not to be swept.
    pub suspended: bool,
    /// The marks of the settings by which others are told of what is cancelled, one for each resource that has such; none if
    /// nobody is to be told.
    pub events: BTreeSet<String>,
    /// What of the connection string has no effect, and why.
    pub warnings: Vec<String>,
    /// The resources that name it, as namespace/name, sorted.
    pub resources: Vec<String>,
}

impl Target {
    /// Whether a running sweep of `other` need not be restarted for this target; another resource that names the same
    /// database makes no difference.
    pub fn is_swept_like(&self, other: &Self) -> bool {
        let numbers = |target: &Self| (target.grace, target.max_per_second, target.suspended);
        (&self.key, &self.uri, &self.database, &self.tls, &self.events, numbers(self))
            == (&other.key, &other.uri, &other.database, &other.tls, &other.events, numbers(other))
    }

    /// Whether it is reached as `other` is.
    pub fn is_reached_like(&self, other: &Self) -> bool {
        (&self.key, &self.uri, &self.tls) == (&other.key, &other.uri, &other.tls)
    }

    /// How to connect to it.
    pub fn connect_options(&self) -> ConnectOptions<'_> {
        ConnectOptions {
            uri: &self.uri,
            database: self.database.as_deref(),
            namespace: self.key.namespace.as_deref(),
            tls: self.tls.as_ref(),
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the connection string, which has a password.
        formatter
            .debug_struct("Target")
            .field("key", &self.key)
            .field("resources", &self.resources)
            .finish_non_exhaustive()
    }
}

/// The name of a resource as `namespace/name`.
pub fn resource_key(service: &impl ResourceExt) -> String {
    format!("{}/{}", service.namespace().unwrap_or_default(), service.name_any())
}

/// Merges targets that are the same database of the same namespace. The result does not depend on the order of the input.
///
/// Where the resources differ, the most cautious setting applies: suspended if any resource suspends it, the longest
/// grace, the lowest limit, and the events of all.
pub fn merge(targets: impl IntoIterator<Item = Target>) -> HashMap<TargetKey, Target> {
    let mut merged = HashMap::<TargetKey, Target>::new();
    let mut targets: Vec<_> = targets.into_iter().collect();
    targets.sort_by(|left, right| left.resources.cmp(&right.resources));
    for target in targets {
        match merged.get_mut(&target.key) {
            None => {
                merged.insert(target.key.clone(), target);
            }
            Some(same) => {
                same.database = same.database.take().or(target.database);
                same.suspended |= target.suspended;
                same.events.extend(target.events);
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
            key: TargetKey {
                namespace: Some("shop".into()),
                id: TargetId { hosts: vec!["mongo:27017".into()], database: database.into() },
            },
            uri: format!("mongodb://user:hunter2@mongo/{database}"),
            database: None,
            tls: None,
            grace: Duration::from_secs(grace),
            max_per_second: if grace > 0 { Some(grace as u32) } else { None },
            suspended,
            events: (grace > 5).then(|| "mark".to_owned()).into_iter().collect(),
            warnings: Vec::new(),
            resources: vec![resource.into()],
        }
    }

    #[test]
    fn resources_of_one_database_merge_to_the_most_cautious_settings_in_any_order() {
        let targets =
            [target("a", "x/1", 5, false), target("b", "x/2", 0, false), target("a", "w/3", 9, true)];
        let merged = merge(targets.clone());
        assert_eq!(merged.len(), 2);
        let both = &merged[&targets[0].key];
        assert_eq!((both.grace.as_secs(), both.suspended, both.events.len()), (9, true, 1));
        assert_eq!(both.max_per_second, Some(5));
        assert_eq!(both.resources, ["w/3", "x/1"]);
        assert_eq!(merge(targets.iter().rev().cloned()), merged);
    }

    #[test]
    fn resources_of_two_namespaces_with_one_database_are_two_targets_and_neither_touches_the_other() {
        let ours = target("a", "ticketing/orders", 5, false);
        let mut theirs = target("a", "mallory/evil", 1, true);
        theirs.key.namespace = Some("mallory".into());
        let merged = merge([ours.clone(), theirs.clone()]);
        assert_eq!(merged.len(), 2);
        assert_eq!((&merged[&ours.key], &merged[&theirs.key]), (&ours, &theirs));
        assert_eq!(ours.key.to_string(), "shop/mongo:27017/a");
        assert_ne!(ours.key.servers(), theirs.key.servers());
    }

    #[test]
    fn the_password_is_not_shown() {
        assert!(!format!("{:?}", target("a", "x/1", 0, false)).contains("hunter2"));
    }
}
