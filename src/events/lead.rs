//! Being the one that publishes: the lease in the database, held by a renewal every other second.
//!
//! Whoever cannot renew it stops on its own monotonic clock, well before another may begin by the database's.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::time::sleep;

use crate::store::{RelayLease, Store, StoreError};

/// After which time without a renewal another may take the lease, by the database's clock.
pub(super) const LASTS: Duration = Duration::from_secs(6);

/// How long after a renewal was sent its holder publishes. What it has sent by then has the rest of the time to arrive.
const VALID: Duration = Duration::from_secs(4);

/// How often it is renewed.
const RENEWAL: Duration = Duration::from_millis(1500);

/// The lease, while this process has it.
pub(super) struct Lead {
    store: Store,
    holder: String,
    state: Mutex<State>,
}

struct State {
    valid_until: Instant,
    known: RelayLease,
}

impl Lead {
    /// Takes the lease, if it is free.
    pub(super) async fn take(store: &Store, holder: &str) -> Result<Option<Self>, StoreError> {
        let asked = Instant::now();
        let lease = store.take_relay_lease(holder, LASTS).await?;
        Ok(lease.map(|lease| Self {
            store: store.clone(),
            holder: holder.to_owned(),
            state: Mutex::new(State { valid_until: asked + VALID, known: lease }),
        }))
    }

    /// Renews the lease until that fails for too long; then nothing more may be published.
    pub(super) async fn keep(&self) {
        loop {
            sleep(RENEWAL).await;
            match self.renew().await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => tracing::debug!(%error, "the lease of the relay is not renewed"),
            }
            if !self.may_publish() {
                return;
            }
        }
    }

    /// Renews the lease with what is known. `false` if another has it.
    pub(super) async fn renew(&self) -> Result<bool, StoreError> {
        let (asked, known) = (Instant::now(), self.known());
        let is_ours = self.store.renew_relay_lease(&self.holder, &known).await?;
        self.state().valid_until = if is_ours { asked + VALID } else { asked };
        Ok(is_ours)
    }

    /// Publishes nothing more, whoever has the lease.
    pub(super) fn stop_publishing(&self) {
        self.state().valid_until = Instant::now();
    }

    /// Whether nobody else can have begun.
    pub(super) fn may_publish(&self) -> bool {
        Instant::now() < self.state().valid_until
    }

    /// Up to where, and until when, everything that was published is marked as such.
    pub(super) fn known(&self) -> RelayLease {
        self.state().known.clone()
    }

    /// Sets that, for the next renewal to store.
    pub(super) fn set_known(&self, known: RelayLease) {
        self.state().known = known;
    }

    /// Gives the lease to whoever wants it next.
    pub(super) async fn release(&self) -> Result<(), StoreError> {
        let known = self.known();
        self.state().valid_until = Instant::now();
        self.store.release_relay_lease(&self.holder, &known).await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const _: () =
    assert!(VALID.as_millis() + 1000 < LASTS.as_millis() && RENEWAL.as_millis() * 2 < VALID.as_millis());
