//! What the watches on the API server have in common: their scope, and how long each lasts.

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

/// How long the API server may be silent beyond a watch's end, before its connection counts as dead.
const MARGIN: Duration = Duration::from_secs(10);

/// How many objects a watch asks for at once when it begins. All that it reads is in memory then, as text and
/// as objects, ten times over for ten watches, and not all of that memory is given back: with the usual 500 a
/// controller of 1,000 resources has 55 MB on its heap afterwards, and with 50 it has 14.
const PAGE: u32 = 50;

/// The pauses before a watch that failed is begun anew. They grow to seconds only: an operator has a few watches,
/// and whoever waits for it after an outage should not wait for its pauses too.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    failures: u32,
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = exponential(Duration::from_millis(500), Duration::from_secs(5), self.failures);
        self.failures = self.failures.saturating_add(1);
        Some(pause.mul_f64(1.0 - 0.5 * fastrand::f64()))
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.failures = 0;
    }
}

/// How the API server is watched.
#[derive(Args, Clone, Debug)]
pub struct WatchArgs {
    /// Seconds after which a watch is begun anew; one that has gone silent is noticed some seconds later.
    /// Must be less than a load balancer before the API server lets a silent connection live, often 240
    #[arg(long, env = "WATCH_TIMEOUT_SECONDS", value_name = "SECONDS", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub watch_timeout: u32,
}

impl WatchArgs {
    /// A watch on all objects in scope.
    pub fn config(&self) -> watcher::Config {
        watcher::Config::default().timeout(self.watch_timeout).page_size(PAGE)
    }

    /// The longest that a connection may be silent while an answer is awaited. Without it, a list or the start
    /// of a watch would wait for ever on one that is dead.
    pub fn read_timeout(&self) -> Duration {
        Duration::from_secs(self.watch_timeout.into()) + MARGIN
    }
}

/// What happens to the objects of `api`. A watch that fails is begun anew, after a pause.
pub fn events<K: Resource + Clone + DeserializeOwned + Debug + Send + 'static>(
    api: Api<K>,
    config: watcher::Config,
) -> impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send {
    watcher::watcher(api, config).backoff(Pauses::default())
}

/// Takes from an object what nobody looks at who has the whole of it, and what would be most of the memory of many.
pub fn spare(object: &mut impl Resource) {
    object.meta_mut().managed_fields = None;
    object.annotations_mut().remove("kubectl.kubernetes.io/last-applied-configuration");
}

/// The namespaces to watch, each once; one that stands for all when none is given.
pub fn scopes(given: &[String]) -> Vec<Option<String>> {
    let mut given: Vec<_> = given.iter().filter(|name| !name.is_empty()).cloned().map(Some).collect();
    given.sort();
    given.dedup();
    if given.is_empty() { vec![None] } else { given }
}

/// The same for a log line.
pub fn described(given: &[String]) -> String {
    let scopes: Vec<_> = scopes(given).into_iter().map(|scope| scope.unwrap_or("(all)".into())).collect();
    scopes.join(",")
}

/// The objects of one namespace, or of all.
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
    fn pauses_grow_to_seconds_and_begin_anew_after_success() {
        let mut pauses = Pauses::default();
        let far = pauses.by_ref().take(100_000).last().unwrap();
        assert!((Duration::from_millis(2500)..=Duration::from_secs(5)).contains(&far), "{far:?}");
        pauses.reset();
        assert!(pauses.next().unwrap() <= Duration::from_millis(500));
    }

    #[test]
    fn each_namespace_is_watched_once_and_none_means_all() {
        let given = |names: &[&str]| scopes(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(given(&[]), [None]);
        assert_eq!(given(&[""]), [None]);
        assert_eq!(given(&["b", "a", "b"]), [Some("a".to_owned()), Some("b".to_owned())]);
        assert_eq!(described(&[]), "(all)");
    }
}
