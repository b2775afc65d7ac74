//! Which objects are being created at this moment.
//!
//! Server-side apply has no "only if it does not exist", and one field manager is never in conflict with itself. So of two
//! OrdersServices that want an object of one name, only one at a time may look whether it is there and create it.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use super::kind::ChildKind;
use crate::controller::object_key::ObjectKey;

/// The objects that are being created.
#[derive(Default)]
pub struct Creating(Mutex<HashSet<(ChildKind, ObjectKey)>>);

impl Creating {
    /// Begins to create this object; none if somebody else is at it.
    pub fn begin(&self, kind: ChildKind, key: ObjectKey) -> Option<Turn<'_>> {
        let object = (kind, key);
        let is_first = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(object.clone());
        is_first.then_some(Turn { creating: self, object })
    }
}

/// As long as this is there, nobody else creates the object.
pub struct Turn<'a> {
    creating: &'a Creating,
    object: (ChildKind, ObjectKey),
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.creating.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.object);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_creates_an_object() {
        let creating = Creating::default();
        let begin = |kind, name| creating.begin(kind, ObjectKey::new("shop", name));
        let turn = begin(ChildKind::Service, "orders").unwrap();
        assert!(begin(ChildKind::Service, "orders").is_none());
        assert!(
            begin(ChildKind::Service, "other").is_some() && begin(ChildKind::Ingress, "orders").is_some()
        );
        drop(turn);
        assert!(begin(ChildKind::Service, "orders").is_some());
    }
}
