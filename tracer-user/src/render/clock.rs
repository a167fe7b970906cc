//! Times of a run as clock time.
//! Input: a time since the machine's boot, and how far the clock was from that.

use jiff::{Timestamp, tz::TimeZone};

use crate::{run::header::Header, units::Nanos};

/// A time by `format`, as `strftime` has it; what no calendar has, as nanoseconds since the boot.
#[must_use]
pub fn time(header: &Header, at: Nanos, zone: &TimeZone, format: &str) -> String {
    match Timestamp::from_nanosecond(header.clock_offset.saturating_add(at.0.into())) {
        Ok(time) => time.to_zoned(zone.clone()).strftime(format).to_string(),
        Err(_) => format!("+{} ns", at.0),
    }
}

/// `2026-11-23 18:30:53`, where the reader is.
#[must_use]
pub fn date(header: &Header, at: Nanos) -> String {
    time(header, at, &TimeZone::system(), "%Y-%m-%d %H:%M:%S")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_of_the_calendar_or_since_the_boot() {
        let header = |clock_offset| Header {
            clock_offset,
            ..Header::unknown()
        };
        let shown = |offset, at| time(&header(offset), Nanos(at), &TimeZone::UTC, "%F %T");
        assert_eq!(shown(0, 86_400_000_000_000), "1970-01-02 00:00:00");
        assert_eq!(shown(i128::MAX, 7), "+7 ns");
    }
}
