//! The outbox entry of an order: what is to be published of it, stored by the write that changes it.

use std::time::Instant;

use jiff::Timestamp;
use mongodb::bson::{Document, doc};

use super::{
    database::Store,
    document::{date, number, transition_update},
    error::StoreError,
    outbox::with_entry,
};
use crate::order::Transition;

impl Store {
    /// Puts every change in the outbox, for this process to publish.
    #[must_use]
    pub fn with_events(self) -> Self {
        self.outbox.want();
        self
    }

    /// Whether changes of orders are put in the outbox, for some process to publish.
    #[must_use]
    pub fn has_events(&self) -> bool {
        self.outbox.is_on()
    }

    /// Waits until this process has changed an order, if events are on.
    pub async fn changed(&self) {
        self.outbox.changed().await;
    }

    /// The update for `transition`, with its outbox entry.
    pub(super) async fn transition_with_entry(&self, transition: Transition) -> Result<Document, StoreError> {
        let update = transition_update(transition);
        if self.outbox.is_on() {
            Ok(with_entry(update, transition, self.reached().await?))
        } else {
            Ok(update)
        }
    }

    /// The outbox entry for the creation of an order whose ticket has this price; none if events are off.
    pub(super) async fn entry_of_new(&self, price: f64) -> Result<Option<Document>, StoreError> {
        if !self.outbox.is_on() {
            return Ok(None);
        }
        Ok(Some(doc! { "since": date(self.reached().await?), "created": number(price) }))
    }

    /// A time that the database's clock has reached, without asking for it.
    pub(super) async fn reached(&self) -> Result<Timestamp, StoreError> {
        Ok(self.clock().await?.reached(Instant::now()))
    }
}
