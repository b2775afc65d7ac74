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
