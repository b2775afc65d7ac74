//! What the watches on the API server have in common: their scope, and how long each lasts.

use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Client, Resource, runtime::watcher};

/// Seconds after which the API server ends a watch, and a new one is begun: below the 240 s at
/// which load balancers drop idle connections without a word.
const WATCH_SECONDS: u32 = 200;

/// The objects of one namespace, or of all.
pub fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    namespace.map_or_else(|| Api::all(client.clone()), |namespace| Api::namespaced(client.clone(), namespace))
}

/// A watch on all objects in scope.
pub fn config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}
