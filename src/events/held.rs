//! What is held back: tickets of which the broker does not take an event. Each is tried again by itself, after longer and longer
//! pauses, and delays no other: some at a time, however many there are.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use crate::{order::TicketId, runtime::exponential};

/// The first and the longest pause.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// For how long nothing must have been held back for the next to be worth a line in the log.
const QUIET: Duration = Duration::from_secs(300);

/// The most tickets that are known, in some 5 MB. More are tried whenever a look comes by them.
const MOST: usize = 100_000;

/// The most that are tried again at once, beside what is published for the first time.
const AT_ONCE: usize = 200;

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
    /// Whether a ticket is held back, so that it is published only when it is [due](Self::due).
    pub(super) fn has(&self, ticket: TicketId) -> bool {
        self.tickets.contains_key(&ticket)
    }

    /// Those that are to be tried again now: of very many, the ones that have waited longest.
    pub(super) fn due(&self) -> Vec<TicketId> {
        let now = Instant::now();
        let due = self.tickets.iter().filter(|(_, hold)| hold.until <= now);
        let mut due: Vec<_> = due.map(|(ticket, hold)| (hold.until, *ticket)).collect();
        if due.len() > AT_ONCE {
            due.select_nth_unstable(AT_ONCE);
            due.truncate(AT_ONCE);
        }
        due.into_iter().map(|(_, ticket)| ticket).collect()
    }

    /// Whether some are to be tried again now.
    pub(super) fn has_due(&self) -> bool {
        let now = Instant::now();
        self.tickets.values().any(|hold| hold.until <= now)
    }

    /// Holds back a ticket.
    pub(super) fn hold(&mut self, ticket: TicketId) {
        if self.tickets.len() >= MOST && !self.has(ticket) {
            return;
        }
        let new = Hold { until: Instant::now(), failures: 0 };
        let hold = self.tickets.entry(ticket).or_insert(new);
        hold.until = Instant::now() + exponential(PAUSES.0, PAUSES.1, hold.failures);
        hold.failures += 1;
    }

    /// The broker has taken everything of a ticket, or nothing of it is pending any more.
    pub(super) fn release(&mut self, ticket: TicketId) {
        self.tickets.remove(&ticket);
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

    fn ticket(number: u32) -> TicketId {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        TicketId::from_bytes(bytes)
    }

    #[tokio::test(start_paused = true)]
    async fn a_ticket_is_held_back_for_longer_and_longer_and_no_other_is() {
        let (mut held, one) = (Held::default(), ticket(1));
        assert!(held.is_news() && !held.is_news());
        for pause in [500, 1000, 2000] {
            held.hold(one);
            assert!(held.has(one) && !held.has(ticket(2)));
            tokio::time::advance(Duration::from_millis(pause - 1)).await;
            assert_eq!((held.due(), held.has_due()), (vec![], false));
            tokio::time::advance(Duration::from_millis(1)).await;
            assert_eq!((held.due(), held.has_due()), (vec![one], true));
            assert!(held.has(one), "until it is published");
        }
        held.release(one);
        assert!(held.is_empty() && !held.has(one));
        tokio::time::advance(QUIET + Duration::from_secs(1)).await;
        assert!(held.is_news());
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_those_are_tried_first_that_have_waited_longest_so_each_has_its_turn() {
        let mut held = Held::default();
        let count = u32::try_from(AT_ONCE).unwrap() * 3;
        (0..count).for_each(|number| held.hold(ticket(number)));
        tokio::time::advance(PAUSES.0).await;
        let mut tried = std::collections::BTreeSet::new();
        for _ in 0..3 {
            let due = held.due();
            assert_eq!(due.len(), AT_ONCE);
            // They are not taken again.
            due.iter().for_each(|ticket| held.hold(*ticket));
            tried.extend(due);
        }
        assert_eq!(tried.len(), AT_ONCE * 3);
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_are_known_and_no_more() {
        let mut held = Held::default();
        let most = u32::try_from(MOST).unwrap();
        (0..=most).for_each(|number| held.hold(ticket(number)));
        assert_eq!(held.tickets.len(), MOST);
        assert!(held.has(ticket(0)) && !held.has(ticket(most)));
        held.release(ticket(0));
        held.hold(ticket(most));
        assert!(held.has(ticket(most)));
    }
}
