//! Whether the API server serves a kind that not every cluster has, since its CRD must be installed first.

use std::sync::Arc;

use tokio::sync::watch;

/// Whether one kind is served now. Clones share one state.
#[derive(Clone)]
pub struct Served(Arc<watch::Sender<bool>>);

impl Default for Served {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Served {
    /// Whether objects of the kind can be written and watched.
    pub fn is_served(&self) -> bool {
        *self.0.borrow()
    }

    /// Its CRD was found, or is gone.
    pub fn set(&self, is_served: bool) {
        self.0.send_replace(is_served);
    }

    /// Waits until it is served, or until it is not.
    pub async fn wait_until(&self, is_served: bool) {
        // This cannot fail: `self` holds the sender.
        drop(self.0.subscribe().wait_for(|now| *now == is_served).await);
    }
}
