//! What a recording says on stderr: a line that changes while it runs, and one at its end.
//! Input: events; the size of what was written.

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
    render::quantity::{Bytes, Counted},
    run::{intervals::Interval, summary::Summary},
    sink::Sink,
};

const EVERY: Duration = Duration::from_secs(1);

/// Tells of a recording.
pub struct Status {
    /// What is written to.
    name: String,
    bytes: Arc<AtomicU64>,
    /// A terminal is there to show the line.
    live: bool,
    quiet: bool,
    events: u64,
    lost: u64,
    /// When the line was last shown, and the events by then.
    shown: (Instant, u64),
}

impl Status {
    /// Of what is written to `name`.
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

impl Sink for Status {
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
        // Talk: the recording is none the worse if nobody hears it.
        let _ = write!(
            io::stderr(),
            "\r\x1b[K{} · {rate}/s · {} · {} lost",
            Counted(self.events, "event"),
            self.size(),
            self.lost
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
