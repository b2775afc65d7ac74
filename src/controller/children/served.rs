//! Whether the API server serves a kind that not every cluster has, since its CRD must be installed first.

use std::sync::Arc;

use tokio::sync::watch;

/// Whether one kind is served now; none until that is known. Clones share one state.
#[derive(Clone)]
pub struct Served(Arc<watch::Sender<Option<bool>>>);

impl Default for Served {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl Served {
    /// Whether objects of the kind can be written and watched.
    pub fn is_served(&self) -> bool {
        *self.0.borrow() == Some(true)
    }

    /// Records that its CRD was found, or is gone.
    pub fn set(&self, is_served: bool) {
        self.0.send_replace(Some(is_served));
    }

    /// Waits until it is known to be served, or not to be.
    pub async fn wait_until(&self, is_served: bool) {
        // This cannot fail: `self` holds the sender.
        drop(self.0.subscribe().wait_for(|now| *now == Some(is_served)).await);
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
        assert!(served.is_served() && is(true) && !is(false));
    }
}
