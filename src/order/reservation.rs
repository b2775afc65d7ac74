//! How long a reservation lasts.

use std::{fmt, str::FromStr, time::Duration};

use jiff::Timestamp;
use thiserror::Error;

use super::moment::to_millis;

/// How long a new order may be paid for: 1 second to 7 days, 15 minutes unless told otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReservationWindow(u32);

/// A window outside its bounds.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is not a reservation window; write whole seconds from {min} to {max}", min = ReservationWindow::MIN_SECONDS, max = ReservationWindow::MAX_SECONDS)]
pub struct InvalidWindow(String);

impl ReservationWindow {
    /// The shortest window: one second.
    pub const MIN_SECONDS: u32 = 1;

    /// The longest window: seven days.
    pub const MAX_SECONDS: u32 = 604_800;

    /// The window of whoever sets none: 15 minutes. A test holds the CRD to the same default and bounds.
    const DEFAULT: Self = Self(900);

    /// A window of so many seconds.
    ///
    /// # Errors
    /// When there are none, or more than seven days of them.
    pub fn from_seconds(seconds: u32) -> Result<Self, InvalidWindow> {
        if (Self::MIN_SECONDS..=Self::MAX_SECONDS).contains(&seconds) {
            Ok(Self(seconds))
        } else {
            Err(InvalidWindow(seconds.to_string()))
        }
    }

    /// Its length in seconds.
    #[must_use]
    pub const fn seconds(self) -> u32 {
        self.0
    }

    /// When a reservation made at `now` ends, in whole milliseconds.
    #[must_use]
    pub fn end(self, now: Timestamp) -> Timestamp {
        later(now, Duration::from_secs(self.0.into()))
    }
}

impl Default for ReservationWindow {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl fmt::Display for ReservationWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ReservationWindow {
    type Err = InvalidWindow;

    fn from_str(text: &str) -> Result<Self, InvalidWindow> {
        let seconds = text.trim().parse().map_err(|_| InvalidWindow(text.to_owned()))?;
        Self::from_seconds(seconds)
    }
}

/// What a reservation is subject to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReservationTerms {
    /// How long a new order may be paid for.
    pub window: ReservationWindow,
    /// How much longer an order keeps its ticket once its payment has begun.
    pub payment_grace: Duration,
}

impl ReservationTerms {
    /// When an order that is being paid for loses its ticket.
    #[must_use]
    pub fn end_of_grace(&self, expires_at: Timestamp) -> Timestamp {
        later(expires_at, self.payment_grace)
    }
}

fn later(moment: Timestamp, by: Duration) -> Timestamp {
    // Saturates only at the end of the calendar, in the year 9999.
    to_millis(moment.checked_add(by).unwrap_or(Timestamp::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_one_second_to_seven_days() {
        for wrong in ["0", "604801", "-1", "", "15m", "99999999999999"] {
            assert!(wrong.parse::<ReservationWindow>().is_err(), "{wrong}");
        }
        assert_eq!("1".parse::<ReservationWindow>().unwrap().seconds(), 1);
        assert_eq!("604800".parse::<ReservationWindow>().unwrap().seconds(), 604_800);
        assert_eq!(ReservationWindow::default().seconds(), 900);
    }

    #[test]
    fn the_end_of_the_calendar_is_no_accident() {
        assert!(ReservationWindow::default().end(Timestamp::MAX) <= Timestamp::MAX);
    }
}
