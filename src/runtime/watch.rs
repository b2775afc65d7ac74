//! Watches on the API server: flags, namespaces, restarts after failures.

use std::{fmt::Debug, time::Duration};

use clap::Args;
use futures::Stream;
use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::{WatchStreamExt, utils::Backoff, watcher},
};
use serde::de::DeserializeOwned;

use super::backoff::exponential;

/// How long after the timeout of a watch its connection is given up if the API server has not ended it.
const READ_TIMEOUT_MARGIN: Duration = Duration::from_secs(10);

/// The page size of initial lists. A page is in memory as JSON and as objects, for ten watches at the same time, and the
/// allocator does not return all of that: with the usual 500 a controller of 1,000 resources has a heap of 55 MB
/// afterwards, with 50 it has 14 MB.
const PAGE_SIZE: u32 = 50;

/// The backoff of failed watches. It grows to a few seconds only: a process has few watches, and should catch up soon
/// after an outage.
#[derive(Debug, Default)]
pub(super) struct WatchBackoff {
    failures: u32,
}

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = exponential(Duration::from_millis(500), Duration::from_secs(5), self.failures);
        self.failures = self.failures.saturating_add(1);
        Some(pause.mul_f64(1.0 - 0.5 * fastrand::f64()))
    }
}

impl Backoff for WatchBackoff {
    fn reset(&mut self) {
        self.failures = 0;
    }
}

/// The flags of watches.
#[derive(Args, Clone, Debug)]
pub struct WatchArgs {
    /// Seconds after which a watch is restarted; a dead connection is noticed a few seconds later. Must be
    /// shorter than the idle timeout of any load balancer in front of the API server, often 240
    #[arg(long, env = "WATCH_TIMEOUT_SECONDS", value_name = "SECONDS", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub watch_timeout: u32,
}

impl WatchArgs {
    /// The configuration of a watch on all objects in its namespaces.
    pub fn config(&self) -> watcher::Config {
        watcher::Config::default().timeout(self.watch_timeout).page_size(PAGE_SIZE)
    }

    /// The read timeout of connections. Without one, a list or the start of a watch would wait forever on a dead
    /// connection.
    pub fn read_timeout(&self) -> Duration {
        Duration::from_secs(self.watch_timeout.into()) + READ_TIMEOUT_MARGIN
    }
}

/// The watch events of the objects of `api`. A failed watch is restarted with backoff.
pub fn events<K: Resource + Clone + DeserializeOwned + Debug + Send + 'static>(
    api: Api<K>,
    config: watcher::Config,
) -> impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send {
    watcher::watcher(api, config).backoff(WatchBackoff::default())
}

/// Removes metadata that the process does not use, and that would be most of the memory of cached objects.
pub fn strip_unused_metadata(object: &mut impl Resource) {
    object.meta_mut().managed_fields = None;
    object.annotations_mut().remove("kubectl.kubernetes.io/last-applied-configuration");
}

/// The namespaces to watch, without duplicates; a single `None`, for all namespaces, if none is given.
pub fn scopes(given: &[String]) -> Vec<Option<String>> {
    let mut given: Vec<_> = given.iter().filter(|name| !name.is_empty()).cloned().map(Some).collect();
    given.sort();
    given.dedup();
    if given.is_empty() { vec![None] } else { given }
}

/// The namespaces as text for a log line.
pub fn described(given: &[String]) -> String {
    let scopes: Vec<_> = scopes(given).into_iter().map(|scope| scope.unwrap_or("(all)".into())).collect();
    scopes.join(",")
}

/// The objects of one namespace, or of all namespaces.
pub fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    namespace.map_or_else(|| Api::all(client.clone()), |namespace| Api::namespaced(client.clone(), namespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backoff_grows_to_seconds_and_is_reset_by_success() {
        let mut backoff = WatchBackoff::default();
        let longest = backoff.by_ref().take(100_000).last().unwrap();
        assert!((Duration::from_millis(2500)..=Duration::from_secs(5)).contains(&longest), "{longest:?}");
        backoff.reset();
        assert!(backoff.next().unwrap() <= Duration::from_millis(500));
    }

    #[test]
    fn namespaces_are_deduplicated_and_none_means_all() {
        let given = |names: &[&str]| scopes(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(given(&[]), [None]);
        assert_eq!(given(&[""]), [None]);
        assert_eq!(given(&["b", "a", "b"]), [Some("a".to_owned()), Some("b".to_owned())]);
        assert_eq!(described(&[]), "(all)");
    }
}
