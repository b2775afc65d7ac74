//! What the watches show of the children: of each that an OrdersService controls, its version and owner.
//!
//! A reflector would do, were it not for its deletions: when a watch begins anew, it drops what was
//! deleted meanwhile without a word. Here the owner is told of that as well. Of foreign objects nothing
//! is kept, and of ours only what is needed to tell whether they are as they were applied. That is most of
//! what a controller keeps in memory, so it is kept in few bytes.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        autoscaling::v2::HorizontalPodAutoscaler,
        core::v1::{Service, ServiceAccount},
        networking::v1::{Ingress, NetworkPolicy},
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{Resource, runtime::watcher::Event};

use super::{
    gateway::{self, HTTPRoute},
    kind::{Child, Kind},
    lists::{List, Lists},
    memory::Memory,
    partial::Partial,
    print::Print,
    problem::Problem,
    rollout::Rollout,
    version::Version,
};
use crate::crd::OrdersService;

/// Namespace and name of an object.
pub type Key = (String, String);

/// What a child's own kind has to say, beside its metadata.
pub trait Watch: Child {
    /// How far it has come, when it is a Deployment.
    fn rollout(_: &Partial<Self>) -> Option<Rollout> {
        None
    }

    /// What keeps Gateways from serving it, when it is an HTTPRoute.
    fn answers(_: &Partial<Self>) -> Vec<Problem> {
        Vec::new()
    }
}

impl Watch for Deployment {
    fn rollout(deployment: &Partial<Self>) -> Option<Rollout> {
        Some(deployment.into())
    }
}

impl Watch for HTTPRoute {
    fn answers(route: &Partial<Self>) -> Vec<Problem> {
        gateway::answers(route)
    }
}

impl Watch for Service {}
impl Watch for Ingress {}
impl Watch for HorizontalPodAutoscaler {}
impl Watch for PodDisruptionBudget {}
impl Watch for ServiceAccount {}
impl Watch for NetworkPolicy {}

/// What a watch shows of one child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// UID of the child.
    pub uid: Box<str>,
    /// Its resourceVersion.
    pub version: Version,
    /// The OrdersService that controls it.
    pub owner: Arc<Owner>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// The hash of which of its fields are ours.
    pub fields: Option<Print>,
    /// How far it has come, when it is a Deployment.
    pub rollout: Option<Box<Rollout>>,
    /// What keeps Gateways from serving it, when it is an HTTPRoute.
    pub answers: Vec<Problem>,
}

impl Seen {
    /// Whether nothing that counts has changed since `before`: what others write to a child beside our fields, such
    /// as an autoscaler every 15 s, shows in its version only.
    fn is_as_good_as(&self, before: &Self) -> bool {
        let Self { uid, version: _, owner, deleting, fields, rollout, answers } = self;
        // Without knowing whose fields are whose, another version may be anything.
        fields.is_some()
            && *fields == before.fields
            && *uid == before.uid
            && *owner == before.owner
            && *deleting == before.deleting
            && *rollout == before.rollout
            && *answers == before.answers
    }
}

/// The OrdersService that controls a child; all its children share one of these.
#[derive(Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its name.
    pub name: Box<str>,
    /// Its UID.
    pub uid: Box<str>,
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
    /// The lists of kinds that are everywhere: when each has come in, and when none is waited for any more.
    whole: Lists,
    lists: Lists,
}

#[derive(Default)]
struct State {
    /// By namespace/name: nearly all children of a resource have its name.
    shown: HashMap<Box<str>, Vec<(Kind, Seen)>>,
    listed: HashSet<(Kind, Option<String>)>,
}

impl State {
    fn get(&self, kind: Kind, key: &str) -> Option<&Seen> {
        let of_name = self.shown.get(key)?;
        of_name.iter().find(|(other, _)| *other == kind).map(|(_, seen)| seen)
    }

    /// Gives what was known before.
    fn put(&mut self, kind: Kind, key: &str, mut seen: Seen) -> Option<Seen> {
        let Some(of_name) = self.shown.get_mut(key) else {
            self.shown.insert(key.into(), vec![(kind, seen)]);
            return None;
        };
        if let Some((_, sibling)) = of_name.iter().find(|(_, sibling)| sibling.owner == seen.owner) {
            seen.owner = sibling.owner.clone();
        }
        if let Some((_, known)) = of_name.iter_mut().find(|(other, _)| *other == kind) {
            return Some(std::mem::replace(known, seen));
        }
        of_name.reserve_exact(1);
        of_name.push((kind, seen));
        None
    }

