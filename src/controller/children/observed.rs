//! What the watches show of the children.
//!
//! Of each object that an OrdersService controls, just enough is kept to tell whether it is still what was applied, and
//! in few bytes: with thousands of resources, this is most of the controller's memory. Nothing is kept of other objects.
//! A kube reflector would not do, since it does not tell which objects are missing from a new list, and each of these
//! must be created again.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::jiff::Timestamp;

use super::{
    fingerprint::Fingerprint,
    kind::{Child, ChildKind},
    owner::Owner,
    partial::Partial,
    resource_version::ResourceVersion,
    rollout::Rollout,
};
use crate::controller::{object_key::ObjectKey, problem::Problem};

/// What a watch shows of one child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedChild {
    /// Its UID.
    pub uid: Box<str>,
    /// Its resourceVersion.
    pub version: ResourceVersion,
    /// The OrdersService that controls it.
    pub owner: Arc<Owner>,
    /// Whether it is being deleted.
    pub is_deleting: bool,
    /// The fingerprint of the fields that are ours.
    pub owned_fields: Option<Fingerprint>,
    /// How far its rollout is, for a Deployment.
    pub rollout: Option<Box<Rollout>>,
    /// What Gateways report against it, for an HTTPRoute.
    pub route_problems: Vec<Problem>,
    /// Since when it has had no metrics to scale by, for a HorizontalPodAutoscaler.
    pub unmeasured_since: Option<Timestamp>,
}

impl ObservedChild {
    /// What is kept of `child`; none if no OrdersService controls it.
    pub fn of<K: Child>(child: &Partial<K>) -> Option<Self> {
        let metadata = &child.metadata;
        Some(Self {
            owner: Arc::new(Owner::of(metadata)?),
            uid: metadata.uid.as_deref().unwrap_or_default().into(),
            version: metadata.resource_version.as_deref().unwrap_or_default().into(),
            is_deleting: metadata.deletion_timestamp.is_some(),
            owned_fields: child.owned_fields,
            rollout: K::rollout(child).map(Box::new),
            route_problems: K::route_problems(child),
            unmeasured_since: K::unmeasured_since(child),
        })
    }

    /// Whether nothing that matters has changed since `before`. What others write to a child beside our fields, as an
    /// autoscaler does every 15 s, changes its version only.
    pub fn is_equivalent_to(&self, before: &Self) -> bool {
        let Self {
            uid,
            version: _,
            owner,
            is_deleting,
            owned_fields,
            rollout,
            route_problems,
            unmeasured_since,
        } = self;
        // Unless it is known which fields are ours, a new version can mean anything.
        owned_fields.is_some()
            && *owned_fields == before.owned_fields
            && *uid == before.uid
            && *owner == before.owner
            && *is_deleting == before.is_deleting
            && *rollout == before.rollout
            && *route_problems == before.route_problems
            && *unmeasured_since == before.unmeasured_since
    }
}

/// What is known of the child of some name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// Nothing yet: the initial list of its kind is not complete.
    NotSynced,
    /// As far as the watch has got, there is no object of that name that an OrdersService controls.
    Absent,
    /// It is there.
    Present(ObservedChild),
}

/// What the watches show. Clones share one state.
#[derive(Clone, Default)]
pub struct ObservedChildren(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// By the child's own key: nearly all children of an OrdersService have its name.
    children: HashMap<ObjectKey, Vec<(ChildKind, ObservedChild)>>,
    /// The watches, each a kind in one namespace or in all, of which the initial list is complete.
    synced: HashSet<(ChildKind, Option<String>)>,
}

impl ObservedChildren {
    /// What is known of the child of this kind and name.
    pub fn get(&self, kind: ChildKind, key: &ObjectKey) -> Observation {
        let state = self.lock();
        let of_name = state.children.get(key).map(Vec::as_slice).unwrap_or_default();
        if let Some((_, child)) = of_name.iter().find(|(other, _)| *other == kind) {
            return Observation::Present(child.clone());
        }
        let is_synced = state.synced.contains(&(kind, None))
            || state.synced.contains(&(kind, Some(key.namespace().to_owned())));
        if is_synced { Observation::Absent } else { Observation::NotSynced }
    }

    /// The children of `owner` with another name than its own, which this operator has applied, of this spec or of former
    /// ones.
    pub fn further(&self, owner: &Owner) -> Vec<(ChildKind, String)> {
        let is_one = |child: &ObservedChild| *child.owner == *owner && child.owned_fields.is_some();
        let state = self.lock();
        let others = state.children.iter().filter(|(key, _)| **key != owner.key);
        let further = others.flat_map(|(key, of_name)| {
            let ours = of_name.iter().filter(|(_, child)| is_one(child));
            ours.map(|(kind, _)| (*kind, key.name().to_owned()))
        });
        further.collect()
    }

    /// Records a child; gives what was known of it before.
    pub fn put(&self, kind: ChildKind, key: &ObjectKey, mut child: ObservedChild) -> Option<ObservedChild> {
        let mut state = self.lock();
        let Some(of_name) = state.children.get_mut(key) else {
            state.children.insert(key.clone(), vec![(kind, child)]);
            return None;
        };
        // All children of one owner share one copy of it.
        if let Some((_, sibling)) = of_name.iter().find(|(_, sibling)| sibling.owner == child.owner) {
            child.owner = sibling.owner.clone();
        }
        if let Some((_, known)) = of_name.iter_mut().find(|(other, _)| *other == kind) {
            return Some(std::mem::replace(known, child));
        }
        of_name.reserve_exact(1);
        of_name.push((kind, child));
        None
    }

    /// Drops a child; gives what was known of it.
    pub fn remove(&self, kind: ChildKind, key: &ObjectKey) -> Option<ObservedChild> {
        let mut state = self.lock();
        let of_name = state.children.get_mut(key)?;
        let at = of_name.iter().position(|(other, _)| *other == kind)?;
        let (_, child) = of_name.swap_remove(at);
        if of_name.is_empty() {
            state.children.remove(key);
        }
        Some(child)
    }

    /// A list of the objects of this kind in `namespace`, or in all, is complete: drops the children that it lacks, and
    /// gives what was known of them.
    pub fn retain(
        &self,
        kind: ChildKind,
        namespace: Option<&str>,
        listed: &HashSet<ObjectKey>,
    ) -> Vec<ObservedChild> {
        let mut removed = Vec::new();
        let mut state = self.lock();
        state.children.retain(|key, of_name| {
            let in_scope = namespace.is_none_or(|namespace| namespace == key.namespace());
            if in_scope && !listed.contains(key) {
                let of_kind = of_name.extract_if(.., |(other, _)| *other == kind);
                removed.extend(of_kind.map(|(_, child)| child));
            }
            !of_name.is_empty()
        });
        state.synced.insert((kind, namespace.map(str::to_owned)));
        removed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
