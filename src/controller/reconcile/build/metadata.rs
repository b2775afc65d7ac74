//! What the metadata of all children have in common.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::controller::{
    children::owner::{INSTANCE_LABEL, MANAGED_BY, MANAGED_BY_LABEL},
    reconcile::validate::validated::ValidatedOrdersService,
};

/// The labels that select the pods. A Deployment's selector is immutable, so these must never change.
pub fn selector_labels(name: &str) -> BTreeMap<String, String> {
    labels_of([("app.kubernetes.io/name", "orders-service"), (INSTANCE_LABEL, name)])
}

/// The recommended labels of every child.
pub fn labels(service: &ValidatedOrdersService) -> BTreeMap<String, String> {
    let mut labels = selector_labels(&service.name);
    labels.extend(labels_of([
        ("app.kubernetes.io/component", "orders-api"),
        ("app.kubernetes.io/part-of", "ticketing"),
        (MANAGED_BY_LABEL, MANAGED_BY),
    ]));
    labels
}

fn labels_of<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// The map, or none if it is empty: the API server drops empty maps, and the object would never equal what was applied.
pub fn filled<V>(map: BTreeMap<String, V>) -> Option<BTreeMap<String, V>> {
    Some(map).filter(|map| !map.is_empty())
}

/// Name, labels and owner of every child.
pub fn metadata(service: &ValidatedOrdersService) -> ObjectMeta {
    ObjectMeta {
        name: Some(service.name.clone()),
        namespace: Some(service.namespace.clone()),
        labels: Some(labels(service)),
        owner_references: service.owner.clone().map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}
