//! What the watches show of the children: of each that an OrdersService controls, its version and owner.
//!
//! A reflector would do, were it not for its deletions: when a watch begins anew, it drops what was
//! deleted meanwhile without a word. Here the owner is told of that as well. Of foreign objects nothing
//! is kept, and of ours only what is needed to tell whether they are as they were applied.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::{
    api::{apps::v1::Deployment, networking::v1::Ingress},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{Resource, core::PartialObjectMeta, runtime::watcher::Event};
use tokio::sync::watch;

use super::{
    gateway::HTTPRoute,
    kind::Kind,
    memory::{Print, our_fields},
    problem::Problem,
    rollout::Rollout,
};
use crate::crd::OrdersService;

/// Namespace and name of an object.
pub type Key = (String, String);

/// A child as its watch gives it: the metadata only, but of a Deployment and an HTTPRoute, whose status is
/// part of ours, and of an Ingress, since those of others claim routes.
pub trait Watch: Resource {
    /// How far it has come, when it is a Deployment.
    fn rollout(&self) -> Option<Rollout> {
        None
    }

    /// What keeps Gateways from serving it, when it is an HTTPRoute.
    fn answers(&self) -> Vec<Problem> {
        Vec::new()
    }
}

impl<K: Resource> Watch for PartialObjectMeta<K> where Self: Resource {}

impl Watch for Ingress {}

impl Watch for HTTPRoute {
    fn answers(&self) -> Vec<Problem> {
        self.answers()
    }
}

impl Watch for Deployment {
    fn rollout(&self) -> Option<Rollout> {
        Some(self.into())
    }
}

/// What a watch shows of one child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// UID of the child.
    pub uid: String,
    /// Its resourceVersion.
    pub version: String,
    /// Name of the OrdersService that controls it.
    pub owner: String,
    /// UID of that.
    pub owner_uid: String,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// The hash of which of its fields are ours.
    pub fields: Option<Print>,
    /// How far it has come, when it is a Deployment.
    pub rollout: Option<Rollout>,
    /// What keeps Gateways from serving it, when it is an HTTPRoute.
    pub answers: Vec<Problem>,
}

/// What is known of a child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Nothing yet: the watch has not begun.
    Unknown,
    /// No OrdersService controls an object of that name, as far as the watch has come.
    Nothing,
    /// It is there.
    There(Seen),
}

/// What the watches show. Clones share one state.
#[derive(Clone)]
pub struct Watched {
    state: Arc<Mutex<State>>,
    /// How many watches have not shown a whole list yet.
    missing: Arc<watch::Sender<usize>>,
}

#[derive(Default)]
struct State {
    shown: HashMap<(Kind, Key), Seen>,
    listed: HashSet<(Kind, Option<String>)>,
}

impl Watched {
    /// Before `watches` watches of kinds that are everywhere have shown anything.
    pub fn new(watches: usize) -> Self {
        Self { state: Arc::default(), missing: Arc::new(watch::Sender::new(watches)) }
    }

    /// What is known of the child of this kind and name.
    pub fn get(&self, kind: Kind, namespace: &str, name: &str) -> Shown {
        let state = self.lock();
        if let Some(seen) = state.shown.get(&(kind, (namespace.to_owned(), name.to_owned()))) {
            return Shown::There(seen.clone());
        }
        let listed = state.listed.contains(&(kind, None))
            || state.listed.contains(&(kind, Some(namespace.to_owned())));
        if listed { Shown::Nothing } else { Shown::Unknown }
    }

    /// Waits until every watch of a kind that is everywhere has shown a whole list.
    pub async fn filled(&self) {
        // The sender lives as long as we do.
        drop(self.missing.subscribe().wait_for(|missing| *missing == 0).await);
    }

