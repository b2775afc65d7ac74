//! From the watch events of one kind of children to their owners.

use std::collections::HashSet;

use crate::controller::{
    children::{
        kind::Child,
        observed::{ObservedChild, ObservedChildren},
        partial::Partial,
    },
    index::Index,
    object_key::ObjectKey,
    resource_state::ResourceStates,
};

/// The index for the watch on one kind of children, in one namespace or in all.
pub struct ChildFeed {
    observed: ObservedChildren,
    states: ResourceStates,
    namespace: Option<String>,
}

impl ChildFeed {
    /// Records children in `observed`, and compares them with what was applied as `states` have it.
    pub fn new(observed: &ObservedChildren, states: &ResourceStates, namespace: Option<&str>) -> Self {
        let namespace = namespace.map(str::to_owned);
        Self { observed: observed.clone(), states: states.clone(), namespace }
    }
}

impl<K: Child> Index<Partial<K>> for ChildFeed {
    /// A change concerns the owner, and the former owner if that was another; unless nothing that matters has changed, or
    /// it is the echo of our own apply.
    fn apply(&mut self, object: &Partial<K>) -> Vec<ObjectKey> {
        let key = ObjectKey::of(&object.metadata);
        let now = ObservedChild::of(object);
        let before = match now.clone() {
            Some(now) => self.observed.put(K::KIND, &key, now),
            None => self.observed.remove(K::KIND, &key),
        };
        let is_equivalent =
            |now: &ObservedChild| before.as_ref().is_some_and(|before| now.is_equivalent_to(before));
        let is_echo = |now: &ObservedChild| {
            let same_owner = before.as_ref().is_none_or(|before| before.owner == now.owner);
            let has_version =
                self.states.with(&now.owner, |state| state.last_applied.has_version(K::KIND, &now.version));
            same_owner && has_version == Some(true)
        };
        if now.as_ref().is_some_and(|now| is_equivalent(now) || is_echo(now)) {
            return Vec::new();
        }
        let mut owners: Vec<_> =
            [now, before].into_iter().flatten().map(|child| child.owner.key.clone()).collect();
        owners.dedup();
        owners
    }

    fn delete(&mut self, key: &ObjectKey) -> Vec<ObjectKey> {
        let owner = self.observed.remove(K::KIND, key).map(|child| child.owner.key.clone());
        // What was in the way of the one of that name, such as the second Service of another: now the child can be created.
        let (name, _) = key.name().split_once('.').unwrap_or((key.name(), ""));
        let of_name = ObjectKey::new(key.namespace(), name);
        let waits = owner.as_ref() != Some(&of_name) && self.states.contains(&of_name);
        owner.into_iter().chain(waits.then_some(of_name)).collect()
    }

