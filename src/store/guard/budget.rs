//! What all connections of a namespace may use at the same time, however many databases and servers it names.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use super::{logins::Logins, named::Names};

/// Bytes of large answers that are being received or checked. The largest takes half of them.
const BYTES: u32 = 4 << 20;

/// What is smaller takes none of these bytes: the connections bound it.
const SMALL: u32 = 64 << 10;

/// Connections: to three servers each of some 40 databases.
const CONNECTIONS: usize = 256;

/// Large batches of orders that are being cancelled.
const LARGE_BATCHES: usize = 4;

/// Salts, each with its number of rounds. A user of a database has one; the driver remembers each for ever.
const SALTS: usize = 256;

/// The budget of one namespace.
#[derive(Debug)]
pub(in crate::store) struct Budget {
    bytes: Semaphore,
    connections: Arc<Semaphore>,
    large_batches: Arc<Semaphore>,
    pub(super) salts: Names,
    pub(super) logins: Logins,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            bytes: Semaphore::new(BYTES as usize),
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
            large_batches: Arc::new(Semaphore::new(LARGE_BATCHES)),
            salts: Names::at_most(SALTS),
            logins: Logins::default(),
        }
    }
}

impl Budget {
    /// A place for one more connection, if there is one.
    pub(super) fn connection(&self) -> Option<OwnedSemaphorePermit> {
        self.connections.clone().try_acquire_owned().ok()
    }

    /// Room for one more large batch of orders, if there is any.
    pub(in crate::store) fn large_batch(&self) -> Option<OwnedSemaphorePermit> {
        self.large_batches.clone().try_acquire_owned().ok()
    }

    /// Waits until that many bytes may be received.
    pub(super) async fn bytes(&self, count: u32) -> Result<SemaphorePermit<'_>, AcquireError> {
        self.bytes.acquire_many(if count <= SMALL { 0 } else { count.min(BYTES) }).await
    }
}

/// The budgets by namespace. Each stays, since the driver forgets no salt either.
#[derive(Debug, Default)]
pub(super) struct Budgets(Mutex<HashMap<Option<String>, Arc<Budget>>>);

impl Budgets {
    /// The budget of a namespace.
    pub(super) fn of(&self, namespace: Option<&str>) -> Arc<Budget> {
        // No code panics while it holds the lock.
        let mut budgets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        budgets.entry(namespace.map(str::to_owned)).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_namespace_uses_up_its_own_budget_and_no_other() {
        let budgets = Budgets::default();
        let (ours, theirs) = (budgets.of(Some("ours")), budgets.of(Some("theirs")));
        assert!(Arc::ptr_eq(&ours, &budgets.of(Some("ours"))));
        let connections: Vec<_> = (0..CONNECTIONS).map(|_| ours.connection().unwrap()).collect();
        assert!(ours.connection().is_none() && theirs.connection().is_some());
        let bytes = ours.bytes(BYTES).await.unwrap();
        assert!(timeout(Duration::from_secs(60), ours.bytes(SMALL + 1)).await.is_err());
        assert!(ours.bytes(SMALL).await.is_ok());
        drop(theirs.bytes(u32::MAX).await.unwrap());
        let batches: Vec<_> = (0..LARGE_BATCHES).map(|_| ours.large_batch().unwrap()).collect();
        assert!(ours.large_batch().is_none() && theirs.large_batch().is_some());
        drop((connections, bytes, batches));
        assert!(
            ours.connection().is_some()
                && ours.large_batch().is_some()
                && ours.bytes(SMALL + 1).await.is_ok()
        );
    }
}
