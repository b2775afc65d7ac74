//! How far ahead to query for orders that will be due, and how long to sleep: pure functions over times.
//!
//! One query asks for the orders that are due now and those that will be within a window, with a limit and unsorted, so
//! that its cost does not depend on how many orders are open. While windows are empty they widen; a full one narrows
//! the next. Neither a sleep nor a window is ever longer than `max_sleep`.

use std::time::Duration;

use jiff::Timestamp;

/// The default of `max_sleep`: an order that is inserted or edited during a sleep is late by this at most.
pub const DEFAULT_MAX_SLEEP: Duration = Duration::from_secs(1);

/// The windows, from the narrowest to the widest.
const WINDOWS: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_secs(1),
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(600),
];

/// The index of the widest window that is kept while orders become due.
const WIDEST_BUSY: usize = 2;

/// The shortest and the longest sleep between two queries that found something. Between them it is as long as the work
/// took, so that a database that keeps up spends half of its time at most on this sweeper.
const BUSY_SLEEP: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(50));

/// How many orders a query found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// As many orders as its limit, so there may be more.
    Full,
    /// Fewer, so these are all.
    Partial,
    /// None.
    Empty,
}

/// The window of the next query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lookahead {
    /// Its index in [`WINDOWS`].
    index: usize,
    max_sleep: Duration,
}

impl Lookahead {
    /// Starts with the orders that are due now, as there may be many.
    pub fn new(max_sleep: Duration) -> Self {
        Self { index: 0, max_sleep }
    }

    /// How far after the cutoff the next query goes.
    pub fn window(self) -> Duration {
        WINDOWS.get(self.index).copied().unwrap_or(self.max_sleep).min(self.max_sleep)
    }

    /// The window after a query.
    #[must_use]
    pub fn after(self, fill: Fill) -> Self {
        let index = match fill {
            Fill::Full => 0,
            Fill::Partial => self.index.clamp(1, WIDEST_BUSY),
            Fill::Empty if self.window() < self.max_sleep => (self.index + 1).min(WINDOWS.len() - 1),
            Fill::Empty => self.index,
        };
        Self { index, ..self }
    }

