//! How far ahead to look for orders that will be due, and how long to sleep: pure functions over times.
//!
//! One look asks for what is due now and in a window after it, with a limit and without an order, so that
//! it costs a server little however many orders are open. An empty window lets the next one be wider, a
//! full one makes it narrow again. Since a sleep never lasts longer than the cap, neither does a window.

use std::time::Duration;

use jiff::Timestamp;

/// The longest sleep of a target's owner by default: an order that is inserted or edited meanwhile is late
/// by this at most.
pub const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// What may be looked at ahead, from nothing to ten minutes.
const WINDOWS: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_secs(1),
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(600),
];

/// The widest window that is kept while orders come due.
const BUSY: usize = 2;

/// The shortest and the longest sleep between two looks that found something. As long as the work took in
/// between, so that a database that keeps up is at work for us half of the time at most.
const BREATH: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(50));

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// As many orders as it asked for.
    Full,
    /// Fewer, and so all that there were.
    Some,
    /// None.
    Nothing,
}

/// How far ahead the next look goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlook {
    step: usize,
    cap: Duration,
}

impl Outlook {
    /// Begins with what is due now, for there may be much; sleeps are never longer than `cap`.
    pub fn new(cap: Duration) -> Self {
        Self { step: 0, cap }
    }

    /// How far after the cutoff the next look goes.
    pub fn window(self) -> Duration {
        WINDOWS.get(self.step).copied().unwrap_or(self.cap).min(self.cap)
    }

    /// After a look that found so much.
    #[must_use]
    pub fn after(self, seen: Seen) -> Self {
        let step = match seen {
            Seen::Full => 0,
            Seen::Some => self.step.clamp(1, BUSY),
            Seen::Nothing if self.window() < self.cap => (self.step + 1).min(WINDOWS.len() - 1),
            Seen::Nothing => self.step,
        };
        Self { step, ..self }
    }

