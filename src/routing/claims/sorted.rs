//! Sorted lists of claimants, in place of maps and sets: there is one for every host and path of a cluster.

use std::sync::Arc;

use super::claim::Claimant;
use crate::routing::path_match::PathMatch;

/// The claimants of each path, sorted by path. There are nearly always few, so a list is smaller than a map.
#[derive(Default)]
pub(super) struct ByPath(Vec<(PathMatch, ByAge)>);

impl ByPath {
    fn find(&self, path: &PathMatch) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| known.cmp(path))
    }

    pub(super) fn get(&self, path: &PathMatch) -> Option<&ByAge> {
        let at = self.find(path).ok()?;
        self.0.get(at).map(|(_, who)| who)
    }

    pub(super) fn insert(&mut self, path: PathMatch, claimant: &Arc<Claimant>) {
        match self.find(&path) {
            Ok(at) => self.0.get_mut(at).into_iter().for_each(|(_, who)| who.insert(claimant)),
            Err(at) => {
                let mut who = ByAge::default();
                who.insert(claimant);
                self.0.insert(at, (path, who));
            }
        }
    }

    pub(super) fn remove(&mut self, path: &PathMatch, claimant: &Arc<Claimant>) {
        let Ok(at) = self.find(path) else { return };
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

/// The claimants of the same host or path, the oldest first; nearly always one.
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

    pub(super) fn contains(&self, claimant: &Arc<Claimant>) -> bool {
        self.0.binary_search(claimant).is_ok()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Claimant>> {
        self.0.iter()
    }
}
