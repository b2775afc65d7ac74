//! What was applied last, so that nothing is sent where nothing has changed.
//!
//! Of each child the hash of what was applied, the version that came back, and which fields are ours. While
//! the hash is the same and the watch shows that version, the child is as it should be. Under another version
//! it still is, as long as the same fields are ours: whoever changes or removes one of them takes it over, so
//! its loss shows. What is left is what others write: a status (an autoscaler's changes every 15 s), or
//! fields that are not ours. All else is drift: it is applied again.
//!
//! The hash of all that, without the versions, goes into the status of the resource. A controller that begins
//! without a memory finds by it that there is nothing to do, instead of applying every child of a cluster once.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    kind::{Child, Kind, Part},
    partial::Partial,
    print::Print,
    problem::Problem,
    rollout::Rollout,
    version::Version,
    watched::Shown,
};
use crate::crd::OrdersService;

/// A child as it is to be, and as a watch shows it.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Which it is.
    pub kind: (Kind, Part),
    /// The hash of how it is to be.
    pub print: Option<Print>,
    /// How it is.
    pub shown: Shown,
}

/// How a child is, compared with how it was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Just as it was.
    Untouched,
    /// Nothing of ours has changed, but something has.
    Elsewhere,
    /// It is to be applied.
    No,
}

/// What was applied, by UID of the OrdersService and kind of child. Clones share one state.
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<HashMap<Box<str>, Applications>>>);

/// They are few, and in memory for each of thousands of resources: a list is smaller than a map.
#[derive(Default)]
struct Applications {
    /// The resourceVersion that the OrdersService itself had when its status was written.
    told: Option<Version>,
    children: Vec<((Kind, Part), Application)>,
    rollout: Option<Box<Rollout>>,
    answers: BTreeMap<Part, Vec<Problem>>,
}

impl Applications {
    fn get(&self, kind: (Kind, Part)) -> Option<&Application> {
        self.children.iter().find(|(other, _)| *other == kind).map(|(_, application)| application)
    }

    fn put(&mut self, kind: (Kind, Part), application: Application) {
        match self.children.iter_mut().find(|(other, _)| *other == kind) {
            Some((_, known)) => *known = application,
            None => {
                self.children.reserve_exact(1);
                self.children.push((kind, application));
            }
        }
    }
}

struct Application {
    print: Print,
    version: Version,
    fields: Option<Print>,
}

impl Memory {
    /// How the child that is `shown` is, when `print` is what it is to be.
    pub fn settled(&self, owner: &str, kind: (Kind, Part), print: Option<Print>, shown: &Shown) -> Settled {
        let Shown::There(seen) = shown else { return Settled::No };
        let memory = self.lock();
        let applied = memory.get(owner).and_then(|applied| applied.get(kind));
        let Some(applied) = applied.filter(|applied| Some(applied.print) == print) else {
            return Settled::No;
        };
        if &*seen.owner.uid != owner || seen.deleting {
            Settled::No
        } else if seen.version == applied.version || seen.version.is_before(&applied.version) {
            // Before: the watch has not come as far yet. What has happened since, it will show.
            Settled::Untouched
        } else if seen.fields.is_some() && seen.fields == applied.fields {
            Settled::Elsewhere
        } else {
            Settled::No
        }
    }

    /// Remembers that a part of the children was applied, and what came back; or forgets it, without a `print`.
    pub fn applied<K: Child>(&self, owner: &str, part: Part, print: Option<Print>, answer: &Partial<K>) {
        match print.zip(answer.metadata.resource_version.as_deref()) {
            Some((print, version)) => {
                let application = Application { print, version: version.into(), fields: answer.fields };
                self.lock().entry(owner.into()).or_default().put((K::KIND, part), application);
            }
            None => self.gone::<K>(owner, part),
        }
    }

