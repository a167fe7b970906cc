//! Several destinations as one.
//! Input: events, as for each of them.

use std::io;

use crate::{
    event::Event,
    run::{header::Header, intervals::Interval, kept::Unfinished, summary::Summary},
    sink::Sink,
};

/// Gives everything to each. The first error ends the run: no sink gets more events than the one that failed, but all of
/// them are finished.
pub struct Several(pub Vec<Box<dyn Sink>>);

impl Several {
    fn each(&mut self, give: impl FnMut(&mut Box<dyn Sink>) -> io::Result<()>) -> io::Result<()> {
        self.0.iter_mut().try_for_each(give)
    }

    /// Calls `give` for each sink and returns the first error.
    fn every(&mut self, give: impl FnMut(&mut Box<dyn Sink>) -> io::Result<()>) -> io::Result<()> {
        self.0.iter_mut().map(give).fold(Ok(()), io::Result::and)
    }
}

impl Sink for Several {
    fn begin(&mut self, header: &Header) -> io::Result<()> {
        self.each(|sink| sink.begin(header))
    }

    fn sums(&self) -> bool {
        self.0.iter().all(|sink| sink.sums())
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        self.each(|sink| sink.event(event))
    }

    fn interval(&mut self, interval: &Interval) -> io::Result<()> {
        self.each(|sink| sink.interval(interval))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.each(|sink| sink.flush())
    }

    fn abandon(&mut self, unfinished: &Unfinished) -> io::Result<()> {
        self.every(|sink| sink.abandon(unfinished))
    }

    fn finish(&mut self, summary: &Summary) -> io::Result<()> {
        self.every(|sink| sink.finish(summary))
    }
}