    fn retain(&mut self, listed: &HashSet<ObjectKey>) -> Vec<ObjectKey> {
        let removed = self.observed.retain(K::KIND, self.namespace.as_deref(), listed);
        removed.into_iter().map(|child| child.owner.key.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;
    use kube::runtime::watcher::Event;
    use serde_json::json;

    use super::*;
    use crate::controller::{
        children::{
            fingerprint::Fingerprint, kind::ChildKind, observed::Observation, owner::Owner,
            resource_version::ResourceVersion,
        },
        index::Indexer,
    };

    fn child(name: &str, version: &str, owner: Option<&str>) -> Partial<Service> {
        let owners = owner.map(|owner| {
            json!([{"apiVersion": "ticketing.dev/v1alpha1", "kind": "OrdersService", "name": owner, "uid": "u",
                    "controller": true}])
        });
        serde_json::from_value(json!({
            "metadata": {"namespace": "shop", "name": name, "uid": name, "resourceVersion": version,
                         "ownerReferences": owners}
        }))
        .unwrap()
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("shop", name)
    }

    fn keys(names: &[&str]) -> Vec<ObjectKey> {
        names.iter().map(|name| key(name)).collect()
    }

    fn version(observed: &ObservedChildren, name: &str) -> Option<ResourceVersion> {
        match observed.get(ChildKind::Service, &key(name)) {
            Observation::Present(child) => Some(child.version),
            Observation::NotSynced | Observation::Absent => None,
        }
    }

    fn feed(
        observed: &ObservedChildren,
        states: &ResourceStates,
        namespace: Option<&str>,
    ) -> Indexer<ChildFeed> {
        Indexer::new(ChildFeed::new(observed, states, namespace))
    }

    #[test]
    fn what_was_deleted_while_there_was_no_watch_concerns_its_owner_too() {
        let observed = ObservedChildren::default();
        let mut feed = feed(&observed, &ResourceStates::default(), None);
        let get = |kind, name| observed.get(kind, &key(name));
        assert_eq!(get(ChildKind::Service, "a"), Observation::NotSynced);
        feed.handle(&Event::<Partial<Service>>::Init);
        assert_eq!(feed.handle(&Event::InitApply(child("a", "1", Some("a")))), keys(&["a"]));
        assert_eq!(feed.handle(&Event::InitApply(child("b", "2", Some("b")))), keys(&["b"]));
        assert_eq!(get(ChildKind::Service, "c"), Observation::NotSynced);
        assert_eq!(feed.handle(&Event::<Partial<Service>>::InitDone), []);
        assert_eq!(get(ChildKind::Service, "c"), Observation::Absent);
        assert_eq!(get(ChildKind::Ingress, "a"), Observation::NotSynced);

        feed.handle(&Event::<Partial<Service>>::Init);
        feed.handle(&Event::InitApply(child("b", "3", Some("b"))));
        assert_eq!(version(&observed, "a"), Some("1".into()), "an incomplete list removes nothing");
        assert_eq!(feed.handle(&Event::<Partial<Service>>::InitDone), keys(&["a"]));
        assert_eq!((version(&observed, "a"), version(&observed, "b")), (None, Some("3".into())));
    }

    #[test]
    fn an_event_without_news_concerns_nobody() {
        let (observed, states) = (ObservedChildren::default(), ResourceStates::default());
        let mut feed = feed(&observed, &states, None);
        let mut show = |version: &str, owner: &str, fields: &str| {
            let mut object = child("a", version, Some(owner));
            object.owned_fields = (!fields.is_empty()).then(|| Fingerprint::of(&fields)).flatten();
            feed.handle(&Event::Apply(object))
        };
        let applied = Partial { owned_fields: Fingerprint::of(&"ours"), ..child("a", "5", None) };
        states.create(&key("a"), "u");
        let owner = Owner { key: key("a"), uid: "u".into() };
        states.with(&owner, |state| {
            state.last_applied.applied(0, Fingerprint::of(&"desired"), &applied);
        });
        assert_eq!(show("4", "a", "ours"), keys(&["a"]), "it was not there before");
        assert_eq!(show("5", "a", "ours, later"), [], "our own apply");
        assert_eq!(show("6", "a", "ours, later"), [], "something beside our fields");
        assert_eq!(show("7", "a", "theirs"), keys(&["a"]), "someone took a field over");
        assert_eq!(show("8", "a", ""), keys(&["a"]), "which fields are ours is not known");
        assert_eq!(show("9", "a", ""), keys(&["a"]), "nor is it now");
        assert_eq!(show("5", "b", "ours"), keys(&["b", "a"]), "it has another owner");
    }

    #[test]
    fn edits_deletions_and_lost_ownership_concern_the_owner_and_foreign_objects_nobody() {
        let observed = ObservedChildren::default();
        let mut feed = feed(&observed, &ResourceStates::default(), Some("shop"));
        assert_eq!(feed.handle(&Event::Apply(child("foreign", "1", None))), []);
        assert_eq!(observed.get(ChildKind::Service, &key("foreign")), Observation::NotSynced);
        assert_eq!(feed.handle(&Event::Apply(child("a", "1", Some("a")))), keys(&["a"]));
        assert_eq!(feed.handle(&Event::Apply(child("a", "2", Some("a")))), keys(&["a"]));
        assert_eq!(feed.handle(&Event::Apply(child("a", "3", Some("other")))), keys(&["other", "a"]));
        assert_eq!(feed.handle(&Event::Apply(child("a", "4", None))), keys(&["other"]));
        feed.handle(&Event::Apply(child("a", "5", Some("a"))));
        assert_eq!(feed.handle(&Event::Delete(child("a", "6", Some("a")))), keys(&["a"]));
        assert_eq!(version(&observed, "a"), None);
    }

    #[test]
    fn the_deletion_of_a_foreign_object_with_the_name_of_a_child_concerns_the_resource_of_that_name() {
        let (observed, states) = (ObservedChildren::default(), ResourceStates::default());
        let mut feed = feed(&observed, &states, None);
        states.create(&key("a"), "u");
        for (name, expected) in [("a", keys(&["a"])), ("a.2", keys(&["a"])), ("b", Vec::new())] {
            feed.handle(&Event::Apply(child(name, "1", None)));
            assert_eq!(feed.handle(&Event::Delete(child(name, "2", None))), expected, "{name}");
        }
        // It was that of another OrdersService.
        feed.handle(&Event::Apply(child("a", "3", Some("other"))));
        assert_eq!(feed.handle(&Event::Delete(child("a", "4", Some("other")))), keys(&["other", "a"]));
    }
}