    /// Forgets a part of the children.
    pub fn gone<K: Child>(&self, owner: &str, part: Part) {
        if let Some(applied) = self.lock().get_mut(owner) {
            applied.children.retain(|(other, _)| *other != (K::KIND, part));
        }
    }

    /// Remembers that the status of a resource was written, and what came back.
    pub fn told(&self, owner: &str, answer: &Partial<OrdersService>) {
        if let Some(version) = answer.metadata.resource_version.as_deref() {
            self.lock().entry(owner.into()).or_default().told = Some(version.into());
        }
    }

    /// A resource is reconciled as it was at this version. If its status has been written since, that shall be looked at
    /// once it shows.
    pub fn begins(&self, owner: &str, version: &Version) {
        if let Some(applied) = self.lock().get_mut(owner)
            && applied.told.as_ref() != Some(version)
        {
            applied.told = None;
        }
    }

    /// Whether a resource is shown just as it was when its status was written: whoever wrote it knows.
    pub fn is_told(&self, owner: &str, version: &Version) -> bool {
        self.lock().get(owner).is_some_and(|applied| applied.told.as_ref() == Some(version))
    }

    /// Whether a child of this kind is shown just as it was when it was applied: whoever applied it knows.
    pub fn is_applied(&self, owner: &str, kind: Kind, version: &Version) -> bool {
        self.lock().get(owner).is_some_and(|applied| {
            applied.children.iter().any(|((other, _), applied)| *other == kind && applied.version == *version)
        })
    }

    /// Whether any child is remembered of a resource.
    pub fn knows(&self, owner: &str) -> bool {
        self.lock().get(owner).is_some_and(|applied| !applied.children.is_empty())
    }

    /// What is to be recorded of a resource of which every child was applied; nothing where it is not known of
    /// each which fields are ours.
    pub fn record(&self, owner: &str) -> Option<String> {
        let memory = self.lock();
        let children = memory.get(owner)?.children.iter();
        let known: Option<BTreeMap<_, _>> =
            children.map(|(kind, applied)| Some((*kind, (applied.print, applied.fields?)))).collect();
        record(&known?)
    }

    /// Remembers `children`, as they are to be and are shown, as if they had been applied just now, where they are
    /// as was recorded.
    pub fn recall(&self, owner: &str, recorded: &str, children: &[Wanted]) {
        let (mut known, mut applications) = (BTreeMap::new(), Applications::default());
        for Wanted { kind, print, shown } in children {
            let Shown::There(seen) = shown else { return };
            let (Some(print), Some(fields)) = (*print, seen.fields) else { return };
            if &*seen.owner.uid != owner || seen.deleting {
                return;
            }
            known.insert(*kind, (print, fields));
            let application = Application { print, version: seen.version.clone(), fields: Some(fields) };
            applications.put(*kind, application);
            applications.rollout = applications.rollout.or_else(|| seen.rollout.clone());
            if kind.0 == Kind::HTTPRoute {
                applications.answers.insert(kind.1, seen.answers.clone());
            }
        }
        if record(&known).as_deref() == Some(recorded) {
            let mut memory = self.lock();
            let before = memory.entry(owner.into()).or_default();
            applications.told = std::mem::take(&mut before.told);
            *before = applications;
        }
    }

    /// Remembers how the Deployment was when it was applied.
    pub fn rolled_out(&self, owner: &str, rollout: Rollout) {
        self.lock().entry(owner.into()).or_default().rollout = Some(Box::new(rollout));
    }

    /// How the Deployment was when it was applied last.
    pub fn rollout(&self, owner: &str) -> Option<Rollout> {
        self.lock().get(owner).and_then(|applied| applied.rollout.as_deref().cloned())
    }

    /// Remembers what the Gateways said of an HTTPRoute.
    pub fn answered(&self, owner: &str, part: Part, answers: Vec<Problem>) {
        self.lock().entry(owner.into()).or_default().answers.insert(part, answers);
    }

