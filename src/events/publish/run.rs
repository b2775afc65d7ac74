//! Puts orders in the outbox again, ticket by ticket, and waits until they are published.
//!
//! No more is put there at a time than the relay publishes in one round, so what happens meanwhile is not delayed.

use std::{fmt, time::Duration};

use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use super::{args::PublishArgs, error::PublishError};
use crate::store::{LostTickets, Store, StoreError};

/// How many orders are kept in memory.
const IN_MEMORY: usize = 100_000;

/// How many tickets are put in the outbox at once.
const AT_ONCE: usize = 500;

/// How many orders may be pending.
const PENDING: u64 = 2000;

/// How often it is looked how many those are.
const LOOK: Duration = Duration::from_millis(100);

/// How often it is said how far it has come.
const SAY: Duration = Duration::from_secs(5);

/// What was done, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    tickets: usize,
    orders: u64,
    without_price: u64,
    cancelled: u64,
    completed: u64,
    begun: u64,
    refused: u64,
}

impl Counts {
    fn add(&mut self, tickets: &LostTickets) {
        self.tickets += tickets.len();
        for order in tickets.values().flatten() {
            self.orders += 1;
            self.begun += u64::from(order.had_begun());
            self.cancelled += u64::from(order.is_cancelled());
            self.completed += u64::from(order.is_complete());
            self.refused += order.refused.len() as u64;
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tickets, orders, cancelled, completed, begun, refused, .. } = self;
        write!(f, "{orders} orders of {tickets} tickets: {orders} order:created, {begun} order:updated, ")?;
        write!(f, "{cancelled} order:cancelled, {completed} order:completed, {refused} payment:refused")
    }
}

/// What was said last of how far it has come.
#[derive(Debug)]
struct Said {
    at: Instant,
    /// What was put in the outbox, and how much of it was pending.
    last: Option<(Counts, u64)>,
}

impl Said {
    fn now() -> Self {
        Self { at: Instant::now(), last: None }
    }

    /// How far it has come: how many are in the outbox, and still pending. If nothing was published since the last time,
    /// where to see why.
    fn again(&mut self, counts: Counts, pending: u64) -> String {
        self.at = Instant::now();
        let whose = match self.last.replace((counts, pending)) {
            Some((last, before)) if last == counts && before <= pending => {
                "and no fewer than before: the pods publish them, of which one must run and reach the broker; whether they do, and why not, \
                 says the condition EventsFlowing of the OrdersService (kubectl describe osvc)"
            }
            _ => "by the pods, of which one must run",
        };
        format!("in the outbox so far: {counts}; still pending: {pending}, {whose}")
    }
}

/// Does what `args` say, and prints what came of it.
///
/// # Errors
/// When the database cannot be used, or has no events.
pub async fn run(args: PublishArgs) -> Result<(), PublishError> {
    let store = args.database.connect().await?;
    let done = if args.dry_run { count(&store, args.since).await } else { publish(&store, args.since).await };
    store.shutdown().await;
    done
}

async fn count(store: &Store, since: Timestamp) -> Result<(), PublishError> {
    let (mut counts, mut after) = (Counts::default(), None);
    loop {
        let (tickets, is_last) = store.lost_since(since, after, IN_MEMORY).await?;
        counts.add(&tickets);
        after = tickets.last_key_value().map(|(ticket, _)| *ticket);
        if is_last {
            println!("would be published again: {counts}");
            return Ok(());
        }
    }
}

async fn publish(store: &Store, since: Timestamp) -> Result<(), PublishError> {
    if !store.uses_outbox().await? {
        return Err(PublishError::EventsAreOff);
    }
    // Of this run: what an earlier run put in the outbox may be published by now, and the broker would take it for the same.
    let again = format!("{:08x}", fastrand::u32(..));
    let mut after = store.requeued_up_to(since).await?;
    if let Some(ticket) = after {
        eprintln!("going on after the ticket {ticket}, where a run before this one has ended");
    }
    let (mut counts, mut said) = (Counts::default(), Said::now());
    loop {
        let (mut tickets, is_last) = store.lost_since(since, after, IN_MEMORY).await?;
        while !tickets.is_empty() {
            let rest = tickets.keys().nth(AT_ONCE).copied();
            let rest = rest.map(|ticket| tickets.split_off(&ticket)).unwrap_or_default();
            wait_for(store, &again, PENDING, &counts, &mut said).await?;
            counts.without_price += store.requeue(&tickets, &again).await?.without_price;
            counts.add(&tickets);
            after = tickets.last_key_value().map(|(ticket, _)| *ticket);
            store.keep_requeued_up_to(since, after).await?;
            tickets = rest;
        }
        if is_last {
            break;
        }
    }
    wait_for(store, &again, 1, &counts, &mut said).await?;
    store.keep_requeued_up_to(since, None).await?;
    if counts.without_price > 0 {
        eprintln!(
            "warning: {} of the orders are not published again, since there is no copy of their ticket that says its price",
            counts.without_price
        );
    }
    println!("published again: {counts}");
    Ok(())
}

/// Waits until fewer than `most` are pending.
async fn wait_for(
    store: &Store,
    again: &str,
    most: u64,
    counts: &Counts,
    said: &mut Said,
) -> Result<(), StoreError> {
    loop {
        let pending = store.count_requeued(again, PENDING).await?;
        if said.at.elapsed() > SAY {
            eprintln!("{}", said.again(*counts, pending));
        }
        if pending < most {
            return Ok(());
        }
        sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nothing_is_told_for_a_while_it_is_said_where_to_see_why() {
        let mut said = Said::now();
        for (orders, pending, is_stuck) in [
            (9, 3, false),
            (9, 3, true),
            (9, 2, false),
            (9, 2, true),
            // More was put in the outbox as soon as there was room.
            (99, 2000, false),
            (999, 2000, false),
            (999, 2000, true),
        ] {
            let text = said.again(Counts { orders, ..Counts::default() }, pending);
            assert!(text.contains(&format!("; still pending: {pending}, ")), "{text}");
            assert_eq!(text.contains("EventsFlowing"), is_stuck, "{text}");
        }
    }
}
