//! The index that guarantees that a ticket is sold only once, as queries use it.

use std::sync::{Arc, Mutex, PoisonError};

use mongodb::{
    bson::{Bson, Document, doc},
    options::Hint,
};

use super::document::statuses;
use crate::order::OrderStatus;

/// The name of the index that guarantees that a ticket is sold only once.
pub(super) const ONE_ACTIVE_ORDER: &str = "one_active_order_per_ticket";

/// The name that this index has in the database: another one if somebody else has made it. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct TicketIndex(Arc<Mutex<String>>);

impl Default for TicketIndex {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(ONE_ACTIVE_ORDER.to_owned())))
    }
}

impl TicketIndex {
    /// Makes a query fail while the index is missing or being built.
    pub(super) fn hint(&self) -> Hint {
        Hint::Name(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    pub(super) fn set(&self, name: &str) {
        name.clone_into(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Selects the active order that holds `ticket`. Its conditions are those of the index, so that every query planner can
/// use it.
pub(super) fn active_order<T: Into<Bson>>(ticket: T) -> Document {
    doc! { "ticket": ticket.into(), "status": { "$in": statuses(&OrderStatus::ACTIVE) } }
}