    /// The feed of the watch on `kind` in `namespace`, or in all.
    pub fn feed(&self, kind: Kind, namespace: Option<&str>) -> Feed {
        Feed {
            watched: self.clone(),
            kind,
            namespace: namespace.map(str::to_owned),
            arriving: HashSet::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the events of one watch.
pub struct Feed {
    watched: Watched,
    kind: Kind,
    namespace: Option<String>,
    /// What the list that is coming in has.
    arriving: HashSet<Key>,
}

impl Feed {
    /// Takes one event; gives namespace and name of each OrdersService that it concerns.
    pub fn take<K: Watch>(&mut self, event: Event<K>) -> Vec<Key> {
        match event {
            Event::Init => {
                self.arriving.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                self.arriving.insert(key(object.meta()));
                self.show(&object)
            }
            Event::InitDone => self.end_of_list(),
            Event::Apply(object) => self.show(&object),
            Event::Delete(object) => {
                let gone = self.watched.lock().shown.remove(&(self.kind, key(object.meta())));
                gone.map(|gone| (key(object.meta()).0, gone.owner)).into_iter().collect()
            }
        }
    }

    /// Concerns the owner, and the owner before it, if that was another.
    fn show(&self, object: &impl Watch) -> Vec<Key> {
        let at = (self.kind, key(object.meta()));
        let namespace = at.1.0.clone();
        let now = seen(object);
        let mut state = self.watched.lock();
        let before = match now.clone() {
            Some(now) => state.shown.insert(at, now),
            None => state.shown.remove(&at),
        };
        let mut owners: Vec<_> = [now, before].into_iter().flatten().map(|seen| seen.owner).collect();
        owners.dedup();
        owners.into_iter().map(|owner| (namespace.clone(), owner)).collect()
    }

    /// What the list does not have was deleted while no watch was there to tell.
    fn end_of_list(&mut self) -> Vec<Key> {
        let mut gone = Vec::new();
        let mut state = self.watched.lock();
        state.shown.retain(|(kind, key), seen| {
            let ours =
                *kind == self.kind && self.namespace.as_ref().is_none_or(|namespace| *namespace == key.0);
            let keep = !ours || self.arriving.contains(key);
            if !keep {
                gone.push((key.0.clone(), seen.owner.clone()));
            }
            keep
        });
        if state.listed.insert((self.kind, self.namespace.clone())) && self.kind.is_everywhere() {
            self.watched.missing.send_modify(|missing| *missing = missing.saturating_sub(1));
        }
        self.arriving = HashSet::new();
        gone
    }
}

fn key(object: &ObjectMeta) -> Key {
    (object.namespace.clone().unwrap_or_default(), object.name.clone().unwrap_or_default())
}

/// Whether an OrdersService controls the object.
pub fn is_child(object: &ObjectMeta) -> bool {
    owner(object).is_some()
}

/// The reference to the OrdersService that controls the object.
fn owner(object: &ObjectMeta) -> Option<&OwnerReference> {
    let owner = object.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))?;
    let ours = owner.kind == OrdersService::kind(&())
        && owner.api_version.split('/').next() == Some(&OrdersService::group(&()));
    ours.then_some(owner)
}

/// What is kept of a child; none when no OrdersService controls it.
fn seen(child: &impl Watch) -> Option<Seen> {
    let object = child.meta();
    let owner = owner(object)?;
    Some(Seen {
        uid: object.uid.clone().unwrap_or_default(),
        version: object.resource_version.clone().unwrap_or_default(),
        owner: owner.name.clone(),
        owner_uid: owner.uid.clone(),
        deleting: object.deletion_timestamp.is_some(),
        fields: our_fields(object),
        rollout: child.rollout(),
        answers: child.answers(),
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;
    use serde_json::json;

    use super::*;

    impl Watch for Service {}

    fn child(name: &str, version: &str, owner: Option<&str>) -> Service {
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

    fn owners(names: &[&str]) -> Vec<Key> {
        names.iter().map(|name| ("shop".to_owned(), (*name).to_owned())).collect()
    }

    fn version(watched: &Watched, name: &str) -> Option<String> {
        match watched.get(Kind::Service, "shop", name) {
            Shown::There(seen) => Some(seen.version),
            Shown::Unknown | Shown::Nothing => None,
        }
    }

    #[test]
    fn what_was_deleted_while_no_watch_was_there_concerns_its_owner_too() {
        let watched = Watched::new(1);
        let mut feed = watched.feed(Kind::Service, None);
        assert_eq!(watched.get(Kind::Service, "shop", "a"), Shown::Unknown);
        feed.take(Event::<Service>::Init);
        assert_eq!(feed.take(Event::InitApply(child("a", "1", Some("a")))), owners(&["a"]));
        assert_eq!(feed.take(Event::InitApply(child("b", "2", Some("b")))), owners(&["b"]));
        assert_eq!(watched.get(Kind::Service, "shop", "c"), Shown::Unknown);
        assert_eq!(feed.take(Event::<Service>::InitDone), []);
        assert_eq!(watched.get(Kind::Service, "shop", "c"), Shown::Nothing);
        assert_eq!(watched.get(Kind::Ingress, "shop", "a"), Shown::Unknown);

        feed.take(Event::<Service>::Init);
        feed.take(Event::InitApply(child("b", "3", Some("b"))));
        assert_eq!(
            version(&watched, "a").as_deref(),
            Some("1"),
            "a list that is not whole takes nothing away"
        );
        assert_eq!(feed.take(Event::<Service>::InitDone), owners(&["a"]));
        assert_eq!((version(&watched, "a"), version(&watched, "b").as_deref()), (None, Some("3")));
    }

    #[test]
    fn edits_deletions_and_lost_ownership_concern_the_owner_and_foreign_objects_nobody() {
        let watched = Watched::new(1);
        let mut feed = watched.feed(Kind::Service, Some("shop"));
        assert_eq!(feed.take(Event::Apply(child("foreign", "1", None))), []);
        assert_eq!(watched.get(Kind::Service, "shop", "foreign"), Shown::Unknown);
        assert_eq!(feed.take(Event::Apply(child("a", "1", Some("a")))), owners(&["a"]));
        assert_eq!(feed.take(Event::Apply(child("a", "2", Some("a")))), owners(&["a"]));
        assert_eq!(feed.take(Event::Apply(child("a", "3", Some("other")))), owners(&["other", "a"]));
        assert_eq!(feed.take(Event::Apply(child("a", "4", None))), owners(&["other"]));
        feed.take(Event::Apply(child("a", "5", Some("a"))));
        assert_eq!(feed.take(Event::Delete(child("a", "6", Some("a")))), owners(&["a"]));
        assert_eq!(version(&watched, "a"), None);
    }
}
