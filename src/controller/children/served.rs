//! Whether the API server serves a kind that not every cluster has, since its CRD must be installed first.

use std::{collections::BTreeSet, sync::Arc};

use tokio::sync::watch;

/// Whether one kind is served now, and which objects of it there are is known. Clones share one state.
#[derive(Clone)]
pub struct Served(Arc<watch::Sender<State>>);

#[derive(Default)]
struct State {
    /// None until that is known.
    is_served: Option<bool>,
    /// How many watches there are.
    watches: usize,
    /// Those that have listed all objects since the kind is served.
    listed: BTreeSet<usize>,
}

impl State {
    fn is_listed(&self) -> bool {
        self.is_served == Some(true) && self.listed.len() >= self.watches
    }
}

/// What one watch, of one namespace or of all, makes known of a kind.
#[derive(Clone)]
pub struct ServedTo {
    served: Served,
    watch: usize,
}

impl Default for Served {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(State::default())))
    }
}

impl Served {
    /// Whether objects of the kind can be written. Before every watch has listed those that there are, one could be written
    /// that takes what another object has.
    pub fn is_served(&self) -> bool {
        self.0.borrow().is_listed()
    }

    /// Records that its CRD was found, or is gone.
    pub fn set(&self, is_served: bool) {
        self.0.send_modify(|state| {
            if !is_served {
                state.listed.clear();
            }
            state.is_served = Some(is_served);
        });
    }

    /// One more watch on it.
    pub fn watch(&self) -> ServedTo {
        let mut watch = 0;
        self.0.send_modify(|state| {
            watch = state.watches;
            state.watches += 1;
        });
        ServedTo { served: self.clone(), watch }
    }

    /// Waits until objects of the kind can be written, or it is not served.
    pub async fn settled(&self) {
        self.wait_for(|state| state.is_listed() || state.is_served == Some(false)).await;
    }

    /// Waits until it is known that there is such a kind, whose objects can be watched, or that there is none.
    pub async fn wait_until(&self, is_served: bool) {
        self.wait_for(|state| state.is_served == Some(is_served)).await;
    }

    async fn wait_for(&self, is_meant: impl FnMut(&State) -> bool) {
        // This cannot fail: `self` holds the sender.
        drop(self.0.subscribe().wait_for(is_meant).await);
    }
}

impl ServedTo {
    /// Waits as [`Served::wait_until`].
    pub async fn wait_until(&self, is_served: bool) {
        self.served.wait_until(is_served).await;
    }

    /// The watch shows all objects, or cannot and need not.
    pub fn listed(&self) {
        self.served
            .0
            .send_if_modified(|state| state.is_served == Some(true) && state.listed.insert(self.watch));
    }

    /// The watch has found that the CRD is gone.
    pub fn gone(&self) {
        self.served.set(false);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn until_it_is_known_it_is_neither_served_nor_known_not_to_be() {
        let served = Served::default();
        let is = |expected| served.wait_until(expected).now_or_never().is_some();
        assert!(!served.is_served() && !is(true) && !is(false));
        served.set(false);
        assert!(!served.is_served() && !is(true) && is(false));
        served.set(true);
        assert!(served.is_served() && is(true) && !is(false), "there is no watch to wait for");
    }

    #[test]
    fn nothing_is_written_before_every_watch_has_listed_what_there_is_each_time_that_it_is_served() {
        let served = Served::default();
        let (one, other) = (served.watch(), served.watch());
        let is_settled = || served.settled().now_or_never().is_some();
        assert!(!is_settled());
        for _ in 0..2 {
            served.set(true);
            one.listed();
            // It was started again.
            one.listed();
            assert!(!served.is_served() && !is_settled());
            assert!(other.wait_until(true).now_or_never().is_some(), "it can be listed");
            other.listed();
            assert!(served.is_served() && is_settled());
            other.gone();
            assert!(!served.is_served() && is_settled());
            // A list that was on its way.
            one.listed();
        }
    }
}
