//! What was applied last, so that nothing is sent where nothing has changed.
//!
//! Of each child the hash of what was applied and the version that came back. While the watch shows that
//! version and the hash is the same, the child is as it should be. Any other version is drift: it is
//! applied again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{
    kind::Kind,
    rollout::Rollout,
    watched::{Seen, Shown},
};

/// The hash of a child as it was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Print([u8; 16]);

impl Print {
    /// The hash of `child`; none of what is no JSON, which then is sent every time.
    pub fn of(child: &impl Serialize) -> Option<Self> {
        let text = serde_json::to_vec(child).ok()?;
        let mut print = [0; 16];
        print.iter_mut().zip(Sha256::digest(text)).for_each(|(to, from)| *to = from);
        Some(Self(print))
    }
}

/// What was applied, by UID of the OrdersService and kind of child. Clones share one state.
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<HashMap<String, Applications>>>);

#[derive(Default)]
struct Applications {
    children: HashMap<Kind, (Print, String)>,
    rollout: Option<Rollout>,
}

impl Memory {
    /// Whether `shown` is the child just as it was applied, and `print` is what it is to be.
    pub fn is_settled(&self, owner: &str, kind: Kind, print: Option<Print>, shown: &Shown) -> bool {
        let Shown::There(seen) = shown else { return false };
        let memory = self.lock();
        let applied = memory.get(owner).and_then(|applied| applied.children.get(&kind));
        applied.is_some_and(|(applied, version)| {
            Some(*applied) == print
                && seen.owner_uid == owner
                && !seen.deleting
                && (seen.version == *version || is_behind(seen, version))
        })
    }

    /// Remembers that `kind` was applied, and the version that came back.
    pub fn applied(&self, owner: &str, kind: Kind, print: Option<Print>, version: Option<String>) {
        let mut memory = self.lock();
        let children = &mut memory.entry(owner.to_owned()).or_default().children;
        match print.zip(version) {
            Some(applied) => drop(children.insert(kind, applied)),
            None => drop(children.remove(&kind)),
        }
    }

    /// Remembers how the Deployment was when it was applied.
    pub fn rolled_out(&self, owner: &str, rollout: Rollout) {
        self.lock().entry(owner.to_owned()).or_default().rollout = Some(rollout);
    }

    /// How the Deployment was when it was applied last.
    pub fn rollout(&self, owner: &str) -> Option<Rollout> {
        self.lock().get(owner).and_then(|applied| applied.rollout.clone())
    }

    /// Forgets a resource that is gone.
    pub fn forget(&self, owner: &str) {
        self.lock().remove(owner);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Applications>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the watch has not come as far yet as what was applied. What happened since, it will show.
fn is_behind(seen: &Seen, version: &str) -> bool {
    match (seen.version.parse::<u64>(), version.parse::<u64>()) {
        (Ok(seen), Ok(applied)) => seen < applied,
        // Not of an API server that counts: any difference may be drift.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(version: &str, deleting: bool) -> Shown {
        Shown::There(Seen {
            uid: "c".into(),
            version: version.into(),
            owner: "orders".into(),
            owner_uid: "u".into(),
            deleting,
        })
    }

    #[test]
    fn only_the_same_content_at_the_same_version_is_settled() {
        let memory = Memory::default();
        let (print, other) = (Print::of(&"a"), Print::of(&"b"));
        let settled = |print, shown: Shown| memory.is_settled("u", Kind::Service, print, &shown);
        assert!(!settled(print, shown("9", false)));
        memory.applied("u", Kind::Service, print, Some("9".into()));
        assert!(settled(print, shown("9", false)));
        assert!(settled(print, shown("8", false)), "the watch is behind");
        assert!(!settled(print, shown("10", false)), "someone wrote");
        assert!(!settled(other, shown("9", false)), "something else is wanted");
        assert!(!settled(print, shown("9", true)), "it goes");
        assert!(!settled(print, shown("x", false)));
        assert!(!settled(print, Shown::Nothing) && !settled(print, Shown::Unknown));
        assert!(!settled(None, shown("9", false)));
        assert!(!memory.is_settled("v", Kind::Service, print, &shown("9", false)), "someone else's");
        assert!(!memory.is_settled("u", Kind::Ingress, print, &shown("9", false)));
        memory.forget("u");
        assert!(!settled(print, shown("9", false)));
    }
}
