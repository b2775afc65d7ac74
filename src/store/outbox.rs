//! The outbox: what is to be published of an order, stored in its own document by the write that changes it. There is no
//! second write that could be lost.
//!
//! Only where events are on, so that nothing grows where nobody publishes. The database itself says whether they are, by
//! the index over the orders that are pending: whoever serves with events makes it, and whoever else writes orders
//! (another pod, a sweeper, `orders check`) sees it when it lists the indexes.
//!
//! ```text
//! outbox: {
//!     since: when the oldest change was made, created: price, updated: true, refused: [{ payment, reason, since }],
//!     again: a mark, if it was published before and is to be published again
//! }
//! ```
//!
//! As little as possible, since it is written with every order: an order's last change is pending if there is a
//! `since` and it is not that of its creation; what it was follows from status and version. mongoose ignores the field, and the API does not show it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use jiff::Timestamp;
use mongodb::bson::{Bson, Document, doc};
use tokio::sync::Notify;

use super::document::date;
use crate::order::Transition;

/// The field of an order.
pub(super) const OUTBOX: &str = "outbox";
/// When the oldest of the changes was made; the database's clock had reached this time by then.
pub(super) const SINCE: &str = "outbox.since";
/// The price of the ticket, if the creation of the order is pending.
pub(super) const CREATED: &str = "outbox.created";
/// Set if the beginning of its payment is pending.
pub(super) const UPDATED: &str = "outbox.updated";

/// Set if it is to be published again, since it was lost: a mark of that time.
pub(super) const AGAIN: &str = "outbox.again";

/// The payments that were refused, each with the reason.
pub(super) const REFUSED: &str = "outbox.refused";
/// The first of them. The list may be empty, if whoever took out the last was interrupted: that is as if it were not there.
pub(super) const FIRST_REFUSED: &str = "outbox.refused.0";
/// When each of these was refused.
pub(super) const REFUSED_SINCE: &str = "outbox.refused.since";

/// Whether events are on, and whether there are new ones. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Outbox(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Whether this process publishes events, so that it makes the index.
    is_wanted: AtomicBool,
    /// Whether the index was there when the indexes were last listed.
    is_seen: AtomicBool,
    written: Notify,
}

impl Outbox {
    pub(super) fn want(&self) {
        self.0.is_wanted.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.0.is_wanted.load(Ordering::SeqCst)
    }

    pub(super) fn see(&self, is_there: bool) {
        if self.0.is_seen.swap(is_there, Ordering::SeqCst) != is_there && !self.is_wanted() {
            let state = if is_there { "on" } else { "off" };
            tracing::info!("events are {state} for this database, judging by its indexes");
        }
    }

    pub(super) fn is_on(&self) -> bool {
        self.is_wanted() || self.0.is_seen.load(Ordering::SeqCst)
    }

    /// Waits until this process has put something in an outbox.
    pub(super) async fn changed(&self) {
        self.0.written.notified().await;
    }

    /// Wakes whoever publishes.
    pub(super) fn written(&self) {
        if self.is_on() {
            self.0.written.notify_one();
        }
    }
}

/// `update`, with the outbox entry of `transition`, made at `now`. An older entry stays.
pub(super) fn with_entry(mut update: Document, transition: Transition, now: Timestamp) -> Document {
    update.insert("$min", doc! { SINCE: date(now) });
    if transition == Transition::BeginPayment
        && let Some(Bson::Document(set)) = update.get_mut("$set")
    {
        set.insert(UPDATED, true);
    }
    update
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::document::transition_update;

    #[test]
    fn a_transition_and_its_note_are_one_update() {
        let now = Timestamp::from_millisecond(1_795_368_564_464).unwrap();
        for (transition, set) in [
            (Transition::Cancel, doc! { "status": "cancelled" }),
            (Transition::Complete, doc! { "status": "complete" }),
            (Transition::BeginPayment, doc! { "status": "awaiting:payment", "outbox.updated": true }),
        ] {
            let wanted =
                doc! { "$set": set, "$inc": { "version": 1 }, "$min": { "outbox.since": date(now) } };
            assert_eq!(with_entry(transition_update(transition), transition, now), wanted);
        }
    }

    #[test]
    fn events_are_on_where_they_are_wanted_or_the_index_was_last_seen() {
        let outbox = Outbox::default();
        assert!(!outbox.is_on());
        outbox.see(true);
        assert!(outbox.is_on() && !outbox.is_wanted());
        outbox.see(false);
        assert!(!outbox.is_on());
        outbox.want();
        outbox.see(false);
        assert!(outbox.is_on());
    }
}
