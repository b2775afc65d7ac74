//! How long a reservation lasts.

use std::{fmt, str::FromStr, time::Duration};

use jiff::Timestamp;
use thiserror::Error;

use super::timestamp::to_millis;

/// How long a new order can be paid for: 1 second to 7 days, by default 15 minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReservationWindow(u32);

/// A string or number that is not a window within the bounds.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is not a reservation window; write whole seconds from {min} to {max}", min = ReservationWindow::MIN_SECONDS, max = ReservationWindow::MAX_SECONDS)]
pub struct InvalidWindow(String);

impl ReservationWindow {
    /// The shortest window: one second.
    pub const MIN_SECONDS: u32 = 1;

    /// The longest window: seven days.
    pub const MAX_SECONDS: u32 = 604_800;

    /// 15 minutes. A test makes sure that the CRD has the same default and bounds.
    const DEFAULT: Self = Self(900);

    /// A window of `seconds`.
    ///
    /// # Errors
    /// When it is not within the bounds.
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

    /// When a reservation that is made at `now` expires, in whole milliseconds.
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

/// The times that apply to every reservation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReservationTerms {
    /// How long a new order can be paid for.
    pub window: ReservationWindow,
    /// How much longer an order keeps its ticket if its payment has begun.
    pub payment_grace: Duration,
}

impl ReservationTerms {
    /// When an order whose payment has begun loses its ticket.
    #[must_use]
    pub fn end_of_grace(&self, expires_at: Timestamp) -> Timestamp {
        later(expires_at, self.payment_grace)
    }
}

fn later(timestamp: Timestamp, duration: Duration) -> Timestamp {
    // Saturates at the largest timestamp, in the year 9999.
    to_millis(timestamp.checked_add(duration).unwrap_or(Timestamp::MAX))
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
    fn a_window_at_the_largest_timestamp_saturates() {
        assert!(ReservationWindow::default().end(Timestamp::MAX) <= Timestamp::MAX);
    }
}
