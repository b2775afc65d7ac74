//! What the watches on the API server have in common: their scope, and how long each lasts.

use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Client, Resource, runtime::watcher};

/// Seconds after which the API server ends a watch, and a new one is begun: below the 240 s at
/// which load balancers drop idle connections without a word.
const WATCH_SECONDS: u32 = 200;

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

/// A watch on all objects in scope.
pub fn config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_namespace_is_watched_once_and_none_means_all() {
        let given = |names: &[&str]| scopes(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(given(&[]), [None]);
        assert_eq!(given(&[""]), [None]);
        assert_eq!(given(&["b", "a", "b"]), [Some("a".to_owned()), Some("b".to_owned())]);
        assert_eq!(described(&[]), "(all)");
    }
}
