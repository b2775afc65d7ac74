//! Until when an order can be paid for, in all the forms in which the Node.js service reads it.

use jiff::Timestamp;

/// Until when an order can be paid for, as its document says.
///
/// The schema of the Node.js service requires no such field, so there are orders without one: these never expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpiresAt {
    /// Until this time, in milliseconds since 1970.
    At(i64),
    /// The same, but not stored as a time: it is shown, and the order does not expire by it, since the database could not
    /// compare it with its clock.
    Text(i64),
    /// The field is null.
    Null,
    /// There is no such field, or nothing in it that JavaScript reads as a time.
    Missing,
}

impl ExpiresAt {
    /// How far from 1970 a JavaScript date can be: until the year 275760.
    pub const MAX_MILLIS: i64 = 8_640_000_000_000_000;

    /// When the order expires, if ever: the first or last time of the calendar for one that is beyond it.
    #[must_use]
    pub fn time(self) -> Option<Timestamp> {
        let Self::At(millis) = self else { return None };
        let beyond = if millis < 0 { Timestamp::MIN } else { Timestamp::MAX };
        Some(Timestamp::from_millisecond(millis).unwrap_or(beyond))
    }

    /// As `Date.prototype.toJSON` writes it, with six digits and a sign for years that have no four digits.
    #[must_use]
    pub fn iso(self) -> Option<String> {
        let (Self::At(millis) | Self::Text(millis)) = self else { return None };
        let (year, month, day) = date_of(millis.div_euclid(MILLIS_PER_DAY));
        let in_day = millis.rem_euclid(MILLIS_PER_DAY);
        let (seconds, millis) = (in_day / 1000, in_day % 1000);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        let year = match year {
            0..=9999 => format!("{year:04}"),
            ..0 => format!("-{:06}", year.abs()),
            _ => format!("+{year:06}"),
        };
        Some(format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z"))
    }
}

impl From<Timestamp> for ExpiresAt {
    fn from(time: Timestamp) -> Self {
        Self::At(time.as_millisecond())
    }
}

const MILLIS_PER_DAY: i64 = 86_400_000;

/// Year, month and day of a number of days since 1970, in the Gregorian calendar before it was introduced too. jiff's
/// calendar ends in the year 9999.
const fn date_of(days: i64) -> (i64, i64, i64) {
    // Counted from the first of March of the year 0, so that a leap day is the last of its year, in eras of 400 years.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + if month <= 2 { 1 } else { 0 }, month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn years_without_four_digits_are_written_as_javascript_writes_them() {
        // By `new Date(...).toJSON()` of Node 20.
        for (millis, written) in [
            (1_795_368_564_464, "2026-11-22T17:29:24.464Z"),
            (1_795_368_564_000, "2026-11-22T17:29:24.000Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
            (253_402_300_800_000, "+010000-01-01T00:00:00.000Z"),
            (ExpiresAt::MAX_MILLIS, "+275760-09-13T00:00:00.000Z"),
            (-62_167_219_200_000, "0000-01-01T00:00:00.000Z"),
            (-62_198_755_200_000, "-000001-01-01T00:00:00.000Z"),
            (-ExpiresAt::MAX_MILLIS, "-271821-04-20T00:00:00.000Z"),
        ] {
            assert_eq!(ExpiresAt::At(millis).iso().as_deref(), Some(written));
        }
    }

    #[test]
    fn a_time_beyond_the_calendar_is_its_end_and_no_time_is_none() {
        assert_eq!(ExpiresAt::At(ExpiresAt::MAX_MILLIS).time(), Some(Timestamp::MAX));
        assert_eq!(ExpiresAt::At(-ExpiresAt::MAX_MILLIS).time(), Some(Timestamp::MIN));
        assert_eq!((ExpiresAt::Null.time(), ExpiresAt::Missing.iso()), (None, None));
        let text = ExpiresAt::Text(0);
        assert_eq!((text.time(), text.iso().as_deref()), (None, Some("1970-01-01T00:00:00.000Z")));
    }

    #[test]
    fn every_day_of_400_years_is_that_of_jiff() {
        // After which the Gregorian calendar repeats itself.
        let start = jiff::civil::date(1800, 1, 1);
        let first = start.duration_since(jiff::civil::date(1970, 1, 1)).as_hours() / 24;
        for (days, there) in (first..first + 146_097).zip(start.series(jiff::Span::new().days(1))) {
            let there = (there.year().into(), there.month().into(), there.day().into());
            assert_eq!(date_of(days), there);
        }
    }

    proptest! {
        #[test]
        fn the_calendar_is_that_of_jiff_where_both_have_the_day(millis in -377_000_000_000_000_i64..253_000_000_000_000) {
            let there = Timestamp::from_millisecond(millis).unwrap().to_zoned(jiff::tz::TimeZone::UTC).date();
            let ours = date_of(millis.div_euclid(MILLIS_PER_DAY));
            prop_assert_eq!(ours, (there.year().into(), there.month().into(), there.day().into()));
        }
    }
}
