//! What the controller remembers of each OrdersService from one reconcile to the next.
//!
//! Its watch creates the entry when it first shows the resource, and removes it when the resource is gone. Nothing else
//! does either: what a reconcile still has to record of a resource that was deleted meanwhile is dropped.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{
    backoff::Backoff,
    children::{
        last_applied::LastApplied, owner::Owner, resource_version::ResourceVersion,
        rollout_tracker::RolloutTracker,
    },
    object_key::ObjectKey,
};
use crate::runtime::contention::Contention;

/// What is remembered of one OrdersService.
#[derive(Debug)]
pub struct ResourceState {
    uid: Box<str>,
    /// The generation of the newest spec, and when the watch first showed it.
    spec: Option<(i64, Instant)>,
    /// What was applied last.
    pub last_applied: LastApplied,
    /// Since when its Deployment has been incomplete.
    pub rollout: RolloutTracker,
    /// Its consecutive failures.
    pub backoff: Backoff,
    /// The version that our last status update gave the resource, as long as its echo is awaited or was the last event.
    status_version: Option<ResourceVersion>,
    /// The same, whatever has happened since.
    written: Option<ResourceVersion>,
    contention: Option<Box<Contention>>,
}

impl ResourceState {
    fn new(uid: &str) -> Self {
        Self {
            uid: uid.into(),
            spec: None,
            last_applied: LastApplied::default(),
            rollout: RolloutTracker::default(),
            backoff: Backoff::default(),
            status_version: None,
            written: None,
            contention: None,
        }
    }

    /// The watch shows the resource with this generation of its spec.
    pub fn shown(&mut self, generation: Option<i64>, now: Instant) {
        if self.spec.map(|(known, _)| known) != generation {
            self.spec = generation.map(|generation| (generation, now));
        }
    }

    /// When the watch first showed this generation of the spec; none if it shows another one.
    pub fn shown_since(&self, generation: Option<i64>) -> Option<Instant> {
        self.spec.filter(|(known, _)| Some(*known) == generation).map(|(_, since)| since)
    }

    /// A reconcile starts with the resource at this version. If that is older than our last status update, the watch
    /// event of that update must cause another reconcile.
    pub fn reconcile_starts(&mut self, version: &ResourceVersion) {
        if self.status_version.as_ref() != Some(version) {
            self.status_version = None;
        }
    }

    /// Our status update gave the resource this version.
    pub fn status_updated(&mut self, version: ResourceVersion) {
        self.written = Some(version.clone());
        self.status_version = Some(version);
    }

    /// Whether someone wrote the resource after our last status update, and the object of this version shows it.
    fn was_written_since(&self, version: &ResourceVersion) -> bool {
        self.written.as_ref().is_some_and(|written| written != version && !version.is_before(written))
    }

    /// The resource at this version has a status that another operator wrote. Gives how long to leave it alone: if that
    /// has happened several times within a minute, or the other says so itself; a single time, the other may be about to
    /// end.
    pub fn written_by_another(
        &mut self,
        version: &ResourceVersion,
        is_reported: bool,
        now: Instant,
    ) -> Option<Duration> {
        if !self.was_written_since(version) {
            return None;
        }
        // What is still there after the pause was not written anew.
        self.written = Some(version.clone());
        let contention = self.contention.get_or_insert_default();
        if is_reported { Some(contention.pause(now)) } else { contention.lost(now) }
    }

    /// For how long the resource is left alone still, since another operator writes to it too.
    pub fn paused(&self, now: Instant) -> Option<Duration> {
        self.contention.as_ref()?.paused(now)
    }

    /// Whether a watch event with this version is the echo of our status update, so that there is nothing to do.
    pub fn is_own_update(&self, version: &ResourceVersion) -> bool {
        self.status_version.as_ref() == Some(version)
    }
}

/// What is remembered of every OrdersService that is watched. Clones share one state.
#[derive(Clone, Default)]
pub struct ResourceStates(Arc<Mutex<HashMap<ObjectKey, ResourceState>>>);

