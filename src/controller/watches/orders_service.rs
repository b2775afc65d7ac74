//! The index for the watch on OrdersServices themselves.

use std::collections::HashSet;

use kube::Resource;

use crate::controller::{
    index::Index, metrics::Metrics, object_key::ObjectKey, raw_orders_service::RawOrdersService,
    resource_state::ResourceStates,
};

/// Creates and removes the state of each OrdersService in one namespace or in all.
pub struct OrdersServiceIndex {
    states: ResourceStates,
    metrics: Metrics,
    namespace: Option<String>,
}

impl OrdersServiceIndex {
    /// Keeps `states` and the number of objects in `metrics` up to date.
    pub fn new(states: &ResourceStates, metrics: &Metrics, namespace: Option<&str>) -> Self {
        let namespace = namespace.map(str::to_owned);
        Self { states: states.clone(), metrics: metrics.clone(), namespace }
    }

    fn create(&self, service: &RawOrdersService) {
        let owner = service.as_owner();
        self.states.create(&owner.key, &owner.uid);
        self.metrics.set_objects(self.states.len());
    }
}

impl Index<RawOrdersService> for OrdersServiceIndex {
    /// A change concerns the resource itself, unless it is the echo of our own status update.
    fn apply(&mut self, service: &RawOrdersService) -> Vec<ObjectKey> {
        self.create(service);
        let version = service.meta().resource_version.as_deref().unwrap_or_default();
        let is_own = self.states.with(&service.as_owner(), |state| state.is_own_update(&version.into()));
        if is_own == Some(true) { Vec::new() } else { vec![service.key()] }
    }

    /// The store holds no object of a list before the list is complete, so none of these can be reconciled yet.
    fn apply_listed(&mut self, service: &RawOrdersService) -> Vec<ObjectKey> {
        self.create(service);
        Vec::new()
    }

    fn delete(&mut self, key: &ObjectKey) -> Vec<ObjectKey> {
        self.states.remove(key);
        self.metrics.set_objects(self.states.len());
        Vec::new()
    }

    fn retain(&mut self, listed: &HashSet<ObjectKey>) -> Vec<ObjectKey> {
        self.states.retain(self.namespace.as_deref(), listed);
        self.metrics.set_objects(self.states.len());
        listed.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;
    use prometheus_client::registry::Registry;
    use serde_json::json;

    use super::*;
    use crate::controller::{children::owner::Owner, index::Indexer};

    fn service(name: &str, version: &str) -> RawOrdersService {
        let metadata = json!({"namespace": "shop", "name": name, "uid": name, "resourceVersion": version});
        serde_json::from_value(json!({"metadata": metadata})).unwrap()
    }

    fn owner(name: &str) -> Owner {
        Owner { key: ObjectKey::new("shop", name), uid: name.into() }
    }

    #[test]
    fn a_list_concerns_all_of_its_resources_once_it_is_complete_and_removes_the_state_of_others() {
        let states = ResourceStates::default();
        let metrics = Metrics::register(&mut Registry::default());
        let mut indexer = Indexer::new(OrdersServiceIndex::new(&states, &metrics, None));
        let exists = |name: &str| states.with(&owner(name), |_| ()).is_some();
        indexer.handle(&Event::<RawOrdersService>::Init);
        assert_eq!(indexer.handle(&Event::InitApply(service("a", "1"))), []);
        assert_eq!(indexer.handle(&Event::InitApply(service("b", "1"))), []);
        let mut keys = indexer.handle(&Event::<RawOrdersService>::InitDone);
        keys.sort();
        assert_eq!(keys, [owner("a").key, owner("b").key]);
        assert_eq!(indexer.handle(&Event::Apply(service("c", "2"))), [owner("c").key]);
        assert!(exists("a") && exists("b") && exists("c"));
        assert_eq!(indexer.handle(&Event::Delete(service("b", "3"))), []);
        assert!(!exists("b"));
        indexer.handle(&Event::<RawOrdersService>::Init);
        indexer.handle(&Event::InitApply(service("c", "2")));
        indexer.handle(&Event::<RawOrdersService>::InitDone);
        assert!(!exists("a") && exists("c"), "a was deleted while there was no watch");
    }

    #[test]
    fn the_echo_of_our_own_status_update_concerns_nobody() {
        let states = ResourceStates::default();
        let metrics = Metrics::register(&mut Registry::default());
        let mut index = OrdersServiceIndex::new(&states, &metrics, None);
        index.apply(&service("a", "1"));
        states.with(&owner("a"), |state| state.status_updated("2".into()));
        assert_eq!(index.apply(&service("a", "2")), []);
        assert_eq!(index.apply(&service("a", "3")), [owner("a").key]);
    }
}
