//! What stays in the old Ingresses, and so is not to be deleted with them.

use std::collections::{BTreeMap, BTreeSet};

use super::host::{Host, shown};

/// What of each Ingress stays in it, by the Ingress's name.
#[derive(Default)]
pub(super) struct Kept {
    of: BTreeMap<String, BTreeSet<String>>,
    /// The Ingresses that keep paths of a host that is the OrdersService's too.
    beside: BTreeSet<String>,
    to_orders: BTreeSet<String>,
}

impl Kept {
    /// A path of a host; `is_own` if it leads to the old Service of the orders.
    pub(super) fn path(&mut self, ingress: &str, host: &Host, path: &str, is_own: bool) {
        let text = format!("{} {path}", shown(host));
        if is_own {
            self.to_orders.insert(format!("{text} of Ingress {ingress}"));
        }
        self.beside.insert(ingress.to_owned());
        self.add(ingress, text);
    }

    /// All that there is of a host; `is_own` if some of it leads to the old Service of the orders.
    pub(super) fn host(&mut self, ingress: &str, host: &Host, is_own: bool) {
        if is_own {
            self.to_orders.insert(format!("{} of Ingress {ingress}", shown(host)));
        }
        self.add(ingress, shown(host));
    }

    /// Its default backend; `is_own` if that is the old Service of the orders.
    pub(super) fn default_backend(&mut self, ingress: &str, is_own: bool) {
        if is_own {
            self.to_orders.insert(format!("the default backend of Ingress {ingress}"));
        }
        self.add(ingress, "its default backend".into());
    }

    fn add(&mut self, ingress: &str, what: String) {
        self.of.entry(ingress.to_owned()).or_default().insert(what);
    }

    /// What stays in this Ingress; none if nothing does.
    pub(super) fn in_ingress(&self, ingress: &str) -> Option<String> {
        self.of.get(ingress).map(|what| what.iter().cloned().collect::<Vec<_>>().join(", "))
    }

    /// Whether this Ingress keeps paths of a host that is the OrdersService's too.
    pub(super) fn is_beside(&self, ingress: &str) -> bool {
        self.beside.contains(ingress)
    }

    /// What goes on leading to the old Service of the orders.
    pub(super) fn into_orders(self) -> BTreeSet<String> {
        self.to_orders
    }
}
