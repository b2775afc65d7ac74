//! Copies of what resources refer to and no watch shows: each is read once for all that name it, and
//! again when it is old.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Below this number of copies nothing is thrown away.
const FEW: usize = 64;

/// Copies by namespace and name.
pub struct Cache<V> {
    /// How old a copy may get.
    fresh: Duration,
    slots: Mutex<Slots<V>>,
}

struct Slots<V> {
    by_key: HashMap<(String, String), Arc<Slot<V>>>,
    /// When there are as many, those are thrown away that nobody asks for any more.
    prune_at: usize,
}

/// One copy. Whoever reads it anew holds the lock, so that others wait for the answer and do not ask too.
type Slot<V> = tokio::sync::Mutex<Option<Copy<V>>>;

struct Copy<V> {
    value: V,
    read: Instant,
    until: Instant,
}

/// What was found.
pub struct Found<V> {
    /// The value.
    pub value: V,
    /// Until when it counts.
    pub until: Instant,
    /// Whether it was just read, and differs from what was known before.
    pub changed: bool,
}

impl<V: Clone + PartialEq> Cache<V> {
    /// An empty cache whose copies count for `fresh`, less up to a quarter, so that not all are read at once.
    pub fn new(fresh: Duration) -> Self {
        Self { fresh, slots: Mutex::new(Slots { by_key: HashMap::new(), prune_at: FEW }) }
    }

    /// The copy, or what `read` gives when there is none that counts, or it was read before `since`.
    ///
    /// # Errors
    /// That of `read`; then the copy stays as it was.
    pub async fn get<E>(
        &self,
        namespace: &str,
        name: &str,
        since: Option<Instant>,
        read: impl Future<Output = Result<V, E>>,
    ) -> Result<Found<V>, E> {
        let slot = self.slot(namespace, name);
        let mut copy = slot.lock().await;
        let now = Instant::now();
        if let Some(copy) =
            copy.as_ref().filter(|copy| now < copy.until && since.is_none_or(|since| copy.read >= since))
        {
            return Ok(Found { value: copy.value.clone(), until: copy.until, changed: false });
        }
        let value = read.await?;
        let changed = copy.as_ref().is_some_and(|before| before.value != value);
        let until = now + self.fresh.mul_f64(0.75 + 0.25 * fastrand::f64());
        *copy = Some(Copy { value: value.clone(), read: now, until });
        Ok(Found { value, until, changed })
    }

    fn slot(&self, namespace: &str, name: &str) -> Arc<Slot<V>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.by_key.len() >= slots.prune_at {
            let now = Instant::now();
            slots.by_key.retain(|_, slot| match slot.try_lock() {
                Ok(copy) => copy.as_ref().is_some_and(|copy| now < copy.until + 2 * self.fresh),
                Err(_) => true,
            });
            slots.prune_at = FEW.max(2 * slots.by_key.len());
        }
        slots.by_key.entry((namespace.to_owned(), name.to_owned())).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    async fn get(cache: &Cache<u32>, name: &str, value: u32) -> (u32, bool) {
        let found = cache.get("shop", name, None, async { Ok::<_, Infallible>(value) }).await.unwrap();
        (found.value, found.changed)
    }

    #[tokio::test]
    async fn many_who_ask_at_once_are_one_request_and_a_failure_is_not_kept() {
        let cache = Cache::new(Duration::from_secs(300));
        let failed = cache.get("shop", "a", None, async { Err::<u32, _>("no answer") }).await;
        assert!(failed.is_err());
        let asked = std::sync::atomic::AtomicU32::new(0);
        let ask = || {
            cache.get("shop", "a", None, async {
                tokio::task::yield_now().await;
                Ok::<_, Infallible>(asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
            })
        };
        let all = futures::future::join_all((0..50).map(|_| ask())).await;
        assert!(all.into_iter().all(|found| found.unwrap().value == 0));
        assert_eq!(asked.into_inner(), 1);
    }

    #[tokio::test]
    async fn what_is_old_is_read_again_and_a_change_is_told_once() {
        let cache = Cache::new(Duration::from_secs(300));
        assert_eq!(get(&cache, "a", 1).await, (1, false));
        assert_eq!(get(&cache, "a", 2).await, (1, false));
        let now =
            cache.get("shop", "a", Some(Instant::now()), async { Ok::<_, Infallible>(2) }).await.unwrap();
        assert_eq!((now.value, now.changed), (2, true));
        assert_eq!(get(&cache, "a", 3).await, (2, false));
        let stale = Cache::new(Duration::ZERO);
        assert_eq!(get(&stale, "a", 1).await, (1, false));
        assert_eq!(get(&stale, "a", 1).await, (1, false));
        assert_eq!(get(&stale, "a", 2).await, (2, true));
    }

    #[tokio::test]
    async fn copies_that_nobody_asks_for_are_thrown_away() {
        let cache = Cache::new(Duration::ZERO);
        for number in 0..10 * FEW {
            get(&cache, &number.to_string(), 0).await;
        }
        assert!(cache.slots.lock().unwrap().by_key.len() <= FEW + 1);
    }
}
