//! Which Services there are, by their names: a route may go to one that is not there.
//!
//! The watch for drift shows every Service, so this costs no request. Whoever asked for a Service is told when it comes
//! or goes.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::api::core::v1::Service;

use super::{children::partial::Partial, index::Index, object_key::ObjectKey};

/// The Services that the watches show. Clones share one state.
#[derive(Clone, Default)]
pub struct KnownServices(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    services: HashSet<ObjectKey>,
    /// The watches, each of one namespace or of all, of which the initial list is complete.
    synced: HashSet<Option<String>>,
    /// The OrdersServices that have asked for a Service since it came or went last.
    users: HashMap<ObjectKey, HashSet<ObjectKey>>,
    /// The same for every OrdersService that there is, so that what its spec no longer names is forgotten. One that is gone
    /// is told nothing, though a reconcile of it may still ask.
    asked: HashMap<ObjectKey, HashSet<ObjectKey>>,
}

impl KnownServices {
    /// This OrdersService is there, so it may ask.
    pub fn user_exists(&self, user: &ObjectKey) {
        self.lock().asked.entry(user.clone()).or_default();
    }

    /// This OrdersService is gone.
    pub fn user_gone(&self, user: &ObjectKey) {
        let mut state = self.lock();
        state.forget(user);
        state.asked.remove(user);
    }

    /// A list of the OrdersServices in `namespace`, or in all, is complete: those that it lacks are gone.
    pub fn retain_users(&self, namespace: Option<&str>, listed: &HashSet<ObjectKey>) {
        let mut state = self.lock();
        let is_gone = |user: &&ObjectKey| {
            namespace.is_none_or(|namespace| namespace == user.namespace()) && !listed.contains(*user)
        };
        let gone: Vec<_> = state.asked.keys().filter(is_gone).cloned().collect();
        for user in gone {
            state.forget(&user);
            state.asked.remove(&user);
        }
    }

