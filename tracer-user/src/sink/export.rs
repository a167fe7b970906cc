//! A format of `tracer export`: a sink for the runs of several recordings, which also ends the document.
//! Input: events; output: any writer.

use std::io;

use crate::{event::Event, run::header::Header, sink::Sink, units::Nanos};

/// A format. Each run of each recording is begun, fed and finished or abandoned; then the document is closed, once.
pub trait Export: Sink {
    /// Whether the format has a place for this event. Other events are not fed; they are counted and reported.
    fn takes(&self, event: &Event) -> bool;

    /// Writes the end of the document, after the last run.
    ///
    /// # Errors
    /// As [`Sink::begin`].
    fn close(&mut self) -> io::Result<()>;
}

/// The columns of a run, which are the same in all its rows. None: the recording has lost the value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunColumns {
    /// Boot id and begin: the same for every file and every export of the run, and different for every other run.
    pub id: Option<String>,
    /// uname -n.
    pub host: Option<String>,
    /// /proc/sys/kernel/random/boot_id.
    pub boot_id: Option<String>,
    /// uname -r.
    pub kernel: Option<String>,
    /// `CLOCK_REALTIME` minus `CLOCK_MONOTONIC`, nanoseconds.
    clock_offset: Option<i128>,
}

impl From<&Header> for RunColumns {
    fn from(header: &Header) -> Self {
        if header.same_run(&Header::unknown()) {
            return Self::default();
        }
        let known = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Self {
            id: Some(format!("{}-{:x}", header.boot_id, header.begun.0)),
            host: known(&header.host),
            boot_id: known(&header.boot_id),
            kernel: known(&header.kernel),
            clock_offset: Some(header.clock_offset),
        }
    }
}

impl RunColumns {
    /// The time of `at`, microseconds since 1970 in UTC; None: the clock is not known, or the time is after the year
    /// 9999.
    #[must_use]
    pub fn time(&self, at: Nanos) -> Option<i64> {
        let micros = (self.clock_offset? + i128::from(at.0)).div_euclid(1000);
        let micros = i64::try_from(micros).ok()?;
        jiff::Timestamp::from_microsecond(micros).ok().map(|_| micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::made_up;

    #[test]
    fn what_is_lost_is_not_invented() {
        let run = RunColumns::from(&made_up::header());
        assert_eq!(
            run.id.as_deref(),
            Some("d4f5bc26-54ad-4aa4-9b2e-0d1a5fbf5e0c-124101100")
        );
        assert_eq!(run.time(Nanos(5_000_001_999)), Some(1_700_000_005_000_001));
        assert_eq!(run.time(Nanos(u64::MAX)), Some(20_146_744_073_709_551));
        assert_eq!(RunColumns::from(&Header::unknown()), RunColumns::default());
        assert_eq!(RunColumns::default().time(Nanos(1)), None);
        let late = Header {
            clock_offset: i128::from(i64::MAX) * 1000,
            ..made_up::header()
        };
        assert_eq!(RunColumns::from(&late).time(Nanos(0)), None);
    }
}
