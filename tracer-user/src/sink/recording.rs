//! Recordings as a destination.
//! Input: events; output: the blocks of a recording.

use std::io;

use crate::{
    event::Event,
    recording::{store::Store, writer::Writer},
    run::{header::Header, intervals::Interval, summary::Summary},
    sink::Sink,
};

impl<S: Store> Sink for Writer<S> {
    fn begin(&mut self, header: &Header) -> io::Result<()> {
        self.begin(header)
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        self.event(event)
    }

    fn interval(&mut self, interval: &Interval) -> io::Result<()> {
        self.interval(interval)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flush()
    }

    fn finish(&mut self, summary: &Summary) -> io::Result<()> {
        self.finish(summary)
    }
}
