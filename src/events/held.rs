//! What is held back: tickets of which the broker does not take an event. Each is tried again by itself, after longer and longer
//! pauses, and delays no other.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::plan::Step;
use crate::{order::TicketId, runtime::exponential};

/// The first and the longest pause.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// For how long nothing must have been held back for the next to be worth a line in the log.
const QUIET: Duration = Duration::from_secs(300);

/// The tickets that are held back.
#[derive(Default)]
pub(super) struct Held {
    tickets: BTreeMap<TicketId, Hold>,
    /// When something was last held back.
    last: Option<Instant>,
}

struct Hold {
    until: Instant,
    failures: u32,
}

impl Held {
    /// Takes out of `lines` what is held back now, and forgets what is not to be told any more.
    pub(super) fn keep_back(&mut self, lines: &mut BTreeMap<TicketId, Vec<Step>>) {
        let now = Instant::now();
        self.tickets.retain(|ticket, _| lines.contains_key(ticket));
        lines.retain(|ticket, _| self.tickets.get(ticket).is_none_or(|hold| hold.until <= now));
    }

    /// Holds back a ticket.
    pub(super) fn hold(&mut self, ticket: TicketId) {
        let new = Hold { until: Instant::now(), failures: 0 };
        let hold = self.tickets.entry(ticket).or_insert(new);
        hold.until = Instant::now() + exponential(PAUSES.0, PAUSES.1, hold.failures);
        hold.failures += 1;
    }

    /// The broker has taken everything of a ticket.
    pub(super) fn release(&mut self, ticket: TicketId) {
        self.tickets.remove(&ticket);
    }

    /// Nothing is to be told.
    pub(super) fn clear(&mut self) {
        self.tickets.clear();
    }

    /// Whether nothing is held back.
    pub(super) fn is_empty(&self) -> bool {
        self.tickets.is_empty()
    }

    /// Whether it is the first for a while that something is held back, which is so now.
    pub(super) fn is_news(&mut self) -> bool {
        let now = Instant::now();
        self.last.replace(now).is_none_or(|last| now.duration_since(last) > QUIET)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(held: &mut Held, tickets: &[u8]) -> Vec<u8> {
        let ticket = |number: &u8| (TicketId::from_bytes([*number; 12]), Vec::new());
        let mut lines = tickets.iter().map(ticket).collect();
        held.keep_back(&mut lines);
        lines.keys().map(|ticket| ticket.bytes()[0]).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_ticket_is_held_back_for_longer_and_longer_and_delays_no_other() {
        let (mut held, one) = (Held::default(), TicketId::from_bytes([1; 12]));
        assert!(held.is_news() && !held.is_news());
        for pause in [500, 1000, 2000] {
            held.hold(one);
            assert_eq!(kept(&mut held, &[1, 2]), [2]);
            tokio::time::advance(Duration::from_millis(pause - 1)).await;
            assert_eq!(kept(&mut held, &[1, 2]), [2]);
            tokio::time::advance(Duration::from_millis(1)).await;
            assert_eq!(kept(&mut held, &[1, 2]), [1, 2]);
        }
        held.hold(one);
        assert!(!held.is_empty());
        held.release(one);
        assert_eq!((kept(&mut held, &[1, 2]), held.is_empty()), (vec![1, 2], true));
        held.hold(one);
        // Somebody else has told it.
        assert_eq!(kept(&mut held, &[2]), [2]);
        assert!(held.is_empty());
        tokio::time::advance(QUIET + Duration::from_secs(1)).await;
        assert!(held.is_news());
    }
}
