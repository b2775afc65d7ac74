//! A cache of Secrets: each is read once for everyone who refers to it, and again when its copy is old.
//!
//! No watch keeps the copies fresh, because watching Secrets needs the right to list all of them.

use std::{
    collections::HashMap,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::time::{DelayQueue, delay_queue};

/// The namespace and the name of a Secret.
pub type NamespacedName = (String, String);

/// Copies of a value `V` that is made from each Secret.
pub struct SecretCache<V> {
    /// How long a copy counts as fresh.
    fresh: Duration,
    inner: Mutex<Inner<V>>,
}

struct Inner<V> {
    entries: HashMap<NamespacedName, Entry<V>>,
    /// When each copy is to be read again.
    refreshes: DelayQueue<NamespacedName>,
}

struct Entry<V> {
    slot: Arc<Slot<V>>,
    /// Its place in `refreshes`; none while it is not in there.
    refresh: Option<delay_queue::Key>,
}

/// One copy. Whoever reads the Secret holds the lock, so that others wait for the answer instead of asking too.
type Slot<V> = tokio::sync::Mutex<Option<Snapshot<V>>>;

struct Snapshot<V> {
    value: V,
    read: Instant,
    fresh_until: Instant,
}

/// The answer of [`SecretCache::get`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cached<V> {
    /// The value.
    pub value: V,
    /// Whether this call has read the Secret and the value differs from the copy before.
    pub changed: bool,
    /// When the Secret was read.
    pub read: Instant,
}

impl<V: Clone + PartialEq> SecretCache<V> {
    /// An empty cache. A copy is fresh for `fresh`, less a random share of up to a quarter, so that copies which were
    /// read at the same time are not all read again at the same time.
    #[must_use]
    pub fn new(fresh: Duration) -> Self {
        let inner = Inner { entries: HashMap::new(), refreshes: DelayQueue::new() };
        Self { fresh, inner: Mutex::new(inner) }
    }

    /// The copy, if it is fresh and was not read before `since`; else the result of `read`.
    ///
    /// # Errors
    /// The error of `read`; the copy then stays as it was.
    pub async fn get<E>(
        &self,
        namespace: &str,
        name: &str,
        since: Option<Instant>,
        read: impl Future<Output = Result<V, E>>,
    ) -> Result<Cached<V>, E> {
        let key = (namespace.to_owned(), name.to_owned());
        let slot = self.lock().slot(&key);
        let mut copy = slot.lock().await;
        // Taken only now: waiting for another caller's answer must not make that answer look older.
        let now = Instant::now();
        if let Some(copy) = copy.as_ref().filter(|copy| copy.serves(now, since)) {
            return Ok(Cached { value: copy.value.clone(), changed: false, read: copy.read });
        }
        let value = match read.await {
            Ok(value) => value,
            Err(error) => {
                if copy.is_none() {
                    self.lock().drop_unused(&key, &slot);
                }
                return Err(error);
            }
        };
        let changed = copy.as_ref().is_some_and(|before| before.value != value);
        let fresh_until = now + self.fresh.mul_f64(0.75 + 0.25 * fastrand::f64());
        *copy = Some(Snapshot { value: value.clone(), read: now, fresh_until });
        self.lock().store(key, &slot, fresh_until);
        Ok(Cached { value, changed, read: now })
    }

