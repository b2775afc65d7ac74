//! Copies of what resources refer to and no watch shows: each is read once for all that name it, and
//! again when it is old.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::watched::Key;

/// Copies by namespace and name.
pub struct Cache<V> {
    /// How old a copy may get.
    fresh: Duration,
    slots: Mutex<Slots<V>>,
}

struct Slots<V> {
    by_key: HashMap<Key, Arc<Slot<V>>>,
    /// When each copy is to be read again; and the same in order.
    times: HashMap<Key, Instant>,
    due: BTreeSet<(Instant, Key)>,
}

impl<V> Slots<V> {
    fn schedule(&mut self, key: Key, due: Instant) {
        self.unschedule(&key);
        self.times.insert(key.clone(), due);
        self.due.insert((due, key));
    }

    fn unschedule(&mut self, key: &Key) {
        if let Some(due) = self.times.remove(key) {
            self.due.remove(&(due, key.clone()));
        }
    }
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
    /// Whether it was just read, and differs from what was known before.
    pub changed: bool,
}

impl<V: Clone + PartialEq> Cache<V> {
    /// An empty cache whose copies count for `fresh`, less up to a quarter, so that not all are read at once.
    pub fn new(fresh: Duration) -> Self {
        let slots = Slots { by_key: HashMap::new(), times: HashMap::new(), due: BTreeSet::new() };
        Self { fresh, slots: Mutex::new(slots) }
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
            return Ok(Found { value: copy.value.clone(), changed: false });
        }
        let value = read.await?;
        let changed = copy.as_ref().is_some_and(|before| before.value != value);
        let until = now + self.fresh.mul_f64(0.75 + 0.25 * fastrand::f64());
        *copy = Some(Copy { value: value.clone(), read: now, until });
        let key = (namespace.to_owned(), name.to_owned());
        let mut slots = self.lock();
        // It may have been forgotten meanwhile.
        slots.by_key.insert(key.clone(), slot.clone());
        slots.schedule(key, until);
        drop(slots);
        Ok(Found { value, changed })
    }

    /// The copy that is to be read again first, and when.
    pub fn due(&self) -> Option<(Instant, Key)> {
        self.lock().due.first().cloned()
    }

    /// A copy that could not be read again is to be tried then; the others do not wait for it.
    pub fn postpone(&self, key: Key, due: Instant) {
        self.lock().schedule(key, due);
    }

    /// Throws a copy away that nobody asks for any more.
    pub fn forget(&self, key: &Key) {
        let mut slots = self.lock();
        slots.by_key.remove(key);
        slots.unschedule(key);
    }

    fn slot(&self, namespace: &str, name: &str) -> Arc<Slot<V>> {
        self.lock().by_key.entry((namespace.to_owned(), name.to_owned())).or_default().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Slots<V>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
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
    async fn what_is_forgotten_while_it_is_read_is_known_all_the_same() {
        let cache = Cache::new(Duration::from_secs(300));
        let key = ("shop".to_owned(), "a".to_owned());
        get(&cache, "a", 1).await;
        let read = async {
            cache.forget(&key);
            Ok::<_, Infallible>(2)
        };
        cache.get("shop", "a", Some(Instant::now()), read).await.unwrap();
        assert_eq!(get(&cache, "a", 3).await, (2, false));
        cache.forget(&key);
        assert!(cache.due().is_none(), "it was due once");
    }

    #[tokio::test]
    async fn each_copy_is_due_once_the_oldest_first_until_it_is_forgotten() {
        let cache = Cache::new(Duration::from_secs(300));
        assert!(cache.due().is_none());
        let begun = Instant::now();
        for name in ["a", "b", "a"] {
            cache.get("shop", name, Some(Instant::now()), async { Ok::<_, Infallible>(1) }).await.unwrap();
        }
        let mut names = Vec::new();
        while let Some((due, key)) = cache.due() {
            assert!(
                due >= begun + Duration::from_secs(225) && due <= Instant::now() + Duration::from_secs(300)
            );
            cache.forget(&key);
            names.push(key.1);
        }
        names.sort();
        assert_eq!(names, ["a", "b"]);
        let later = Instant::now() + Duration::from_secs(1000);
        get(&cache, "b", 1).await;
        cache.postpone(("shop".into(), "b".into()), later);
        assert_eq!(cache.due(), Some((later, ("shop".into(), "b".into()))));
        assert_eq!(get(&cache, "a", 2).await, (2, false), "nothing is known of it any more");
    }
}