    /// Those of `names` that are not in the namespace of the OrdersService that asks.
    pub fn missing<'a>(&self, user: &ObjectKey, names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
        let mut state = self.lock();
        let namespace = user.namespace();
        let is_synced = state.synced.contains(&None) || state.synced.contains(&Some(namespace.to_owned()));
        let mut missing = Vec::new();
        for name in names {
            let service = ObjectKey::new(namespace, name);
            if is_synced && !state.services.contains(&service) {
                missing.push(name.to_owned());
            }
            state.ask(user, service);
        }
        missing.sort();
        missing.dedup();
        missing
    }

    /// Has the OrdersService that asks be told when this Service of its namespace comes or goes.
    pub fn tell(&self, user: &ObjectKey, name: &str) {
        self.lock().ask(user, ObjectKey::new(user.namespace(), name));
    }

    /// Forgets what this OrdersService has asked for: it asks anew.
    pub fn forget(&self, user: &ObjectKey) {
        self.lock().forget(user);
    }

    /// The index for the watch on Services in `namespace`, or in all.
    pub fn index(&self, namespace: Option<&str>) -> ServiceNames {
        ServiceNames { known: self.clone(), namespace: namespace.map(str::to_owned) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn ask(&mut self, user: &ObjectKey, service: ObjectKey) {
        let Some(asked) = self.asked.get_mut(user) else { return };
        self.users.entry(service.clone()).or_default().insert(user.clone());
        asked.insert(service);
    }

    fn forget(&mut self, user: &ObjectKey) {
        for service in self.asked.get_mut(user).map(std::mem::take).unwrap_or_default() {
            if let Some(users) = self.users.get_mut(&service) {
                users.remove(user);
                if users.is_empty() {
                    self.users.remove(&service);
                }
            }
        }
    }

    fn users_of(&mut self, service: &ObjectKey) -> Vec<ObjectKey> {
        let users: Vec<_> = self.users.remove(service).into_iter().flatten().collect();
        for user in &users {
            if let Some(asked) = self.asked.get_mut(user) {
                asked.remove(service);
            }
        }
        users
    }
}

/// The index of the Services of one watch. That one comes or goes concerns the OrdersServices that route to it.
pub struct ServiceNames {
    known: KnownServices,
    namespace: Option<String>,
}

impl Index<Partial<Service>> for ServiceNames {
    fn apply(&mut self, object: &Partial<Service>) -> Vec<ObjectKey> {
        let service = ObjectKey::of(&object.metadata);
        let mut state = self.known.lock();
        if state.services.insert(service.clone()) { state.users_of(&service) } else { Vec::new() }
    }

    fn delete(&mut self, service: &ObjectKey) -> Vec<ObjectKey> {
        let mut state = self.known.lock();
        if state.services.remove(service) { state.users_of(service) } else { Vec::new() }
    }

    fn retain(&mut self, listed: &HashSet<ObjectKey>) -> Vec<ObjectKey> {
        let mut state = self.known.lock();
        state.synced.insert(self.namespace.clone());
        let is_gone = |service: &ObjectKey| {
            self.namespace.as_deref().is_none_or(|namespace| namespace == service.namespace())
                && !listed.contains(service)
        };
        let gone: Vec<_> = state.services.extract_if(is_gone).collect();
        gone.iter().flat_map(|service| state.users_of(service)).collect()
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;
    use serde_json::json;

    use super::*;
    use crate::controller::index::Indexer;

    fn service(name: &str) -> Partial<Service> {
        serde_json::from_value(json!({"metadata": {"namespace": "shop", "name": name}})).unwrap()
    }

    #[test]
    fn whoever_routes_to_a_service_is_told_when_it_comes_or_goes() {
        let known = KnownServices::default();
        let mut watch = Indexer::new(known.index(Some("shop")));
        let user = ObjectKey::new("shop", "orders");
        let users = std::slice::from_ref(&user);
        known.user_exists(&user);
        let missing = || known.missing(&user, ["b", "a", "a"]);
        assert_eq!(missing(), Vec::<String>::new(), "nothing is known yet");
        watch.handle(&Event::<Partial<Service>>::Init);
        assert_eq!(watch.handle(&Event::InitApply(service("a"))), users);
        watch.handle(&Event::<Partial<Service>>::InitDone);
        assert_eq!(missing(), ["b"]);
        assert_eq!(known.missing(&ObjectKey::new("other", "orders"), ["a"]), Vec::<String>::new());
        assert_eq!(watch.handle(&Event::Apply(service("a"))), [], "it was there before");
        assert_eq!(watch.handle(&Event::Apply(service("b"))), users);
        assert_eq!(watch.handle(&Event::Delete(service("b"))), [], "nobody has asked since");
        assert_eq!(missing(), ["b"]);
        // It went while there was no watch.
        watch.handle(&Event::<Partial<Service>>::Init);
        assert_eq!(watch.handle(&Event::<Partial<Service>>::InitDone), users);
        assert_eq!(missing(), ["a", "b"]);
        known.tell(&user, "c");
        assert_eq!(watch.handle(&Event::Apply(service("c"))), users);
        known.tell(&user, "d");
        known.forget(&user);
        assert_eq!(watch.handle(&Event::Apply(service("d"))), []);
        known.forget(&ObjectKey::new("other", "orders"));
        assert!(known.lock().users.is_empty());
    }

    #[test]
    fn nothing_is_kept_of_whoever_is_gone_even_if_it_asks_once_more() {
        let known = KnownServices::default();
        let is_empty = || {
            let state = known.lock();
            state.users.is_empty() && state.asked.is_empty()
        };
        let (user, other) = (ObjectKey::new("shop", "orders"), ObjectKey::new("other", "orders"));
        known.user_exists(&user);
        known.missing(&user, ["a"]);
        known.user_gone(&user);
        assert!(is_empty());
        // It was deleted while it was reconciled.
        known.missing(&user, ["a"]);
        known.tell(&user, "b");
        assert!(is_empty());
        // It was deleted while there was no watch.
        for user in [&user, &other] {
            known.user_exists(user);
            known.tell(user, "b");
        }
        known.retain_users(Some("shop"), &HashSet::new());
        let users: Vec<_> = known.lock().asked.keys().cloned().collect();
        assert_eq!(users, [other], "the list of a namespace says nothing of others");
        known.retain_users(None, &HashSet::new());
        assert!(is_empty());
    }
}