    /// Waits until a copy is no longer fresh, and names its Secret, once: it is then to be read again by
    /// [`Self::get`], postponed or forgotten. For one task only: of several, only the last to poll is notified.
    pub async fn next_due(&self) -> NamespacedName {
        poll_fn(|context| {
            let mut inner = self.lock();
            match inner.refreshes.poll_expired(context) {
                Poll::Ready(Some(expired)) => {
                    let key = expired.into_inner();
                    if let Some(entry) = inner.entries.get_mut(&key) {
                        entry.refresh = None;
                    }
                    Poll::Ready(key)
                }
                // The queue wakes this task also when something is added to it while it is empty.
                Poll::Ready(None) | Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Makes [`Self::next_due`] name a Secret at `due`, or before where it would do so anyway, since its copy has been used
    /// although the Secret may have changed. Does nothing if the cache has no copy of it.
    pub fn expedite(&self, namespace: &str, name: &str, due: Instant) {
        self.lock().expedite(&(namespace.to_owned(), name.to_owned()), due);
    }

    /// Makes [`Self::next_due`] name a Secret again at `due`, since it could not be read. Does nothing if the cache
    /// has no copy of it.
    pub fn postpone(&self, key: &NamespacedName, due: Instant) {
        self.lock().schedule(key, due);
    }

    /// Drops the copy of a Secret that nobody refers to any more.
    pub fn forget(&self, key: &NamespacedName) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, Inner<V>> {
        // No code panics while holding the lock, and if it did, the data would still be consistent.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V> Snapshot<V> {
    fn serves(&self, now: Instant, since: Option<Instant>) -> bool {
        now < self.fresh_until && since.is_none_or(|since| self.read >= since)
    }
}

impl<V> Inner<V> {
    fn slot(&mut self, key: &NamespacedName) -> Arc<Slot<V>> {
        let new = || Entry { slot: Arc::default(), refresh: None };
        self.entries.entry(key.clone()).or_insert_with(new).slot.clone()
    }

    /// Stores a copy that was just read, even if its entry was removed meanwhile.
    fn store(&mut self, key: NamespacedName, slot: &Arc<Slot<V>>, due: Instant) {
        let new = || Entry { slot: slot.clone(), refresh: None };
        self.entries.entry(key.clone()).or_insert_with(new).slot = slot.clone();
        self.schedule(&key, due);
    }

    fn schedule(&mut self, key: &NamespacedName, due: Instant) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        match &entry.refresh {
            Some(refresh) => self.refreshes.reset_at(refresh, due),
            None => entry.refresh = Some(self.refreshes.insert_at(key.clone(), due)),
        }
    }

    fn expedite(&mut self, key: &NamespacedName, due: Instant) {
        let Some(refresh) = self.entries.get(key).and_then(|entry| entry.refresh.as_ref()) else {
            // It is being read at this moment, or will be as soon as that works.
            return;
        };
        if self.refreshes.deadline(refresh) > due {
            self.refreshes.reset_at(refresh, due);
        }
    }

    fn remove(&mut self, key: &NamespacedName) {
        if let Some(refresh) = self.entries.remove(key).and_then(|entry| entry.refresh) {
            self.refreshes.remove(&refresh);
        }
    }

    /// Removes an entry without a copy, unless others wait for it: nothing would ever make it due.
    fn drop_unused(&mut self, key: &NamespacedName, slot: &Arc<Slot<V>>) {
        let is_ours = self.entries.get(key).is_some_and(|entry| Arc::ptr_eq(&entry.slot, slot));
        // Ours and the entry's.
        if is_ours && Arc::strong_count(slot) == 2 {
            self.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::atomic::{AtomicU32, Ordering},
    };

    use futures::FutureExt;
    use tokio::time::advance;

    use super::*;

    const FRESH: Duration = Duration::from_secs(300);

    async fn get_since(
        cache: &SecretCache<u32>,
        name: &str,
        since: Option<Instant>,
        value: u32,
    ) -> (u32, bool) {
        let cached = cache.get("shop", name, since, async { Ok::<_, Infallible>(value) }).await.unwrap();
        (cached.value, cached.changed)
    }

    async fn get(cache: &SecretCache<u32>, name: &str, value: u32) -> (u32, bool) {
        get_since(cache, name, None, value).await
    }

    fn key(name: &str) -> NamespacedName {
        ("shop".to_owned(), name.to_owned())
    }

    #[tokio::test]
    async fn many_who_ask_at_once_make_one_request_and_a_failure_is_not_cached() {
        let cache = SecretCache::new(FRESH);
        let failed = cache.get("shop", "a", None, async { Err::<u32, _>("no answer") }).await;
        assert!(failed.is_err());
        assert!(cache.lock().entries.is_empty(), "nothing would ever remove it");
        let requests = AtomicU32::new(0);
        let ask = || {
            cache.get("shop", "a", None, async {
                tokio::task::yield_now().await;
                Ok::<_, Infallible>(requests.fetch_add(1, Ordering::Relaxed))
            })
        };
        let all = futures::future::join_all((0..50).map(|_| ask())).await;
        assert!(all.into_iter().all(|cached| cached.unwrap().value == 0));
        assert_eq!(requests.into_inner(), 1);
    }

    #[tokio::test]
    async fn when_the_first_of_many_fails_the_next_asks_and_its_answer_serves_the_others() {
        let cache = SecretCache::new(FRESH);
        let requests = AtomicU32::new(0);
        let ask = || {
            cache.get("shop", "a", None, async {
                tokio::task::yield_now().await;
                let number = requests.fetch_add(1, Ordering::Relaxed);
                if number == 0 { Err("no answer") } else { Ok(number) }
            })
        };
        let all = futures::future::join_all((0..10).map(|_| ask())).await;
        assert_eq!(all.iter().filter(|result| result.is_err()).count(), 1);
        assert_eq!(requests.into_inner(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_copy_is_read_again_and_a_change_is_reported_once() {
        let cache = SecretCache::new(FRESH);
        assert_eq!(get(&cache, "a", 1).await, (1, false));
        assert_eq!(get(&cache, "a", 2).await, (1, false));
        advance(Duration::from_secs(1)).await;
        assert_eq!(get_since(&cache, "a", Some(Instant::now()), 2).await, (2, true));
        assert_eq!(get_since(&cache, "a", Some(Instant::now()), 3).await, (2, false), "read at that moment");
        advance(Duration::from_secs(224)).await;
        assert_eq!(get(&cache, "a", 3).await, (2, false));
        advance(Duration::from_secs(76)).await;
        assert_eq!(get(&cache, "a", 2).await, (2, false));
        advance(FRESH).await;
        assert_eq!(get(&cache, "a", 3).await, (3, true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_read_keeps_the_copy() {
        let cache = SecretCache::new(FRESH);
        get(&cache, "a", 1).await;
        advance(Duration::from_secs(1)).await;
        let failed = cache.get("shop", "a", Some(Instant::now()), async { Err::<u32, _>("no answer") }).await;
        assert!(failed.is_err());
        assert_eq!(get(&cache, "a", 2).await, (1, false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_copy_that_is_forgotten_while_it_is_read_is_cached_all_the_same() {
        let cache = SecretCache::new(FRESH);
        get(&cache, "a", 1).await;
        advance(Duration::from_secs(1)).await;
        let read = async {
            cache.forget(&key("a"));
            Ok::<_, Infallible>(2)
        };
        cache.get("shop", "a", Some(Instant::now()), read).await.unwrap();
        assert_eq!(get(&cache, "a", 3).await, (2, false));
        cache.forget(&key("a"));
        advance(FRESH).await;
        assert_eq!(cache.next_due().now_or_never(), None, "it was due once");
    }

    #[tokio::test(start_paused = true)]
    async fn each_copy_is_due_once_when_it_is_no_longer_fresh() {
        let cache = SecretCache::new(FRESH);
        assert_eq!(cache.next_due().now_or_never(), None);
        for name in ["a", "b", "a"] {
            get_since(&cache, name, Some(Instant::now()), 1).await;
            advance(Duration::from_millis(1)).await;
        }
        let begun = Instant::now();
        let mut names = Vec::new();
        for _ in 0..2 {
            let (_, name) = cache.next_due().await;
            assert!((224..=300).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
            names.push(name);
        }
        names.sort();
        assert_eq!(names, ["a", "b"]);
        advance(FRESH).await;
        assert_eq!(cache.next_due().now_or_never(), None);
        // Reading one makes it due again, and forgetting it does not.
        get(&cache, "a", 1).await;
        cache.forget(&key("b"));
        assert_eq!(cache.next_due().await, key("a"));
        assert_eq!(get(&cache, "b", 2).await, (2, false), "there is no copy to compare with");
    }

    #[tokio::test(start_paused = true)]
    async fn a_postponed_copy_is_due_again_then_and_one_that_is_forgotten_is_not() {
        let cache = SecretCache::new(FRESH);
        get(&cache, "a", 1).await;
        let key = cache.next_due().await;
        let retry = Instant::now() + Duration::from_secs(15);
        cache.postpone(&key, retry);
        assert_eq!(cache.next_due().now_or_never(), None);
        assert_eq!(cache.next_due().await, key);
        assert!(Instant::now() >= retry && retry.elapsed() < Duration::from_millis(10));
        cache.forget(&key);
        cache.postpone(&key, Instant::now());
        advance(FRESH).await;
        assert_eq!(cache.next_due().now_or_never(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_copy_that_is_expedited_is_due_then_unless_it_is_due_before_and_once() {
        let cache = SecretCache::new(FRESH);
        let begun = Instant::now();
        cache.expedite("shop", "a", begun);
        assert_eq!(cache.next_due().now_or_never(), None, "there is no copy of it");
        get(&cache, "a", 1).await;
        cache.expedite("shop", "a", begun + Duration::from_secs(15));
        cache.expedite("shop", "a", begun + Duration::from_secs(20));
        assert_eq!(cache.next_due().await, key("a"));
        assert_eq!(begun.elapsed().as_secs(), 15);
        // Whoever waits for it reads it now.
        cache.expedite("shop", "a", begun + Duration::from_secs(16));
        assert_eq!(get_since(&cache, "a", Some(Instant::now()), 2).await, (2, true));
        assert_eq!(cache.next_due().await, key("a"));
        assert!(begun.elapsed() > FRESH / 2, "it is as fresh as any other");
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_notices_a_copy_that_becomes_due_earlier() {
        let cache = Arc::new(SecretCache::new(FRESH));
        let waiting = {
            let cache = cache.clone();
            tokio::spawn(async move { cache.next_due().await })
        };
        // It waits for an empty cache first, and then for copies that are due in minutes.
        tokio::task::yield_now().await;
        get(&cache, "a", 1).await;
        get(&cache, "b", 1).await;
        tokio::task::yield_now().await;
        let begun = Instant::now();
        cache.postpone(&key("b"), begun + Duration::from_secs(1));
        assert_eq!(waiting.await.unwrap(), key("b"));
        assert!(begun.elapsed() < Duration::from_secs(2));
    }
}
