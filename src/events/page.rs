//! What has become of a page of what is to be told: what is to be noted of it, and what is not told yet.

use jiff::Timestamp;

use super::{
    broker::{Ack, BrokerError},
    relay_error::RelayError,
};
use crate::{
    order::{OrderId, TicketId},
    store::{Positions, Told, Untold},
};

/// What has become of a page, and is to be noted.
pub(super) struct Page {
    /// Whether there may be more to tell at once.
    pub(super) is_full: bool,
    /// How many orders it was about.
    pub(super) orders: usize,
    pub(super) told: Vec<Told>,
    pub(super) refused: Vec<(OrderId, String)>,
    /// How many messages the broker has acknowledged, and up to where it has them.
    pub(super) acks: usize,
    pub(super) places: Positions,
    /// The ids of those messages that the broker has and that are not noted as told.
    pub(super) unnoted: Vec<String>,
    /// What the broker does not take.
    pub(super) rejected: Option<BrokerError>,
    pub(super) error: Option<RelayError>,
    /// Before which time, by the database's clock, nothing of it was published; none if nothing of it ever was.
    pub(super) begun: Option<Timestamp>,
}

impl Page {
    /// One that nothing has become of yet.
    pub(super) fn of(untold: &Untold) -> Self {
        Self {
            is_full: untold.is_full,
            orders: untold.orders.len(),
            told: Vec::new(),
            refused: Vec::new(),
            acks: 0,
            places: Positions::new(),
            unnoted: Vec::new(),
            rejected: None,
            error: None,
            begun: None,
        }
    }

    pub(super) fn add(&mut self, progress: Progress) {
        self.told.extend(progress.told);
        self.refused.extend(progress.refused);
        self.acks += progress.acks.len();
        for (stream, sequence) in progress.acks.into_iter().filter_map(|ack| ack.place) {
            let position = self.places.entry(stream).or_default();
            *position = sequence.max(*position);
        }
        self.unnoted.extend(progress.unnoted);
        self.is_full |= progress.is_cut;
    }

    /// Whether something was told, or is to be noted.
    pub(super) fn has_progress(&self) -> bool {
        !(self.told.is_empty() && self.refused.is_empty() && self.acks == 0)
    }

    /// Whether everything that it was about is told once it is noted, so that nobody has to wait for that.
    pub(super) fn is_settled(&self) -> bool {
        self.error.is_none() && self.rejected.is_none() && self.unnoted.is_empty()
    }
}

/// How far the steps of one ticket have come.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) ticket: Option<TicketId>,
    pub(super) told: Vec<Told>,
    pub(super) refused: Vec<(OrderId, String)>,
    pub(super) acks: Vec<Ack>,
    /// The ids of those messages that the broker has and that are not noted as told.
    pub(super) unnoted: Vec<String>,
    /// Whether there are steps left for the next page.
    pub(super) is_cut: bool,
    pub(super) error: Option<RelayError>,
}