    /// How long to sleep at `now`, after a query with this window that was not full: until the order that is due
    /// `next`, or, if none was found, until the end of the window. `worked` is the time since the query was sent, or
    /// none if nothing was due. All times are in terms of the cutoff.
    pub fn sleep(
        self,
        now: Timestamp,
        cutoff: Timestamp,
        next: Option<Timestamp>,
        worked: Option<Duration>,
    ) -> Duration {
        let end = cutoff.checked_add(self.window()).unwrap_or(Timestamp::MAX);
        let wait = Duration::try_from(next.unwrap_or(end).duration_since(now)).unwrap_or(Duration::ZERO);
        // Never less than a few milliseconds: `expiresAt` is in whole milliseconds but this clock is not, so a
        // shorter sleep may end just before the order is due.
        let least = worked.unwrap_or_default().clamp(BUSY_SLEEP.0, BUSY_SLEEP.1);
        wait.max(least).min(self.max_sleep)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(milliseconds: u64) -> Timestamp {
        Timestamp::from_millisecond(i64::try_from(milliseconds).unwrap()).unwrap()
    }

    /// A server under simulated time: orders as (stored at, due at), in milliseconds.
    struct Simulation {
        orders: Vec<(u64, u64)>,
        /// How long a query and a write take.
        took: u64,
        limit: usize,
    }

    struct Report {
        /// By how much each order was late: after it was due, or after it was stored if it was due already.
        late: Vec<u64>,
        queries: u32,
        /// The most orders that one query read.
        read: usize,
    }

    impl Simulation {
        /// Sweeps until `end`.
        fn run(&self, max_sleep: Duration, end: u64) -> Report {
            let (mut lookahead, mut now) = (Lookahead::new(max_sleep), 0);
            let mut open = self.orders.clone();
            let mut report = Report { late: vec![], queries: 0, read: 0 };
            while now < end {
                let cutoff = now;
                let until = cutoff + lookahead.window().as_millis() as u64;
                let stored = open.iter().filter(|(stored, _)| *stored <= now);
                let mut seen: Vec<_> = stored.filter(|(_, due)| *due <= until).copied().collect();
                seen.sort_by_key(|(_, due)| *due);
                seen.truncate(self.limit);
                report.queries += 1;
                report.read = report.read.max(seen.len());
                now += self.took;
                let due: Vec<_> = seen.iter().filter(|(_, due)| *due <= cutoff).copied().collect();
                if !due.is_empty() {
                    now += self.took;
                    open.retain(|order| !due.contains(order));
                    report.late.extend(due.iter().map(|(stored, due)| now - due.max(stored)));
                }
                let full = seen.len() >= self.limit;
                let what = if full {
                    Fill::Full
                } else if seen.is_empty() {
                    Fill::Empty
                } else {
                    Fill::Partial
                };
                if !full {
                    let next = seen.iter().map(|(_, due)| *due).filter(|due| *due > cutoff).min();
                    let worked = (!due.is_empty()).then(|| Duration::from_millis(now - cutoff));
                    now += lookahead.sleep(at(now), at(cutoff), next.map(at), worked).as_millis() as u64;
                }
                lookahead = lookahead.after(what);
            }
            report
        }
    }

    proptest! {
        #[test]
        fn an_order_stored_early_is_on_time_and_any_other_is_late_by_max_sleep_at_most(
            orders in proptest::collection::btree_set((0u64..60_000, 0u64..60_000), 0..60),
            took in 1u64..40, max_sleep in prop::sample::select(vec![1u64, 2, 7, 60]),
        ) {
            let world = Simulation { orders: orders.into_iter().collect(), took, limit: 50 };
            let max_sleep = max_sleep * 1000;
            let early = Simulation {
                orders: world.orders.iter().map(|(_, due)| (0, due + max_sleep + 1000)).collect(), ..world
            };
            // Each is found within a query and a write after it was due, and the shortest sleep.
            let report = early.run(Duration::from_millis(max_sleep), 200_000);
            prop_assert_eq!(report.late.len(), early.orders.len());
            let most = report.late.iter().max().copied().unwrap_or(0);
            prop_assert!(most <= 6 * took + 60, "{most} ms");

            let any = Simulation { orders: world.orders, ..early };
            let report = any.run(Duration::from_millis(max_sleep), 200_000);
            prop_assert_eq!(report.late.len(), any.orders.len());
            let most = report.late.iter().max().copied().unwrap_or(0);
            prop_assert!(most <= max_sleep + 6 * took + 60, "{most} ms");
        }

        #[test]
        fn an_idle_target_costs_one_query_per_max_sleep(max_sleep in prop::sample::select(vec![1u64, 2, 30, 600]), took in 0u64..20) {
            let report = Simulation { orders: vec![], took, limit: 50 }.run(Duration::from_secs(max_sleep), 6_000_000);
            // And a few at the start, while the windows widen.
            prop_assert!(u64::from(report.queries) <= 6_000 / max_sleep + 8, "{} queries", report.queries);
        }

        #[test]
        fn a_backlog_is_cancelled_without_pauses_and_in_batches(count in 100usize..3000) {
            let orders = (0..count as u64).map(|number| (0, number)).collect();
            let report = Simulation { orders, took: 1, limit: 50 }.run(DEFAULT_MAX_SLEEP, 1_000_000);
            prop_assert_eq!(report.late.len(), count);
            prop_assert!(report.read <= 50);
            let longest = report.late.iter().max().unwrap();
            prop_assert!(*longest <= 3 * (count as u64).div_ceil(50) + 3000 + 200, "{longest} ms");
        }
    }

    #[test]
    fn windows_widen_while_nothing_is_found_up_to_max_sleep_and_narrow_at_once() {
        let mut lookahead = Lookahead::new(Duration::from_secs(30));
        let mut windows = vec![];
        for _ in 0..7 {
            windows.push(lookahead.window().as_millis());
            lookahead = lookahead.after(Fill::Empty);
        }
        assert_eq!(windows, [0, 100, 1_000, 10_000, 30_000, 30_000, 30_000]);
        assert_eq!(lookahead.after(Fill::Partial).window(), Duration::from_secs(1));
        assert_eq!(lookahead.after(Fill::Full).window(), Duration::ZERO);
        assert_eq!(lookahead.after(Fill::Full).after(Fill::Partial).window(), Duration::from_millis(100));
    }

    #[test]
    fn a_busy_database_spends_half_of_its_time_at_most_on_the_sweeper() {
        let lookahead = Lookahead::new(DEFAULT_MAX_SLEEP).after(Fill::Partial);
        let sleep = |worked| lookahead.sleep(at(1000), at(990), Some(at(995)), worked).as_millis();
        assert_eq!(sleep(Some(Duration::from_millis(30))), 30);
        assert_eq!(sleep(Some(Duration::from_secs(3))), 50);
        assert_eq!(sleep(None), 5);
        assert_eq!(lookahead.sleep(at(1000), at(990), Some(at(1040)), None).as_millis(), 40);
    }
}
