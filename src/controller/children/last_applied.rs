//! What was applied last, so that nothing is sent where nothing has changed.
//!
//! For each child, it keeps the fingerprint of what was applied, the resourceVersion of the response, and the fields that
//! were ours then. A child is in sync while the same is desired and the watch shows that version. Under another version
//! it still is, as long as we own the same fields: whoever changes or removes one of them takes it over, and then we own
//! one fewer. Such a version comes from a status update (an autoscaler's every 15 s), or from a change to fields that are
//! not ours. Everything else is drift, and the child is applied again.
//!
//! A digest of all that, without the versions, goes into the status of the OrdersService. A controller that has just
//! started compares it with what the watches show, instead of applying every child in the cluster once.

use std::collections::BTreeMap;

use super::{
    fingerprint::Fingerprint,
    kind::{Child, ChildId, ChildKind},
    observed::Observation,
    owner::Owner,
    partial::Partial,
    resource_version::ResourceVersion,
    rollout::Rollout,
};
use crate::controller::problem::Problem;

/// A child as it is desired, and as it is observed.
#[derive(Clone, Debug)]
pub struct DesiredChild {
    /// Which child.
    pub id: ChildId,
    /// The fingerprint of how it should be; none if it is to be sent in any case.
    pub fingerprint: Option<Fingerprint>,
    /// How it is.
    pub observed: Observation,
}

/// How an observed child compares with what was applied last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncState {
    /// It is what was applied.
    Unchanged,
    /// Something has changed, but none of our fields.
    OthersChanged,
    /// It must be applied.
    OutOfSync,
}

/// What was applied last for one OrdersService.
#[derive(Debug, Default)]
pub struct LastApplied {
    /// A list, since a map takes more memory for a handful of entries, times thousands of resources.
    children: Vec<(ChildId, AppliedChild)>,
    rollout: Option<Box<Rollout>>,
    route_problems: BTreeMap<usize, Vec<Problem>>,
}

#[derive(Debug)]
struct AppliedChild {
    fingerprint: Fingerprint,
    version: ResourceVersion,
    owned_fields: Option<Fingerprint>,
}

impl LastApplied {
    /// How the `observed` child compares with what was applied last, if `desired` is how it should be.
    pub fn sync_state(
        &self,
        owner: &Owner,
        id: ChildId,
        desired: Option<Fingerprint>,
        observed: &Observation,
    ) -> SyncState {
        let Observation::Present(child) = observed else { return SyncState::OutOfSync };
        let Some(applied) = self.get(id).filter(|applied| Some(applied.fingerprint) == desired) else {
            return SyncState::OutOfSync;
        };
        if *child.owner != *owner || child.is_deleting {
            SyncState::OutOfSync
        } else if child.version == applied.version || child.version.is_before(&applied.version) {
            // An older version: the watch has not yet shown what was applied.
            SyncState::Unchanged
        } else if child.owned_fields.is_some() && child.owned_fields == applied.owned_fields {
            SyncState::OthersChanged
        } else {
            SyncState::OutOfSync
        }
    }

    /// Records that a child was applied, and the response to that; or drops its record, if there is no fingerprint of what
    /// was applied.
    pub fn applied<K: Child>(
        &mut self,
        index: usize,
        fingerprint: Option<Fingerprint>,
        response: &Partial<K>,
    ) {
        let id = ChildId::of::<K>(index);
        match fingerprint.zip(response.metadata.resource_version.as_deref()) {
            Some((fingerprint, version)) => {
                let owned_fields = response.owned_fields;
                self.put(id, AppliedChild { fingerprint, version: version.into(), owned_fields });
            }
            None => self.remove(id),
        }
        if let Some(rollout) = K::rollout(response) {
            self.rollout = Some(Box::new(rollout));
        }
        if K::KIND == ChildKind::HTTPRoute {
            self.route_problems.insert(index, K::route_problems(response));
        }
    }

    /// Drops the record of a child.
    pub fn remove(&mut self, id: ChildId) {
        self.children.retain(|(other, _)| *other != id);
        if id.kind == ChildKind::HTTPRoute {
            self.route_problems.remove(&id.index);
        }
    }

    /// Whether a child of this kind had this version when it was applied: then an event with it is the echo of that.
    pub fn has_version(&self, kind: ChildKind, version: &ResourceVersion) -> bool {
        self.children.iter().any(|(id, applied)| id.kind == kind && applied.version == *version)
    }

    /// Whether nothing is recorded, as in a controller that has just started.
    pub fn is_empty(&self) -> bool {
        self.children.is_empty()
    }

    /// Whether it is known how this child was applied.
    pub fn has(&self, id: ChildId) -> bool {
        self.get(id).is_some()
    }

    /// Which fields of a child were ours when it was applied.
    pub fn owned_fields(&self, id: ChildId) -> Option<Fingerprint> {
        self.get(id)?.owned_fields
    }

