//! The index for the watch on OrdersServices themselves.

use std::{collections::HashSet, time::Instant};

use kube::Resource;

use crate::controller::{
    index::Index, known_services::KnownServices, metrics::Metrics, object_key::ObjectKey,
    raw_orders_service::RawOrdersService, readiness::why_not_ready, resource_state::ResourceStates,
};

/// Creates and removes the state of each OrdersService in one namespace or in all.
pub struct OrdersServiceIndex {
    states: ResourceStates,
    known_services: KnownServices,
    metrics: Metrics,
    namespace: Option<String>,
}

impl OrdersServiceIndex {
    /// Keeps `states` up to date, and in `metrics` the number of objects and which of them are not ready.
    pub fn new(
        states: &ResourceStates,
        known_services: &KnownServices,
        metrics: &Metrics,
        namespace: Option<&str>,
    ) -> Self {
        let namespace = namespace.map(str::to_owned);
        let (states, known_services, metrics) = (states.clone(), known_services.clone(), metrics.clone());
        Self { states, known_services, metrics, namespace }
    }

    fn create(&self, service: &RawOrdersService) {
        let owner = service.as_owner();
        self.states.create(&owner.key, &owner.uid);
        self.states.with(&owner, |state| state.shown(service.meta().generation, Instant::now()));
        self.known_services.user_exists(&owner.key);
        self.metrics.set_objects(self.states.len());
        self.metrics.set_not_ready(&owner.key, why_not_ready(service));
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
        self.known_services.user_gone(key);
        self.metrics.set_objects(self.states.len());
        self.metrics.set_not_ready(key, None);
        Vec::new()
    }

    fn retain(&mut self, listed: &HashSet<ObjectKey>) -> Vec<ObjectKey> {
        self.states.retain(self.namespace.as_deref(), listed);
        self.known_services.retain_users(self.namespace.as_deref(), listed);
        self.metrics.set_objects(self.states.len());
        self.metrics.retain_not_ready(self.namespace.as_deref(), listed);
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
        let mut indexer =
            Indexer::new(OrdersServiceIndex::new(&states, &KnownServices::default(), &metrics, None));
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
    fn a_resource_that_is_not_ready_has_one_series_until_it_is_ready_or_gone() {
        let (states, mut registry) = (ResourceStates::default(), Registry::default());
        let metrics = Metrics::register(&mut registry);
        let series = || {
            let mut page = String::new();
            prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
            let lines =
                page.lines().filter_map(|line| line.strip_prefix("orders_operator_controller_not_ready{"));
            let mut lines: Vec<_> = lines.map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let with = |name: &str, status: &str, reason: &str| -> RawOrdersService {
            let metadata = json!({"namespace": "shop", "name": name, "uid": name, "generation": 1});
            let ready = json!({
                "type": "Ready", "status": status, "reason": reason, "message": "", "observedGeneration": 1,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            });
            serde_json::from_value(json!({"metadata": metadata, "status": {"conditions": [ready]}})).unwrap()
        };
        let mut index = OrdersServiceIndex::new(&states, &KnownServices::default(), &metrics, Some("shop"));
        index.apply_listed(&service("a", "1"));
        index.apply(&with("b", "False", "InvalidSpec"));
        index.apply(&with("c", "True", "AsExpected"));
        let not_reported = "resource=\"shop/a\",reason=\"NotReported\"} 1";
        assert_eq!(series(), [not_reported, "resource=\"shop/b\",reason=\"InvalidSpec\"} 1"]);
        index.apply(&with("b", "False", "InvalidHost"));
        assert_eq!(series(), [not_reported, "resource=\"shop/b\",reason=\"InvalidHost\"} 1"]);
        index.apply(&with("b", "True", "AsExpected"));
        assert_eq!(series(), [not_reported]);
        // The lists of other namespaces have none of these.
        OrdersServiceIndex::new(&states, &KnownServices::default(), &metrics, Some("other"))
            .retain(&HashSet::new());
        assert_eq!(series(), [not_reported]);
        index.retain(&HashSet::from([owner("b").key]));
        assert_eq!(series(), Vec::<String>::new());
        index.apply(&with("b", "False", "InvalidHost"));
        index.delete(&owner("b").key);
        assert_eq!(series(), Vec::<String>::new());
    }

    #[test]
    fn the_echo_of_our_own_status_update_concerns_nobody() {
        let states = ResourceStates::default();
        let metrics = Metrics::register(&mut Registry::default());
        let mut index = OrdersServiceIndex::new(&states, &KnownServices::default(), &metrics, None);
        index.apply(&service("a", "1"));
        states.with(&owner("a"), |state| state.status_updated("2".into()));
        assert_eq!(index.apply(&service("a", "2")), []);
        assert_eq!(index.apply(&service("a", "3")), [owner("a").key]);
    }
}
