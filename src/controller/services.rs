//! The OrdersServices that the watches show.

use std::sync::Arc;

use kube::runtime::reflector::Store;

use super::{object_key::ObjectKey, raw_orders_service::RawOrdersService};

/// The OrdersServices of every namespace that is watched. Clones share the stores.
#[derive(Clone)]
pub struct OrdersServices(Arc<[Store<RawOrdersService>]>);

impl OrdersServices {
    /// The OrdersServices in these stores, one store for each watch.
    pub fn new(stores: Vec<Store<RawOrdersService>>) -> Self {
        Self(stores.into())
    }

    /// The OrdersService of that name.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<RawOrdersService>> {
        self.0.iter().find_map(|store| store.get(&key.to_ref()))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Arc<RawOrdersService>> {
        self.0.iter().flat_map(|store| store.state())
    }
}