    /// How the Deployment was when it was applied.
    pub fn rollout(&self) -> Option<&Rollout> {
        self.rollout.as_deref()
    }

    /// What Gateways reported about an HTTPRoute when it was applied; nothing for other children.
    pub fn route_problems(&self, id: ChildId) -> &[Problem] {
        let of_route = self.route_problems.get(&id.index).filter(|_| id.kind == ChildKind::HTTPRoute);
        of_route.map(Vec::as_slice).unwrap_or_default()
    }

    /// A digest of every record; none if it is not known for each child which fields are ours.
    pub fn digest(&self) -> Option<String> {
        let children = self.children.iter();
        let known: Option<BTreeMap<_, _>> =
            children.map(|(id, applied)| Some((*id, (applied.fingerprint, applied.owned_fields?)))).collect();
        digest(&known?)
    }

    /// Records `children` as applied in the state in which they are observed, if `expected` is the digest of that state.
    pub fn restore(&mut self, owner: &Owner, expected: &str, children: &[DesiredChild]) {
        let (mut known, mut restored) = (BTreeMap::new(), Self::default());
        for DesiredChild { id, fingerprint, observed } in children {
            let Observation::Present(child) = observed else { return };
            let (Some(fingerprint), Some(owned_fields)) = (*fingerprint, child.owned_fields) else { return };
            if *child.owner != *owner || child.is_deleting {
                return;
            }
            known.insert(*id, (fingerprint, owned_fields));
            let (version, owned_fields) = (child.version.clone(), Some(owned_fields));
            restored.put(*id, AppliedChild { fingerprint, version, owned_fields });
            restored.rollout = restored.rollout.or_else(|| child.rollout.clone());
            if id.kind == ChildKind::HTTPRoute {
                restored.route_problems.insert(id.index, child.route_problems.clone());
            }
        }
        if digest(&known).as_deref() == Some(expected) {
            *self = restored;
        }
    }

    fn get(&self, id: ChildId) -> Option<&AppliedChild> {
        self.children.iter().find(|(other, _)| *other == id).map(|(_, applied)| applied)
    }

    fn put(&mut self, id: ChildId, applied: AppliedChild) {
        match self.children.iter_mut().find(|(other, _)| *other == id) {
            Some((_, known)) => *known = applied,
            None => {
                self.children.reserve_exact(1);
                self.children.push((id, applied));
            }
        }
    }
}

