//! What has become of a page of pending orders: what to mark as published, and what is still pending.

use jiff::Timestamp;

use super::{
    broker::{Ack, BrokerError},
    relay_error::RelayError,
};
use crate::{
    order::{OrderId, TicketId},
    store::{Pending, Positions, Published, advance_positions},
};

/// What has become of a page, and is to be marked as published.
pub(super) struct Page {
    /// Whether there may be more to publish at once.
    pub(super) is_full: bool,
    /// How many orders it was about.
    pub(super) orders: usize,
    /// The orders to mark as published, and the refusals.
    pub(super) published: Vec<Published>,
    pub(super) refused: Vec<(OrderId, String)>,
    /// How many messages the broker has acknowledged, and up to where it has them.
    pub(super) acks: usize,
    pub(super) places: Positions,
    /// The ids of those messages that the broker has and that are not marked as published.
    pub(super) unmarked: Vec<String>,
    /// What the broker does not take.
    pub(super) rejected: Option<BrokerError>,
    pub(super) error: Option<RelayError>,
    /// Before which time, by the database's clock, nothing of it was published; none if nothing of it ever was.
    pub(super) begun: Option<Timestamp>,
}

impl Page {
    /// One that nothing has become of yet.
    pub(super) fn of(pending: &Pending) -> Self {
        Self {
            is_full: pending.is_full,
            orders: pending.orders.len(),
            published: Vec::new(),
            refused: Vec::new(),
            acks: 0,
            places: Positions::new(),
            unmarked: Vec::new(),
            rejected: None,
            error: None,
            begun: None,
        }
    }

    pub(super) fn add(&mut self, progress: Progress) {
        self.published.extend(progress.published);
        self.refused.extend(progress.refused);
        self.acks += progress.acks.len();
        advance_positions(&mut self.places, progress.acks.into_iter().filter_map(|ack| ack.place));
        self.unmarked.extend(progress.unmarked);
        self.is_full |= progress.is_cut;
    }

    /// Whether something was published, or is to be marked as such.
    pub(super) fn has_progress(&self) -> bool {
        !(self.published.is_empty() && self.refused.is_empty() && self.acks == 0)
    }

    /// Whether nothing of it is left once it is marked, so that the next page need not wait for that.
    pub(super) fn is_settled(&self) -> bool {
        self.error.is_none() && self.rejected.is_none() && self.unmarked.is_empty()
    }
}

/// How far the steps of one ticket have come.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) ticket: Option<TicketId>,
    pub(super) published: Vec<Published>,
    pub(super) refused: Vec<(OrderId, String)>,
    pub(super) acks: Vec<Ack>,
    /// The ids of those messages that the broker has and that are not marked as published.
    pub(super) unmarked: Vec<String>,
    /// Whether there are steps left for the next page.
    pub(super) is_cut: bool,
    pub(super) error: Option<RelayError>,
}