impl ResourceStates {
    /// Creates the state of a resource, unless it is there; one that was deleted and created again gets a new state.
    pub fn create(&self, key: &ObjectKey, uid: &str) {
        let mut states = self.lock();
        if states.get(key).is_none_or(|state| *state.uid != *uid) {
            states.insert(key.clone(), ResourceState::new(uid));
        }
    }

    /// Removes the state of a resource that is gone.
    pub fn remove(&self, key: &ObjectKey) {
        self.lock().remove(key);
    }

    /// Removes the states of resources in `namespace`, or in all, that are not `listed`.
    pub fn retain(&self, namespace: Option<&str>, listed: &HashSet<ObjectKey>) {
        self.lock().retain(|key, _| {
            let in_scope = namespace.is_none_or(|namespace| namespace == key.namespace());
            !in_scope || listed.contains(key)
        });
    }

    /// Whether there is a resource of that name.
    pub fn contains(&self, key: &ObjectKey) -> bool {
        self.lock().contains_key(key)
    }

    /// How many resources there are.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Reads or changes the state of `resource`; none if it is gone, or is another one of that name by now.
    pub fn with<R>(&self, resource: &Owner, access: impl FnOnce(&mut ResourceState) -> R) -> Option<R> {
        let mut states = self.lock();
        states.get_mut(&resource.key).filter(|state| state.uid == resource.uid).map(access)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectKey, ResourceState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::fixture::owner;

    #[test]
    fn an_event_is_an_echo_only_if_the_reconcile_that_wrote_it_had_seen_what_was_before() {
        let mut state = ResourceState::new("u");
        assert!(!state.is_own_update(&"10".into()));
        state.status_updated("10".into());
        assert!(state.is_own_update(&"10".into()) && !state.is_own_update(&"11".into()));
        state.reconcile_starts(&"10".into());
        assert!(state.is_own_update(&"10".into()));
        state.reconcile_starts(&"9".into());
        assert!(
            !state.is_own_update(&"10".into()),
            "a reconcile that starts from a stale object has not seen it"
        );
    }

    #[test]
    fn a_spec_is_known_since_the_watch_first_showed_its_generation() {
        let mut state = ResourceState::new("u");
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(state.shown_since(Some(1)), None);
        state.shown(Some(1), at(1));
        // A status or an annotation has changed.
        state.shown(Some(1), at(2));
        assert_eq!((state.shown_since(Some(1)), state.shown_since(Some(2))), (Some(at(1)), None));
        state.shown(Some(2), at(3));
        assert_eq!((state.shown_since(Some(1)), state.shown_since(Some(2))), (None, Some(at(3))));
        state.shown(None, at(4));
        assert_eq!(state.shown_since(None), None);
    }

    #[test]
    fn a_state_goes_with_its_resource_and_is_not_that_of_the_next_one_of_the_name() {
        let states = ResourceStates::default();
        let old = owner("u");
        assert!(states.with(&old, |_| ()).is_none(), "it is created by the watch only");
        states.create(&old.key, "u");
        states.with(&old, |state| state.status_updated("1".into())).unwrap();
        states.create(&old.key, "u");
        assert_eq!(
            states.with(&old, |state| state.is_own_update(&"1".into())),
            Some(true),
            "it is the same one"
        );
        states.create(&old.key, "v");
        assert!(states.with(&old, |_| ()).is_none());
        assert_eq!(states.with(&owner("v"), |state| state.is_own_update(&"1".into())), Some(false));

        let other = ObjectKey::new("other", "orders");
        states.create(&other, "w");
        states.retain(Some("other"), &HashSet::new());
        assert_eq!(states.len(), 1, "a list of one namespace says nothing of another");
        states.retain(None, &HashSet::from([old.key.clone()]));
        assert_eq!(states.len(), 1);
        states.remove(&old.key);
        assert_eq!(states.len(), 0);
    }
}