fn digest(children: &BTreeMap<ChildId, (Fingerprint, Fingerprint)>) -> Option<String> {
    let line = |(id, (fingerprint, owned_fields)): (&ChildId, &(Fingerprint, Fingerprint))| {
        format!("{} {} {fingerprint} {owned_fields}", id.kind.as_str(), id.index)
    };
    let lines: Vec<_> = children.iter().map(line).collect();
    Fingerprint::of(&lines).map(|digest| digest.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service};

    use super::*;
    use crate::controller::{
        children::{httproute::HTTPRoute, observed::ObservedChild},
        fixture::{child, owner},
    };

    const SERVICE: ChildId = ChildId { kind: ChildKind::Service, index: 0 };

    /// A child of which these fields are ours.
    fn object<K: Child>(version: &str, fields: &str) -> Partial<K> {
        child(version, fields, "2026-01-01T00:00:00Z")
    }

    fn observed(version: &str, fields: &str, is_deleting: bool) -> ObservedChild {
        ObservedChild {
            uid: "c".into(),
            version: version.into(),
            owner: Arc::new(owner("u")),
            is_deleting,
            owned_fields: object::<Service>(version, fields).owned_fields,
            rollout: None,
            route_problems: Vec::new(),
            unmeasured_since: None,
        }
    }

    fn present(version: &str, fields: &str, is_deleting: bool) -> Observation {
        Observation::Present(observed(version, fields, is_deleting))
    }

    #[test]
    fn only_a_child_that_was_applied_and_has_lost_no_field_is_in_sync() {
        use SyncState::*;
        let mut last = LastApplied::default();
        let (fingerprint, other) = (Fingerprint::of(&"a"), Fingerprint::of(&"b"));
        let same = || present("9", "f:a", false);
        let state = |last: &LastApplied, desired, observed: Observation| {
            last.sync_state(&owner("u"), SERVICE, desired, &observed)
        };
        assert_eq!(state(&last, fingerprint, same()), OutOfSync);
        last.applied(0, fingerprint, &object::<Service>("9", "f:a"));
        for (desired, observed, expected, why) in [
            (fingerprint, same(), Unchanged, ""),
            (fingerprint, present("8", "f:b", false), Unchanged, "the watch is behind"),
            (fingerprint, present("10", "f:a", false), OthersChanged, "a status, say"),
            (fingerprint, present("10", "f:b", false), OutOfSync, "a field was taken over"),
            (fingerprint, present("x", "f:b", false), OutOfSync, "its version tells no order"),
            (other, same(), OutOfSync, "something else is desired"),
            (None, same(), OutOfSync, "it is to be sent in any case"),
            (fingerprint, present("9", "f:a", true), OutOfSync, "it is being deleted"),
            (fingerprint, Observation::Absent, OutOfSync, ""),
            (fingerprint, Observation::NotSynced, OutOfSync, ""),
        ] {
            assert_eq!(state(&last, desired, observed), expected, "{why}");
        }
        let of_other_owner = last.sync_state(&owner("v"), SERVICE, fingerprint, &same());
        assert_eq!(of_other_owner, OutOfSync);
        let ingress = ChildId { kind: ChildKind::Ingress, index: 0 };
        assert_eq!(last.sync_state(&owner("u"), ingress, fingerprint, &same()), OutOfSync);
        last.applied(0, None, &object::<Service>("9", "f:a"));
        assert_eq!(state(&last, fingerprint, same()), OutOfSync);
        last.applied(0, fingerprint, &object::<Service>("9", "f:a"));
        last.remove(SERVICE);
        assert_eq!(state(&last, fingerprint, same()), OutOfSync);
        assert!(last.is_empty());
    }

    #[test]
    fn a_controller_that_has_just_started_restores_what_was_applied_only_where_nothing_of_it_differs() {
        let deployment = ChildId { kind: ChildKind::Deployment, index: 0 };
        let route = ChildId { kind: ChildKind::HTTPRoute, index: 1 };
        let (fingerprint, other) = (Fingerprint::of(&"a"), Fingerprint::of(&"b"));
        let mut before = LastApplied::default();
        before.applied(0, fingerprint, &object::<Deployment>("9", "f:a"));
        before.applied(1, other, &object::<HTTPRoute>("8", "f:b"));
        let recorded = before.digest().unwrap();
        let rollout = Rollout { ready: 2, ..Rollout::default() };
        let there = |version, fields, rollout: Option<&Rollout>| {
            let rollout = rollout.cloned().map(Box::new);
            Observation::Present(ObservedChild { rollout, ..observed(version, fields, false) })
        };
        let desired = |id, fingerprint, observed| DesiredChild { id, fingerprint, observed };
        let same = || {
            vec![
                desired(deployment, fingerprint, there("19", "f:a", Some(&rollout))),
                desired(route, other, there("8", "f:b", None)),
            ]
        };
        let restored = |uid: &str, children: &[DesiredChild]| {
            let mut last = LastApplied::default();
            last.restore(&owner(uid), &recorded, children);
            (!last.is_empty()).then_some(last)
        };
        let last = restored("u", &same()).unwrap();
        let state = |id, desired, observed: &Observation| last.sync_state(&owner("u"), id, desired, observed);
        assert_eq!(state(deployment, fingerprint, &same()[0].observed), SyncState::Unchanged);
        assert_eq!(state(route, other, &present("20", "f:a", false)), SyncState::OutOfSync);
        assert_eq!((last.rollout(), last.route_problems(route)), (Some(&rollout), &[][..]));
        assert_eq!(last.digest(), Some(recorded.clone()), "and the next one can do the same");

        let changed = |change: &dyn Fn(&mut Vec<DesiredChild>)| {
            let mut children = same();
            change(&mut children);
            children
        };
        assert!(restored("v", &same()).is_none(), "they have another owner");
        for (what, children) in [
            ("another is desired", changed(&|all| all[0].fingerprint = other)),
            ("one is to be sent in any case", changed(&|all| all[0].fingerprint = None)),
            ("a field was taken over", changed(&|all| all[1].observed = present("21", "f:a", false))),
            ("one is being deleted", changed(&|all| all[0].observed = present("9", "f:a", true))),
            ("one is gone", changed(&|all| all[0].observed = Observation::Absent)),
            ("one is not known yet", changed(&|all| all[0].observed = Observation::NotSynced)),
            (
                "one more is desired",
                changed(&|all| all.push(desired(SERVICE, fingerprint, present("1", "f:a", false)))),
            ),
            ("one fewer is desired", changed(&|all| drop(all.pop()))),
            ("it has another number", changed(&|all| all[1].id.index = 0)),
        ] {
            assert!(restored("u", &children).is_none(), "{what}");
        }
        before.applied(1, other, &Partial { owned_fields: None, ..object::<HTTPRoute>("9", "f:b") });
        assert_eq!(before.digest(), None, "of one it is not known which fields are ours");
    }

    #[test]
    fn without_managed_fields_every_other_version_is_drift() {
        let mut last = LastApplied::default();
        let bare = Partial { owned_fields: None, ..object::<Service>("9", "f:a") };
        last.applied(0, Fingerprint::of(&"a"), &bare);
        let bare = ObservedChild { owned_fields: None, ..observed("10", "f:a", false) };
        let state = last.sync_state(&owner("u"), SERVICE, Fingerprint::of(&"a"), &Observation::Present(bare));
        assert_eq!(state, SyncState::OutOfSync);
    }
}