    fn remove(&mut self, kind: Kind, key: &str) -> Option<Seen> {
        let of_name = self.shown.get_mut(key)?;
        let at = of_name.iter().position(|(other, _)| *other == kind)?;
        let (_, seen) = of_name.swap_remove(at);
        if of_name.is_empty() {
            self.shown.remove(key);
        }
        Some(seen)
    }
}

impl Watched {
    /// Before `watches` watches of kinds that are everywhere have shown anything.
    pub fn new(watches: usize) -> Self {
        Self { state: Arc::default(), whole: Lists::new(watches), lists: Lists::new(watches) }
    }

    /// What is known of the child of this kind and name.
    pub fn get(&self, kind: Kind, namespace: &str, name: &str) -> Shown {
        let state = self.lock();
        if let Some(seen) = state.get(kind, &joined(namespace, name)) {
            return Shown::There(seen.clone());
        }
        let listed = state.listed.contains(&(kind, None))
            || state.listed.contains(&(kind, Some(namespace.to_owned())));
        if listed { Shown::Nothing } else { Shown::Unknown }
    }

    /// Waits until every watch of a kind that is everywhere has shown a whole list.
    pub async fn filled(&self) {
        self.whole.settled().await;
    }

    /// Waits until each of them has, or was refused: to look at children before would be to apply all that have not
    /// been shown yet.
    pub async fn settled(&self) {
        self.lists.settled().await;
    }

