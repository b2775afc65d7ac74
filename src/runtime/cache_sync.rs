//! Cache sync: waiting for the initial lists of all watches, before anything acts on what they have seen.
//!
//! Whoever builds a watch registers its initial list, so the number of lists cannot differ from the number of
//! watches. Only [`CacheSyncBuilder::seal`] gives out the [`CacheSync`] that one can wait on, so nothing can wait
//! while lists are still being registered.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use tokio::sync::watch;

/// The names of the lists that have not arrived, by the order of their registration.
type Pending = watch::Sender<BTreeMap<usize, Cow<'static, str>>>;

/// Collects the initial lists to wait for.
#[derive(Debug, Default)]
pub struct CacheSyncBuilder {
    registered: usize,
    pending: Arc<Pending>,
}

impl CacheSyncBuilder {
    /// Adds a list to wait for. `name` is what [`CacheSync::pending`] calls it, such as the kind.
    pub fn register(&mut self, name: impl Into<Cow<'static, str>>) -> InitialList {
        let id = self.registered;
        self.registered += 1;
        let name = name.into();
        self.pending.send_modify(|pending| drop(pending.insert(id, name)));
        InitialList { id, pending: self.pending.clone() }
    }

    /// Ends the registration.
    #[must_use]
    pub fn seal(self) -> CacheSync {
        CacheSync(self.pending)
    }
}

/// Whether all registered lists are settled. Clones share one state.
#[derive(Clone, Debug)]
pub struct CacheSync(Arc<Pending>);

impl CacheSync {
    /// Waits until every list is settled.
    pub async fn synced(&self) {
        // It fails only when the sender is dropped, and `self` holds that.
        drop(self.0.subscribe().wait_for(BTreeMap::is_empty).await);
    }

    /// Whether every list is settled.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// The names of the lists that are not settled, in the order of their registration.
    #[must_use]
    pub fn pending(&self) -> Vec<Cow<'static, str>> {
        self.0.borrow().values().cloned().collect()
    }
}

/// The initial list of one watch. Clones are the same list.
///
/// One that is dropped without being settled stays pending: a watch that ended before its list arrived must not
/// look like one that has arrived.
#[derive(Clone, Debug)]
#[must_use = "a list that nobody settles is waited for forever"]
pub struct InitialList {
    id: usize,
    pending: Arc<Pending>,
}

impl InitialList {
    /// The list has arrived, or was refused and is no longer waited for. Settling it again changes nothing.
    pub fn settle(&self) {
        self.pending.send_if_modified(|pending| pending.remove(&self.id).is_some());
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn it_is_synced_once_every_registered_list_is_settled() {
        let mut builder = CacheSyncBuilder::default();
        let (pods, services) = (builder.register("Pod"), builder.register("Service"));
        let sync = builder.seal();
        assert!(sync.synced().now_or_never().is_none());
        pods.settle();
        assert!(sync.synced().now_or_never().is_none() && !sync.is_synced());
        services.settle();
        assert!(sync.synced().now_or_never().is_some() && sync.is_synced());
    }

    #[test]
    fn settling_a_list_twice_or_through_a_clone_counts_once() {
        let mut builder = CacheSyncBuilder::default();
        let (one, other) = (builder.register("Pod"), builder.register("Pod"));
        let sync = builder.seal();
        one.settle();
        one.clone().settle();
        assert_eq!(sync.pending(), ["Pod"], "lists of the same name are two");
        other.settle();
        assert!(sync.is_synced());
    }

    #[test]
    fn the_missing_lists_are_named_in_order_even_if_their_watch_is_gone() {
        let mut builder = CacheSyncBuilder::default();
        let first = builder.register("Ingress");
        drop(builder.register(format!("Ingress in {}", "shop")));
        let last = builder.register("Deployment");
        let sync = builder.seal();
        assert_eq!(sync.pending(), ["Ingress", "Ingress in shop", "Deployment"]);
        first.settle();
        last.settle();
        assert_eq!(sync.clone().pending(), ["Ingress in shop"]);
    }

    #[test]
    fn without_any_list_it_is_synced() {
        assert!(CacheSyncBuilder::default().seal().synced().now_or_never().is_some());
    }

    #[tokio::test]
    async fn whoever_waits_is_notified_by_the_last_list() {
        let mut builder = CacheSyncBuilder::default();
        let lists: Vec<_> = (0..3).map(|number| builder.register(number.to_string())).collect();
        let sync = builder.seal();
        let waiting = {
            let sync = sync.clone();
            tokio::spawn(async move { sync.synced().await })
        };
        tokio::task::yield_now().await;
        lists.iter().for_each(InitialList::settle);
        waiting.await.unwrap();
    }
}
