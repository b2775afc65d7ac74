//! From the events of a watch to the OrdersServices that must be reconciled: one state machine for every watch, and
//! the trait of an index of the objects that the watch shows.

use std::collections::HashSet;

use kube::{Resource, runtime::watcher::Event};

use super::object_key::ObjectKey;

/// Keeps an index of the objects of one watch. Each change gives the OrdersServices that it concerns.
pub trait Index<K> {
    /// The object is new or has changed.
    fn apply(&mut self, object: &K) -> Vec<ObjectKey>;

    /// The object is in a list that is not complete yet. The same as a change, unless an index must wait for the end.
    fn apply_listed(&mut self, object: &K) -> Vec<ObjectKey> {
        self.apply(object)
    }

    /// The object is gone.
    fn delete(&mut self, key: &ObjectKey) -> Vec<ObjectKey>;

    /// A list is complete: what is missing from it was deleted while no watch was running.
    fn retain(&mut self, listed: &HashSet<ObjectKey>) -> Vec<ObjectKey>;
}

/// Two indexes of the same objects.
impl<K, A: Index<K>, B: Index<K>> Index<K> for (A, B) {
    fn apply(&mut self, object: &K) -> Vec<ObjectKey> {
        joined(self.0.apply(object), self.1.apply(object))
    }

    fn apply_listed(&mut self, object: &K) -> Vec<ObjectKey> {
        joined(self.0.apply_listed(object), self.1.apply_listed(object))
    }

    fn delete(&mut self, key: &ObjectKey) -> Vec<ObjectKey> {
        joined(self.0.delete(key), self.1.delete(key))
    }

    fn retain(&mut self, listed: &HashSet<ObjectKey>) -> Vec<ObjectKey> {
        joined(self.0.retain(listed), self.1.retain(listed))
    }
}

fn joined(mut one: Vec<ObjectKey>, other: Vec<ObjectKey>) -> Vec<ObjectKey> {
    one.extend(other);
    one
}

/// Hands the events of one watch to an index.
#[derive(Debug)]
pub struct Indexer<I> {
    index: I,
    /// The objects of the list that is coming in.
    listed: HashSet<ObjectKey>,
}

impl<I> Indexer<I> {
    /// Before the first event.
    pub fn new(index: I) -> Self {
        Self { index, listed: HashSet::new() }
    }

    /// Handles one event; gives the OrdersServices that it concerns.
    pub fn handle<K: Resource>(&mut self, event: &Event<K>) -> Vec<ObjectKey>
    where
        I: Index<K>,
    {
        match event {
            Event::Init => {
                self.listed.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                self.listed.insert(ObjectKey::of(object.meta()));
                self.index.apply_listed(object)
            }
            Event::InitDone => self.index.retain(&std::mem::take(&mut self.listed)),
            Event::Apply(object) => self.index.apply(object),
            Event::Delete(object) => self.index.delete(&ObjectKey::of(object.meta())),
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;

    use super::*;

    /// Says what it was told.
    struct Log(Vec<String>);

    impl Index<Service> for Log {
        fn apply(&mut self, object: &Service) -> Vec<ObjectKey> {
            self.0.push(format!("apply {}", ObjectKey::of(&object.metadata)));
            vec![ObjectKey::of(&object.metadata)]
        }

        fn delete(&mut self, key: &ObjectKey) -> Vec<ObjectKey> {
            self.0.push(format!("delete {key}"));
            vec![key.clone()]
        }

        fn retain(&mut self, listed: &HashSet<ObjectKey>) -> Vec<ObjectKey> {
            let mut names: Vec<_> = listed.iter().map(ToString::to_string).collect();
            names.sort();
            self.0.push(format!("retain {}", names.join(",")));
            Vec::new()
        }
    }

    fn service(name: &str) -> Service {
        let mut service = Service::default();
        (service.metadata.namespace, service.metadata.name) = (Some("shop".into()), Some(name.into()));
        service
    }

    #[test]
    fn only_a_complete_list_takes_anything_away_and_one_that_breaks_off_is_forgotten() {
        let mut indexer = Indexer::new((Log(Vec::new()), Log(Vec::new())));
        for event in [
            Event::Init,
            Event::InitApply(service("a")),
            // The watch failed in the middle of the list.
            Event::Init,
            Event::InitApply(service("b")),
            Event::InitApply(service("c")),
            Event::InitDone,
            Event::Delete(service("b")),
        ] {
            indexer.handle(&event);
        }
        let expected =
            ["apply shop/a", "apply shop/b", "apply shop/c", "retain shop/b,shop/c", "delete shop/b"];
        assert_eq!(indexer.index.0.0, expected);
        assert_eq!(indexer.index.1.0, expected, "each of two indexes sees every event");
        let key = ObjectKey::new("shop", "d");
        assert_eq!(indexer.handle(&Event::Apply(service("d"))), [key.clone(), key]);
    }
}