    /// The feed of the watch on `kind` in `namespace`, or in all.
    pub fn feed(&self, kind: Kind, namespace: Option<&str>, memory: &Memory) -> Feed {
        // Nobody waits for the others, which may never be there.
        let list = |of: &Lists| if kind.is_everywhere() { of.list() } else { Lists::new(1).list() };
        Feed {
            watched: self.clone(),
            memory: memory.clone(),
            kind,
            namespace: namespace.map(str::to_owned),
            whole: list(&self.whole),
            list: list(&self.lists),
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
    memory: Memory,
    kind: Kind,
    namespace: Option<String>,
    whole: List,
    /// The list with which the watch begins, whether it comes or is refused.
    pub list: List,
    /// What the list that is coming in has, by namespace/name.
    arriving: HashSet<Box<str>>,
}

impl Feed {
    /// Takes one event; gives namespace and name of each OrdersService that it concerns.
    pub fn take<K: Watch>(&mut self, event: Event<Partial<K>>) -> Vec<Key> {
        match event {
            Event::Init => {
                self.arriving.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                self.arriving.insert(key(object.meta()).into());
                self.show(&object)
            }
            Event::InitDone => self.end_of_list(),
            Event::Apply(object) => self.show(&object),
            Event::Delete(object) => {
                let gone = self.watched.lock().remove(self.kind, &key(object.meta()));
                gone.map(|gone| owner_key(object.meta(), &gone)).into_iter().collect()
            }
        }
    }

    /// Concerns the owner, and the owner before it, if that was another; unless there is nothing in it for them.
    fn show<K: Watch>(&self, object: &Partial<K>) -> Vec<Key> {
        let key = key(object.meta());
        let now = seen(object);
        let before = match now.clone() {
            Some(now) => self.watched.lock().put(self.kind, &key, now),
            None => self.watched.lock().remove(self.kind, &key),
        };
        let is_known = |now: &Seen| before.as_ref().is_some_and(|before| now.is_as_good_as(before));
        let is_echo = |now: &Seen| {
            let same_owner = before.as_ref().is_none_or(|before| before.owner == now.owner);
            same_owner && self.memory.is_applied(&now.owner.uid, self.kind, &now.version)
        };
        if now.as_ref().is_some_and(|now| is_known(now) || is_echo(now)) {
            return Vec::new();
        }
        let concerned = [now, before].into_iter().flatten();
        let mut owners: Vec<_> = concerned.map(|seen| owner_key(object.meta(), &seen)).collect();
        owners.dedup();
        owners
    }

    /// What the list does not have was deleted while no watch was there to tell.
    fn end_of_list(&mut self) -> Vec<Key> {
        let mut gone = Vec::new();
        let mut state = self.watched.lock();
        state.shown.retain(|key, of_name| {
            let (namespace, _) = key.split_once('/').unwrap_or_default();
            let ours = self.namespace.as_deref().is_none_or(|own| own == namespace);
            if ours && !self.arriving.contains(key) {
                let all = of_name.extract_if(.., |(kind, _)| *kind == self.kind);
                gone.extend(all.map(|(_, seen)| (namespace.to_owned(), seen.owner.name.to_string())));
            }
            !of_name.is_empty()
        });
        state.listed.insert((self.kind, self.namespace.clone()));
        self.whole.settle();
        self.list.settle();
        self.arriving = HashSet::new();
        gone
    }
}

fn joined(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

fn key(object: &ObjectMeta) -> String {
    joined(object.namespace.as_deref().unwrap_or_default(), object.name.as_deref().unwrap_or_default())
}

fn owner_key(object: &ObjectMeta, seen: &Seen) -> Key {
    (object.namespace.clone().unwrap_or_default(), seen.owner.name.to_string())
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
fn seen<K: Watch>(child: &Partial<K>) -> Option<Seen> {
    let object = &child.metadata;
    let owner = owner(object)?;
    Some(Seen {
        uid: object.uid.as_deref().unwrap_or_default().into(),
        version: object.resource_version.as_deref().unwrap_or_default().into(),
        owner: Arc::new(Owner { name: owner.name.as_str().into(), uid: owner.uid.as_str().into() }),
        deleting: object.deletion_timestamp.is_some(),
        fields: child.fields,
        rollout: K::rollout(child).map(Box::new),
        answers: K::answers(child),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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

    fn owners(names: &[&str]) -> Vec<Key> {
        names.iter().map(|name| ("shop".to_owned(), (*name).to_owned())).collect()
    }

    fn version(watched: &Watched, name: &str) -> Option<Version> {
        match watched.get(Kind::Service, "shop", name) {
            Shown::There(seen) => Some(seen.version),
            Shown::Unknown | Shown::Nothing => None,
        }
    }

    #[test]
    fn what_was_deleted_while_no_watch_was_there_concerns_its_owner_too() {
        let watched = Watched::new(1);
        let mut feed = watched.feed(Kind::Service, None, &Memory::default());
        assert_eq!(watched.get(Kind::Service, "shop", "a"), Shown::Unknown);
        feed.take(Event::<Partial<Service>>::Init);
        assert_eq!(feed.take(Event::InitApply(child("a", "1", Some("a")))), owners(&["a"]));
        assert_eq!(feed.take(Event::InitApply(child("b", "2", Some("b")))), owners(&["b"]));
        assert_eq!(watched.get(Kind::Service, "shop", "c"), Shown::Unknown);
        assert_eq!(feed.take(Event::<Partial<Service>>::InitDone), []);
        assert_eq!(watched.get(Kind::Service, "shop", "c"), Shown::Nothing);
        assert_eq!(watched.get(Kind::Ingress, "shop", "a"), Shown::Unknown);

        feed.take(Event::<Partial<Service>>::Init);
        feed.take(Event::InitApply(child("b", "3", Some("b"))));
        assert_eq!(version(&watched, "a"), Some("1".into()), "a list that is not whole takes nothing away");
        assert_eq!(feed.take(Event::<Partial<Service>>::InitDone), owners(&["a"]));
        assert_eq!((version(&watched, "a"), version(&watched, "b")), (None, Some("3".into())));
    }

    #[test]
    fn what_tells_nothing_new_concerns_nobody() {
        let (watched, memory) = (Watched::new(1), Memory::default());
        let mut feed = watched.feed(Kind::Service, None, &memory);
        let mut show = |version: &str, owner: &str, fields: &str| {
            let mut object = child("a", version, Some(owner));
            object.fields = (!fields.is_empty()).then(|| Print::of(&fields)).flatten();
            feed.take(Event::Apply(object))
        };
        let applied = Partial { fields: Print::of(&"ours"), ..child("a", "5", None) };
        memory.applied("u", 0, Print::of(&"wanted"), &applied);
        assert_eq!(show("4", "a", "ours"), owners(&["a"]), "it was not there before");
        assert_eq!(show("5", "a", "ours, later"), [], "our own write");
        assert_eq!(show("6", "a", "ours, later"), [], "something beside our fields");
        assert_eq!(show("7", "a", "theirs"), owners(&["a"]), "someone took a field over");
        assert_eq!(show("8", "a", ""), owners(&["a"]), "whose the fields are is not told");
        assert_eq!(show("9", "a", ""), owners(&["a"]), "nor now");
        assert_eq!(show("5", "b", "ours"), owners(&["b", "a"]), "it has changed hands");
    }

    #[test]
    fn edits_deletions_and_lost_ownership_concern_the_owner_and_foreign_objects_nobody() {
        let watched = Watched::new(1);
        let mut feed = watched.feed(Kind::Service, Some("shop"), &Memory::default());
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
