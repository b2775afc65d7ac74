//! Sorted lists of claimants, in place of maps and sets: there is one for every host and prefix of a cluster.

use std::sync::Arc;

use super::claim::Claimant;
use crate::routing::path::CanonicalPath;

/// The claimants of each prefix, sorted by prefix. There are nearly always few, so a list is smaller than a map.
#[derive(Default)]
pub(super) struct ByPrefix(Vec<(CanonicalPath, ByAge)>);

impl ByPrefix {
    fn find(&self, prefix: &CanonicalPath) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| known.cmp(prefix))
    }

    pub(super) fn get(&self, prefix: &CanonicalPath) -> Option<&ByAge> {
        let at = self.find(prefix).ok()?;
        self.0.get(at).map(|(_, who)| who)
    }

    pub(super) fn insert(&mut self, prefix: CanonicalPath, claimant: &Arc<Claimant>) {
        match self.find(&prefix) {
            Ok(at) => self.0.get_mut(at).into_iter().for_each(|(_, who)| who.insert(claimant)),
            Err(at) => {
                let mut who = ByAge::default();
                who.insert(claimant);
                self.0.insert(at, (prefix, who));
            }
        }
    }

    pub(super) fn remove(&mut self, prefix: &CanonicalPath, claimant: &Arc<Claimant>) {
        let Ok(at) = self.find(prefix) else { return };
        let Some((_, who)) = self.0.get_mut(at) else { return };
        who.remove(claimant);
        if who.is_empty() {
            self.0.remove(at);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The claimants of the same host or prefix, the oldest first; nearly always one.
#[derive(Default)]
pub(super) struct ByAge(Vec<Arc<Claimant>>);

impl ByAge {
    pub(super) fn insert(&mut self, claimant: &Arc<Claimant>) {
        if let Err(at) = self.0.binary_search(claimant) {
            if self.0.is_empty() {
                self.0.reserve_exact(1);
            }
            self.0.insert(at, claimant.clone());
        }
    }

    pub(super) fn remove(&mut self, claimant: &Arc<Claimant>) {
        if let Ok(at) = self.0.binary_search(claimant) {
            self.0.remove(at);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Claimant>> {
        self.0.iter()
    }
}
