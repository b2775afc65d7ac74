//! The namespace and the name of an object, by which caches and queues know it.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Resource,
    runtime::reflector::{Lookup, ObjectRef},
};

/// Namespace and name of an object. Thousands are kept, so both are in one string, `namespace/name`: neither can
/// contain a slash.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey(Box<str>);

impl ObjectKey {
    /// The key of the object of this name.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self(format!("{namespace}/{name}").into())
    }

    /// The key of an object; a cluster-scoped one has an empty namespace.
    pub fn of(object: &ObjectMeta) -> Self {
        Self::new(object.namespace.as_deref().unwrap_or_default(), object.name.as_deref().unwrap_or_default())
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        self.0.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or(&self.0, |(_, name)| name)
    }

    /// A reference for kube's queue and stores. It has neither UID nor resourceVersion: the queue would keep copies
    /// of both, and compares neither.
    pub fn to_ref<K: Resource<DynamicType = ()>>(&self) -> ObjectRef<K> {
        ObjectRef::new(self.name()).within(self.namespace())
    }
}

impl<K: Lookup> From<&ObjectRef<K>> for ObjectKey {
    fn from(object: &ObjectRef<K>) -> Self {
        Self::new(object.namespace.as_deref().unwrap_or_default(), &object.name)
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespace_and_name_are_read_back_as_they_were_given() {
        let key = ObjectKey::new("shop", "orders");
        assert_eq!(
            (key.namespace(), key.name(), key.to_string().as_str()),
            ("shop", "orders", "shop/orders")
        );
        let cluster_scoped =
            ObjectKey::of(&ObjectMeta { name: Some("nginx".into()), ..ObjectMeta::default() });
        assert_eq!((cluster_scoped.namespace(), cluster_scoped.name()), ("", "nginx"));
    }
}