    /// What the Gateways said of an HTTPRoute when it was last seen.
    pub fn answers(&self, owner: &str, part: Part) -> Option<Vec<Problem>> {
        self.lock().get(owner).and_then(|applied| applied.answers.get(&part).cloned())
    }

    /// Forgets a resource that is gone.
    pub fn forget(&self, owner: &str) {
        self.lock().remove(owner);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, Applications>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn record(children: &BTreeMap<(Kind, Part), (Print, Print)>) -> Option<String> {
    let text = |((kind, part), (print, fields)): (&(Kind, Part), &(Print, Print))| {
        format!("{} {part} {print} {fields}", kind.as_str())
    };
    Print::of(&children.iter().map(text).collect::<Vec<_>>()).map(|print| print.to_string())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{
        api::{apps::v1::Deployment, core::v1::Service},
        apimachinery::pkg::apis::meta::v1::ObjectMeta,
    };

    use super::*;
    use crate::controller::{
        fixture::child,
        gateway::HTTPRoute,
        partial::Nothing,
        watched::{Owner, Seen},
    };

    /// A child on which these fields are ours.
    fn object<K: Child>(version: &str, fields: &str) -> Partial<K> {
        child(version, fields, "2026-01-01T00:00:00Z")
    }

    fn shown(version: &str, fields: &str, deleting: bool) -> Shown {
        Shown::There(Seen {
            uid: "c".into(),
            version: version.into(),
            owner: Arc::new(Owner { name: "orders".into(), uid: "u".into() }),
            deleting,
            fields: object::<Service>(version, fields).fields,
            rollout: None,
            answers: Vec::new(),
        })
    }

    #[test]
    fn only_what_was_applied_and_has_lost_no_field_is_settled() {
        use Settled::*;
        let memory = Memory::default();
        let (print, other) = (Print::of(&"a"), Print::of(&"b"));
        let settled = |print, shown: Shown| memory.settled("u", (Kind::Service, 0), print, &shown);
        let same = || shown("9", "f:a", false);
        assert_eq!(settled(print, same()), No);
        memory.applied("u", 0, print, &object::<Service>("9", "f:a"));
        assert_eq!(settled(print, same()), Untouched);
        assert_eq!(settled(print, shown("8", "f:b", false)), Untouched, "the watch is behind");
        assert_eq!(settled(print, shown("10", "f:a", false)), Elsewhere, "a status, say");
        assert_eq!(settled(print, shown("10", "f:b", false)), No, "someone took a field over");
        assert_eq!(settled(print, shown("x", "f:b", false)), No);
        assert_eq!(settled(other, same()), No, "something else is wanted");
        assert_eq!(settled(None, same()), No);
        assert_eq!(settled(print, shown("9", "f:a", true)), No, "it goes");
        assert_eq!((settled(print, Shown::Nothing), settled(print, Shown::Unknown)), (No, No));
        assert_eq!(memory.settled("v", (Kind::Service, 0), print, &same()), No, "someone else's");
        assert_eq!(memory.settled("u", (Kind::Ingress, 0), print, &same()), No);
        memory.applied("u", 0, None, &object::<Service>("9", "f:a"));
        assert_eq!(settled(print, same()), No);
        memory.applied("u", 0, print, &object::<Service>("9", "f:a"));
        memory.forget("u");
        assert_eq!(settled(print, same()), No);
    }

    #[test]
    fn a_controller_without_a_memory_takes_over_what_was_recorded_only_where_nothing_of_it_differs() {
        let (deployment, route) = ((Kind::Deployment, 0), (Kind::HTTPRoute, 1));
        let (print, other) = (Print::of(&"a"), Print::of(&"b"));
        let before = Memory::default();
        assert_eq!(before.record("u"), None);
        before.applied("u", 0, print, &object::<Deployment>("9", "f:a"));
        before.applied("u", 1, other, &object::<HTTPRoute>("8", "f:b"));
        let recorded = before.record("u").unwrap();
        let rollout = Rollout { ready: 2, ..Rollout::default() };
        let there = |version, fields, rollout: Option<&Rollout>| match shown(version, fields, false) {
            Shown::There(seen) => Shown::There(Seen { rollout: rollout.cloned().map(Box::new), ..seen }),
            other => other,
        };
        let wanted = |kind, print, shown| Wanted { kind, print, shown };
        let same = || {
            vec![
                wanted(deployment, print, there("19", "f:a", Some(&rollout))),
                wanted(route, other, there("8", "f:b", None)),
            ]
        };
        let recalls = |owner: &str, children: &[Wanted]| {
            let memory = Memory::default();
            memory.recall(owner, &recorded, children);
            memory.knows(owner).then_some(memory)
        };
        let memory = recalls("u", &same()).unwrap();
        assert_eq!(memory.settled("u", deployment, print, &same()[0].shown), Settled::Untouched);
        assert_eq!(memory.settled("u", route, other, &shown("20", "f:a", false)), Settled::No);
        assert_eq!((memory.rollout("u"), memory.answers("u", 1)), (Some(rollout.clone()), Some(Vec::new())));
        assert_eq!(memory.record("u"), Some(recorded.clone()), "and passes it on");

        let changed = |change: &dyn Fn(&mut Vec<Wanted>)| {
            let mut children = same();
            change(&mut children);
            children
        };
        assert!(recalls("v", &same()).is_none(), "someone else's");
        for (what, children) in [
            ("another is wanted", changed(&|all| all[0].print = other)),
            ("one is to be sent every time", changed(&|all| all[0].print = None)),
            ("a field was taken over", changed(&|all| all[1].shown = shown("21", "f:a", false))),
            ("one goes", changed(&|all| all[0].shown = shown("9", "f:a", true))),
            ("one is gone", changed(&|all| all[0].shown = Shown::Nothing)),
            ("one is not known yet", changed(&|all| all[0].shown = Shown::Unknown)),
            (
                "one more is wanted",
                changed(&|all| all.push(wanted((Kind::Service, 0), print, shown("1", "f:a", false)))),
            ),
            ("one less is wanted", changed(&|all| drop(all.pop()))),
            ("it is another part", changed(&|all| all[1].kind.1 = 0)),
        ] {
            assert!(recalls("u", &children).is_none(), "{what}");
        }
        before.applied("u", 1, other, &Partial { fields: None, ..object::<HTTPRoute>("9", "f:b") });
        assert_eq!(before.record("u"), None, "whose fields are whose is not known of one");
    }

    #[test]
    fn a_status_that_was_written_after_what_is_at_hand_is_looked_at_once_it_shows() {
        let memory = Memory::default();
        let answer = |version: &str| {
            let metadata = ObjectMeta { resource_version: Some(version.into()), ..ObjectMeta::default() };
            Partial { metadata, fields: None, spec: Nothing, status: Nothing }
        };
        let is_told = |version: &str| memory.is_told("u", &version.into());
        assert!(!is_told("10"));
        memory.told("u", &answer("10"));
        assert!(is_told("10") && !is_told("11"));
        memory.begins("u", &"10".into());
        assert!(is_told("10"), "it is known");
        memory.begins("u", &"9".into());
        assert!(!is_told("10"), "whoever begins with what was before has not seen it");
    }

    #[test]
    fn without_managed_fields_every_other_version_is_drift() {
        let memory = Memory::default();
        let bare = Partial { fields: None, ..object::<Service>("9", "f:a") };
        memory.applied("u", 0, Print::of(&"a"), &bare);
        let Shown::There(seen) = shown("10", "f:a", false) else { unreachable!() };
        let shown = Shown::There(Seen { fields: None, ..seen });
        assert_eq!(memory.settled("u", (Kind::Service, 0), Print::of(&"a"), &shown), Settled::No);
    }
}
