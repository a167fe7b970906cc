//! Formats times of a run as clock time.
//! Input: a time since the machine's boot, and the clock's distance from it.

use jiff::{Timestamp, tz::TimeZone};

use crate::units::Nanos;

/// Formats a time as `strftime` does, for a clock that is `offset` nanoseconds ahead of the time since boot. A time
/// outside the calendar is written as nanoseconds since boot.
#[must_use]
pub fn time(offset: i128, at: Nanos, zone: &TimeZone, format: &str) -> String {
    match Timestamp::from_nanosecond(offset.saturating_add(at.0.into())) {
        Ok(time) => time.to_zoned(zone.clone()).strftime(format).to_string(),
        Err(_) => format!("+{} ns", at.0),
    }
}

/// `2026-11-23 18:30:53`.
#[must_use]
pub fn date(offset: i128, at: Nanos, zone: &TimeZone) -> String {
    time(offset, at, zone, "%Y-%m-%d %H:%M:%S")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_of_the_calendar_or_since_the_boot() {
        let shown = |offset, at| time(offset, Nanos(at), &TimeZone::UTC, "%F %T");
        assert_eq!(shown(0, 86_400_000_000_000), "1970-01-02 00:00:00");
        assert_eq!(shown(i128::MAX, 7), "+7 ns");
    }
}
