//! What all connections of a namespace may use at the same time, however many databases and servers it names.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// Bytes of answers that are being received or checked. The largest answer takes half of them.
const BYTES: u32 = 4 << 20;

/// Connections: to three servers each of some 60 databases, five each.
const CONNECTIONS: usize = 1024;

/// The budget of one namespace.
#[derive(Debug)]
pub(in crate::store) struct Budget {
    bytes: Semaphore,
    connections: Arc<Semaphore>,
}

impl Default for Budget {
    fn default() -> Self {
        Self { bytes: Semaphore::new(BYTES as usize), connections: Arc::new(Semaphore::new(CONNECTIONS)) }
    }
}

impl Budget {
    /// A place for one more connection, if there is one.
    pub(super) fn connection(&self) -> Option<OwnedSemaphorePermit> {
        self.connections.clone().try_acquire_owned().ok()
    }

    /// Waits until that many bytes may be received.
    pub(super) async fn bytes(&self, count: u32) -> Result<SemaphorePermit<'_>, AcquireError> {
        self.bytes.acquire_many(count.min(BYTES)).await
    }
}

/// The budgets by namespace. Each lives as long as it is used.
#[derive(Debug, Default)]
pub(in crate::store) struct Budgets(Mutex<HashMap<Option<String>, Weak<Budget>>>);

impl Budgets {
    /// The budget of a namespace.
    pub(in crate::store) fn of(&self, namespace: Option<&str>) -> Arc<Budget> {
        // No code panics while it holds the lock.
        let mut budgets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let namespace = namespace.map(str::to_owned);
        if let Some(budget) = budgets.get(&namespace).and_then(Weak::upgrade) {
            return budget;
        }
        budgets.retain(|_, budget| budget.strong_count() > 0);
        let budget = Arc::new(Budget::default());
        budgets.insert(namespace, Arc::downgrade(&budget));
        budget
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
        assert!(timeout(Duration::from_secs(60), ours.bytes(1)).await.is_err());
        drop(theirs.bytes(u32::MAX).await.unwrap());
        drop((connections, bytes));
        assert!(ours.connection().is_some() && ours.bytes(1).await.is_ok());
    }

    #[test]
    fn budgets_that_nobody_uses_are_forgotten() {
        let budgets = Budgets::default();
        for number in 0..100 {
            drop(budgets.of(Some(&number.to_string())));
        }
        assert_eq!(budgets.0.lock().unwrap().len(), 1);
    }
}
