//! The messages of a recording on stderr: a line that changes during the run, and one at its end.
//! Input: events; the size of the output.

use std::{
    io::{self, IsTerminal as _, Write as _},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    event::Event,
    run::{intervals::Interval, summary::Summary},
    sink::Sink,
    words::quantity::{Bytes, Counted},
};

const EVERY: Duration = Duration::from_secs(1);

/// Shows the status of a recording.
pub struct StatusLine {
    /// The name of the output.
    name: String,
    bytes: Arc<AtomicU64>,
    /// Whether there is a terminal to show the line.
    live: bool,
    quiet: bool,
    events: u64,
    lost: u64,
    /// When the line was last shown, and the number of events by then.
    shown: (Instant, u64),
}

impl StatusLine {
    /// The status of a recording that is written to `name`.
    pub fn new(name: String, bytes: Arc<AtomicU64>, quiet: bool) -> Self {
        Self {
            name,
            bytes,
            live: !quiet && io::stderr().is_terminal(),
            quiet,
            events: 0,
            lost: 0,
            shown: (Instant::now(), 0),
        }
    }

    fn size(&self) -> Bytes {
        Bytes(self.bytes.load(Ordering::Relaxed))
    }
}

impl Sink for StatusLine {
    fn event(&mut self, _event: &Event) -> io::Result<()> {
        self.events += 1;
        Ok(())
    }

    fn interval(&mut self, interval: &Interval) -> io::Result<()> {
        self.lost += interval.lost;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let (at, before) = self.shown;
        let since = at.elapsed();
        if !self.live || since < EVERY {
            return Ok(());
        }
        let rate = u128::from(self.events - before) * 1000 / since.as_millis().max(1);
        self.shown = (Instant::now(), self.events);
        // The recording goes on even if this cannot be written.
        let _ = write!(
            io::stderr(),
            "\r\x1b[K{} · {rate}/s · {} · {} lost",
            Counted(self.events, "event"),
            self.size(),
            Counted(self.lost, "event")
        );
        Ok(())
    }

    fn finish(&mut self, summary: &Summary) -> io::Result<()> {
        let mut err = io::stderr().lock();
        if self.live {
            let _ = write!(err, "\r\x1b[K");
        }
        let lost = summary.books.lost.events();
        if lost > 0 {
            let _ = writeln!(err, "tracer: lost {}: tracer report says when", Counted(lost, "event"));
        }
        if !self.quiet {
            let _ = writeln!(
                err,
                "tracer: {} in {}: {}",
                Counted(self.events, "event"),
                self.size(),
                self.name
            );
        }
        Ok(())
    }
}