    /// How long to sleep at `now`, after a look with this outlook that was not full: until `next`, the next
    /// moment that it saw, or until what it did not see may begin; `worked` since that look, or none if it
    /// found nothing due. All in time of the cutoffs.
    pub fn sleep(
        self,
        now: Timestamp,
        cutoff: Timestamp,
        next: Option<Timestamp>,
        worked: Option<Duration>,
    ) -> Duration {
        let clear = cutoff.checked_add(self.window()).unwrap_or(Timestamp::MAX);
        let wait = Duration::try_from(next.unwrap_or(clear).duration_since(now)).unwrap_or(Duration::ZERO);
        let breath = worked.unwrap_or_default().clamp(BREATH.0, BREATH.1);
        // A moment is in whole milliseconds, but this clock is not: waking too early is in vain.
        wait.max(breath).min(self.cap)
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
    struct World {
        orders: Vec<(u64, u64)>,
        /// How long a look and a write take.
        took: u64,
        limit: usize,
    }

    struct Story {
        /// By how much each order was late: since it was due, or stored when it was due already.
        late: Vec<u64>,
        looks: u32,
        /// The most that one look had to read.
        read: usize,
    }

    impl World {
        /// Sweeps for so long.
        fn swept(&self, cap: Duration, end: u64) -> Story {
            let (mut outlook, mut now) = (Outlook::new(cap), 0);
            let mut open = self.orders.clone();
            let mut story = Story { late: vec![], looks: 0, read: 0 };
            while now < end {
                let cutoff = now;
                let until = cutoff + outlook.window().as_millis() as u64;
                let stored = open.iter().filter(|(stored, _)| *stored <= now);
                let mut seen: Vec<_> = stored.filter(|(_, due)| *due <= until).copied().collect();
                seen.sort_by_key(|(_, due)| *due);
                seen.truncate(self.limit);
                story.looks += 1;
                story.read = story.read.max(seen.len());
                now += self.took;
                let due: Vec<_> = seen.iter().filter(|(_, due)| *due <= cutoff).copied().collect();
                if !due.is_empty() {
                    now += self.took;
                    open.retain(|order| !due.contains(order));
                    story.late.extend(due.iter().map(|(stored, due)| now - due.max(stored)));
                }
                let full = seen.len() >= self.limit;
                let what = if full {
                    Seen::Full
                } else if seen.is_empty() {
                    Seen::Nothing
                } else {
                    Seen::Some
                };
                if !full {
                    let next = seen.iter().map(|(_, due)| *due).filter(|due| *due > cutoff).min();
                    let worked = (!due.is_empty()).then(|| Duration::from_millis(now - cutoff));
                    now += outlook.sleep(at(now), at(cutoff), next.map(at), worked).as_millis() as u64;
                }
                outlook = outlook.after(what);
            }
            story
        }
    }

    proptest! {
        #[test]
        fn an_order_is_on_time_when_it_was_stored_early_and_late_by_the_cap_when_it_was_not(
            orders in proptest::collection::btree_set((0u64..60_000, 0u64..60_000), 0..60),
            took in 1u64..40, cap in prop::sample::select(vec![1u64, 2, 7, 60]),
        ) {
            let world = World { orders: orders.into_iter().collect(), took, limit: 50 };
            let cap = cap * 1000;
            let early = World {
                orders: world.orders.iter().map(|(_, due)| (0, due + cap + 1000)).collect(), ..world
            };
            // All of them are found, a look and a write after they were due, and after a breath or a rival.
            let story = early.swept(Duration::from_millis(cap), 200_000);
            prop_assert_eq!(story.late.len(), early.orders.len());
            let most = story.late.iter().max().copied().unwrap_or(0);
            prop_assert!(most <= 6 * took + 60, "{most} ms");

            let any = World { orders: world.orders, ..early };
            let story = any.swept(Duration::from_millis(cap), 200_000);
            prop_assert_eq!(story.late.len(), any.orders.len());
            let most = story.late.iter().max().copied().unwrap_or(0);
            prop_assert!(most <= cap + 6 * took + 60, "{most} ms");
        }

        #[test]
        fn an_idle_target_costs_one_look_per_cap(cap in prop::sample::select(vec![1u64, 2, 30, 600]), took in 0u64..20) {
            let story = World { orders: vec![], took, limit: 50 }.swept(Duration::from_secs(cap), 6_000_000);
            // Few more at the beginning, when the windows widen.
            prop_assert!(u64::from(story.looks) <= 6_000 / cap + 8, "{} looks", story.looks);
        }

        #[test]
        fn a_backlog_is_taken_without_a_pause_and_never_read_at_once(count in 100usize..3000) {
            let orders = (0..count as u64).map(|number| (0, number)).collect();
            let story = World { orders, took: 1, limit: 50 }.swept(LONGEST_SLEEP, 1_000_000);
            prop_assert_eq!(story.late.len(), count);
            prop_assert!(story.read <= 50);
            let longest = story.late.iter().max().unwrap();
            prop_assert!(*longest <= 3 * (count as u64).div_ceil(50) + 3000 + 200, "{longest} ms");
        }
    }

    #[test]
    fn windows_widen_while_nothing_is_found_up_to_the_cap_and_narrow_at_once() {
        let mut outlook = Outlook::new(Duration::from_secs(30));
        let mut windows = vec![];
        for _ in 0..7 {
            windows.push(outlook.window().as_millis());
            outlook = outlook.after(Seen::Nothing);
        }
        assert_eq!(windows, [0, 100, 1_000, 10_000, 30_000, 30_000, 30_000]);
        assert_eq!(outlook.after(Seen::Some).window(), Duration::from_secs(1));
        assert_eq!(outlook.after(Seen::Full).window(), Duration::ZERO);
        assert_eq!(outlook.after(Seen::Full).after(Seen::Some).window(), Duration::from_millis(100));
    }

    #[test]
    fn a_busy_target_is_left_half_of_the_time_to_others() {
        let outlook = Outlook::new(LONGEST_SLEEP).after(Seen::Some);
        let sleep = |worked| outlook.sleep(at(1000), at(990), Some(at(995)), worked).as_millis();
        assert_eq!(sleep(Some(Duration::from_millis(30))), 30);
        assert_eq!(sleep(Some(Duration::from_secs(3))), 50);
        assert_eq!(sleep(None), 5);
        assert_eq!(outlook.sleep(at(1000), at(990), Some(at(1040)), None).as_millis(), 40);
    }
}
